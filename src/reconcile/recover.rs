//! The record itself went back in time: it was restored from a backup, or a standby that lagged was
//! promoted. Then, and only then, what Redis knows of Bullwark's own jobs is written back into the
//! record: jobs that it lacks, and outcomes that it lacks. Each is marked, and an alert is raised.
//!
//! It is noticed by a mark that grows in the record and is told to Redis. A record that is behind
//! the mark in Redis lost its tail. The mark is looked at whenever another server answers for the
//! record, which a restart, a failover and a new database are, and every two seconds.
//!
//! What Redis has let go of is not recovered: jobs that were over and are kept no longer there.
//! They are open again in the record, or absent, and their effects in its database are undone with
//! them.

use super::{ReconcileError, mirror, spoiled};
use crate::broker::{Broker, BrokerState, LIST_MAX};
use crate::fault::{self, Point};
use crate::job::QueueName;
use crate::record::alerts::{self, AlertKind};
use crate::record::mark::{self, RecordMark};
use crate::record::{Record, open, rebuild};

/// What was written back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Recovered {
    pub(super) adopted: u64,
    pub(super) outcomes: u64,
}

/// Moves the mark on and tells Redis. A record that has lost its tail is not told: then nothing is
/// claimed any more until it was recovered (see [`super::readmit`]).
pub async fn beat(record: &Record, broker: &Broker) -> Result<(), ReconcileError> {
    let (now, lost) = look(record, broker).await?;
    if lost.is_none() {
        let mark = mark::beat(record, broker.prefix()).await?;
        // Between the two another server may have taken over, whose mark would hide its loss.
        if !mark.may_lack(&now) {
            broker.set_record_mark(&mark.to_string()).await?;
            return Ok(());
        }
    }
    broker.forget_epoch().await?;
    broker.stop_serving();
    Ok(())
}

/// The mark that Redis was told, if this record may lack what that one had.
pub(super) async fn lost_tail(
    record: &Record,
    broker: &Broker,
) -> Result<Option<RecordMark>, ReconcileError> {
    Ok(look(record, broker).await?.1)
}

/// The mark now, and the one that Redis was told, if the record may lack what that one had.
async fn look(
    record: &Record,
    broker: &Broker,
) -> Result<(RecordMark, Option<RecordMark>), ReconcileError> {
    // Redis first: a mark that is moved on in between is then older, and no loss.
    let told = broker.record_mark().await?;
    let now = mark::get(record, broker.prefix()).await?;
    let told = told.and_then(|told| told.parse::<RecordMark>().ok());
    let lost = told.filter(|told| now.may_lack(told));
    Ok((now, lost))
}

/// Writes back what Redis knows of all jobs, and raises the alert. Safe to repeat: it begins again
/// until Redis has been told the new mark, which is done last.
pub(super) async fn recover(
    record: &Record,
    broker: &Broker,
    told: &RecordMark,
) -> Result<Recovered, ReconcileError> {
    // Of the server that is written to: should yet another one answer, it is looked at in turn.
    let now = mark::get(record, broker.prefix()).await?;
    let mut recovered = Recovered::default();
    for queue in broker.queues().await? {
        let done = recover_queue(record, broker, &queue, &mut recovered).await;
        done.or_else(|error| spoiled(&queue, error))?;
    }
    let message = match recovered == Recovered::default() {
        true => "the record is another one, and lacks nothing that Redis knows".to_owned(),
        false => format!(
            "the record had lost its tail: {} jobs and {} outcomes were written back from Redis",
            recovered.adopted, recovered.outcomes
        ),
    };
    let details = serde_json::json!({
        "was": told.to_string(),
        "is": now.to_string(),
        "jobs": recovered.adopted,
        "outcomes": recovered.outcomes,
    });
    alerts::raise(record, AlertKind::RecordLostItsTail, &message, &details).await?;
    metrics::counter!("bullwark_record_recoveries_total").increment(1);
    tracing::error!(
        was = %told,
        is = %now,
        jobs = recovered.adopted,
        outcomes = recovered.outcomes,
        message
    );
    fault::point(Point::BeforeMarkTold);
    record.check_server()?;
    broker.set_record_mark(&now.to_string()).await?;
    Ok(recovered)
}

async fn recover_queue(
    record: &Record,
    broker: &Broker,
    queue: &QueueName,
    recovered: &mut Recovered,
) -> Result<(), ReconcileError> {
    for state in BrokerState::LISTED {
        let mut next = Some(0);
        while let Some(offset) = next {
            let page = broker.list(queue, state, offset, LIST_MAX).await?;
            let is_over = matches!(state, BrokerState::Completed | BrokerState::Failed);
            let done = recover_page(record, broker, queue, page.ids, is_over).await?;
            recovered.adopted += done.adopted;
            recovered.outcomes += done.outcomes;
            next = page.next;
        }
    }
    Ok(())
}

async fn recover_page(
    record: &Record,
    broker: &Broker,
    queue: &QueueName,
    wire_ids: Vec<String>,
    is_over: bool,
) -> Result<Recovered, ReconcileError> {
    let known = rebuild::known_on_wire(record, queue, &wire_ids).await?;
    let is_unknown = |id: &String| !known.contains_key(id) && !id.starts_with("0:");
    let unknown: Vec<String> = wire_ids
        .iter()
        .filter(|id| is_unknown(id))
        .cloned()
        .collect();
    let adopted = mirror::recover_unknown(record, broker, queue, unknown).await?;
    let mut outcomes = 0;
    if is_over {
        let open: Vec<_> = known
            .values()
            .filter(|(_, status)| !status.is_final())
            .map(|(id, _)| *id)
            .collect();
        for ids in open.chunks(open::LOAD_MAX) {
            outcomes += mirror::recover_outcomes(record, broker, queue, ids).await?;
        }
    }
    Ok(Recovered { adopted, outcomes })
}
