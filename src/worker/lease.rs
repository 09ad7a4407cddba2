//! Keeping leases alive, on a thread of its own.
//!
//! A handler that hogs every thread of the runtime must not cost the other jobs their leases. So
//! the renewal has a thread, a runtime and a connection to Redis that nothing else uses.
//!
//! When Redis says that a lease is gone, the record is asked whether the job went elsewhere: Redis
//! may have forgotten the job (an emptied or restarted server), and then the attempt goes on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::events::{Events, WorkerEvent};
use super::held::{Held, HeldJobs};
use super::options::Manners;
use crate::broker::{Broker, BrokerOptions};
use crate::job::QueueName;
use crate::record::{Record, start};

/// Renewals per lease: two may fail before it is lost.
const RENEWALS_PER_LEASE: u32 = 3;
/// Rounds of lost leases that wait for the record.
const ROUNDS_MAX: usize = 16;

/// The leases that Redis does not know any more, as (id, attempt).
pub(super) type LostLeases = mpsc::Receiver<Vec<(Uuid, i32)>>;

/// How leases are renewed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Renewal {
    lease: Duration,
    every: Duration,
}

impl Renewal {
    /// None: this worker renews no leases.
    pub(super) fn of(lease: Duration, manners: Option<&Manners>) -> Option<Self> {
        let every = match manners {
            Some(manners) => manners.renew_every?,
            None => lease / RENEWALS_PER_LEASE,
        };
        let every = every.max(Duration::from_millis(1));
        Some(Self { lease, every })
    }
}

/// Starts the thread. It ends when `stop` is cancelled.
pub(super) fn start_thread(
    options: BrokerOptions,
    held: Arc<HeldJobs>,
    renewal: Renewal,
    stop: CancellationToken,
) -> std::io::Result<LostLeases> {
    let (sender, receiver) = mpsc::channel(ROUNDS_MAX);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("bullwark-lease".to_owned())
        .spawn(move || {
            runtime.block_on(async move {
                tokio::select! {
                    () = run(options, &held, renewal, &sender) => {}
                    () = stop.cancelled() => {}
                }
            });
        })?;
    Ok(receiver)
}

async fn run(
    options: BrokerOptions,
    held: &HeldJobs,
    renewal: Renewal,
    lost: &mpsc::Sender<Vec<(Uuid, i32)>>,
) {
    let mut ticks = tokio::time::interval(renewal.every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut broker = None;
    loop {
        ticks.tick().await;
        if broker.is_none() {
            match Broker::connect(options.clone()).await {
                Ok(connected) => broker = Some(connected),
                Err(error) => {
                    tracing::warn!(%error, "no connection for leases");
                    continue;
                }
            }
        }
        let Some(broker) = &broker else { continue };
        let gone = extend_all(broker, held, renewal.lease).await;
        if !gone.is_empty() {
            // Never waits: renewing goes before judging, and the next renewal finds them again.
            lost.try_send(gone).ok();
        }
    }
}

/// Renews every lease; returns those that are gone. An error renews nothing and loses nothing: the
/// next tick tries again.
async fn extend_all(broker: &Broker, held: &HeldJobs, lease: Duration) -> Vec<(Uuid, i32)> {
    let mut queues: HashMap<QueueName, Vec<Arc<Held>>> = HashMap::new();
    for job in held.all() {
        queues.entry(job.queue.clone()).or_default().push(job);
    }
    let mut gone = Vec::new();
    for (queue, jobs) in queues {
        let leases: Vec<(String, String)> = jobs
            .iter()
            .map(|job| (job.wire_id.clone(), job.token.clone()))
            .collect();
        match broker.extend(&queue, &leases, lease).await {
            Ok(kept) => {
                let lost = jobs
                    .iter()
                    .zip(kept)
                    .filter(|(job, kept)| !kept && job.runs());
                gone.extend(lost.map(|(job, _)| (job.id, job.attempt)));
            }
            Err(error) => tracing::warn!(%error, %queue, "leases not extended"),
        }
    }
    gone
}

/// Who decides what a lost lease means.
pub(super) struct Judge {
    pub(super) record: Record,
    pub(super) worker_id: Arc<str>,
    pub(super) held: Arc<HeldJobs>,
    /// Given: nobody is asked, what Redis has lost is lost. Told of it.
    pub(super) strict: Option<Events>,
}

impl Judge {
    /// Tells the handlers of jobs that are not ours any more, until the renewals end.
    pub(super) async fn run(self, mut lost: LostLeases) {
        while let Some(gone) = lost.recv().await {
            if let Some(events) = &self.strict {
                self.take_away(&gone, events);
                continue;
            }
            for batch in gone.chunks(start::START_MAX) {
                match start::still_held(&self.record, &self.worker_id, batch).await {
                    Ok(ours) => {
                        for (id, attempt) in batch.iter().filter(|(id, _)| !ours.contains(id)) {
                            self.take(*id, *attempt);
                        }
                    }
                    // Undecided: the lease is asked for again at the next renewal.
                    Err(error) => tracing::warn!(%error, "lost leases not judged"),
                }
            }
        }
    }

    fn take_away(&self, gone: &[(Uuid, i32)], events: &Events) {
        let ids: Vec<String> = gone
            .iter()
            .filter_map(|(id, attempt)| self.take(*id, *attempt))
            .collect();
        if ids.is_empty() {
            return;
        }
        events.tell(WorkerEvent::LeasesLost { ids: ids.clone() });
        for id in ids {
            events.error(format!("could not renew lock for job {id}"));
        }
    }

    /// Tells the handler; returns the id on the wire, unless it was told before.
    fn take(&self, id: Uuid, attempt: i32) -> Option<String> {
        let job = self.held.get(id).filter(|job| job.attempt == attempt)?;
        if job.lost.is_cancelled() {
            return None;
        }
        tracing::warn!(job.id = %id, attempt, "lease lost");
        metrics::counter!("bullwark_leases_lost_total").increment(1);
        job.lost.cancel();
        Some(job.wire_id.clone())
    }
}
