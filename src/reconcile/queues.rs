//! Queues as a whole: their settings and their schedules are kept in the record, too.
//!
//! What Bullwark changes is in the record before Redis is told (`control`); if nobody came to tell
//! it, this does. What `BullMQ` clients change is copied a moment later. When Redis comes back with
//! another memory, everything is given back before its jobs are.
//!
//! Redis is looked at only while it has the memory that was compared with the record, before and
//! after: what one that lost its memory does not show was not removed by anybody.

use std::collections::HashMap;
use std::time::Instant;

use super::{ReconcileError, spoiled, tell_of_passes, turns};
use crate::broker::{Broker, BrokerError, LIST_MAX};
use crate::fault::{self, Point};
use crate::job::QueueName;
use crate::record::Record;
use crate::record::passes::{NotedPass, PassKind, Repaired};
use crate::record::queues::{self, KnownQueue};
use crate::record::schedules::{self, KnownSchedule};

/// Brings the record and Redis together about the settings and schedules of all queues. Returns how
/// much differed.
pub async fn keep_queues(record: &Record, broker: &Broker) -> Result<u64, ReconcileError> {
    keep_these(record, broker, broker.queues().await?).await
}

/// The same for queues that the caller knows of: finding all of them walks over all keys.
pub async fn keep_these(
    record: &Record,
    broker: &Broker,
    queues: impl IntoIterator<Item = QueueName>,
) -> Result<u64, ReconcileError> {
    if !is_compared(broker).await? {
        return Ok(0);
    }
    let began = Instant::now();
    let mut changed = tell_or_forget_schedules(record, broker).await?;
    let mut known = known_queues(record, broker.prefix()).await?;
    for queue in queues {
        let kept = keep_settings(record, broker, &queue, known.remove(&queue)).await;
        changed += kept.or_else(|error| spoiled(&queue, error).map(|()| 0))?;
        let copied = copy_schedules(record, broker, &queue).await;
        changed += copied.or_else(|error| spoiled(&queue, error).map(|()| 0))?;
    }
    let pass = NotedPass {
        kind: PassKind::Queues,
        queue: String::new(),
        took: began.elapsed(),
        repaired: Repaired {
            settings: changed,
            ..Repaired::default()
        },
    };
    tell_of_passes(record, broker, &[pass]).await;
    Ok(changed)
}

async fn is_compared(broker: &Broker) -> Result<bool, BrokerError> {
    let epoch = broker.epoch().await?;
    Ok(broker.served().as_deref() == Some(epoch.as_str()))
}

async fn known_queues(
    record: &Record,
    prefix: &str,
) -> Result<HashMap<QueueName, KnownQueue>, ReconcileError> {
    let (mut known, mut after) = (HashMap::new(), String::new());
    loop {
        let (page, next) = queues::page(record, prefix, &after).await?;
        known.extend(page.into_iter().map(|known| (known.queue.clone(), known)));
        match next {
            Some(next) => after = next,
            None => return Ok(known),
        }
    }
}

async fn keep_settings(
    record: &Record,
    broker: &Broker,
    queue: &QueueName,
    known: Option<KnownQueue>,
) -> Result<u64, ReconcileError> {
    let prefix = broker.prefix();
    if let Some(known) = known.as_ref().filter(|known| !known.is_told) {
        tell_settings(record, broker, known).await?;
        return Ok(1);
    }
    let shown = broker.queue_meta(queue).await?.settings();
    if known.as_ref().map(|known| &known.settings) == Some(&shown) || !is_compared(broker).await? {
        return Ok(0);
    }
    let version = known.map_or(0, |known| known.version);
    queues::copy(record, prefix, queue, &shown, version).await?;
    Ok(1)
}

/// Tells Redis what Bullwark has changed of a queue. The rest stays as a client may have set it.
pub(crate) async fn tell_settings(
    record: &Record,
    broker: &Broker,
    known: &KnownQueue,
) -> Result<(), ReconcileError> {
    broker.change_settings(&known.queue, &known.untold).await?;
    if let Some(is_fair) = known.untold.is_fair {
        turns::arrange(record, broker, &known.queue, is_fair).await?;
    }
    fault::point(Point::AfterSettingsTold);
    queues::set_told(record, broker.prefix(), &known.queue, known.version).await?;
    Ok(())
}

async fn copy_schedules(
    record: &Record,
    broker: &Broker,
    queue: &QueueName,
) -> Result<u64, ReconcileError> {
    let (mut first, mut copied) = (0, 0);
    loop {
        let shown = broker.stored_schedules(queue, first).await?;
        let is_last = shown.len() < LIST_MAX;
        first += shown.len();
        if !shown.is_empty() {
            let ids: Vec<String> = shown.iter().map(|shown| shown.id.clone()).collect();
            let known = schedules::known(record, broker.prefix(), queue, &ids).await?;
            let known: HashMap<&str, &KnownSchedule> = known
                .iter()
                .map(|known| (known.schedule.id.as_str(), known))
                .collect();
            let differ: Vec<_> = shown
                .into_iter()
                .filter_map(|shown| match known.get(shown.id.as_str()) {
                    Some(known) if known.schedule == shown || !known.is_told => None,
                    Some(known) => Some((shown, known.version)),
                    None => Some((shown, 0)),
                })
                .collect();
            if !differ.is_empty() && is_compared(broker).await? {
                copied += schedules::copy_many(record, broker.prefix(), queue, &differ).await?;
            }
        }
        if is_last {
            return Ok(copied);
        }
    }
}

/// Tells Redis of schedules that it was not told of, and forgets those that a client has removed.
async fn tell_or_forget_schedules(record: &Record, broker: &Broker) -> Result<u64, ReconcileError> {
    let mut changed = 0;
    let mut after = (String::new(), String::new());
    loop {
        let (page, next) = schedules::page(record, broker.prefix(), (&after.0, &after.1)).await?;
        for known in page.iter().filter(|known| !known.is_told) {
            tell_schedule(record, broker, known).await?;
            changed += 1;
        }
        for part in page.chunk_by(|a, b| a.queue == b.queue) {
            let queue = &part[0].queue;
            let told: Vec<&KnownSchedule> = part.iter().filter(|known| known.is_told).collect();
            let ids: Vec<String> = told.iter().map(|known| known.schedule.id.clone()).collect();
            let is_there = broker.has_schedules(queue, &ids).await?;
            let gone: Vec<(String, i64)> = told
                .iter()
                .zip(is_there)
                .filter(|(_, is_there)| !is_there)
                .map(|(known, _)| (known.schedule.id.clone(), known.version))
                .collect();
            if !gone.is_empty() && is_compared(broker).await? {
                changed += schedules::forget_many(record, broker.prefix(), queue, &gone).await?;
            }
        }
        match next {
            Some(next) => after = next,
            None => return Ok(changed),
        }
    }
}

/// Tells Redis what the record says of a schedule. One that it refuses is given up: nobody waits
/// for it any more.
pub(crate) async fn tell_schedule(
    record: &Record,
    broker: &Broker,
    known: &KnownSchedule,
) -> Result<(), ReconcileError> {
    let (queue, id) = (&known.queue, known.schedule.id.as_str());
    if known.is_removed {
        broker.remove_schedule(queue, id).await?;
    } else {
        let Some((schedule, template)) = known.schedule.read() else {
            tracing::error!(%queue, schedule = id, "a schedule that can't be read is given up");
            return show_told(record, broker, known).await;
        };
        match broker
            .upsert_schedule(queue, id, &schedule, &template)
            .await
        {
            Err(error @ BrokerError::Refused(_)) => {
                tracing::error!(%queue, schedule = id, %error, "a schedule is given up");
            }
            made => drop(made?),
        }
    }
    fault::point(Point::AfterSettingsTold);
    show_told(record, broker, known).await?;
    Ok(())
}

/// Notes that Redis was told, and how it shows the schedule.
async fn show_told(
    record: &Record,
    broker: &Broker,
    known: &KnownSchedule,
) -> Result<(), ReconcileError> {
    let (queue, id) = (&known.queue, known.schedule.id.as_str());
    let shown = broker.stored_schedule(queue, id).await?;
    let prefix = broker.prefix();
    schedules::set_told(record, prefix, queue, id, known.version, shown.as_ref()).await?;
    Ok(())
}

async fn apply_settings(
    record: &Record,
    broker: &Broker,
    known: &KnownQueue,
) -> Result<(), ReconcileError> {
    broker.apply_settings(&known.queue, &known.settings).await?;
    match known.settings.is_fair {
        // Some may have come before it was known.
        true => turns::arrange(record, broker, &known.queue, true).await,
        false => Ok(()),
    }
}

/// Gives another memory of Redis what the record knows of queues as a whole.
pub(super) async fn restore(record: &Record, broker: &Broker) -> Result<(), ReconcileError> {
    let mut after = String::new();
    loop {
        let (page, next) = queues::page(record, broker.prefix(), &after).await?;
        for known in &page {
            let applied = apply_settings(record, broker, known).await;
            applied.or_else(|error| spoiled(&known.queue, error))?;
        }
        match next {
            Some(next) => after = next,
            None => break,
        }
    }
    let mut after = (String::new(), String::new());
    loop {
        let (page, next) = schedules::page(record, broker.prefix(), (&after.0, &after.1)).await?;
        for part in page.chunk_by(|a, b| a.queue == b.queue) {
            let stay = part.iter().filter(|known| known.is_told);
            let stay: Vec<_> = stay.map(|known| known.schedule.clone()).collect();
            let restored = broker.restore_schedules(&part[0].queue, &stay).await;
            restored
                .map(drop)
                .or_else(|error| spoiled(&part[0].queue, error.into()))?;
        }
        match next {
            Some(next) => after = next,
            None => return Ok(()),
        }
    }
}

/// Lets the schedules of these queues go on whose iterations were lost.
pub(super) async fn repair_schedules(
    broker: &Broker,
    queues: &[QueueName],
) -> Result<(), ReconcileError> {
    for queue in queues {
        let mut next = Some(0);
        while let Some(first) = next {
            next = match broker.repair_schedules(queue, first).await {
                Ok(repaired) => repaired.next,
                Err(error) => spoiled(queue, error.into()).map(|()| None)?,
            };
        }
    }
    Ok(())
}
