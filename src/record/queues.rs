//! The settings of queues, as the record keeps them for the day when Redis forgets.

use sqlx::PgConnection;

use super::access::{self, Audit, By};
use super::{Record, RecordError};
use crate::job::{QueueChange, QueueName, QueueSettings};

/// The most queues of one read.
pub const QUEUES_PAGE: i64 = 1000;

/// A queue with what the record says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownQueue {
    pub queue: QueueName,
    pub settings: QueueSettings,
    /// Grows with every change that Bullwark makes.
    pub version: i64,
    /// False: Redis has not been told of this version.
    pub is_told: bool,
    /// What it is to be told.
    pub untold: QueueChange,
}

#[derive(sqlx::FromRow)]
struct Row {
    job_queue: String,
    is_paused: bool,
    concurrency: Option<i64>,
    rate_max: Option<i64>,
    rate_duration_ms: Option<i64>,
    events_max: Option<i64>,
    has_v5_peers: bool,
    is_fair: bool,
    version: i64,
    is_told: bool,
    untold: Vec<String>,
}

/// Names in `untold`.
const PAUSED: &str = "paused";
const CONCURRENCY: &str = "concurrency";
const RATE_LIMIT: &str = "rate_limit";
const FAIR: &str = "fair";

const COLUMNS: &str = "SELECT job_queue, is_paused, concurrency, rate_max, rate_duration_ms,
  events_max, has_v5_peers, is_fair, version, is_told, untold FROM bullwark.queues";

impl Row {
    /// None: a name that no queue can have, which a person wrote.
    fn known(self) -> Option<KnownQueue> {
        let number = |value: Option<i64>| value.map(i64::unsigned_abs);
        let settings = QueueSettings {
            is_paused: self.is_paused,
            concurrency: number(self.concurrency),
            rate_max: number(self.rate_max),
            rate_duration_ms: number(self.rate_duration_ms),
            events_max: number(self.events_max),
            has_v5_peers: self.has_v5_peers,
            is_fair: self.is_fair,
        };
        let is_untold = |name: &str| self.untold.iter().any(|untold| untold == name);
        let untold = QueueChange {
            is_paused: is_untold(PAUSED).then_some(settings.is_paused),
            concurrency: is_untold(CONCURRENCY).then_some(settings.concurrency),
            rate_limit: is_untold(RATE_LIMIT)
                .then(|| settings.rate_max.zip(settings.rate_duration_ms)),
            is_fair: is_untold(FAIR).then_some(settings.is_fair),
        };
        Some(KnownQueue {
            queue: self.job_queue.parse().ok()?,
            settings,
            version: self.version,
            is_told: self.is_told,
            untold,
        })
    }
}

/// A page of the known queues after this name, by name, and the name to go on after; none: it was
/// the last one. A row that no queue can have is left out.
pub async fn page(
    record: &Record,
    prefix: &str,
    after: &str,
) -> Result<(Vec<KnownQueue>, Option<String>), RecordError> {
    let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} WHERE prefix = $1 AND job_queue > $2 ORDER BY job_queue LIMIT $3"
    )))
    .bind(prefix)
    .bind(after)
    .bind(QUEUES_PAGE)
    .fetch_all(&record.pool)
    .await?;
    let is_full = rows.len() as i64 == QUEUES_PAGE;
    let next = rows.last().filter(|_| is_full);
    let next = next.map(|row| row.job_queue.clone());
    Ok((rows.into_iter().filter_map(Row::known).collect(), next))
}

/// Writes what Bullwark wants of a queue, and who wanted it; Redis is to be told of that, and of
/// nothing else.
///
/// `base` is what holds for a queue that the record does not know yet. Two that change different
/// things at once both have their way. Returns what holds now.
pub async fn change(
    record: &Record,
    prefix: &str,
    queue: &QueueName,
    base: &QueueSettings,
    change: &QueueChange,
    (by, reason): (&By<'_>, Option<&str>),
) -> Result<KnownQueue, RecordError> {
    let mut tx = record.begin().await?;
    let before = get_on(tx.connection(), prefix, queue, " FOR NO KEY UPDATE").await?;
    let before = before.map_or_else(|| base.clone(), |known| known.settings);
    let settings = change.apply(base.clone());
    let row: Row = bind(
        sqlx::query_as(
            "INSERT INTO bullwark.queues AS q (prefix, job_queue, is_paused, concurrency,
               rate_max, rate_duration_ms, events_max, has_v5_peers, is_fair, version, is_told,
               untold)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1, false, $14)
             ON CONFLICT (prefix, job_queue) DO UPDATE
               SET is_paused = CASE WHEN $10 THEN excluded.is_paused ELSE q.is_paused END,
                 concurrency = CASE WHEN $11 THEN excluded.concurrency ELSE q.concurrency END,
                 rate_max = CASE WHEN $12 THEN excluded.rate_max ELSE q.rate_max END,
                 rate_duration_ms = CASE WHEN $12 THEN excluded.rate_duration_ms
                                         ELSE q.rate_duration_ms END,
                 is_fair = CASE WHEN $13 THEN excluded.is_fair ELSE q.is_fair END,
                 version = q.version + 1, is_told = false, changed_at = now(),
                 untold = (SELECT array_agg(DISTINCT name)
                           FROM unnest(q.untold || excluded.untold) AS name)
             RETURNING job_queue, is_paused, concurrency, rate_max, rate_duration_ms, events_max,
               has_v5_peers, is_fair, version, is_told, untold",
        ),
        prefix,
        queue,
        &settings,
    )
    .bind(change.is_paused.is_some())
    .bind(change.concurrency.is_some())
    .bind(change.rate_limit.is_some())
    .bind(change.is_fair.is_some())
    .bind(names(change))
    .fetch_one(tx.connection())
    .await?;
    let known = row
        .known()
        .ok_or_else(|| RecordError::Corrupt(format!("queue {queue}: its name was not kept")))?;
    let audit = Audit {
        workspace_id: by.workspace_id,
        actor: by.actor,
        action: "queue.change",
        target: ("queue", queue.to_string()),
        reason,
        before: Some(shown(&before)),
        after: Some(shown(&known.settings)),
        request_id: by.request_id,
    };
    access::note(tx.connection(), &audit).await?;
    tx.commit().await?;
    Ok(known)
}

fn shown(settings: &QueueSettings) -> serde_json::Value {
    let limit = settings.rate_max.zip(settings.rate_duration_ms);
    serde_json::json!({
        "paused": settings.is_paused,
        "concurrency": settings.concurrency,
        "rate_limit": limit.map(|(max, ms)| serde_json::json!({ "max": max, "duration_ms": ms })),
        "fair": settings.is_fair,
    })
}

/// A queue that the record knows.
pub async fn get(
    record: &Record,
    prefix: &str,
    queue: &QueueName,
) -> Result<Option<KnownQueue>, RecordError> {
    let mut connection = record.pool.acquire().await?;
    get_on(&mut connection, prefix, queue, "").await
}

/// Of these queues, those that the record knows.
pub async fn known(
    record: &Record,
    prefix: &str,
    names: &[String],
) -> Result<Vec<KnownQueue>, RecordError> {
    let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} WHERE prefix = $1 AND job_queue = ANY($2)"
    )))
    .bind(prefix)
    .bind(names)
    .fetch_all(&record.pool)
    .await?;
    Ok(rows.into_iter().filter_map(Row::known).collect())
}

async fn get_on(
    connection: &mut PgConnection,
    prefix: &str,
    queue: &QueueName,
    lock: &str,
) -> Result<Option<KnownQueue>, RecordError> {
    let row: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} WHERE prefix = $1 AND job_queue = $2{lock}"
    )))
    .bind(prefix)
    .bind(queue.as_str())
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(Row::known))
}

/// Redis has been told of this version; false: there is a newer one.
pub async fn set_told(
    record: &Record,
    prefix: &str,
    queue: &QueueName,
    version: i64,
) -> Result<bool, RecordError> {
    let done = sqlx::query(
        "UPDATE bullwark.queues SET is_told = true, untold = '{}'
         WHERE prefix = $1 AND job_queue = $2 AND version = $3",
    )
    .bind(prefix)
    .bind(queue.as_str())
    .bind(version)
    .execute(&record.pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Copies what Redis shows of a queue, unless Bullwark has changed it since `version` was read; 0
/// for a queue that was not known.
pub async fn copy(
    record: &Record,
    prefix: &str,
    queue: &QueueName,
    settings: &QueueSettings,
    version: i64,
) -> Result<bool, RecordError> {
    let copied: Option<(i64,)> = bind(
        sqlx::query_as(
            "INSERT INTO bullwark.queues AS q (prefix, job_queue, is_paused, concurrency,
               rate_max, rate_duration_ms, events_max, has_v5_peers, is_fair)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (prefix, job_queue) DO UPDATE
               SET is_paused = excluded.is_paused, concurrency = excluded.concurrency,
                 rate_max = excluded.rate_max, rate_duration_ms = excluded.rate_duration_ms,
                 events_max = excluded.events_max, has_v5_peers = excluded.has_v5_peers,
                 is_fair = excluded.is_fair, changed_at = now()
               WHERE q.version = $10 AND q.is_told
             RETURNING version",
        ),
        prefix,
        queue,
        settings,
    )
    .bind(version)
    .fetch_optional(&record.pool)
    .await?;
    Ok(copied.is_some())
}

fn names(change: &QueueChange) -> Vec<&'static str> {
    let names = [
        (change.is_paused.is_some(), PAUSED),
        (change.concurrency.is_some(), CONCURRENCY),
        (change.rate_limit.is_some(), RATE_LIMIT),
        (change.is_fair.is_some(), FAIR),
    ];
    let changed = names.into_iter().filter(|(is_changed, _)| *is_changed);
    changed.map(|(_, name)| name).collect()
}

type Query<'q, T> = sqlx::query::QueryAs<'q, sqlx::Postgres, T, sqlx::postgres::PgArguments>;

fn bind<'q, T>(
    query: Query<'q, T>,
    prefix: &str,
    queue: &QueueName,
    settings: &QueueSettings,
) -> Query<'q, T> {
    let number = |value: Option<u64>| value.map(|value| i64::try_from(value).unwrap_or(i64::MAX));
    query
        .bind(prefix.to_owned())
        .bind(queue.as_str().to_owned())
        .bind(settings.is_paused)
        .bind(number(settings.concurrency))
        .bind(number(settings.rate_max))
        .bind(number(settings.rate_duration_ms))
        .bind(number(settings.events_max))
        .bind(settings.has_v5_peers)
        .bind(settings.is_fair)
}
