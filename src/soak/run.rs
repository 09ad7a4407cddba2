//! One run, from the start of the stores to the verdict.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::child::Guardian;
use super::fault::{self, RESUMED, Schedule};
use super::fleet::{self, Fleet, Setup};
use super::generator::{LANES, Load};
use super::ledger::Ledger;
use super::line::Line;
use super::nemesis::Nemesis;
use super::plan::{Plan, QUEUE, TYPE};
use super::proxy::Proxy;
use super::report::Report;
use super::sides::{self, Generators};
use super::space::{Space, queues};
use super::state::State;
use super::tenants::Tenants;
use super::verdict::{self, Witness};
use super::violations::{Law, Violations};
use super::watch::Watch;
use super::{SoakOptions, order};
use crate::broker::{Broker, BrokerOptions};
use crate::clock;
use crate::record::access::By;
use crate::record::{Record, RecordOptions, soak, types};
use crate::stores::{Stores, StoresOptions};
use crate::tasks::Tasks;

/// How long the open jobs may stay as many as they are, once there are no more faults. Longer than
/// the rule of silence, the last resort of a job.
const STANDSTILL_MAX: Duration = Duration::from_secs(420);
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Processes of a run with all their connections, and those that are just being replaced.
const CONNECTIONS_MAX: u32 = 400;
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Runs until the last job is sent, the time is over or `interrupted`, then checks everything.
/// `None`: it was interrupted, and goes on with the next call for the same directory.
pub async fn run(
    options: SoakOptions,
    interrupted: impl Future<Output = ()>,
) -> anyhow::Result<Option<Report>> {
    std::fs::create_dir_all(&options.dir)?;
    let state = State::open(&options.dir, options.seed, options.jobs, options.mix)?;
    state.save(&options.dir)?;
    tracing::info!(seed = state.seed, dir = %options.dir.display(), "soak");
    let guardian = Guardian::post()?;
    let stores = Stores::start(StoresOptions {
        max_connections: CONNECTIONS_MAX,
        ..StoresOptions::kept(options.dir.join("stores"))
    })
    .await?;
    let tasks = Tasks::new();
    let done = Box::pin(run_on(
        &options,
        state,
        stores,
        &guardian,
        &tasks,
        interrupted,
    ))
    .await;
    tasks.stop(STOP_LIMIT).await;
    guardian.dismiss();
    done
}

async fn run_on(
    options: &SoakOptions,
    state: State,
    stores: Stores,
    guardian: &Guardian,
    tasks: &Tasks,
    interrupted: impl Future<Output = ()>,
) -> anyhow::Result<Option<Report>> {
    let (seed, mix) = (state.seed, state.mix);
    let plan = Plan { seed, mix };
    let record = Record::connect(&RecordOptions::new(&stores.database_url))?;
    record.migrate().await?;
    soak::install(&record).await?;
    types::declare(&record, TYPE, &serde_json::json!(true), &By::OPERATOR).await?;
    let broker = Broker::lazy(BrokerOptions {
        url: stores.redis_url.clone(),
        ..BrokerOptions::default()
    })?;
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let redis = Proxy::start(local(stores.redis_port()), tasks).await?;
    let postgres = Proxy::start(local(stores.postgres_port()), tasks).await?;
    let (ledger_process, address) =
        fleet::start_ledger(&options.program, &options.dir, guardian).await?;
    let ledger = Ledger::connect(&address, tasks).await?;
    if state.parts > 1 {
        let name = RESUMED.to_owned();
        let (begins, pid, at_ms) = (true, 0, clock::now_ms());
        ledger
            .write(&[Line::Fault {
                name,
                begins,
                pid,
                at_ms,
            }])
            .await?;
    }
    let through = |url: &str, port: u16, proxy: &Proxy| {
        url.replace(&format!(":{port}"), &format!(":{}", proxy.address.port()))
    };
    let keys = [(); 2].map(|()| format!("soak-{}", uuid::Uuid::new_v4().simple()));
    sides::prepare(&record, &broker, &keys[1]).await?;
    let setup = Setup {
        program: options.program.clone(),
        dir: options.dir.clone(),
        database_url: through(&stores.database_url, stores.postgres_port(), &postgres),
        redis_url: through(&stores.redis_url, stores.redis_port(), &redis),
        ledger: address,
        workers: options.workers,
        slots: options.slots,
        lease: options.lease,
        api_key: keys[0].clone(),
    };
    let fleet = Fleet::start(setup, guardian).await?;
    let load = Load {
        space: Space::Main,
        next: state.next,
        end: options.jobs.unwrap_or(u64::MAX).min(Space::Order.from()),
        rate: options.rate,
        lanes: LANES,
    };
    let base = fleet.base();
    let generators = Generators::new(&base, &keys, (plan, &ledger), load, state.sides)?;
    let tenants = Tenants::new(&base, &keys)?;
    let pause = (options.fault_every.as_millis() as u64).max(2);
    let nemesis = Nemesis {
        fleet,
        stores,
        redis,
        postgres,
        record: record.clone(),
        broker: broker.clone(),
        ledger,
        // A later part of a run does not repeat the faults of the first.
        schedule: Schedule::new(fault::parse(&options.faults)?, state.seed + state.parts - 1),
        pause_ms: (pause / 2, pause * 3 / 2),
    };
    let watch = Watch {
        record: record.clone(),
        broker: broker.clone(),
        queue: QUEUE.parse()?,
        dir: options.dir.clone(),
        state: state.clone(),
        tenants,
        found: Mutex::default(),
    };
    let mut soak = Soak {
        options,
        plan,
        state,
        generators,
        nemesis,
        watch,
        violations: Violations::default(),
    };
    let is_over = Box::pin(soak.load(interrupted)).await?;
    if !is_over {
        // Everything is left as it is; the processes end with this one.
        soak.nemesis.stores.stop().await?;
        return Ok(None);
    }
    sides::end_schedule(&record, &broker).await?;
    soak.calm_down().await?;
    Box::pin(soak.look_at_the_order()).await?;
    let report = Box::pin(soak.judge(ledger_process)).await?;
    record.close().await;
    Ok(Some(report))
}

struct Soak<'a> {
    options: &'a SoakOptions,
    plan: Plan,
    state: State,
    generators: Generators,
    nemesis: Nemesis,
    watch: Watch,
    violations: Violations,
}

impl Soak<'_> {
    /// Load and faults at once. False: interrupted.
    async fn load(&mut self, interrupted: impl Future<Output = ()>) -> anyhow::Result<bool> {
        let (stop_sending, stop) = (CancellationToken::new(), CancellationToken::new());
        let pids = Arc::new(Mutex::new(self.nemesis.fleet.pids()));
        let seen_pids = pids.clone();
        let (generators, watch, nemesis) = (&self.generators, &self.watch, &mut self.nemesis);
        let sending = async {
            let sent = Box::pin(generators.send(&stop_sending)).await;
            stop.cancel();
            sent
        };
        let watching = watch.run(
            generators,
            move || {
                seen_pids
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone()
            },
            &stop,
        );
        let breaking = async {
            let mut broken = Ok(());
            while !stop.is_cancelled() && broken.is_ok() {
                broken = Box::pin(nemesis.once(&stop)).await;
                *pids.lock().unwrap_or_else(PoisonError::into_inner) = nemesis.fleet.pids();
            }
            broken
        };
        let time = self.options.duration;
        let ending = async {
            let is_interrupted = tokio::select! {
                () = interrupted => true,
                () = sleep_if(time) => false,
                () = stop.cancelled() => false,
            };
            stop_sending.cancel();
            Ok(is_interrupted)
        };
        let all = async { tokio::try_join!(sending, watching, breaking, ending) };
        let ((), (), (), is_interrupted) = all.await?;
        (self.state.next, self.state.sides) = self.generators.marks();
        self.state.save(&self.options.dir)?;
        Ok(!is_interrupted)
    }

    /// Waits until no job is open any more. As long as they become fewer, it may take its time.
    async fn calm_down(&mut self) -> anyhow::Result<()> {
        let (mut fewest, mut since) = (u64::MAX, Instant::now());
        loop {
            self.nemesis.fleet.supervise()?;
            self.nemesis.stores.check()?;
            let open = sides::open(&self.nemesis.record).await?;
            if open == 0 {
                return Ok(());
            }
            if open < fewest {
                (fewest, since) = (open, Instant::now());
            }
            if since.elapsed() > STANDSTILL_MAX {
                let text = format!("{open} jobs stay open for {STANDSTILL_MAX:?}");
                self.violations.add(Law::NoLoss, text);
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn look_at_the_order(&mut self) -> anyhow::Result<()> {
        let requests = order::requests(self.plan, self.state.parts);
        self.generators.main.until_accepted(&requests).await?;
        // A moment in which every job has reached Redis: what is lost there is really lost.
        self.until_in_redis(requests.len() as u64).await?;
        self.nemesis.broker.lose_memory().await?;
        let worker = self.nemesis.fleet.start_single()?;
        self.calm_down().await?;
        fleet::retire(worker, &mut self.nemesis.fleet.deserters).await;
        Ok(())
    }

    async fn until_in_redis(&self, jobs: u64) -> anyhow::Result<()> {
        let queue = super::plan::ORDER_QUEUE.parse()?;
        let deadline = Instant::now() + STANDSTILL_MAX;
        while Instant::now() < deadline {
            let counts = self.nemesis.broker.counts(&queue).await?;
            if counts.wait + counts.prioritized >= jobs {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("the jobs of {queue} do not reach Redis")
    }

    async fn judge(mut self, ledger: super::child::Process) -> anyhow::Result<Report> {
        let found = self.watch.found.into_inner();
        for (law, broken) in found.unwrap_or_else(PoisonError::into_inner).0 {
            for example in broken.examples {
                self.violations.add(law, example);
            }
        }
        let (record, broker) = (&self.nemesis.record, &self.nemesis.broker);
        let drift = verdict::agreement(record, broker, &mut self.violations).await?;
        for end in self.nemesis.fleet.stop().await {
            self.violations.add(Law::Processes, end);
        }
        for queue in queues() {
            verdict::orphans(broker, &queue.parse()?, &mut self.violations).await?;
        }
        ledger.stop(STOP_LIMIT).await;
        let witness = Witness {
            dir: &self.options.dir,
            plan: self.plan,
            state: &self.state,
            drift,
            repeated_calls: self.generators.repeated_calls(),
            looks: self.watch.tenants.looks.into_inner(),
            workers: self.options.workers,
            slots: self.options.slots,
        };
        let report = verdict::judge(witness, record, self.violations).await?;
        self.nemesis
            .stores
            .stop()
            .await
            .context("stop the stores")?;
        Ok(report)
    }
}

async fn sleep_if(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
