//! `bullwark soak`: a load on real processes, faults at any time, and proof that nothing was lost.
//!
//! ```text
//! generator ── HTTP ──► serve ─┐            ┌─ PostgreSQL (private)
//!     │                        ├─ proxies ──┤
//!     │              workers ──┘            └─ Redis (private)
//!     │  every answer   │ every run            ▲
//!     └────► ledger ◄───┘                  nemesis
//!               └──────► checker ◄── the record
//! ```
//!
//! The **ledger** is a witness of its own: a process that shares no store with the rest. The
//! **nemesis** breaks one thing after the other, by a seed. When all is over, the **checker**
//! compares what clients were told and what ran with what the record says. `docs/soak.md` lists the
//! invariants and what this does not show.
//!
//! A run in a directory that is kept goes on where it was: state, ledger and stores are there.

mod check;
#[cfg(test)]
mod check_side_tests;
#[cfg(test)]
mod check_tests;
mod child;
mod excuses;
mod fault;
mod fleet;
mod generator;
mod growth;
mod handlers;
mod ledger;
mod limits;
mod line;
mod nemesis;
mod order;
mod plan;
mod proxy;
mod random;
mod redis_files;
mod report;
mod run;
mod seen;
mod sides;
mod space;
mod state;
mod tally;
mod tenants;
mod verdict;
mod violations;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use plan::Mix;
pub use report::Report;
pub use run::run;

use crate::tasks::Tasks;
use crate::worker::Handlers;

/// How long to run, and how hard.
#[derive(Debug, Clone)]
pub struct SoakOptions {
    /// The program under test: this one.
    pub program: PathBuf,
    /// Everything of the run is in it. Kept, it goes on there the next time.
    pub dir: PathBuf,
    /// Given: jobs and faults are those of an earlier run.
    pub seed: Option<u64>,
    /// Names of faults, see `fault`.
    pub faults: String,
    /// No job is sent after that.
    pub duration: Option<Duration>,
    /// No more jobs than that.
    pub jobs: Option<u64>,
    pub mix: Mix,
    /// Jobs per second; 0: as fast as the answers come.
    pub rate: u64,
    pub workers: usize,
    pub slots: usize,
    pub lease: Duration,
    /// Between two faults, on average.
    pub fault_every: Duration,
}

/// Serves the ledger until the listener's process ends.
pub async fn serve_ledger(
    listener: tokio::net::TcpListener,
    path: &Path,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    ledger::serve(listener, path, stop).await
}

/// The handlers of the soak's own workers, on top of those that are given.
pub async fn handlers(
    mut handlers: Handlers,
    ledger: &str,
    tasks: &Tasks,
) -> std::io::Result<Handlers> {
    let ledger = ledger::Ledger::connect(ledger, tasks).await?;
    handlers.add(self::handlers::Soak { ledger });
    Ok(handlers)
}
