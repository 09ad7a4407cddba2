//! The lock of a directory: who has it, and where the servers are that he runs.
//!
//! Promises: one holder at a time; the kernel releases the lock when the holder ends, however it
//! ends, so a lock is never stale.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::StoresError;

/// Somebody who only asks whether the lock is held has it for an instant: ask again, this often.
const TRIES: u32 = 5;
const TRY_PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct Lock {
    file: Flock<File>,
}

/// Where running stores are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    pub redis_url: String,
    pub database_url: String,
}

/// The stores that some process (`bullwark dev`, `bullwark stores`) runs in a directory right now.
///
/// `None` when nobody does, or when they are not ready yet.
pub fn discover(dir: &Path) -> Option<Addresses> {
    let file = File::open(dir.join("lock")).ok()?;
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Err((file, Errno::EWOULDBLOCK)) => {
            let text = read(file).ok()?;
            let mut lines = text.lines().skip(1).map(str::to_owned);
            Some(Addresses {
                redis_url: lines.next()?,
                database_url: lines.next()?,
            })
        }
        // Whatever the file says, he who wrote it has ended.
        _ => None,
    }
}

impl Lock {
    pub(super) fn take(dir: &Path) -> Result<Self, StoresError> {
        let path = dir.join("lock");
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        let mut file = options
            .open(&path)
            .map_err(StoresError::file("open", &path))?;
        for _ in 0..TRIES {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => {
                    let pid = format!("{}\n", std::process::id());
                    let written = file
                        .set_len(0)
                        .and_then(|()| file.write_all_at(pid.as_bytes(), 0));
                    written.map_err(StoresError::file("write", &path))?;
                    return Ok(Self { file });
                }
                Err((held, Errno::EWOULDBLOCK)) => file = held,
                Err((_, errno)) => return Err(StoresError::file("lock", &path)(errno.into())),
            }
            std::thread::sleep(TRY_PAUSE);
        }
        // The holder may be between its lock and its pid; an unknown pid is still an answer.
        let text = read(file).unwrap_or_default();
        let pid = text.lines().next().unwrap_or("unknown").to_owned();
        Err(StoresError::InUse {
            dir: dir.to_owned(),
            pid,
        })
    }

    /// Adds the addresses behind the pid, in one write, so that a reader sees all or nothing new.
    pub(super) fn announce(&self, addresses: &Addresses) -> io::Result<()> {
        let Addresses {
            redis_url,
            database_url,
        } = addresses;
        let text = format!("{}\n{redis_url}\n{database_url}\n", std::process::id());
        self.file.write_all_at(text.as_bytes(), 0)
    }
}

fn read(mut file: File) -> io::Result<String> {
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_by_one_and_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let held = Lock::take(dir.path()).unwrap();
        let refused = Lock::take(dir.path()).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("process {};", std::process::id())),
            "{refused}"
        );
        drop(held);
        Lock::take(dir.path()).unwrap();
    }

    #[test]
    fn stores_are_discovered_while_they_run_and_not_before_or_after() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(discover(dir.path()), None);
        let lock = Lock::take(dir.path()).unwrap();
        assert_eq!(discover(dir.path()), None);
        let addresses = Addresses {
            redis_url: "redis:1".into(),
            database_url: "pg:1".into(),
        };
        lock.announce(&addresses).unwrap();
        assert_eq!(discover(dir.path()), Some(addresses));
        drop(lock);
        assert_eq!(discover(dir.path()), None);
        let _next = Lock::take(dir.path()).unwrap();
        assert_eq!(
            discover(dir.path()),
            None,
            "addresses of the last run must not be believed"
        );
    }
}
