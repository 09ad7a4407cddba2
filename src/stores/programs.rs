//! Finds the server programs of this machine.
//!
//! `PATH` alone is not enough: Debian keeps `initdb` and `postgres` in a directory per major
//! version and puts neither on `PATH`; Homebrew keeps versioned formulas off `PATH` too. Nothing is
//! installed here; what is missing is named together with the command that installs it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::StoresError;

/// The oldest PostgreSQL that the migrations are written for.
const POSTGRES_OLDEST: u32 = 14;

/// The oldest Redis (and Valkey) that the scripts are written for.
const REDIS_OLDEST: (u32, u32) = (6, 2);

const INSTALL_REDIS: &str = "`apt-get install redis-server`, `brew install redis`, or Valkey";
const INSTALL_POSTGRES: &str = "`apt-get install postgresql` or `brew install postgresql@17`";

/// Where PostgreSQL is kept off `PATH`: a parent directory, and the way from its entries to `bin`.
const POSTGRES_HOMES: [(&str, &str, &str); 6] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

/// One PostgreSQL installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PostgresInstall {
    pub(super) major: u32,
    pub(super) bin: PathBuf,
}

/// The directories in which programs are looked for.
#[derive(Debug, Clone)]
pub(super) struct Places {
    path: Vec<PathBuf>,
    postgres: Vec<PathBuf>,
}

impl Places {
    /// `PATH`, then the places where distributions hide PostgreSQL.
    pub(super) fn of_this_machine() -> Self {
        #[expect(clippy::disallowed_methods, reason = "PATH is no setting of Bullwark")]
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut places = Self::of_path(&path);
        for (parent, prefix, suffix) in POSTGRES_HOMES {
            let Ok(entries) = std::fs::read_dir(parent) else {
                continue;
            };
            let homes = entries.flatten().filter(|entry| {
                entry
                    .file_name()
                    .to_str()
                    .is_some_and(|name| name.starts_with(prefix))
            });
            places
                .postgres
                .extend(homes.map(|entry| entry.path().join(suffix)));
        }
        places
    }

    fn of_path(path: &OsString) -> Self {
        let path: Vec<_> = std::env::split_paths(path)
            .filter(|dir| dir.is_absolute())
            .collect();
        Self {
            postgres: path.clone(),
            path,
        }
    }

    /// A Redis or Valkey server that is new enough.
    pub(super) fn redis_server(&self) -> Result<PathBuf, StoresError> {
        let mut found_old = String::new();
        for name in ["redis-server", "valkey-server"] {
            for program in self
                .path
                .iter()
                .map(|dir| dir.join(name))
                .filter(|p| p.is_file())
            {
                let Some(version) = redis_version(&version_line(&program)) else {
                    continue;
                };
                if version >= REDIS_OLDEST {
                    return Ok(program);
                }
                let (major, minor) = version;
                found_old = format!(" ({} is {major}.{minor})", program.display());
            }
        }
        let what = "Redis 6.2 or newer (`redis-server` or `valkey-server`)";
        Err(StoresError::Missing {
            what,
            found_old,
            install: INSTALL_REDIS,
        })
    }

    /// The newest PostgreSQL, or exactly the major version that existing data was made by.
    pub(super) fn postgres(&self, data: &Path) -> Result<PostgresInstall, StoresError> {
        let Some(needed) = major_of_data(data) else {
            return self.newest_postgres();
        };
        let found = self.all_postgres();
        let names: Vec<_> = found
            .iter()
            .map(|install| install.major.to_string())
            .collect();
        found
            .into_iter()
            .find(|install| install.major == needed)
            .ok_or_else(|| StoresError::OtherMajor {
                dir: data.to_owned(),
                needed,
                found: names.join(", "),
            })
    }

    pub(super) fn newest_postgres(&self) -> Result<PostgresInstall, StoresError> {
        match self.all_postgres().into_iter().next() {
            Some(newest) if newest.major >= POSTGRES_OLDEST => Ok(newest),
            old => {
                let found_old = old.map_or_else(String::new, |old| {
                    format!(" ({} is version {})", old.bin.display(), old.major)
                });
                let what = "PostgreSQL 14 or newer (`initdb` and `postgres`)";
                Err(StoresError::Missing {
                    what,
                    found_old,
                    install: INSTALL_POSTGRES,
                })
            }
        }
    }

    /// Newest first.
    fn all_postgres(&self) -> Vec<PostgresInstall> {
        let mut found: Vec<_> = self
            .postgres
            .iter()
            .filter_map(|bin| install_in(bin))
            .collect();
        found.sort_by_key(|install| std::cmp::Reverse(install.major));
        found
    }

    /// `setpriv`, if it can make the kernel end a child together with its parent.
    ///
    /// Busybox has a `setpriv` without that option, and other systems have none: then a guardian
    /// process takes over.
    pub(super) fn setpriv(&self) -> Option<PathBuf> {
        let program = self
            .path
            .iter()
            .map(|dir| dir.join("setpriv"))
            .find(|p| p.is_file())?;
        let status = Command::new(&program)
            .args(["--pdeathsig", "TERM", "--", "true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status
            .is_ok_and(|status| status.success())
            .then_some(program)
    }
}

fn install_in(bin: &Path) -> Option<PostgresInstall> {
    if !bin.join("initdb").is_file() || !bin.join("postgres").is_file() {
        return None;
    }
    let major = postgres_major(&version_line(&bin.join("postgres")))?;
    Some(PostgresInstall {
        major,
        bin: bin.to_owned(),
    })
}

/// The major version that wrote a data directory; `None` when there is no data yet.
fn major_of_data(data: &Path) -> Option<u32> {
    std::fs::read_to_string(data.join("PG_VERSION"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn version_line(program: &Path) -> String {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    output.map_or_else(
        |_| String::new(),
        |out| String::from_utf8_lossy(&out.stdout).into_owned(),
    )
}

/// Reads `Redis server v=7.0.15 sha=…` and `Valkey server v=8.0.1 sha=…`.
fn redis_version(line: &str) -> Option<(u32, u32)> {
    let version = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("v="))?;
    let mut numbers = version.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Reads `postgres (PostgreSQL) 15.14 (Debian …)`, and `18beta1` of a test release.
fn postgres_major(line: &str) -> Option<u32> {
    let version = line.split("(PostgreSQL)").nth(1)?.trim_start();
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A directory with small scripts that print the given version.
    fn fake(programs: &[(&str, &str)]) -> (tempfile::TempDir, Places) {
        let dir = tempfile::tempdir().unwrap();
        for (name, version) in programs {
            let program = dir.path().join(name);
            std::fs::write(&program, format!("#!/bin/sh\necho '{version}'\n")).unwrap();
            std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let places = Places::of_path(&dir.path().as_os_str().to_owned());
        (dir, places)
    }

    #[test]
    fn versions_are_read_from_what_the_servers_print() {
        assert_eq!(
            redis_version("Redis server v=7.0.15 sha=0:0 malloc=libc"),
            Some((7, 0))
        );
        assert_eq!(redis_version("Valkey server v=8.1.0 sha=0:0"), Some((8, 1)));
        assert_eq!(redis_version("something else"), None);
        assert_eq!(
            postgres_major("postgres (PostgreSQL) 15.14 (Debian 15.14-0)"),
            Some(15)
        );
        assert_eq!(postgres_major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(postgres_major("postgres"), None);
    }

    #[test]
    fn what_is_missing_is_named_with_the_way_to_install_it() {
        let (_dir, places) = fake(&[]);
        let redis = places.redis_server().unwrap_err().to_string();
        assert!(
            redis.contains("redis-server") && redis.contains("apt-get install"),
            "{redis}"
        );
        let postgres = places.newest_postgres().unwrap_err().to_string();
        assert!(
            postgres.contains("initdb") && postgres.contains("apt-get"),
            "{postgres}"
        );
    }

    #[test]
    fn a_server_that_is_too_old_is_refused_with_its_version() {
        let old_postgres = "postgres (PostgreSQL) 13.4";
        let (_dir, places) = fake(&[
            ("redis-server", "Redis server v=5.0.7 sha=0"),
            ("initdb", "initdb (PostgreSQL) 13.4"),
            ("postgres", old_postgres),
        ]);
        assert!(
            places
                .redis_server()
                .unwrap_err()
                .to_string()
                .contains("is 5.0")
        );
        let postgres = places.newest_postgres().unwrap_err();
        assert!(postgres.to_string().contains("is version 13"), "{postgres}");
    }

    #[test]
    fn valkey_serves_where_redis_is_absent() {
        let (dir, places) = fake(&[("valkey-server", "Valkey server v=8.0.1 sha=0")]);
        assert_eq!(
            places.redis_server().unwrap(),
            dir.path().join("valkey-server")
        );
    }

    #[test]
    fn data_of_another_major_version_is_not_touched() {
        let (dir, places) = fake(&[
            ("initdb", "initdb"),
            ("postgres", "postgres (PostgreSQL) 16.1"),
        ]);
        std::fs::write(dir.path().join("PG_VERSION"), "15\n").unwrap();
        let refused = places.postgres(dir.path()).unwrap_err().to_string();
        assert!(
            refused.contains("PostgreSQL 15") && refused.contains("found: 16"),
            "{refused}"
        );
        std::fs::write(dir.path().join("PG_VERSION"), "16\n").unwrap();
        assert_eq!(places.postgres(dir.path()).unwrap().major, 16);
    }
}
