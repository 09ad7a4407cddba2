//! Processes of a run. However this process ends, they end: a small shell waits for that.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// Reads `+ PID` and `- PID`; when its input ends, kills what is left. The name is looked at first:
/// a number may belong to a stranger by then. No program beyond a shell's own is needed on Linux.
const SCRIPT: &str = r#"
all=""
while read -r sign pid; do
  rest=""
  for one in $all; do [ "$one" = "$pid" ] || rest="$rest $one"; done
  all=$rest
  [ "$sign" = + ] && all="$all $pid"
done
for one in $all; do
  if [ -r "/proc/$one/comm" ]; then read -r name <"/proc/$one/comm"
  else name=$(ps -p "$one" -o comm=); fi
  case $name in *bullwark*) kill -KILL "$one" ;; esac
done
"#;

/// The shell that ends what we leave behind.
#[derive(Debug, Clone)]
pub(super) struct Guardian(Arc<Mutex<std::process::Child>>);

impl Guardian {
    pub(super) fn post() -> std::io::Result<Self> {
        let mut command = std::process::Command::new("/bin/sh");
        command
            .args(["-c", SCRIPT, "bullwark-soak-guardian"])
            // Its own group: Ctrl-C must not end it before it has done its duty.
            .process_group(0)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(Self(Arc::new(Mutex::new(command.spawn()?))))
    }

    fn tell(&self, sign: char, pid: u32) {
        let mut shell = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(input) = shell.stdin.as_mut()
            && let Err(error) = writeln!(input, "{sign} {pid}")
        {
            tracing::warn!(%error, "the guardian is gone");
        }
    }

    /// Lets it go; nothing is left to be ended.
    pub(super) fn dismiss(&self) {
        let mut shell = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(shell.stdin.take());
        shell.wait().ok();
    }
}

/// A process of ours. Dropped while it runs, it is killed.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    child: Child,
    guardian: Guardian,
}

impl Process {
    /// Starts it; what it says goes to a file, except for standard output if that is asked for.
    pub(super) fn start(
        mut command: Command,
        log: &Path,
        stdout: Stdio,
        guardian: &Guardian,
    ) -> std::io::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        command
            .stdout(stdout)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn()?;
        let pid = child.id().unwrap_or(0);
        guardian.tell('+', pid);
        Ok(Self {
            pid,
            child,
            guardian: guardian.clone(),
        })
    }

    pub(super) fn take_stdout(&mut self) -> Option<tokio::process::ChildStdout> {
        self.child.stdout.take()
    }

    pub(super) fn signal(&mut self, signal: Signal) {
        // Once reaped, the number may belong to another process.
        if self.ended().is_none() {
            kill(Pid::from_raw(self.pid.cast_signed()), signal).ok();
        }
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// SIGKILL, and waits for the end.
    pub(super) async fn kill(mut self) {
        self.child.kill().await.ok();
    }

    /// SIGTERM, and waits for the end; killed after `patience`. The exit code, none if killed.
    pub(super) async fn stop(mut self, patience: Duration) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        match tokio::time::timeout(patience, self.child.wait()).await {
            Ok(status) => status.ok().and_then(|status| status.code()),
            Err(_) => {
                self.kill().await;
                None
            }
        }
    }

    /// Memory in use, in bytes; zero where there is no `/proc`.
    pub(super) fn resident_bytes(pid: u32) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        let pages: Option<u64> = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
        pages.unwrap_or(0) * 4096
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.guardian.tell('-', self.pid);
        self.child.start_kill().ok();
    }
}
