//! Servers that an earlier run left working in a directory.
//!
//! Promises: two servers never share data; nothing that is not provably ours is ever ended.

use std::path::{Path, PathBuf};
#[cfg(not(target_os = "linux"))]
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::StoresError;
use super::process::{GLANCE, KILL_PATIENCE, send};

/// Ends what `found` finds, first politely, then by force.
pub(super) async fn end_leftovers(
    server: &'static str,
    found: impl Fn() -> Vec<i32>,
    goodbye: Signal,
    dir: &Path,
    patience: Duration,
) -> Result<(), StoresError> {
    for (signal, patience) in [(goodbye, patience), (Signal::SIGKILL, KILL_PATIENCE)] {
        let pids = found();
        if pids.is_empty() {
            return Ok(());
        }
        for pid in pids {
            tracing::warn!(server, pid, %signal, "ending a server of an earlier run");
            send(pid, signal);
        }
        let deadline = Instant::now() + patience;
        while !found().is_empty() && Instant::now() < deadline {
            tokio::time::sleep(GLANCE).await;
        }
    }
    match found().first() {
        None => Ok(()),
        Some(&pid) => Err(StoresError::Stale {
            server,
            pid,
            dir: dir.to_owned(),
        }),
    }
}

/// The processes named `names` whose working directory is `dir`; a shell there is none of them.
///
/// Both servers go to their data directory and stay there, so this finds them without any file that
/// could be missing, old, or name a number that another process has by now.
#[cfg(target_os = "linux")]
pub(super) fn working_in(dir: &Path, names: &[&str], _pid_file: &Path, _mark: &str) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        std::fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd == dir)
            && std::fs::read_to_string(proc.join("comm"))
                .is_ok_and(|name| names.contains(&name.trim()))
    })
    .collect()
}

/// The process of a pid file, if its command line shows a server's name and `mark`.
#[cfg(not(target_os = "linux"))]
pub(super) fn working_in(_dir: &Path, names: &[&str], pid_file: &Path, mark: &str) -> Vec<i32> {
    let text = std::fs::read_to_string(pid_file).unwrap_or_default();
    let Some(pid) = text
        .lines()
        .next()
        .and_then(|line| line.trim().parse::<i32>().ok())
    else {
        return Vec::new();
    };
    let output = Command::new("ps")
        .args(["-o", "command=", "-p", &pid.to_string()])
        .output();
    let line = output.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
    let ours = |line: &str| names.iter().any(|name| line.contains(name)) && line.contains(mark);
    if line.is_ok_and(|line| ours(&line)) {
        vec![pid]
    } else {
        Vec::new()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::super::process::Process;
    use super::super::process::tests::launch;
    use super::*;

    #[tokio::test]
    async fn only_servers_count_as_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let log = path.join("server.log");
        let script = format!("cd '{}'; echo there; exec sleep 600", path.display());
        let sh = Path::new("/bin/sh");
        let mut process = Process::launch("sh", launch(sh, &["-c", &script], &log))
            .await
            .unwrap();
        let names = ["sleep"];
        let deadline = Instant::now() + Duration::from_secs(20);
        let there = async || Ok(!working_in(&path, &names, &log, "").is_empty());
        process.wait_until(deadline, there).await.unwrap();
        assert!(working_in(&path, &["postgres"], &log, "").is_empty());

        let find = || working_in(&path, &names, &log, "");
        let patience = Duration::from_secs(10);
        end_leftovers("sleep", find, Signal::SIGTERM, &path, patience)
            .await
            .unwrap();
        assert!(process.ended().is_some());
    }
}
