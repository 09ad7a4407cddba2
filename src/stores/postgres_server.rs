//! A private PostgreSQL: making its data, settings, readiness and the search for one left behind.
//!
//! Everybody on this machine may connect from the loopback address without a password (`trust`).
//! That is a choice for development machines: it keeps the URLs short and the data is nobody's. Do
//! not serve users from it.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::account::Account;
use super::directory::create_dir;
use super::leftovers::{end_leftovers, working_in};
use super::process::{Launch, Process};
use super::{Durability, StoresError};

const SERVER: &str = "PostgreSQL";
const NAMES: [&str; 2] = ["postgres", "postmaster"];

/// The name of both the superuser and the database.
const NAME: &str = "bullwark";

/// Paths of Unix sockets end here on macOS and the BSDs; Linux has four bytes more.
const SOCKET_PATH_MAX: usize = 103;

/// How long one readiness question may take.
const HELLO_PATIENCE: Duration = Duration::from_secs(2);

/// How long making the data may take.
const INIT_PATIENCE: Duration = Duration::from_secs(120);

/// After its parent was killed, a backend holds the shared memory for a moment.
const STILL_IN_USE: &str = "is still in use";
const STILL_IN_USE_PAUSE: Duration = Duration::from_millis(50);

/// "The database system is starting up" (or shutting down, or recovering).
const CANNOT_CONNECT_NOW: &str = "57P03";

/// The longest message that is read while asking for readiness.
const MESSAGE_MAX: u32 = 64 * 1024;

#[derive(Debug, Clone)]
pub(super) struct PostgresSetup {
    pub(super) bin: PathBuf,
    pub(super) setpriv: Option<PathBuf>,
    pub(super) account: Option<Account>,
    pub(super) dir: PathBuf,
    pub(super) log: PathBuf,
    pub(super) port: u16,
    pub(super) durability: Durability,
    pub(super) shared_buffers_mb: u32,
    pub(super) max_connections: u32,
    pub(super) start_patience: Duration,
    pub(super) stop_patience: Duration,
}

impl PostgresSetup {
    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub(super) fn pid_file(&self) -> PathBuf {
        self.data().join("postmaster.pid")
    }

    /// Ends a server that still works on our data, and removes the file that it left.
    pub(super) async fn end_stale(&self) -> Result<(), StoresError> {
        let (data, pid_file) = (self.data(), self.pid_file());
        let mark = data.display().to_string();
        let found = || working_in(&data, &NAMES, &pid_file, &mark);
        end_leftovers(SERVER, found, Signal::SIGINT, &data, self.stop_patience).await?;
        self.remove_stale_locks()
            .map_err(StoresError::file("tidy up", &self.dir))
    }

    /// Removes lock files whose number belongs to a stranger by now, or to a process that is dead
    /// and not yet buried: PostgreSQL would take either for itself and refuse to start.
    ///
    /// A number that nobody has stays for PostgreSQL, which then also makes sure that no orphaned
    /// backend still uses the old shared memory.
    fn remove_stale_locks(&self) -> std::io::Result<()> {
        let is_lock = |name: &str| name.starts_with(".s.PGSQL.") && name.ends_with(".lock");
        let mut locks = vec![self.pid_file()];
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(is_lock) {
                locks.push(entry.path());
            }
        }
        for lock in locks {
            let text = std::fs::read_to_string(&lock).unwrap_or_default();
            let pid = text
                .lines()
                .next()
                .and_then(|line| line.trim().parse().ok());
            let exists = |pid| !matches!(kill(Pid::from_raw(pid), None), Err(Errno::ESRCH));
            if pid.is_some_and(exists) {
                std::fs::remove_file(&lock)?;
            }
        }
        Ok(())
    }

    /// Makes the data directory and the database, unless they exist.
    ///
    /// Both are made beside their place and moved there as the last step, so that a start that was
    /// killed half-way leaves nothing that looks finished.
    pub(super) async fn initialize(&self) -> Result<(), StoresError> {
        let data = self.data();
        if data.exists() {
            return Ok(());
        }
        let new = self.dir.join("data.new");
        // C.UTF-8 sorts by code point on every machine alike; macOS may not know it.
        let mut made = self.initdb(&new, "C.UTF-8").await;
        if made.is_err() {
            made = self.initdb(&new, "C").await;
        }
        made?;
        self.create_database(&new).await?;
        std::fs::rename(&new, &data).map_err(StoresError::file("move into place", &new))
    }

    async fn initdb(&self, data: &Path, locale: &str) -> Result<(), StoresError> {
        if data.exists() {
            std::fs::remove_dir_all(data).map_err(StoresError::file("remove", data))?;
        }
        create_dir(data, 0o700)?;
        if let Some(account) = &self.account {
            account
                .take(data)
                .map_err(StoresError::file("hand over", data))?;
        }
        let mut arguments: Vec<OsString> = vec!["--pgdata".into(), data.into()];
        let locale = format!("--locale={locale}");
        arguments.extend(["--username", NAME, "--auth=trust", "--encoding=UTF8"].map(Into::into));
        arguments.push(locale.into());
        if self.durability == Durability::Throwaway {
            arguments.push("--no-sync".into());
        }
        let launch = self.launch("initdb", arguments, Stdio::null());
        Process::launch("initdb", launch)
            .await?
            .run_to_end(INIT_PATIENCE)
            .await
    }

    /// A server process without network serves this one statement, so no client is needed.
    async fn create_database(&self, data: &Path) -> Result<(), StoresError> {
        let mut arguments: Vec<OsString> = vec!["--single".into(), "-D".into(), data.into()];
        if self.durability == Durability::Throwaway {
            arguments.extend(["-c".into(), "fsync=off".into()]);
        }
        arguments.push("postgres".into());
        let launch = self.launch("postgres", arguments, Stdio::piped());
        let mut process = Process::launch("postgres --single", launch).await?;
        if let Some(mut input) = process.take_input() {
            // Fits into the pipe, so it cannot block. A process that is gone already is reported
            // by the wait below, with its log.
            let _ = writeln!(input, "CREATE DATABASE {NAME};");
        }
        process.run_to_end(INIT_PATIENCE).await
    }

    /// Starts it and returns once it answers.
    pub(super) async fn start(&self) -> Result<Process, StoresError> {
        let deadline = Instant::now() + self.start_patience;
        loop {
            match self.start_once(deadline).await {
                Err(StoresError::NotStarted { log, .. })
                    if log.contains(STILL_IN_USE) && Instant::now() < deadline =>
                {
                    tokio::time::sleep(STILL_IN_USE_PAUSE).await;
                }
                result => return result,
            }
        }
    }

    async fn start_once(&self, deadline: Instant) -> Result<Process, StoresError> {
        let launch = self.launch("postgres", self.arguments(), Stdio::null());
        let mut process = Process::launch(SERVER, launch).await?;
        process
            .wait_until(deadline, async || says_hello(self.port).await)
            .await?;
        Ok(process)
    }

    fn launch(&self, program: &str, arguments: Vec<OsString>, input: Stdio) -> Launch<'_> {
        Launch {
            program: self.bin.join(program),
            arguments,
            account: self.account.as_ref(),
            log: &self.log,
            // "Fast": sessions are ended, everything is written out.
            goodbye: Signal::SIGINT,
            setpriv: self.setpriv.as_deref(),
            input,
        }
    }

    fn arguments(&self) -> Vec<OsString> {
        let socket_dir = self
            .socket_dir()
            .map_or_else(OsString::new, |dir| dir.into());
        let mut settings = vec![
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("port", self.port.to_string()),
            ("max_connections", self.max_connections.to_string()),
            ("shared_buffers", format!("{}MB", self.shared_buffers_mb)),
            // A queue writes much and keeps little: let the log grow rather than checkpoint often,
            // and vacuum early, because dead rows are what makes a queue slow.
            ("max_wal_size", "4GB".to_owned()),
            ("min_wal_size", "256MB".to_owned()),
            ("checkpoint_timeout", "15min".to_owned()),
            ("wal_buffers", "16MB".to_owned()),
            ("autovacuum_naptime", "10s".to_owned()),
            ("autovacuum_vacuum_cost_limit", "2000".to_owned()),
            ("jit", "off".to_owned()),
            ("random_page_cost", "1.1".to_owned()),
            ("synchronous_commit", "on".to_owned()),
            ("logging_collector", "off".to_owned()),
            ("log_checkpoints", "off".to_owned()),
            ("log_line_prefix", "%m [%p] ".to_owned()),
        ];
        if self.durability == Durability::Throwaway {
            settings.push(("fsync", "off".to_owned()));
            settings.push(("full_page_writes", "off".to_owned()));
        }
        let mut arguments: Vec<OsString> = vec!["-D".into(), self.data().into()];
        for (name, value) in settings {
            arguments.extend(["-c".into(), format!("{name}={value}").into()]);
        }
        let mut sockets = OsString::from("unix_socket_directories=");
        sockets.push(socket_dir);
        arguments.extend(["-c".into(), sockets]);
        arguments
    }

    /// Where its socket lies; `None` when the path is too long, or would be read as a list.
    fn socket_dir(&self) -> Option<PathBuf> {
        let path = self.dir.to_str()?;
        let file = format!("{path}/.s.PGSQL.{}", self.port);
        let plain = !path.contains([',', '"', '\'', '\\']);
        (plain && file.len() <= SOCKET_PATH_MAX).then(|| self.dir.clone())
    }

    /// The address for any client.
    pub(super) fn url(&self) -> String {
        format!("postgres://{NAME}@127.0.0.1:{}/{NAME}", self.port)
    }

    /// The address over the Unix socket, which saves a good part of each round trip.
    pub(super) fn socket_url(&self) -> Option<String> {
        let dir = percent_encoded(self.socket_dir()?.to_str()?);
        Some(format!(
            "postgres://{NAME}@localhost:{}/{NAME}?host={dir}",
            self.port
        ))
    }
}

fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// Whether our database can be connected to; an error if it answers that it never will.
async fn says_hello(port: u16) -> Result<bool, String> {
    match tokio::time::timeout(HELLO_PATIENCE, hello(port)).await {
        Ok(Ok(Hello::Ready)) => Ok(true),
        Ok(Ok(Hello::Refused { code, message })) if code != CANNOT_CONNECT_NOW => {
            Err(format!("it refuses connections: {message} ({code})"))
        }
        _ => Ok(false),
    }
}

enum Hello {
    Ready,
    Refused { code: String, message: String },
}

/// Opens a session as any client does, and closes it.
async fn hello(port: u16) -> std::io::Result<Hello> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut body = vec![0, 3, 0, 0];
    for word in ["user", NAME, "database", NAME, ""] {
        body.extend_from_slice(word.as_bytes());
        body.push(0);
    }
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    stream
        .write_all(&[&length.to_be_bytes(), body.as_slice()].concat())
        .await?;
    loop {
        let kind = stream.read_u8().await?;
        let length = stream.read_u32().await?;
        if !(4..=MESSAGE_MAX).contains(&length) {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let mut message = vec![0; length as usize - 4];
        stream.read_exact(&mut message).await?;
        match kind {
            b'Z' => {
                stream.write_all(&[b'X', 0, 0, 0, 4]).await?;
                return Ok(Hello::Ready);
            }
            b'E' => {
                let (code, message) = (error_field(&message, b'C'), error_field(&message, b'M'));
                return Ok(Hello::Refused { code, message });
            }
            // Authentication passed, parameters, the key for cancelling: of no interest here.
            _ => {}
        }
    }
}

/// One field of an error message: fields are a letter and a text, each ended by a zero byte.
fn error_field(message: &[u8], name: u8) -> String {
    let field = message
        .split(|byte| *byte == 0)
        .find(|field| field.first() == Some(&name));
    String::from_utf8_lossy(field.and_then(|field| field.get(1..)).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(dir: &str) -> PostgresSetup {
        PostgresSetup {
            bin: "/bin".into(),
            setpriv: None,
            account: None,
            dir: dir.into(),
            log: "/log".into(),
            port: 20_001,
            durability: Durability::Throwaway,
            shared_buffers_mb: 64,
            max_connections: 10,
            start_patience: Duration::ZERO,
            stop_patience: Duration::ZERO,
        }
    }

    #[test]
    fn the_socket_is_used_where_its_path_fits() {
        let expected = "postgres://bullwark@localhost:20001/bullwark?host=%2Ftmp%2Fa%20b";
        assert_eq!(setup("/tmp/a b").socket_url().as_deref(), Some(expected));
        assert_eq!(setup(&format!("/{}", "x".repeat(100))).socket_url(), None);
        assert_eq!(setup("/tmp/a,b").socket_url(), None);
    }

    #[test]
    fn fields_of_an_error_are_found_by_their_letter() {
        let message = b"SFATAL\0C57P03\0Mthe database system is starting up\0\0";
        assert_eq!(error_field(message, b'C'), CANNOT_CONNECT_NOW);
        assert_eq!(
            error_field(message, b'M'),
            "the database system is starting up"
        );
        assert_eq!(error_field(message, b'D'), "");
    }
}
