//! The directory that private stores live in: its lock, its ports, the place of PostgreSQL's data.
//!
//! ```text
//! DIR/lock            held while a Bullwark uses the directory; names its process and addresses
//! DIR/id              made once, so that a directory that was deleted and made again is a new one
//! DIR/ports           the ports of the last run
//! DIR/redis/          append-only file
//! DIR/postgres/       PostgreSQL's data and its socket; elsewhere when its user cannot get here
//! DIR/*.log           what the servers say
//! ```
//!
//! Promises: two processes never use one directory at once, whatever way the first one ended; the
//! same directory finds the same data again. Refuses to delete data that it cannot explain.

use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::StoresError;
use super::account::Account;
use super::lock::{Addresses, Lock};

/// Others may pass through, so that PostgreSQL's user reaches its part, but not look around.
const PASSABLE: u32 = 0o711;

/// Below the ports that systems hand out by themselves (from 32768 on Linux), so that no outgoing
/// connection takes a port while its server is down.
const PORTS_FROM: u16 = 20_000;
const PORTS_COUNT: u16 = 10_000;

/// How many ports are tried before giving up.
const PORT_TRIES: u16 = 500;

/// Parents for PostgreSQL's data when its user cannot reach the directory itself.
const ELSEWHERE: [&str; 3] = ["/var/lib", "/var/tmp", "/tmp"];

/// A directory that is ours until this value is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    id: String,
    lock: Lock,
}

/// The two ports of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) redis: u16,
    pub(super) postgres: u16,
}

impl Directory {
    /// Makes the directory if needed and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, StoresError> {
        create_dir(path, PASSABLE)?;
        let path = path
            .canonicalize()
            .map_err(StoresError::file("resolve", path))?;
        let lock = Lock::take(&path)?;
        let id = read_or_make_id(&path)?;
        create_dir(&path.join("redis"), 0o700)?;
        Ok(Self { path, id, lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn redis(&self) -> PathBuf {
        self.path.join("redis")
    }

    /// The directory of PostgreSQL, owned by its user and reachable for that user.
    ///
    /// Started as root with a directory that the other user cannot reach (in root's home, say), it
    /// lies under `/var/lib/bullwark` instead, in a place that follows from the directory's path.
    pub(super) fn postgres(&self) -> Result<(PathBuf, Option<Account>), StoresError> {
        let local = self.path.join("postgres");
        let elsewhere: Vec<_> = ELSEWHERE
            .iter()
            .map(|parent| self.elsewhere(Path::new(parent)))
            .collect();
        if let Some(found) = elsewhere.iter().find(|dir| self.is_mine(dir)) {
            return Ok((found.clone(), Account::for_postgres(&found.join("data"))?));
        }
        let account = Account::for_postgres(&local.join("data"))?;
        create_dir(&local, 0o700)?;
        let Some(account) = account else {
            return Ok((local, None));
        };
        if account.take(&local).is_ok() && account.can_enter(&local) {
            return Ok((local, Some(account)));
        }
        if local.join("data").exists() {
            let tried = local.display().to_string();
            return Err(StoresError::Unreachable {
                account: account.name,
                tried,
            });
        }
        for dir in &elsewhere {
            match self.claim_elsewhere(dir, &account) {
                Ok(()) => {
                    tracing::warn!(
                        dir = %dir.display(),
                        "user `{}` cannot reach {}: PostgreSQL's data is kept elsewhere",
                        account.name,
                        self.path.display(),
                    );
                    return Ok((dir.clone(), Some(account)));
                }
                Err(error) => tracing::debug!(%error, dir = %dir.display(), "not usable"),
            }
        }
        let tried: Vec<_> = elsewhere
            .iter()
            .map(|dir| dir.display().to_string())
            .collect();
        Err(StoresError::Unreachable {
            account: account.name,
            tried: tried.join(", "),
        })
    }

    /// Stable for a directory, different for two directories.
    fn elsewhere(&self, parent: &Path) -> PathBuf {
        let key: String = self
            .hash()
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        parent.join("bullwark").join(key)
    }

    fn hash(&self) -> [u8; 32] {
        use std::os::unix::ffi::OsStrExt;
        Sha256::digest(self.path.as_os_str().as_bytes()).into()
    }

    /// Whether a place elsewhere belongs to this directory, not to a deleted one of the same name.
    fn is_mine(&self, dir: &Path) -> bool {
        fs::read_to_string(dir.join("id")).is_ok_and(|id| id == self.id)
    }

    fn claim_elsewhere(&self, dir: &Path, account: &Account) -> io::Result<()> {
        let parent = dir.parent().ok_or(io::ErrorKind::InvalidInput)?;
        make_root_owned(parent)?;
        if dir.exists() {
            // The directory that this belonged to was deleted and made again: its owner wants to
            // start afresh. The old data is put aside, once, not erased.
            let aside = dir.with_extension("old");
            if aside.exists() {
                fs::remove_dir_all(&aside)?;
            }
            fs::rename(dir, &aside)?;
        }
        fs::DirBuilder::new().mode(0o700).create(dir)?;
        fs::write(dir.join("origin"), self.path.display().to_string())?;
        account.take(dir)?;
        if !account.can_enter(dir) {
            fs::remove_dir_all(dir)?;
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        // Last: a place without this file is nobody's and is put aside by the next start.
        fs::write(dir.join("id"), &self.id)
    }

    /// The ports of the last run where they are still free, else free ones.
    pub(super) fn choose_ports(&self) -> Result<Ports, StoresError> {
        let before = self.ports_before();
        let hash = self.hash();
        let start = u16::from_be_bytes([hash[0], hash[1]]) % PORTS_COUNT;
        let mut free = (0..PORT_TRIES)
            .map(|step| PORTS_FROM + (start + step) % PORTS_COUNT)
            .filter(|port| is_free(*port));
        let redis = before
            .map(|ports| ports.redis)
            .filter(|port| is_free(*port));
        let redis = redis.or_else(|| free.next()).ok_or(StoresError::NoPort)?;
        let postgres = before
            .map(|ports| ports.postgres)
            .filter(|port| is_free(*port));
        let postgres = postgres.or_else(|| free.find(|port| *port != redis));
        Ok(Ports {
            redis,
            postgres: postgres.ok_or(StoresError::NoPort)?,
        })
    }

    /// Lets other processes find the servers: see [`super::discover`].
    pub(super) fn announce(&self, addresses: &Addresses) -> Result<(), StoresError> {
        self.lock
            .announce(addresses)
            .map_err(StoresError::file("write the lock of", &self.path))
    }

    pub(super) fn ports_before(&self) -> Option<Ports> {
        let text = fs::read_to_string(self.path.join("ports")).ok()?;
        let (redis, postgres) = text.trim().split_once(' ')?;
        Some(Ports {
            redis: redis.parse().ok()?,
            postgres: postgres.parse().ok()?,
        })
    }

    pub(super) fn remember_ports(&self, ports: Ports) -> Result<(), StoresError> {
        let path = self.path.join("ports");
        let text = format!("{} {}\n", ports.redis, ports.postgres);
        fs::write(&path, text).map_err(StoresError::file("write", &path))
    }
}

/// Whether a server could listen there now.
pub(super) fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// Makes a directory with exactly this mode; an existing one keeps its own.
pub(super) fn create_dir(path: &Path, mode: u32) -> Result<(), StoresError> {
    if path.is_dir() {
        return Ok(());
    }
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path);
    // The process's file mask may have taken bits away that PostgreSQL's user needs.
    made.and_then(|()| fs::set_permissions(path, PermissionsExt::from_mode(mode)))
        .map_err(StoresError::file("create", path))
}

fn read_or_make_id(dir: &Path) -> Result<String, StoresError> {
    let path = dir.join("id");
    match fs::read_to_string(&path) {
        Ok(id) if !id.is_empty() => Ok(id),
        _ => {
            // Randomly seeded by the standard library; it only has to differ from the last one.
            let random = std::collections::hash_map::RandomState::new()
                .build_hasher()
                .finish();
            let id = format!("{random:016x}");
            fs::write(&path, &id).map_err(StoresError::file("write", &path))?;
            Ok(id)
        }
    }
}

/// A directory of root's that nobody else can write to: in `/tmp` anybody could have made it.
fn make_root_owned(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(PASSABLE).create(dir) {
        Ok(()) => fs::set_permissions(dir, PermissionsExt::from_mode(PASSABLE)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(dir)?;
            let safe = found.is_dir() && found.uid() == 0 && found.mode() & 0o022 == 0;
            if safe {
                Ok(())
            } else {
                Err(io::ErrorKind::PermissionDenied.into())
            }
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_stay_the_same_while_they_are_free() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Directory::open(temporary.path()).unwrap();
        let first = dir.choose_ports().unwrap();
        assert_ne!(first.redis, first.postgres);
        dir.remember_ports(first).unwrap();
        assert_eq!(dir.choose_ports().unwrap(), first);

        let _taken = TcpListener::bind(("127.0.0.1", first.redis)).unwrap();
        let second = dir.choose_ports().unwrap();
        assert_ne!(second.redis, first.redis);
        assert_eq!(second.postgres, first.postgres);
    }

    #[test]
    fn a_place_elsewhere_follows_from_the_path_and_only_from_it() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let place = |dir: &Path| {
            Directory::open(dir)
                .unwrap()
                .elsewhere(Path::new("/var/lib"))
        };
        assert_eq!(place(a.path()), place(a.path()));
        assert_ne!(place(a.path()), place(b.path()));
    }

    #[test]
    fn a_place_that_others_can_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(make_root_owned(&open).is_err());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/etc", &link).unwrap();
        assert!(make_root_owned(&link).is_err());
    }
}
