//! What Redis knows of a queue, whosever its jobs are.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::broker::{Broker, BrokerError, QueueWorker};
use crate::job::QueueName;

/// The workers of all queues; none: the server does not tell.
pub(super) type Workers = BTreeMap<QueueName, Vec<QueueWorker>>;

/// Asks once for all queues.
pub(super) async fn workers(broker: &Broker) -> Option<Workers> {
    let told = |error: &BrokerError| tracing::debug!(%error, "workers are not known");
    broker.all_workers().await.inspect_err(told).ok()
}

/// Jobs of a queue by their state in Redis, and what holds them.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct QueueFigures {
    /// Jobs that could start.
    waiting: u64,
    delayed: u64,
    active: u64,
    waiting_children: u64,
    paused: bool,
    concurrency: Option<u64>,
    /// As many run as may run at a time.
    at_concurrency: bool,
    rate_limit_max: Option<u64>,
    rate_limit_duration_ms: Option<u64>,
    /// For so long nothing starts because of the rate limit.
    closed_for_ms: Option<u64>,
    /// Connections that wait for jobs; null: the server does not tell.
    workers: Option<usize>,
}

/// Looks at one queue; none: Redis does not tell.
pub(super) async fn look(
    broker: &Broker,
    queue: &QueueName,
    workers: Option<&Workers>,
) -> Option<QueueFigures> {
    let told = |error: &BrokerError| tracing::debug!(%error, %queue, "not seen");
    figures(broker, queue, workers).await.inspect_err(told).ok()
}

async fn figures(
    broker: &Broker,
    queue: &QueueName,
    workers: Option<&Workers>,
) -> Result<QueueFigures, BrokerError> {
    let counts = broker.counts(queue).await?;
    let meta = broker.queue_meta(queue).await?;
    let closed_for = broker.rate_limit_ttl(queue, None).await?;
    let count_workers = |all: &Workers| all.get(queue).map_or(0, Vec::len);
    Ok(QueueFigures {
        waiting: counts.wait + counts.paused + counts.prioritized,
        delayed: counts.delayed,
        active: counts.active,
        waiting_children: counts.waiting_children,
        paused: counts.is_paused,
        concurrency: meta.concurrency,
        at_concurrency: meta.concurrency.is_some_and(|max| counts.active >= max),
        rate_limit_max: meta.rate_max,
        rate_limit_duration_ms: meta.rate_duration_ms,
        closed_for_ms: closed_for.map(|left| left.as_millis() as u64),
        workers: workers.map(count_workers),
    })
}
