//! Upkeep: the small duties that keep everything agreeing, run by every process, without a leader.
//!
//! Each is bounded per run, safe to repeat and safe beside itself in another process.

mod mails;
mod quotas;
mod schedules;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use crate::broker::{Broker, RESCUE_MAX, Stalls};
use crate::control::actions;
use crate::enqueue::Enqueue;
use crate::job::{JobType, JobTypes};
use crate::periodic::{Next, every};
use crate::reconcile::{self, ReconcileError};
use crate::record::control::{self, GRAVE_KEPT};
use crate::record::{
    Record, RecordError, change_seals, data_changes, dead_letters, lookups, open, owed_logs,
    passes, rollups, stragglers, types, webhook_events, webhook_upkeep,
};
use crate::tasks::Tasks;
pub use schedules::start_schedules;

/// Between two looks at stalled jobs. With leases of ten seconds a killed worker's jobs are back
/// within lease + two looks: below 15 seconds.
const RESCUE_EVERY: Duration = Duration::from_millis(1800);
/// Between two looks at the settings and schedules of queues.
const KEEP_EVERY: Duration = Duration::from_secs(2);
/// Between two marks of the record.
const BEAT_EVERY: Duration = Duration::from_secs(2);
/// Between two looks for log lines that are owed, and between two pages of them.
const OWED_LOGS_EVERY: Duration = Duration::from_secs(2);
const OWED_LOGS_REST: Duration = Duration::from_millis(25);
/// Between two looks for rows of deleted jobs that may go.
const GRAVES_EVERY: Duration = Duration::from_secs(60);
/// Between two looks at what ended, to sum it up.
const ROLLUPS_EVERY: Duration = Duration::from_secs(5);
/// Between two looks for changes of records that are not sealed yet.
const SEALS_EVERY: Duration = Duration::from_secs(2);
/// Between two looks for changes of records that were kept for long enough.
const OLD_CHANGES_EVERY: Duration = Duration::from_secs(60);
/// Between two looks for answers of providers that ran out long ago.
const OLD_LOOKUPS_EVERY: Duration = Duration::from_secs(60);
/// Between two looks for what webhooks are to be told.
const WEBHOOKS_EVERY: Duration = Duration::from_millis(500);
/// Between two looks for deliveries that have ended, and for those that are too old.
const ENDED_DELIVERIES_EVERY: Duration = Duration::from_secs(10);
const OLD_DELIVERIES_EVERY: Duration = Duration::from_secs(60);
/// Between two looks for actions that nobody carries out, and for those that are too old.
const ACTIONS_EVERY: Duration = Duration::from_secs(1);
const OLD_ACTIONS_EVERY: Duration = Duration::from_secs(60);
/// Between two looks for dead letters whose cause nobody has told.
const CAUSES_EVERY: Duration = Duration::from_secs(10);
/// Between two looks for notes of passes that are too old.
const OLD_PASSES_EVERY: Duration = Duration::from_secs(600);
/// Stalls of our own jobs that Redis tolerates before it marks one as failing. The record judges
/// their crash loops, by what a job achieved in between, so this is out of the way.
const OWN_STALLS_MAX: u32 = 1_000_000;

/// Starts the duties; they end when `tasks` stop.
pub fn start(record: &Record, broker: &Broker, tasks: &Tasks) {
    readmit(record, broker, tasks);
    beat(record, broker, tasks);
    keep_queues(record, broker, tasks);
    relay(record, broker, tasks);
    write_owed_logs(record, broker, tasks);
    clear_graves(record, broker, tasks);
    roll_up(record, broker, tasks);
    seal_changes(record, broker, tasks);
    forget_old_changes(record, broker, tasks);
    forget_old_lookups(record, broker, tasks);
    carry_out_actions(record, broker, tasks);
    find_causes(record, broker, tasks);
    prune_passes(record, broker, tasks);
    make_deliveries(record, tasks);
    forget_old_deliveries(record, broker, tasks);
    mails::close_claimed(record, broker, tasks);
    quotas::bring_forward(record, broker, tasks);
    start_schedules(broker, tasks);
    watch_open(record, broker, tasks);
    reconcile::start_mirror(record, broker, tasks);
}

/// Reads the declared job types again and again, so that a type declared anywhere is accepted here.
pub fn start_types(record: &Record, enqueue: &Enqueue, builtin: &JobTypes, tasks: &Tasks) {
    let (record, enqueue, builtin) = (record.clone(), enqueue.clone(), builtin.clone());
    every(tasks, "types", Duration::from_secs(5), move || {
        let (record, enqueue, builtin) = (record.clone(), enqueue.clone(), builtin.clone());
        async move {
            enqueue.set_types(declared_types(&record, builtin).await?);
            Ok::<_, RecordError>(Next::Rest)
        }
    });
}

/// The built-in types and those that a person declared.
pub async fn declared_types(record: &Record, builtin: JobTypes) -> Result<JobTypes, RecordError> {
    let mut all = builtin;
    for row in types::list(record).await? {
        if row.builtin || all.get(&row.name).is_some() {
            continue;
        }
        match JobType::new(&row.name, row.schema) {
            Ok(job_type) => all.add(job_type),
            Err(error) => tracing::warn!(%error, "declared job type is unusable"),
        }
    }
    Ok(all)
}

/// Notices that Redis has lost its memory, also where no worker claims.
fn readmit(record: &Record, broker: &Broker, tasks: &Tasks) {
    let (record, broker) = (record.clone(), broker.clone());
    if broker.served().is_none() {
        // Says that it will be compared: until then the probe of Redis tells of it.
        broker.stop_serving();
    }
    record.await_check();
    every(tasks, "readmit", Duration::from_millis(500), move || {
        let (record, broker) = (record.clone(), broker.clone());
        async move {
            reconcile::readmit(&record, &broker).await?;
            Ok::<_, ReconcileError>(Next::Rest)
        }
    });
}

/// One process does it at a time; which one does not matter.
fn keep_queues(record: &Record, broker: &Broker, tasks: &Tasks) {
    let (record, broker) = (record.clone(), broker.clone());
    let token = Uuid::new_v4().to_string();
    let finder = Arc::new(tokio::sync::Mutex::new(broker.queue_finder()));
    every(tasks, "queues", KEEP_EVERY, move || {
        let (record, broker, token) = (record.clone(), broker.clone(), token.clone());
        let finder = finder.clone();
        async move {
            if broker.take_duty("queues", &token, KEEP_EVERY * 2).await? {
                let queues = finder.lock().await.look().await?.clone();
                reconcile::keep_these(&record, &broker, queues).await?;
            }
            Ok::<_, ReconcileError>(Next::Rest)
        }
    });
}

/// One process does it at a time; which one does not matter.
fn beat(record: &Record, broker: &Broker, tasks: &Tasks) {
    let (record, broker) = (record.clone(), broker.clone());
    let token = Uuid::new_v4().to_string();
    every(tasks, "beat", BEAT_EVERY, move || {
        let (record, broker, token) = (record.clone(), broker.clone(), token.clone());
        async move {
            if broker.take_duty("beat", &token, BEAT_EVERY * 2).await? {
                reconcile::beat(&record, &broker).await?;
            }
            Ok::<_, ReconcileError>(Next::Rest)
        }
    });
}

/// Page by page with rests: it comes after a rebuild, when everybody begins to work again.
fn write_owed_logs(record: &Record, broker: &Broker, tasks: &Tasks) {
    let duty = ("owed_logs", OWED_LOGS_EVERY);
    one_at_a_time(record, broker, tasks, duty, |record| async move {
        if !owed_logs::write_next(&record).await? {
            return Ok(Next::Rest);
        }
        tokio::time::sleep(OWED_LOGS_REST).await;
        Ok(Next::Again)
    });
}

fn clear_graves(record: &Record, broker: &Broker, tasks: &Tasks) {
    let duty = ("graves", GRAVES_EVERY);
    one_at_a_time(record, broker, tasks, duty, |record| async move {
        let cleared = control::clear_graves(&record, GRAVE_KEPT).await?;
        Ok(if cleared > 0 { Next::Again } else { Next::Rest })
    });
}

fn roll_up(record: &Record, broker: &Broker, tasks: &Tasks) {
    let duty = ("rollups", ROLLUPS_EVERY);
    one_at_a_time(record, broker, tasks, duty, |record| async move {
        let is_full = rollups::roll_minutes(&record).await?
            | rollups::roll_hours(&record).await?
            | rollups::prune(&record).await?;
        Ok(if is_full { Next::Again } else { Next::Rest })
    });
}

fn seal_changes(record: &Record, broker: &Broker, tasks: &Tasks) {
    let duty = ("change_seals", SEALS_EVERY);
    one_at_a_time(record, broker, tasks, duty, |record| async move {
        change_seals::seal(&record).await.map(again_if)
    });
}

fn forget_old_changes(record: &Record, broker: &Broker, tasks: &Tasks) {
    let duty = ("old_changes", OLD_CHANGES_EVERY);
    one_at_a_time(record, broker, tasks, duty, |record| async move {
        data_changes::forget_old(&record).await.map(again_if)
    });
}

fn forget_old_lookups(record: &Record, broker: &Broker, tasks: &Tasks) {
    let duty = ("old_lookups", OLD_LOOKUPS_EVERY);
    one_at_a_time(record, broker, tasks, duty, |record| async move {
        lookups::forget_old(&record).await.map(again_if)
    });
}

/// In every process: each batch is one's alone, and while Redis is away they go on.
fn carry_out_actions(record: &Record, broker: &Broker, tasks: &Tasks) {
    let (r, b) = (record.clone(), broker.clone());
    every(tasks, "actions", ACTIONS_EVERY, move || {
        let (record, broker) = (r.clone(), b.clone());
        async move { actions::go_on(&record, &broker).await.map(again_if) }
    });
    let duty = ("old_actions", OLD_ACTIONS_EVERY);
    one_at_a_time(record, broker, tasks, duty, |record| async move {
        actions::prune(&record).await.map(again_if)
    });
}

fn find_causes(record: &Record, broker: &Broker, tasks: &Tasks) {
    let duty = ("causes", CAUSES_EVERY);
    one_at_a_time(record, broker, tasks, duty, |record| async move {
        dead_letters::find_causes(&record).await.map(again_if)
    });
}

fn prune_passes(record: &Record, broker: &Broker, tasks: &Tasks) {
    let duty = ("old_passes", OLD_PASSES_EVERY);
    one_at_a_time(record, broker, tasks, duty, |record| async move {
        passes::prune(&record).await.map(again_if)
    });
}

/// In every process: each batch is one's alone. The relay tells Redis of the jobs.
fn make_deliveries(record: &Record, tasks: &Tasks) {
    let record = record.clone();
    every(tasks, "webhooks", WEBHOOKS_EVERY, move || {
        let record = record.clone();
        async move {
            let done = webhook_events::make_deliveries(&record).await?;
            Ok::<_, RecordError>(again_if(done > 0))
        }
    });
}

/// Page by page, round and round.
fn forget_old_deliveries(record: &Record, broker: &Broker, tasks: &Tasks) {
    let duty = ("ended_deliveries", ENDED_DELIVERIES_EVERY);
    let seen = Arc::new(Mutex::new((Uuid::nil(), Uuid::nil())));
    one_at_a_time(record, broker, tasks, duty, move |record| {
        let seen = seen.clone();
        async move {
            let after = *seen.lock().unwrap_or_else(PoisonError::into_inner);
            let next = webhook_upkeep::close_ended(&record, after).await?;
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = next.unwrap_or_default();
            Ok(again_if(next.is_some()))
        }
    });
    let duty = ("old_deliveries", OLD_DELIVERIES_EVERY);
    one_at_a_time(record, broker, tasks, duty, |record| async move {
        webhook_upkeep::prune(&record).await.map(again_if)
    });
}

/// A duty on the record that one process does at a time; which one does not matter.
fn one_at_a_time<F>(
    record: &Record,
    broker: &Broker,
    tasks: &Tasks,
    (name, interval): (&'static str, Duration),
    duty: impl Fn(Record) -> F + Send + 'static,
) where
    F: Future<Output = Result<Next, RecordError>> + Send,
{
    let (record, broker) = (record.clone(), broker.clone());
    let token = Uuid::new_v4().to_string();
    every(tasks, name, interval, move || {
        let (broker, token, doing) = (broker.clone(), token.clone(), duty(record.clone()));
        async move {
            match broker.take_duty(name, &token, interval * 2).await? {
                true => Ok::<_, ReconcileError>(doing.await?),
                false => Ok(Next::Rest),
            }
        }
    });
}

fn relay(record: &Record, broker: &Broker, tasks: &Tasks) {
    let (record, broker) = (record.clone(), broker.clone());
    every(tasks, "relay", Duration::from_millis(250), move || {
        let (record, broker) = (record.clone(), broker.clone());
        async move {
            let relayed = reconcile::relay_outbox(&record, &broker).await?;
            Ok::<_, ReconcileError>(if relayed > 0 { Next::Again } else { Next::Rest })
        }
    });
}

/// Starts the stalled check of all queues. A job of a client that stalls more often than
/// `stalls_max` fails at its next claim, as `BullMQ`'s `maxStalledCount` has it.
pub fn start_rescue(broker: &Broker, stalls_max: u32, tasks: &Tasks) {
    let broker = broker.clone();
    let stalls = Stalls {
        max: stalls_max,
        own_max: OWN_STALLS_MAX,
    };
    let finder = Arc::new(tokio::sync::Mutex::new(broker.queue_finder()));
    every(tasks, "rescue", RESCUE_EVERY, move || {
        let (broker, finder) = (broker.clone(), finder.clone());
        async move {
            let queues = finder.lock().await.look().await?.clone();
            // One queue that can not be checked must not keep the others from it.
            let mut first_error = Ok(Next::Rest);
            for queue in queues {
                let rescued = broker
                    .rescue(&queue, RESCUE_EVERY, stalls, RESCUE_MAX)
                    .await;
                let rescued = match rescued {
                    Ok(rescued) => rescued,
                    Err(error) => {
                        first_error = first_error.and(Err(error));
                        continue;
                    }
                };
                if !rescued.is_empty() {
                    metrics::counter!("bullwark_jobs_rescued_total")
                        .increment(rescued.len() as u64);
                    tracing::warn!(%queue, jobs = rescued.len(), "rescued: their leases ended");
                }
            }
            first_error
        }
    });
}

fn watch_open(record: &Record, broker: &Broker, tasks: &Tasks) {
    let (r, b) = (record.clone(), broker.clone());
    every(tasks, "deliver", Duration::from_millis(500), move || {
        let (record, broker) = (r.clone(), b.clone());
        async move {
            reconcile::deliver_recent(&record, &broker)
                .await
                .map(again_if)
        }
    });

    let r = record.clone();
    every(tasks, "seal", Duration::from_secs(10), move || {
        let record = r.clone();
        async move { reconcile::seal(&record).await.map(again_if) }
    });

    let (r, b) = (record.clone(), broker.clone());
    every(tasks, "silence", Duration::from_secs(60), move || {
        let (record, broker) = (r.clone(), b.clone());
        async move {
            reconcile::reset_silent(&record, &broker)
                .await
                .map(|_| Next::Rest)
        }
    });

    // One page per run, round and round: a steady, small load however many jobs are open.
    let (r, b) = (record.clone(), broker.clone());
    let sweep = Arc::new(tokio::sync::Mutex::new(reconcile::Sweep::default()));
    every(tasks, "sweep", Duration::from_secs(2), move || {
        let (record, broker, sweep) = (r.clone(), b.clone(), sweep.clone());
        async move {
            sweep.lock().await.step(&record, &broker).await?;
            Ok::<_, ReconcileError>(Next::Rest)
        }
    });

    let r = record.clone();
    let pruned = Arc::new(Mutex::new(Uuid::nil()));
    every(tasks, "prune", Duration::from_secs(2), move || {
        let (record, pruned) = (r.clone(), pruned.clone());
        async move {
            let after = *pruned.lock().unwrap_or_else(PoisonError::into_inner);
            let next = open::prune_stragglers(&record, after).await?;
            *pruned.lock().unwrap_or_else(PoisonError::into_inner) = next.unwrap_or_default();
            stragglers::name_owners(&record).await.map(again_if)
        }
    });
}

fn again_if(more: bool) -> Next {
    if more { Next::Again } else { Next::Rest }
}
