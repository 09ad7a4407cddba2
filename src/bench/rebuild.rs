//! How long an emptied Redis takes to hold every open job again.
//!
//! Nothing works meanwhile: the time is that of the rebuild alone, from the moment that Redis is
//! empty until jobs may be claimed from it. What it must bring back is of every kind: jobs that
//! wait and that are put off, jobs that run, flows, schedules, a pause and a limit.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::cost::Cost;
use super::{BenchError, CpuSeconds, StorePids, round};
use crate::app::App;
use crate::broker::{BrokerState, ClaimOptions, LIST_MAX, OWN_TOKEN};
use crate::clock;
use crate::config::Config;
use crate::control;
use crate::enqueue::ENQUEUE_MAX;
use crate::job::flow::FlowRequest;
use crate::job::{JobRequest, QueueChange, QueueName, QueueSettings, Schedule, Template};
use crate::reconcile::{self, ReconcileError};
use crate::record::access::By;
use crate::record::start::{RunningAttempt, mark_running};
use crate::worker::Handlers;

/// Beside the jobs that wait: so many are put off, of as many.
const DELAYED_OF: usize = 10;
const RUNNING: usize = 50;
const FLOWS: usize = 20;
const CHILDREN: usize = 3;
const SCHEDULES: usize = 10;
/// Rebuilds that are measured.
const ROUNDS: usize = 3;
/// Between two looks at whether all deliveries have arrived, or are old enough to be made again.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// So old must a row be for a rebuild to bring its job back itself.
const YOUNG: Duration = Duration::from_millis(2500);
/// Longer than all rounds.
const LEASE: Duration = Duration::from_secs(600);
const WORKER: &str = "bench";

/// The report.
#[derive(Debug, Clone, Serialize)]
pub struct RebuildReport {
    /// That wait and may start.
    pub jobs: usize,
    /// Due in an hour.
    pub delayed: usize,
    pub running: usize,
    /// Of four jobs each.
    pub flows: usize,
    pub schedules: usize,
    /// Of each round.
    pub seconds: Vec<f64>,
    /// Processor time of a round, on average: the same whatever else the machine does.
    pub cpu_seconds: CpuSeconds,
    /// Both stores agreed after each round.
    pub agree: bool,
    /// Every job came back in its state and in its place, and every setting and schedule, too.
    pub as_before: bool,
}

/// What of Redis must be the same before and after. Jobs in the order in which they are next.
#[derive(Debug, Clone, PartialEq)]
struct Shown {
    jobs: HashMap<(String, BrokerState), Vec<String>>,
    settings: BTreeMap<String, QueueSettings>,
    schedules: BTreeMap<String, u64>,
}

impl Shown {
    /// The same, whatever the order of the jobs.
    fn sorted(mut self) -> Self {
        self.jobs.values_mut().for_each(|ids| ids.sort());
        self
    }
}

/// Enqueues jobs of a type that nobody works, and empties Redis several times.
pub async fn run_rebuild(
    config: Config,
    jobs: usize,
    pids: StorePids,
) -> Result<RebuildReport, BenchError> {
    let mut handlers = Handlers::default();
    crate::handlers::diagnostics::add(&mut handlers);
    let app = App::connect(config, handlers).await?;
    let [plain, busy, flows, ticks] = ["default", "busy", "flows", "ticks"].map(queue);
    while !reconcile::readmit(&app.record, &app.broker).await? {}
    let delayed = jobs / DELAYED_OF;
    let noop = |n: usize, queue: &QueueName, delay_ms| JobRequest {
        delay_ms,
        queue: Some(queue.to_string()),
        ..JobRequest::new("noop", serde_json::json!({ "n": n }))
    };
    let waiting = (0..jobs).map(|n| noop(n, &plain, None));
    // Not all at one moment: their order is that of their times.
    let later = (0..delayed).map(|n| noop(n, &plain, Some(3_600_000 + n as u64)));
    enqueue(&app, waiting.chain(later)).await?;
    enqueue(&app, (0..RUNNING).map(|n| noop(n, &busy, None))).await?;
    for _ in 0..FLOWS {
        let child = || FlowRequest {
            job: noop(0, &flows, None),
            ..FlowRequest::default()
        };
        let flow = FlowRequest {
            children: (0..CHILDREN).map(|_| child()).collect(),
            ..child()
        };
        app.enqueue.enqueue_flow(flow).await?;
    }
    let schedule = Schedule::every(3_600_000);
    let template = Template {
        name: "noop".to_owned(),
        data: "{}".to_owned(),
        opts: "{}".to_owned(),
    };
    for n in 0..SCHEDULES {
        let id = format!("tick {n}");
        control::upsert_schedule(
            &app.record,
            &app.broker,
            &ticks,
            &id,
            &schedule,
            &template,
            &By::OPERATOR,
        )
        .await?;
    }
    let change = QueueChange {
        is_paused: Some(true),
        concurrency: Some(Some(7)),
        rate_limit: Some(Some((100, 1000))),
        ..QueueChange::default()
    };
    control::change_queue(
        &app.record,
        &app.broker,
        &flows,
        &change,
        (&By::OPERATOR, None),
    )
    .await?;
    // A rebuild leaves the youngest jobs to their own deliveries.
    let settled = Instant::now() + Duration::from_secs(3);
    while Instant::now() < settled || reconcile::deliver_recent(&app.record, &app.broker).await? {
        tokio::time::sleep(LOOK_EVERY).await;
        reconcile::deliver_recent(&app.record, &app.broker).await?;
    }
    run_some(&app, &busy).await?;
    // Whoever runs all the time has adopted the schedules' jobs by now.
    reconcile::reconcile_all(&app.record, &app.broker).await?;
    tokio::time::sleep(YOUNG).await;

    let queues = [plain, busy, flows, ticks];
    // In Redis a job whose delivery was dropped stands behind younger ones. A rebuild puts all jobs
    // into the order in which they were accepted: the first one, which is not counted, shows that.
    let mut before = look(&app, &queues).await?.sorted();
    let (mut seconds, mut agree, mut as_before) = (Vec::new(), true, true);
    let mut cost = CpuSeconds::default();
    for round_nth in 0..=ROUNDS {
        app.broker
            .lose_memory()
            .await
            .map_err(ReconcileError::from)?;
        let (started, before_it) = (Instant::now(), Cost::now(pids));
        while !reconcile::readmit(&app.record, &app.broker).await? {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let took = round(started.elapsed().as_secs_f64(), 3);
        let spent = Cost::now(pids).since(&before_it);
        let verdict = reconcile::verify(&app.record, &app.broker).await?;
        let after = look(&app, &queues).await?;
        let is_as_before = match round_nth {
            0 => {
                let is_whole = after.clone().sorted() == before;
                before = after.clone();
                is_whole
            }
            _ => {
                seconds.push(took);
                cost.bullwark += spent.bullwark;
                cost.redis += spent.redis;
                cost.postgres += spent.postgres;
                after == before
            }
        };
        if !verdict.agree || !is_as_before {
            let differences = &verdict.differences;
            tracing::error!(?differences, "not everything came back");
            tracing::debug!(?before, ?after);
        }
        agree &= verdict.agree;
        as_before &= is_as_before;
    }
    app.close().await;
    let average = |seconds| round(seconds / ROUNDS as f64, 2);
    Ok(RebuildReport {
        jobs,
        delayed,
        running: RUNNING,
        flows: FLOWS,
        schedules: SCHEDULES,
        seconds,
        cpu_seconds: CpuSeconds {
            bullwark: average(cost.bullwark),
            redis: average(cost.redis),
            postgres: average(cost.postgres),
        },
        agree,
        as_before,
    })
}

fn queue(name: &str) -> QueueName {
    name.parse().unwrap_or_default()
}

async fn enqueue(app: &App, requests: impl Iterator<Item = JobRequest>) -> Result<(), BenchError> {
    let mut requests = requests.peekable();
    while requests.peek().is_some() {
        let part = requests.by_ref().take(ENQUEUE_MAX).collect();
        let answers = app.enqueue.enqueue_many(part).await?;
        answers.into_iter().collect::<Result<Vec<_>, _>>()?;
    }
    Ok(())
}

/// Takes the jobs of a queue as a worker would that lives, and goes on living.
async fn run_some(app: &App, busy: &QueueName) -> Result<(), BenchError> {
    let options = ClaimOptions {
        token: format!("{OWN_TOKEN}{WORKER}:1"),
        max: RUNNING,
        lease: LEASE,
        ..ClaimOptions::default()
    };
    let claimed = app.broker.claim(busy, &options).await;
    let jobs = claimed.map_err(ReconcileError::from)?.jobs;
    let attempt = |id: &str| {
        Some(RunningAttempt {
            id: id.parse().ok()?,
            attempt: 1,
            started_at: clock::now(),
        })
    };
    let running: Vec<_> = jobs.iter().filter_map(|job| attempt(&job.id)).collect();
    mark_running(&app.record, WORKER, &running).await?;
    Ok(())
}

async fn look(app: &App, queues: &[QueueName]) -> Result<Shown, ReconcileError> {
    let mut shown = Shown {
        jobs: HashMap::new(),
        settings: BTreeMap::new(),
        schedules: BTreeMap::new(),
    };
    for queue in queues {
        for state in [
            BrokerState::Wait,
            BrokerState::Prioritized,
            BrokerState::Delayed,
            BrokerState::WaitingChildren,
            BrokerState::Active,
        ] {
            let ids = shown.jobs.entry((queue.to_string(), state)).or_default();
            let mut next = Some(0);
            while let Some(offset) = next {
                let page = app.broker.list(queue, state, offset, LIST_MAX).await?;
                ids.extend(page.ids);
                next = page.next;
            }
            // Who became active first is nobody's order.
            if state == BrokerState::Active {
                ids.sort();
            }
        }
        let meta = app.broker.queue_meta(queue).await?;
        shown.settings.insert(queue.to_string(), meta.settings());
        let schedules = app.broker.count_schedules(queue).await?;
        shown.schedules.insert(queue.to_string(), schedules);
    }
    Ok(shown)
}
