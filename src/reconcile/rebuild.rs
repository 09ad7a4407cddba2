//! Redis came back with another memory: emptied, put back to an earlier state, or that of another
//! server. It is made to agree with the record before a job is claimed from it.
//!
//! First come the settings and schedules of queues: a paused queue must not run. Then nothing that
//! is over may run again: what Redis shows as waiting and the record as over is ended there, too,
//! and what only Redis knows is adopted. Then every open job of the record is put back that Redis
//! lacks, in the order in which the jobs came. A job whose worker may be alive is put back as
//! active: the worker takes its lease over, or it ends and the job is rescued.
//!
//! Dying anywhere means that the memory is not noted as compared, and whoever comes next begins
//! again. Every step may be repeated, and two rebuilds at once do the same. If Redis loses its
//! memory again meanwhile, it has another name by then, and is compared again.
//!
//! A client's retry of a job that is over, with its counts reset, looks like an earlier state of
//! Redis. If it came so shortly before the loss that the record had not heard of it, and its event
//! was lost, too, it is undone.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use tokio::time::Instant;

use super::{
    ReconcileError, flows, mirror, over, passes, queues, recover, spoiled, tell_of_passes,
};
use crate::broker::{Broker, Readmit, rebuilt_token};
use crate::fault::{self, Point};
use crate::job::QueueName;
use crate::record::open::{LOAD_MAX, StoredJob};
use crate::record::passes::{NotedPass, PassKind, Repaired};
use crate::record::rebuild::{self, OpenInOrder};
use crate::record::{Record, adopt, owed_logs};

/// How long a worker that runs a job has time to renew its lease in the new memory: several
/// renewals at defaults.
const LEASE: Duration = Duration::from_secs(30);
/// First starts are written behind, about 100 ms. So long is waited before it is read what is open
/// and what is over, so that the record knows what ran when Redis lost its memory: such a job comes
/// back as one that runs, and is not started elsewhere while its worker lives.
const MARKS: Duration = Duration::from_millis(500);
const WHY: &str = "Redis had lost its memory";

/// Makes sure that jobs are claimed from a memory of Redis that agrees with the record. Cheap when
/// it does. False: another process is making it agree; ask again.
pub async fn readmit(record: &Record, broker: &Broker) -> Result<bool, ReconcileError> {
    let change = record.server_change().await?;
    let epoch = broker.epoch().await?;
    if record.unchecked().is_none() && broker.served().as_deref() == Some(epoch.as_str()) {
        return Ok(true);
    }
    if recover::lost_tail(record, broker).await?.is_some() {
        let Some(turn) = rebuild::take_turn(record, broker.prefix()).await? else {
            return Ok(false);
        };
        // Whoever had the turn before may have just done it.
        if let Some(told) = recover::lost_tail(record, broker).await? {
            // Others that claim must notice it, too.
            broker.forget_epoch().await?;
            let (record, broker) = (record.for_look(change), broker.for_repair());
            Box::pin(recover::recover(&record, &broker, &told)).await?;
        }
        drop(turn);
        return Ok(false);
    }
    let is_compared = async || {
        let compared = rebuild::compared(record, broker.prefix()).await?;
        Ok::<_, ReconcileError>(compared.as_ref() == Some(&epoch))
    };
    if !is_compared().await? {
        let Some(turn) = rebuild::take_turn(record, broker.prefix()).await? else {
            return Ok(false);
        };
        // Whoever had the turn before may have just done it.
        if !is_compared().await? {
            let marks = match rebuild::compared(record, broker.prefix()).await? {
                Some(_) => MARKS,
                None => Duration::ZERO,
            };
            let repair = (record.for_look(change), broker.for_repair());
            Box::pin(compare(&repair.0, &repair.1, &epoch, marks)).await?;
            fault::point(Point::RebuildDone);
            repair.0.check_server()?;
            rebuild::set_compared(record, broker.prefix(), &epoch).await?;
            fault::point(Point::RebuildNoted);
        }
        drop(turn);
    }
    record.set_checked(change);
    broker.serve(&epoch);
    // Yet another server may answer by now.
    Ok(record.unchecked().is_none())
}

/// Nothing that runs is put back sooner than `marks` from now.
async fn compare(
    record: &Record,
    broker: &Broker,
    epoch: &str,
    marks: Duration,
) -> Result<(), ReconcileError> {
    let started = Instant::now();
    queues::restore(record, broker).await?;
    fault::point(Point::RebuildSettings);
    let queues = broker.queues().await?;
    let copied = mirror::scan_all(record, broker, &queues).await?;
    fault::point(Point::RebuildAdopted);
    tokio::time::sleep_until(started + marks).await;
    // In an empty memory there is nothing to end, now or later.
    let mut had_jobs = Vec::new();
    for queue in &queues {
        if has_jobs(broker, queue).await? {
            had_jobs.push(queue);
        }
    }
    let mut ended = 0;
    for queue in &had_jobs {
        ended += over::end_all(record, broker, queue).await?;
    }
    fault::point(Point::RebuildEnded);
    let (open, added) = put_back(record, broker, epoch).await?;
    // What ended while the others were put back was neither over before nor open any more.
    for queue in &had_jobs {
        ended += over::end_all(record, broker, queue).await?;
    }
    queues::repair_schedules(broker, &broker.queues().await?).await?;
    let pass = NotedPass {
        kind: PassKind::Rebuild,
        queue: String::new(),
        took: started.elapsed(),
        repaired: Repaired {
            added,
            copied,
            ended,
            settings: 0,
        },
    };
    tell_of_passes(record, broker, &[pass]).await;
    let seconds = started.elapsed().as_secs_f64();
    metrics::counter!("bullwark_rebuilds_total").increment(1);
    metrics::histogram!("bullwark_rebuild_seconds").record(seconds);
    tracing::info!(
        open,
        added,
        ended,
        seconds,
        "this memory of Redis was compared with the record"
    );
    Ok(())
}

async fn has_jobs(broker: &Broker, queue: &QueueName) -> Result<bool, ReconcileError> {
    match broker.counts(queue).await {
        Ok(counts) => {
            let waiting = counts.wait + counts.paused + counts.prioritized;
            Ok(waiting + counts.delayed + counts.waiting_children > 0)
        }
        Err(error) => spoiled(queue, error.into()).map(|()| true),
    }
}

/// Jobs of a page that Redis lacks, loaded.
#[derive(Default)]
struct Absent {
    jobs: Vec<StoredJob>,
    running: Vec<(QueueName, Readmit)>,
    /// The note of their log lines.
    note: Option<i64>,
}

/// Puts back every open job that Redis lacks. Returns how many are open and how many were added.
///
/// While one page goes to Redis, the next one is looked up.
async fn put_back(
    record: &Record,
    broker: &Broker,
    epoch: &str,
) -> Result<(u64, u64), ReconcileError> {
    let (mut open, mut added) = (0, 0);
    let pages = rebuild::open_in_order(record).try_chunks(LOAD_MAX);
    let mut pages = std::pin::pin!(pages);
    let mut next = Absent::default();
    loop {
        let page = pages.next().await.transpose();
        let page = page.map_err(|error| ReconcileError::Record(error.1))?;
        let is_end = page.is_none();
        let page = page.unwrap_or_default();
        open += page.len() as u64;
        let current = std::mem::take(&mut next);
        let (looked_up, delivered) = tokio::join!(
            look_up(record, broker, epoch, &page),
            deliver(record, broker, &current),
        );
        if let (Err(_), Some(note)) = (&delivered, current.note) {
            // It is tried again from the beginning, and said again. Dying here says it twice.
            owed_logs::forget(record, note).await?;
        }
        next = looked_up?;
        delivered?;
        added += current.jobs.len() as u64;
        if is_end && next.jobs.is_empty() {
            return Ok((open, added));
        }
    }
}

/// Corrects what Redis has of a page, loads what it lacks, and says so in the logs. That comes
/// before it is done: whoever dies in between has it said twice, and nothing is done unsaid.
async fn look_up(
    record: &Record,
    broker: &Broker,
    epoch: &str,
    page: &[OpenInOrder],
) -> Result<Absent, ReconcileError> {
    let mut queues: HashMap<&str, Vec<&OpenInOrder>> = HashMap::new();
    for job in page {
        queues.entry(&job.job_queue).or_default().push(job);
    }
    let (mut absent, mut present, mut running, mut elsewhere) = (vec![], vec![], vec![], vec![]);
    for (name, jobs) in queues {
        let Ok(queue) = name.parse::<QueueName>() else {
            tracing::error!(queue = name, "jobs of a queue that Redis can't have");
            continue;
        };
        let wanted: Vec<Readmit> = jobs.iter().map(|job| wanted(job)).collect();
        let known = match broker.readmit(&queue, &wanted, LEASE).await {
            Ok(known) => known,
            Err(error) => {
                spoiled(&queue, error.into())?;
                continue; // they stay open, and the sweep tries them one by one
            }
        };
        for ((job, wanted), is_known) in jobs.iter().zip(wanted).zip(known) {
            if job.is_foreign {
                present.push(job.id);
            }
            if is_known {
                continue;
            }
            absent.push(job.id);
            if job.is_run_elsewhere {
                elsewhere.push(job.id);
            } else if wanted.token.is_some() {
                running.push((queue.clone(), wanted));
            }
        }
    }
    // From here on, absent means removed by a client.
    adopt::seen_in(record, &present, epoch).await?;
    mirror::give_back(record, &elsewhere).await?;
    let (mut jobs, mut note) = (Vec::new(), None);
    if !absent.is_empty() {
        // What is too young to be touched comes by its own delivery, or by `deliver_recent`.
        jobs = passes::load_settled(record, &absent, &mut true).await?;
        let place: HashMap<_, _> = page.iter().enumerate().map(|(at, j)| (j.id, at)).collect();
        jobs.sort_by_key(|stored| place.get(&stored.job.id).copied());
        note = passes::note_later(record, &jobs, WHY).await?;
    }
    Ok(Absent {
        jobs,
        running,
        note,
    })
}

fn wanted(job: &OpenInOrder) -> Readmit {
    let worker = job.worker_id.as_deref().filter(|_| job.is_run_here);
    Readmit {
        id: job.wire_id.clone(),
        starts: job.attempt.unsigned_abs(),
        starts_max: None,
        token: worker.map(rebuilt_token),
    }
}

async fn deliver(record: &Record, broker: &Broker, absent: &Absent) -> Result<(), ReconcileError> {
    if absent.jobs.is_empty() {
        return Ok(());
    }
    passes::keep_counters(broker, &absent.jobs).await?;
    if let Err(error) = flows::deliver(record, broker, &absent.jobs).await {
        if !error.is_about_entries() {
            return Err(error);
        }
        let mut queues: HashMap<&QueueName, Vec<StoredJob>> = HashMap::new();
        for stored in &absent.jobs {
            let queue = queues.entry(&stored.job.queue);
            queue.or_default().push(stored.clone());
        }
        for (queue, jobs) in queues {
            let delivered = flows::deliver(record, broker, &jobs).await;
            delivered.or_else(|error| spoiled(queue, error))?;
        }
    }
    fault::point(Point::RebuildAdded);
    let mut running: HashMap<&QueueName, Vec<Readmit>> = HashMap::new();
    for (queue, job) in &absent.running {
        running.entry(queue).or_default().push(job.clone());
    }
    for (queue, jobs) in running {
        broker.readmit(queue, &jobs, LEASE).await?;
    }
    Ok(())
}
