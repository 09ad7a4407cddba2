//! Limits were changed: those who wait were told moments by the old ones, and come sooner now.
//!
//! The record notes it with the limits, and a duty does it once all limiters know them, so it needs
//! neither Redis nor the caller at that moment. Where the process may die: with the jobs put off to
//! sooner moments in the record, or in both stores, and their turns not moved. The note is there
//! still, all of it is done again, and who came meanwhile found a turn that was kept.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;
use uuid::Uuid;

use super::QuotaError;
use crate::broker::{Broker, BrokerError, Moved, QuotaTurn};
use crate::job::quota::{Limits, Window};
use crate::record::Record;
use crate::record::quotas;

/// Jobs that are moved at once, in the record and in Redis.
const CHUNK: usize = 500;
const AT_ONCE: usize = 16;
/// Between two jobs that come back.
const SPACING_MS: (f64, f64) = (10.0, 1000.0);
/// Who comes as soon as that anyway stays.
const SOON_MS: i64 = 1000;

/// Brings forward who waits for one quota whose limits were changed: one after the other, as many
/// at a time as the new limits allow. True: there may be another quota.
pub async fn bring_forward(record: &Record, broker: &Broker) -> Result<bool, QuotaError> {
    let Some(due) = quotas::due_turns(record).await? else {
        return Ok(false);
    };
    let limits: Option<Limits> = due
        .limits
        .clone()
        .and_then(|said| serde_json::from_value(said).ok());
    let spacing = spacing_ms(&limits.unwrap_or_default());
    let read = Instant::now();
    let (now_ms, turns) = broker.quota_turns(&due.key).await?;
    let (mut at_ms, mut moved) = (now_ms as f64, Vec::new());
    for turn in &turns {
        let sooner = at_ms as i64;
        if sooner + SOON_MS < turn.at_ms {
            moved.push((turn, sooner));
        }
        at_ms = at_ms.min(turn.at_ms as f64) + spacing * f64::from(turn.cost);
    }
    tracing::info!(
        key = due.key,
        jobs = moved.len(),
        "limits were changed: jobs come sooner"
    );
    for chunk in moved.chunks(CHUNK) {
        let passed_ms = read.elapsed().as_millis() as i64;
        put_off(record, broker, chunk, now_ms + passed_ms).await?;
        broker
            .move_quota_turns(&due.key, chunk, at_ms as i64)
            .await?;
    }
    if moved.is_empty() {
        broker.move_quota_turns(&due.key, &[], at_ms as i64).await?;
    }
    quotas::turns_told(record, &due).await?;
    Ok(true)
}

/// In the record first. A job that is not delayed, because it runs or is gone, is left alone.
async fn put_off(
    record: &Record,
    broker: &Broker,
    moved: &[(&QuotaTurn, i64)],
    now_ms: i64,
) -> Result<(), QuotaError> {
    let in_ms = |at_ms: i64| (at_ms - now_ms).max(0);
    let jobs = moved.iter().filter_map(|(turn, at_ms)| {
        let (id, queue) = turn.job()?;
        Some((id, queue, in_ms(*at_ms)))
    });
    let jobs: Vec<_> = jobs.collect();
    // Jobs of other clients have other names in the record, which follows Redis for them.
    let known = jobs
        .iter()
        .filter_map(|(id, _, ms)| Some((id.parse::<Uuid>().ok()?, *ms)));
    let (ids, waits): (Vec<_>, Vec<_>) = known.unzip();
    quotas::bring_forward(record, (&ids, &waits)).await?;
    let calls: Vec<_> = jobs
        .iter()
        .map(|(id, queue, ms)| broker.change_delay(queue, id, *ms))
        .collect();
    let calls = futures_util::stream::iter(calls).buffer_unordered(AT_ONCE);
    let done: Vec<Result<Moved, BrokerError>> = calls.collect().await;
    for one in done {
        one?;
    }
    Ok(())
}

/// One after the other, as the shortest window has it.
fn spacing_ms(limits: &Limits) -> f64 {
    let shortest = limits.windows.iter().min_by_key(|window| window.per_ms());
    let per_unit = shortest.map_or(0.0, |window| {
        let units = match window {
            Window::Bucket { refill, .. } => *refill,
            other => other.max(),
        };
        Duration::from_millis(window.per_ms()).as_secs_f64() * 1000.0 / f64::from(units.max(1))
    });
    per_unit.clamp(SPACING_MS.0, SPACING_MS.1)
}
