//! One server process: start it, wait for it, end it.
//!
//! Promises: a server ends together with this process, also when that is killed; Ctrl-C in the
//! terminal reaches only us, so that servers are stopped last. Refuses to wait without a limit.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::oneshot;

use super::StoresError;
use super::account::Account;
use super::log::Log;

/// How often a process is looked at while we wait for it.
pub(super) const GLANCE: Duration = Duration::from_millis(10);

/// How long a server may take to end after SIGKILL; only a broken disk takes longer.
pub(super) const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// How long dropping a running server waits for it before it is killed.
const DROP_PATIENCE: Duration = Duration::from_secs(3);

/// What to start.
pub(super) struct Launch<'a> {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) account: Option<&'a Account>,
    pub(super) log: &'a Path,
    /// Ends the process in good order; the kernel sends it when we die.
    pub(super) goodbye: Signal,
    /// `setpriv`, when it can arrange that.
    pub(super) setpriv: Option<&'a Path>,
    pub(super) input: Stdio,
}

/// A process that we started. Dropped while it runs, it is ended.
#[derive(Debug)]
pub(super) struct Process {
    server: &'static str,
    child: Child,
    goodbye: Signal,
    log: Log,
}

impl Process {
    pub(super) async fn launch(
        server: &'static str,
        launch: Launch<'_>,
    ) -> Result<Self, StoresError> {
        let log = Log::open(launch.log)?;
        let mut command = match launch.setpriv {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command
                    .args(["--pdeathsig", launch.goodbye.as_str(), "--"])
                    .arg(&launch.program);
                command
            }
            None => Command::new(&launch.program),
        };
        command
            .args(launch.arguments)
            .current_dir("/")
            .process_group(0);
        // What libpq and PostgreSQL read from the surroundings must not bend a private server.
        for name in [
            "PGDATA",
            "PGPORT",
            "PGOPTIONS",
            "PGDATESTYLE",
            "PGTZ",
            "PGCLIENTENCODING",
        ] {
            command.env_remove(name);
        }
        // Log lines in English, and macOS wants a valid locale before threads start.
        command.env("LC_ALL", "C");
        command
            .stdin(launch.input)
            .stdout(log.writer()?)
            .stderr(log.writer()?);
        if let Some(account) = launch.account {
            account.apply(&mut command);
        }
        let program = launch.program.display().to_string();
        let child = spawn_from_lasting_thread(command).await;
        let child = child.map_err(|source| StoresError::Spawn { program, source })?;
        let goodbye = launch.goodbye;
        Ok(Self {
            server,
            child,
            goodbye,
            log,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn take_input(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// An error if it has ended without being told to.
    pub(super) fn check(&mut self) -> Result<(), StoresError> {
        match self.ended() {
            None => Ok(()),
            Some(status) => {
                let log = self.log.tail();
                Err(StoresError::Ended {
                    server: self.server,
                    why: status.to_string(),
                    log,
                })
            }
        }
    }

    /// Waits until it has ended by itself.
    pub(super) async fn run_to_end(mut self, patience: Duration) -> Result<(), StoresError> {
        let deadline = Instant::now() + patience;
        loop {
            match self.ended() {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.not_started(status.to_string())),
                None if Instant::now() >= deadline => {
                    return Err(self.not_started(format!("not done after {patience:?}")));
                }
                None => tokio::time::sleep(GLANCE).await,
            }
        }
    }

    /// Waits until `ready` says so; an error if the process ends first or takes too long.
    pub(super) async fn wait_until(
        &mut self,
        deadline: Instant,
        ready: impl AsyncFn() -> Result<bool, String>,
    ) -> Result<(), StoresError> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return Err(self.not_started(status.to_string()));
            }
            match ready().await {
                Ok(true) => return Ok(()),
                Ok(false) if Instant::now() < deadline => tokio::time::sleep(GLANCE).await,
                Ok(false) => {
                    let waited = began.elapsed();
                    return Err(self.not_started(format!("not ready after {waited:.1?}")));
                }
                Err(why) => return Err(self.not_started(why)),
            }
        }
    }

    /// Ends it in good order, and by force when that takes too long.
    pub(super) async fn stop(mut self, patience: Duration) {
        self.signal(self.goodbye);
        if !self.gone_within(patience).await {
            tracing::warn!(
                server = self.server,
                "did not stop in {patience:?} and is killed"
            );
            self.kill_now().await;
        }
    }

    /// Ends it as a power cut would: no goodbye, nothing flushed.
    pub(super) async fn kill(mut self) {
        self.kill_now().await;
    }

    async fn kill_now(&mut self) {
        self.signal(Signal::SIGKILL);
        self.gone_within(KILL_PATIENCE).await;
    }

    async fn gone_within(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.ended().is_none() {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(GLANCE).await;
        }
        true
    }

    fn signal(&mut self, signal: Signal) {
        // Once reaped, the number may belong to another process.
        if self.ended().is_none() {
            send(self.child.id().cast_signed(), signal);
        }
    }

    fn not_started(&self, why: String) -> StoresError {
        StoresError::NotStarted {
            server: self.server,
            why,
            log: self.log.tail(),
        }
    }
}

impl Drop for Process {
    /// Reached when a start fails half-way, or on a panic: bounded, and never leaves an orphan.
    fn drop(&mut self) {
        self.signal(self.goodbye);
        let deadline = Instant::now() + DROP_PATIENCE;
        while self.ended().is_none() {
            if Instant::now() >= deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(GLANCE);
        }
    }
}

/// A request to the launching thread, and where its answer goes.
type Order = (Command, oneshot::Sender<std::io::Result<Child>>);

/// Starts processes from one thread that lives as long as this process.
///
/// The kernel's "parent died" signal is sent when the *thread* that made the child ends, so a child
/// made on a thread of a runtime would die with that thread.
async fn spawn_from_lasting_thread(command: Command) -> std::io::Result<Child> {
    static LAUNCHER: LazyLock<Option<mpsc::Sender<Order>>> = LazyLock::new(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        let work = move || {
            for (mut command, answer) in inbox {
                // A child whose caller has gone away is ended: nobody else knows of it.
                if let Err(Ok(mut unwanted)) = answer.send(command.spawn()) {
                    let _ = unwanted.kill();
                    let _ = unwanted.wait();
                }
            }
        };
        let thread = std::thread::Builder::new().name("stores-launcher".to_owned());
        thread.spawn(work).ok().map(|_| orders)
    });
    let gone = || std::io::Error::other("the launching thread is gone");
    let (answer, child) = oneshot::channel();
    let launcher = LAUNCHER.as_ref().ok_or_else(gone)?;
    launcher.send((command, answer)).map_err(|_| gone())?;
    child.await.map_err(|_| gone())?
}

pub(super) fn send(pid: i32, signal: Signal) {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => tracing::warn!(pid, %signal, %error, "signal a server"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::stores) fn launch<'a>(
        program: &Path,
        arguments: &[&str],
        log: &'a Path,
    ) -> Launch<'a> {
        let program = program.to_owned();
        let arguments = arguments.iter().map(OsString::from).collect();
        let goodbye = Signal::SIGTERM;
        let input = Stdio::null();
        Launch {
            program,
            arguments,
            account: None,
            log,
            goodbye,
            setpriv: None,
            input,
        }
    }

    #[tokio::test]
    async fn a_server_that_ends_at_once_is_reported_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("server.log");
        std::fs::write(&log, "words of an earlier run\n").unwrap();
        let sh = Path::new("/bin/sh");
        let arguments = ["-c", "echo cannot go on >&2; exit 3"];
        let mut process = Process::launch("sh", launch(sh, &arguments, &log))
            .await
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let error = process
            .wait_until(deadline, async || Ok(false))
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("cannot go on") && error.contains("exit status: 3"),
            "{error}"
        );
        assert!(!error.contains("earlier run"), "{error}");
    }

    #[tokio::test]
    async fn waiting_for_a_server_has_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("server.log");
        let sh = Path::new("/bin/sh");
        let process = Process::launch("sh", launch(sh, &["-c", "exec sleep 600"], &log)).await;
        let mut process = process.unwrap();
        let pid = Pid::from_raw(process.pid().cast_signed());
        let deadline = Instant::now() + Duration::from_millis(30);
        let error = process
            .wait_until(deadline, async || Ok(false))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("not ready after"), "{error}");
        drop(process);
        assert_eq!(
            kill(pid, None),
            Err(Errno::ESRCH),
            "a dropped process must not live on"
        );
    }

    #[tokio::test]
    async fn a_server_deaf_to_its_goodbye_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("server.log");
        let sh = Path::new("/bin/sh");
        let script = "trap '' TERM; echo deaf; while :; do sleep 0.05; done";
        let mut process = Process::launch("sh", launch(sh, &["-c", script], &log))
            .await
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let is_deaf = async || Ok(std::fs::read_to_string(&log).is_ok_and(|t| t.contains("deaf")));
        process.wait_until(deadline, is_deaf).await.unwrap();
        let pid = Pid::from_raw(process.pid().cast_signed());
        process.stop(Duration::from_millis(100)).await;
        assert_eq!(kill(pid, None), Err(Errno::ESRCH));
    }
}
