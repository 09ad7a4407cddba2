//! The user as whom a server runs.
//!
//! PostgreSQL refuses to run as root, which is what containers and many virtual machines start as.
//! Then it runs as `postgres`, else as `nobody`: the user must exist in the user database, a bare
//! number will not do. Started as anybody else, servers run as ourselves.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::{Uid, User};

use super::StoresError;

/// Another user than the one that runs this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// The user for PostgreSQL, or `None` when we may run it ourselves.
    ///
    /// Data that already exists keeps its owner, because PostgreSQL refuses data of anybody else.
    pub(super) fn for_postgres(data: &Path) -> Result<Option<Self>, StoresError> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        if let Some(owner) = Self::owner_of(data) {
            return Ok(Some(owner));
        }
        let known = ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| lookup(User::from_name(name)));
        known.map(Some).ok_or(StoresError::NoAccount)
    }

    /// The owner of a directory, when we are root and the directory is not root's.
    pub(super) fn owner_of(path: &Path) -> Option<Self> {
        if !Uid::effective().is_root() {
            return None;
        }
        let uid = std::fs::metadata(path).ok()?.uid();
        lookup(User::from_uid(Uid::from_raw(uid))).filter(|account| account.uid != 0)
    }

    /// Whether this user can enter a directory.
    ///
    /// Asked of the kernel rather than computed from mode bits, so that access lists, group
    /// memberships and every parent directory count.
    pub(super) fn can_enter(&self, dir: &Path) -> bool {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "cd -- \"$1\"", "sh"]).arg(dir);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.apply(&mut command);
        command.status().is_ok_and(|status| status.success())
    }

    /// Makes a directory, with its content to come, this user's own.
    pub(super) fn take(&self, dir: &Path) -> std::io::Result<()> {
        std::os::unix::fs::chown(dir, Some(self.uid), Some(self.gid))
    }

    /// Lets a command run as this user. The standard library also drops our own groups.
    pub(super) fn apply(&self, command: &mut Command) {
        use std::os::unix::process::CommandExt;
        // The directory that we are in may be closed to that user.
        command.uid(self.uid).gid(self.gid).current_dir("/");
    }
}

fn lookup(found: nix::Result<Option<User>>) -> Option<Account> {
    let user = found.ok().flatten()?;
    Some(Account {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
    })
}
