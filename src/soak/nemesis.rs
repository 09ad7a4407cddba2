//! The nemesis: does one fault after the other, and heals each before the next.
//!
//! It owns what it breaks: the processes, the stores and the network between them. Each fault is in
//! the ledger before it happens and once more when it is healed, so that the checker knows what may
//! be excused. It ends only processes that this run started.

use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;
use tokio_util::sync::CancellationToken;

use super::fault::{Fault, Schedule};
use super::fleet::Fleet;
use super::ledger::Ledger;
use super::line::Line;
use super::proxy::{Proxy, Weather};
use super::redis_files::RedisFiles;
use crate::broker::Broker;
use crate::clock;
use crate::record::{Record, soak};
use crate::stores::{Kill, Stores};

/// Rounds of `pg_terminate_backend`, and the share of connections that each ends.
const TERMINATE_ROUNDS: u64 = 4;
const TERMINATE_SHARE: f64 = 0.4;
/// Between two looks at the processes while there is no fault.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a run consists of.
pub(super) struct Nemesis {
    pub(super) fleet: Fleet,
    pub(super) stores: Stores,
    pub(super) redis: Proxy,
    pub(super) postgres: Proxy,
    pub(super) record: Record,
    pub(super) broker: Broker,
    pub(super) ledger: Ledger,
    pub(super) schedule: Schedule,
    /// Between two faults: at least the first, less than the second, in milliseconds.
    pub(super) pause_ms: (u64, u64),
}

impl Nemesis {
    /// A pause and a fault, which is healed when this returns. `stop` cuts the pause short.
    pub(super) async fn once(&mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        let (low, high) = self.pause_ms;
        let pause = self.schedule.random().between(low, high);
        self.rest(Duration::from_millis(pause), stop).await?;
        if stop.is_cancelled() {
            return Ok(());
        }
        let Some(fault) = self.schedule.next() else {
            return Ok(());
        };
        self.strike(fault).await.with_context(|| fault.name())
    }

    /// Waits, and starts again what ended by itself.
    async fn rest(&mut self, pause: Duration, stop: &CancellationToken) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + pause;
        while tokio::time::Instant::now() < deadline && !stop.is_cancelled() {
            self.fleet.supervise()?;
            self.stores.check()?;
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    }

    async fn note(&self, fault: Fault, begins: bool, pid: u32) -> anyhow::Result<()> {
        let line = Line::Fault {
            name: fault.name().to_owned(),
            begins,
            pid,
            at_ms: clock::now_ms(),
        };
        Ok(self.ledger.write(&[line]).await?)
    }

    async fn strike(&mut self, fault: Fault) -> anyhow::Result<()> {
        let nth = self
            .schedule
            .random()
            .below(self.fleet.setup.workers as u64) as usize;
        let pid = match fault {
            Fault::Kill | Fault::Stop => self.fleet.worker_pid(nth).unwrap_or(0),
            _ => 0,
        };
        if pid == 0 && matches!(fault, Fault::Kill | Fault::Stop) {
            return self.fleet.supervise(); // it has just ended by itself, and is noted as such
        }
        if fault == Fault::RedisRollback {
            self.keep_snapshot().await?;
            let worked = self.schedule.random().between(1_000, 3_000);
            tokio::time::sleep(Duration::from_millis(worked)).await;
        }
        tracing::info!(fault = fault.name(), pid, "strike");
        self.note(fault, true, pid).await?;
        self.act(fault, nth).await?;
        self.fleet.supervise()?;
        if fault == Fault::KillServe {
            self.fleet.until_served().await?;
        }
        self.note(fault, false, pid).await?;
        Ok(())
    }

    async fn act(&mut self, fault: Fault, nth: usize) -> anyhow::Result<()> {
        let lease_ms = self.fleet.setup.lease.as_millis() as u64;
        match fault {
            Fault::Kill => self.fleet.kill_worker(nth).await,
            Fault::KillServe => self.fleet.kill_serve().await,
            Fault::Stop => {
                self.fleet.signal_worker(nth, Signal::SIGSTOP);
                self.hold(lease_ms * 3 / 2, lease_ms * 5 / 2).await;
                self.fleet.signal_worker(nth, Signal::SIGCONT);
            }
            Fault::Rolling => {
                for nth in 0..self.fleet.setup.workers {
                    self.fleet.retire_worker(nth).await;
                    self.fleet.supervise()?;
                }
            }
            Fault::Flush => self.broker.lose_memory().await?,
            Fault::RedisRestart => self.restart_redis(|_| Ok(())).await?,
            Fault::RedisEmpty => self.restart_redis(RedisFiles::empty).await?,
            Fault::RedisRollback => {
                let roll_back = |files: &RedisFiles| files.roll_back().map(drop);
                self.restart_redis(roll_back).await?;
            }
            Fault::PgRestart => {
                self.stores.kill_postgres(Kill::Immediately).await;
                self.hold(200, 3_000).await;
                self.stores.start_postgres().await?;
            }
            Fault::PgTerminate => {
                for _ in 0..TERMINATE_ROUNDS {
                    // Also this connection may be one of those that the last round ended.
                    let ended = soak::terminate_backends(&self.record, TERMINATE_SHARE).await;
                    tracing::info!(?ended, "connections ended");
                    self.hold(300, 700).await;
                }
            }
            Fault::Slow => {
                let ms = self.schedule.random().between(5, 120);
                let jitter_ms = ms;
                self.network(Weather::Slow { ms, jitter_ms }).await;
            }
            Fault::Cut => {
                for _ in 0..3 {
                    self.redis.cut();
                    self.postgres.cut();
                    self.hold(100, 1_000).await;
                }
            }
            Fault::HalfOpen => self.network(Weather::HalfOpen).await,
            Fault::AnswersLost => self.network(Weather::AnswersLost).await,
            Fault::Refused => self.network(Weather::Refused).await,
        }
        Ok(())
    }

    /// A weather for one store or both, for some seconds.
    async fn network(&mut self, weather: Weather) {
        let which = self.schedule.random().below(3);
        if which != 1 {
            self.redis.set(weather);
        }
        if which != 0 {
            self.postgres.set(weather);
        }
        self.hold(1_000, 6_000).await;
        // What hung is cut: a connection that lost bytes must not go on.
        for proxy in [&self.redis, &self.postgres] {
            if weather == Weather::HalfOpen {
                proxy.cut();
            }
            proxy.set(Weather::Fair);
        }
    }

    async fn hold(&mut self, low_ms: u64, high_ms: u64) {
        let time = self.schedule.random().between(low_ms, high_ms);
        tokio::time::sleep(Duration::from_millis(time)).await;
    }

    fn redis_files(&self) -> RedisFiles {
        RedisFiles(self.stores.dir().join("redis"))
    }

    async fn keep_snapshot(&self) -> anyhow::Result<()> {
        self.broker.save_memory().await?;
        self.redis_files()
            .keep_snapshot()
            .context("keep the snapshot")
    }

    async fn restart_redis(
        &mut self,
        meanwhile: impl FnOnce(&RedisFiles) -> std::io::Result<()>,
    ) -> anyhow::Result<()> {
        self.stores.kill_redis(Kill::Immediately).await;
        self.hold(100, 2_000).await;
        meanwhile(&self.redis_files())?;
        Ok(self.stores.start_redis().await?)
    }
}
