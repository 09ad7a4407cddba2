//! A private Redis (or Valkey): settings, readiness and the search for one left behind.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::account::Account;
use super::leftovers::{end_leftovers, working_in};
use super::process::{Launch, Process};
use super::{Durability, StoresError};

const SERVER: &str = "Redis";
const NAMES: [&str; 2] = ["redis-server", "valkey-server"];

/// How long one readiness question may take.
const PING_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub(super) struct RedisSetup {
    pub(super) program: PathBuf,
    pub(super) setpriv: Option<PathBuf>,
    pub(super) dir: PathBuf,
    pub(super) log: PathBuf,
    pub(super) port: u16,
    pub(super) durability: Durability,
    pub(super) start_patience: Duration,
    pub(super) stop_patience: Duration,
}

impl RedisSetup {
    pub(super) fn pid_file(&self) -> PathBuf {
        self.dir.join("redis.pid")
    }

    /// Ends a server that still works on our data, whichever port it listens on.
    pub(super) async fn end_stale(&self, port_before: u16) -> Result<(), StoresError> {
        let pid_file = self.pid_file();
        let mark = format!("127.0.0.1:{port_before}");
        let found = || working_in(&self.dir, &NAMES, &pid_file, &mark);
        end_leftovers(
            SERVER,
            found,
            Signal::SIGTERM,
            &self.dir,
            self.stop_patience,
        )
        .await
    }

    /// Starts it and returns once it answers.
    pub(super) async fn start(&self) -> Result<Process, StoresError> {
        let account = Account::owner_of(&self.dir);
        let launch = Launch {
            program: self.program.clone(),
            arguments: self.arguments(),
            account: account.as_ref(),
            log: &self.log,
            goodbye: Signal::SIGTERM,
            setpriv: self.setpriv.as_deref(),
            input: Stdio::null(),
        };
        let mut process = Process::launch(SERVER, launch).await?;
        let deadline = Instant::now() + self.start_patience;
        process
            .wait_until(deadline, async || Ok(answers_ping(self.port).await))
            .await?;
        Ok(process)
    }

    fn arguments(&self) -> Vec<OsString> {
        let port = self.port.to_string();
        let pid_file = self.pid_file();
        let append_only = match self.durability {
            Durability::Durable => "yes",
            Durability::Throwaway => "no",
        };
        let settings: [(&str, &std::ffi::OsStr); 13] = [
            ("--port", port.as_ref()),
            ("--bind", "127.0.0.1".as_ref()),
            ("--protected-mode", "yes".as_ref()),
            ("--daemonize", "no".as_ref()),
            ("--dir", self.dir.as_ref()),
            ("--pidfile", pid_file.as_ref()),
            // The file that says everything that was written; at most a second of it is lost.
            ("--appendonly", append_only.as_ref()),
            ("--appendfsync", "everysec".as_ref()),
            // A queue writes its file full again and again: rewrite it less often than at 64 MB.
            ("--auto-aof-rewrite-min-size", "256mb".as_ref()),
            ("--save", "".as_ref()),
            // Jobs must never be dropped to make room.
            ("--maxmemory-policy", "noeviction".as_ref()),
            ("--loglevel", "notice".as_ref()),
            // A command that takes 10 ms is news on a private server.
            ("--slowlog-log-slower-than", "10000".as_ref()),
        ];
        settings
            .into_iter()
            .flat_map(|(name, value)| [name.into(), value.to_owned()])
            .collect()
    }
}

/// Whether it listens and has loaded its data (`-LOADING` until then).
async fn answers_ping(port: u16) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"PING\r\n").await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await?;
        std::io::Result::Ok(&answer == b"+PONG")
    };
    matches!(tokio::time::timeout(PING_PATIENCE, ask).await, Ok(Ok(true)))
}

/// The address for any client.
pub(super) fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}/0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durable_and_throwaway_differ_in_the_append_only_file_only() {
        let setup = |durability| RedisSetup {
            program: "redis-server".into(),
            setpriv: None,
            dir: "/d".into(),
            log: "/d.log".into(),
            port: 1,
            durability,
            start_patience: Duration::ZERO,
            stop_patience: Duration::ZERO,
        };
        let durable = setup(Durability::Durable).arguments();
        let throwaway = setup(Durability::Throwaway).arguments();
        let differ: Vec<_> = durable
            .iter()
            .zip(&throwaway)
            .filter(|(a, b)| a != b)
            .collect();
        assert_eq!(differ, [(&OsString::from("yes"), &OsString::from("no"))]);
    }
}
