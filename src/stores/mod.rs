//! Private Redis and PostgreSQL servers, for development, benchmarks and tests.
//!
//! `bullwark dev`, `bullwark stores`, `bullwark bench` and the tests start the machine's own server
//! programs on loopback ports, with data in one directory. Production never comes here: it connects
//! to servers that somebody operates.
//!
//! Promises
//! * Data stays between runs (or goes, for a temporary directory); ports stay the same while free.
//! * A directory has one user at a time; a second one is told who the first one is.
//! * Servers end with this process: stopped in order, or by the kernel when this process is killed.
//!   Those that live on regardless are found and ended by the next start.
//! * Every wait has a limit, and a server that does not start is reported with its own last words.
//!
//! Refuses: Redis below 6.2, PostgreSQL below 14, data of another major version, and to run
//! PostgreSQL as root: there it runs as `postgres` or `nobody`. Anybody on this machine may connect
//! without a password; see `postgres_server`.

mod account;
mod directory;
mod error;
mod guardian;
mod leftovers;
mod lock;
mod log;
mod postgres_server;
mod process;
mod programs;
mod redis_server;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub use error::StoresError;
pub use lock::{Addresses, discover};

use directory::{Directory, Ports, is_free};
use guardian::Guardian;
use postgres_server::PostgresSetup;
use process::Process;
use programs::Places;
use redis_server::RedisSetup;

/// How often a start is repeated because somebody took a chosen port first.
const PORT_RACES_MAX: u32 = 5;

/// What a crash of the machine may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// As in production: commits reach the disk, Redis keeps an append-only file.
    Durable,
    /// For tests: PostgreSQL does not wait for the disk, Redis keeps nothing.
    Throwaway,
}

/// How a server is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kill {
    /// SIGKILL, as a crash.
    Immediately,
    /// In good order, as an operator does it.
    Cleanly,
}

/// Where and how to run the stores.
#[derive(Debug, Clone)]
pub struct StoresOptions {
    pub dir: PathBuf,
    pub durability: Durability,
    /// Remove the directory at the end, also when this process is killed.
    pub remove_dir: bool,
    pub shared_buffers_mb: u32,
    pub max_connections: u32,
    /// How long a server may take until it answers; loading old data counts.
    pub start_patience: Duration,
    /// How long a server may take to stop before it is killed.
    pub stop_patience: Duration,
}

impl StoresOptions {
    /// Durable stores in a directory that stays.
    pub fn kept(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            durability: Durability::Durable,
            remove_dir: false,
            shared_buffers_mb: 256,
            max_connections: 200,
            // After a crash PostgreSQL replays up to `max_wal_size` of its log first.
            start_patience: Duration::from_secs(300),
            stop_patience: Duration::from_secs(30),
        }
    }

    /// Durable stores in a new directory that is removed at the end.
    pub fn temporary() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("bullwark-{}-{number}", std::process::id());
        Self {
            remove_dir: true,
            ..Self::kept(std::env::temp_dir().join(name))
        }
    }

    /// As fast as possible: for tests.
    pub fn throwaway() -> Self {
        let durability = Durability::Throwaway;
        Self {
            durability,
            shared_buffers_mb: 64,
            ..Self::temporary()
        }
    }
}

/// Running stores. Dropped without [`Stores::stop`], the servers are ended, too.
#[derive(Debug)]
pub struct Stores {
    pub redis_url: String,
    pub database_url: String,
    /// The same database over a Unix socket, which is faster; absent where its path is too long.
    pub database_socket_url: Option<String>,
    redis_setup: RedisSetup,
    postgres_setup: PostgresSetup,
    remove_dir: bool,
    // Dropped in this order: servers end, then the guardian removes what is to be removed, and only
    // then may somebody else have the directory.
    redis: Option<Process>,
    postgres: Option<Process>,
    guardian: Option<Guardian>,
    directory: Directory,
}

impl Stores {
    /// Starts both servers and returns once both accept connections.
    pub async fn start(options: StoresOptions) -> Result<Self, StoresError> {
        let (directory, redis_setup, postgres_setup) = prepare(&options).await?;
        // Before anything is made that would have to be removed.
        let guardian = post_guardian(&options, &directory, &redis_setup, &postgres_setup)?;
        let ports_before = directory.ports_before();
        let redis_before = ports_before.map_or(redis_setup.port, |ports| ports.redis);
        tokio::try_join!(
            redis_setup.end_stale(redis_before),
            postgres_setup.end_stale()
        )?;
        postgres_setup.initialize().await?;

        let mut stores = Self {
            redis_url: String::new(),
            database_url: String::new(),
            database_socket_url: None,
            redis_setup,
            postgres_setup,
            remove_dir: options.remove_dir,
            redis: None,
            postgres: None,
            guardian,
            directory,
        };
        stores.start_on_free_ports().await?;
        Ok(stores)
    }

    /// Stops both servers in good order; a directory that was to be removed is gone afterwards.
    pub async fn stop(mut self) -> Result<(), StoresError> {
        tokio::join!(
            stop_process(self.redis.take(), self.redis_setup.stop_patience),
            stop_process(self.postgres.take(), self.postgres_setup.stop_patience),
        );
        if self.remove_dir {
            for dir in [&self.postgres_setup.dir, self.directory.path()] {
                remove_dir(dir)?;
            }
        }
        if let Some(guardian) = self.guardian.take() {
            guardian.dismiss();
        }
        Ok(())
    }

    /// Where any client reaches them.
    pub fn addresses(&self) -> Addresses {
        Addresses {
            redis_url: self.redis_url.clone(),
            database_url: self.database_url.clone(),
        }
    }

    /// An error if one of the servers has ended by itself.
    pub fn check(&mut self) -> Result<(), StoresError> {
        [&mut self.redis, &mut self.postgres]
            .into_iter()
            .flatten()
            .try_for_each(Process::check)
    }

    /// Ends Redis and leaves it down, until [`Self::start_redis`].
    pub async fn kill_redis(&mut self, kill: Kill) {
        let patience = self.redis_setup.stop_patience;
        end_process(self.redis.take(), kill, patience).await;
    }

    /// Starts Redis again, on the same port and data. Nothing happens if it runs.
    pub async fn start_redis(&mut self) -> Result<(), StoresError> {
        if self.redis.is_none() {
            self.redis = Some(self.redis_setup.start().await?);
        }
        Ok(())
    }

    /// Ends Redis and starts it again, on the same port and data.
    pub async fn restart_redis(&mut self, kill: Kill) -> Result<(), StoresError> {
        self.kill_redis(kill).await;
        self.start_redis().await
    }

    /// Ends PostgreSQL and leaves it down, until [`Self::start_postgres`].
    pub async fn kill_postgres(&mut self, kill: Kill) {
        let patience = self.postgres_setup.stop_patience;
        end_process(self.postgres.take(), kill, patience).await;
    }

    /// Starts PostgreSQL again, on the same port and data. Nothing happens if it runs.
    pub async fn start_postgres(&mut self) -> Result<(), StoresError> {
        if self.postgres.is_none() {
            self.postgres_setup.end_stale().await?;
            self.postgres = Some(self.postgres_setup.start().await?);
        }
        Ok(())
    }

    /// Ends PostgreSQL and starts it again, on the same port and data.
    pub async fn restart_postgres(&mut self, kill: Kill) -> Result<(), StoresError> {
        self.kill_postgres(kill).await;
        self.start_postgres().await
    }

    pub fn redis_port(&self) -> u16 {
        self.redis_setup.port
    }

    pub fn postgres_port(&self) -> u16 {
        self.postgres_setup.port
    }

    /// `None` while it is down.
    pub fn redis_pid(&self) -> Option<u32> {
        self.redis.as_ref().map(Process::pid)
    }

    /// `None` while it is down.
    pub fn postgres_pid(&self) -> Option<u32> {
        self.postgres.as_ref().map(Process::pid)
    }

    /// The directory, as an absolute path.
    pub fn dir(&self) -> &Path {
        self.directory.path()
    }

    /// Where PostgreSQL's data is: below [`Self::dir`], unless its user cannot get there.
    pub fn postgres_dir(&self) -> &Path {
        &self.postgres_setup.dir
    }

    /// Between choosing a port and listening on it, another process may take it: choose again.
    async fn start_on_free_ports(&mut self) -> Result<(), StoresError> {
        let mut races = 0;
        loop {
            let ports = self.directory.choose_ports()?;
            self.redis_setup.port = ports.redis;
            self.postgres_setup.port = ports.postgres;
            let (redis, postgres) =
                tokio::join!(self.redis_setup.start(), self.postgres_setup.start());
            match (redis, postgres) {
                (Ok(redis), Ok(postgres)) => {
                    self.redis = Some(redis);
                    self.postgres = Some(postgres);
                    self.directory.remember_ports(ports)?;
                    self.redis_url = redis_server::url(ports.redis);
                    self.database_url = self.postgres_setup.url();
                    self.database_socket_url = self.postgres_setup.socket_url();
                    return self.directory.announce(&self.addresses());
                }
                (redis, postgres) => {
                    races += 1;
                    let lost_race = (redis.is_err() && !is_free(ports.redis))
                        || (postgres.is_err() && !is_free(ports.postgres));
                    // The one that did start is stopped before its port is asked for again.
                    let (redis, postgres) = tokio::join!(
                        stop_started(redis, self.redis_setup.stop_patience),
                        stop_started(postgres, self.postgres_setup.stop_patience),
                    );
                    if !lost_race || races >= PORT_RACES_MAX {
                        return redis.and(postgres);
                    }
                }
            }
        }
    }
}

/// Finds programs, takes the directory and decides who runs what, without starting a server.
async fn prepare(
    options: &StoresOptions,
) -> Result<(Directory, RedisSetup, PostgresSetup), StoresError> {
    let options = options.clone();
    let work = move || {
        let places = Places::of_this_machine();
        let program = places.redis_server()?;
        // Asked before anything is made: a machine without PostgreSQL is left as it was.
        places.newest_postgres()?;
        let setpriv = places.setpriv();
        let directory = Directory::open(&options.dir)?;
        let (postgres_dir, account) = directory.postgres()?;
        let install = places.postgres(&postgres_dir.join("data"))?;
        let Ports { redis, postgres } = directory.choose_ports()?;
        let redis = RedisSetup {
            program,
            setpriv: setpriv.clone(),
            dir: directory.redis(),
            log: directory.path().join("redis.log"),
            port: redis,
            durability: options.durability,
            start_patience: options.start_patience,
            stop_patience: options.stop_patience,
        };
        let postgres = PostgresSetup {
            bin: install.bin,
            setpriv,
            account,
            dir: postgres_dir,
            log: directory.path().join("postgres.log"),
            port: postgres,
            durability: options.durability,
            shared_buffers_mb: options.shared_buffers_mb,
            max_connections: options.max_connections,
            start_patience: options.start_patience,
            stop_patience: options.stop_patience,
        };
        Ok((directory, redis, postgres))
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(prepared) => prepared,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// A guardian where the kernel does not end our children with us, or something is to be removed.
fn post_guardian(
    options: &StoresOptions,
    directory: &Directory,
    redis: &RedisSetup,
    postgres: &PostgresSetup,
) -> Result<Option<Guardian>, StoresError> {
    if redis.setpriv.is_some() && !options.remove_dir {
        return Ok(None);
    }
    let all = [directory.path(), postgres.dir.as_path()];
    let remove = if options.remove_dir {
        all.as_slice()
    } else {
        &[]
    };
    Guardian::post(&redis.pid_file(), &postgres.pid_file(), remove).map(Some)
}

async fn stop_process(process: Option<Process>, patience: Duration) {
    end_process(process, Kill::Cleanly, patience).await;
}

async fn stop_started(
    started: Result<Process, StoresError>,
    patience: Duration,
) -> Result<(), StoresError> {
    stop_process(Some(started?), patience).await;
    Ok(())
}

async fn end_process(process: Option<Process>, kill: Kill, patience: Duration) {
    match (process, kill) {
        (None, _) => {}
        (Some(process), Kill::Immediately) => process.kill().await,
        (Some(process), Kill::Cleanly) => process.stop(patience).await,
    }
}

fn remove_dir(dir: &Path) -> Result<(), StoresError> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoresError::file("remove", dir)(error))
        }
        _ => Ok(()),
    }
}
