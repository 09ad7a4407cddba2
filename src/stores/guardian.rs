//! A small shell that outlives us and ends the servers when we are gone.
//!
//! It reads from a pipe whose other end only this process holds. However we end, `kill -9`
//! included, the kernel closes that end and the guardian goes to work. It is needed where the
//! kernel cannot signal a child whose parent died (everywhere but Linux with util-linux), and for
//! directories that shall be gone afterwards.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::StoresError;

/// Arguments: the pid files of Redis and of PostgreSQL, then the directories to remove.
///
/// A pid counts only while a server's process has it. No program beyond a shell's own and `sleep`,
/// `head`, `rm` is needed on Linux, because small containers lack `ps`. Waits at most about ten
/// seconds for the servers before it kills them.
const SCRIPT: &str = r#"
read -r word && [ "$word" = done ] && exit 0
alive() {
  kill -0 "${1:-none}" 2>/dev/null || return 1
  if [ -r "/proc/$1/comm" ]; then read -r name <"/proc/$1/comm"
  else name=$(ps -p "$1" -o comm=); fi
  case $name in *redis* | *valkey* | *postgres*) return 0 ;; *) return 1 ;; esac
}
one=$(head -n 1 "$1" 2>/dev/null); two=$(head -n 1 "$2" 2>/dev/null); shift 2
alive "$one" && kill -TERM "$one"
alive "$two" && kill -INT "$two"
tries=0
while { alive "$one" || alive "$two"; } && [ "$tries" -lt 100 ]; do
  sleep 0.1; tries=$((tries + 1))
done
alive "$one" && kill -KILL "$one"
alive "$two" && kill -KILL "$two"
[ "$#" -gt 0 ] && rm -rf -- "$@"
"#;

/// Dropped without [`Guardian::dismiss`], it ends the servers.
#[derive(Debug)]
pub(super) struct Guardian {
    child: Child,
}

impl Guardian {
    pub(super) fn post(
        redis_pid_file: &Path,
        postgres_pid_file: &Path,
        remove: &[&Path],
    ) -> Result<Self, StoresError> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SCRIPT, "bullwark-guardian"])
            .arg(redis_pid_file);
        command.arg(postgres_pid_file).args(remove);
        // Its own group: Ctrl-C must not end it before it has done its duty.
        command.process_group(0).current_dir("/");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn();
        let program = "/bin/sh".to_owned();
        let child = child.map_err(|source| StoresError::Spawn { program, source })?;
        Ok(Self { child })
    }

    /// The servers have been stopped and everything is tidied up.
    pub(super) fn dismiss(mut self) {
        if let Some(mut input) = self.child.stdin.take() {
            let _ = input.write_all(b"done\n");
        }
        let _ = self.child.wait();
    }
}
