//! Reconcile: the door that repairs. Redis is made to agree with the record.
//!
//! Every pass is bounded, safe to repeat and safe to run in several processes at once. None is
//! needed while everything works; each one names what it repairs:
//!
//! * [`relay_outbox`]: jobs enqueued inside transactions, and what people did to jobs;
//! * [`deliver_recent`]: jobs committed to the record whose way to Redis was cut short;
//! * [`sweep_open`]: open jobs that Redis has forgotten;
//! * [`reset_silent`]: running jobs whose worker gives no sign: the specification's rule;
//! * [`readmit`]: a memory of Redis that was emptied or put back is made to agree, before a job is
//!   claimed from it;
//! * [`beat`]: notices a record that lost its tail, which then gets back what Redis knows;
//! * [`Lingering`]: what is over does not wait in Redis;
//! * [`keep_queues`]: the settings and schedules of queues are kept in the record, too;
//! * [`seal`]: keeps finding the open jobs cheap;
//! * [`Mirror`]: what `BullMQ` clients did in Redis is written into the record;
//! * [`verify`]: changes nothing, and tells whether both stores agree.

mod all;
mod flows;
mod halves;
mod job_logs;
mod links;
mod mirror;
mod orphans;
mod over;
mod passes;
mod queues;
mod rebuild;
mod recover;
mod relay;
mod silence;
mod turns;
mod verify;

use crate::broker::{Broker, BrokerError, Refusal};
use crate::job::QueueName;
use crate::record::{Record, RecordError};

use crate::record::passes::{self as noted, NotedPass};
pub use all::{Reconciled, reconcile_all};
pub use job_logs::copy_logs;
pub use mirror::{Mirror, catch_up, put_back_by_clients, start as start_mirror};
pub use over::Lingering;
pub use passes::{Sweep, deliver_recent, seal, sweep_open};
pub use queues::{keep_queues, keep_these};
pub(crate) use queues::{tell_schedule, tell_settings};
pub use rebuild::readmit;
pub use recover::beat;
pub use relay::{relay, relay_outbox};
pub use silence::reset_silent;
pub use verify::{Difference, Verdict, verify};

/// Notes passes for people. It is worth no pass: what is not noted is noted after the next one.
async fn tell_of_passes(record: &Record, broker: &Broker, passes: &[NotedPass]) {
    if passes.is_empty() {
        return;
    }
    if let Err(error) = noted::note(record, broker.prefix(), passes).await {
        tracing::debug!(%error, "passes are not noted");
    }
}

/// One of the stores did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// A key of a queue that holds something else, as somebody may have put it there, holds up that
/// queue and no other one: it is told, and passed over. Everything else is an error.
fn spoiled(queue: &QueueName, error: ReconcileError) -> Result<(), ReconcileError> {
    match error.is_about_entries() {
        true => {
            tracing::error!(%queue, %error, "a queue can't be worked with: passed over");
            Ok(())
        }
        false => Err(error),
    }
}

impl ReconcileError {
    /// True when a store is away: the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Record(error) => error.is_unavailable(),
            Self::Broker(error) => error.is_unavailable(),
        }
    }

    /// True when a value or a key may be to blame, so that other entries may go through.
    fn is_about_entries(&self) -> bool {
        match self {
            Self::Record(error) => {
                matches!(error, RecordError::Refused { .. } | RecordError::Corrupt(_))
            }
            Self::Broker(BrokerError::Corrupt { .. }) => true,
            Self::Broker(BrokerError::Refused(refusal)) => {
                matches!(refusal, Refusal::JobId(_) | Refusal::Priority(_))
            }
            Self::Broker(
                BrokerError::Unavailable { .. }
                | BrokerError::OtherMemory { .. }
                | BrokerError::TooLate { .. },
            ) => false,
        }
    }
}
