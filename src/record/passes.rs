//! When the passes over both stores were made last, and what they repaired: told by whichever
//! process made one, for every server to show.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Record, RecordError, View};

/// Passes that are shown at most.
pub const PASSES_MAX: i64 = 1000;

/// Which pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassKind {
    /// Every live job of a queue in Redis, and those that ended lately.
    Scan,
    /// Every open job of the record.
    Sweep,
    /// The settings and schedules of all queues.
    Queues,
    /// A memory of Redis was compared with the record as a whole.
    Rebuild,
}

impl PassKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scan => "scan",
            Self::Sweep => "sweep",
            Self::Queues => "queues",
            Self::Rebuild => "rebuild",
        }
    }
}

/// What a pass repaired, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Open jobs that Redis lacked, or of which it knew the outcome.
    pub added: u64,
    /// Jobs that only Redis knew, and what foreign workers made of jobs.
    pub copied: u64,
    /// Jobs that were over and waited in Redis all the same.
    pub ended: u64,
    /// Settings and schedules that differed.
    pub settings: u64,
}

/// A pass that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotedPass {
    pub kind: PassKind,
    /// Empty: over all queues.
    pub queue: String,
    pub took: Duration,
    pub repaired: Repaired,
}

/// Notes passes in place of those before them. A queue comes once per call.
pub async fn note(record: &Record, prefix: &str, passes: &[NotedPass]) -> Result<(), RecordError> {
    let count = |of: fn(&Repaired) -> u64| {
        let count = |pass: &NotedPass| i64::try_from(of(&pass.repaired)).unwrap_or(i64::MAX);
        passes.iter().map(count).collect::<Vec<i64>>()
    };
    let took = |pass: &NotedPass| i64::try_from(pass.took.as_millis()).unwrap_or(i64::MAX);
    sqlx::query(
        "INSERT INTO bullwark.passes AS p (prefix, kind, job_queue, took_ms, added, copied, ended,
           settings, repaired_total, repaired_at)
         SELECT $1, u.kind, u.queue, u.took_ms, u.added, u.copied, u.ended, u.settings,
           u.added + u.copied + u.ended + u.settings,
           CASE WHEN u.added + u.copied + u.ended + u.settings > 0 THEN now() END
         FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[],
           $7::bigint[], $8::bigint[]) AS u (kind, queue, took_ms, added, copied, ended, settings)
         ORDER BY u.kind, u.queue
         ON CONFLICT (prefix, kind, job_queue) DO UPDATE
           SET ended_at = now(), took_ms = excluded.took_ms, added = excluded.added,
             copied = excluded.copied, ended = excluded.ended, settings = excluded.settings,
             repaired_total = p.repaired_total + excluded.repaired_total,
             repaired_at = coalesce(excluded.repaired_at, p.repaired_at)",
    )
    .bind(prefix)
    .bind(passes.iter().map(|p| p.kind.as_str()).collect::<Vec<_>>())
    .bind(passes.iter().map(|p| p.queue.as_str()).collect::<Vec<_>>())
    .bind(passes.iter().map(took).collect::<Vec<_>>())
    .bind(count(|repaired| repaired.added))
    .bind(count(|repaired| repaired.copied))
    .bind(count(|repaired| repaired.ended))
    .bind(count(|repaired| repaired.settings))
    .execute(&record.pool)
    .await?;
    Ok(())
}

/// How long the last pass of a queue is kept, and of how many queues.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
const KEPT_MAX: i64 = 10_000;
/// Rows that are removed at once.
const PRUNE_MAX: i64 = 1_000;

/// Forgets passes of queues that were not looked at for long, and the oldest of too many. Returns
/// whether there may be more to do; done again, it goes on. One that is made meanwhile stays.
pub async fn prune(record: &Record) -> Result<bool, RecordError> {
    let done = sqlx::query(
        "WITH old AS (
           (SELECT prefix, kind, job_queue, ended_at FROM bullwark.passes
            WHERE ended_at < now() - make_interval(secs => $1) LIMIT $3)
           UNION
           (SELECT prefix, kind, job_queue, ended_at FROM bullwark.passes
            ORDER BY ended_at DESC OFFSET $2 LIMIT $3)
         )
         DELETE FROM bullwark.passes p USING old
         WHERE (p.prefix, p.kind, p.job_queue, p.ended_at)
           = (old.prefix, old.kind, old.job_queue, old.ended_at)",
    )
    .bind(KEPT.as_secs_f64())
    .bind(KEPT_MAX)
    .bind(PRUNE_MAX)
    .execute(&record.pool)
    .await?;
    Ok(done.rows_affected() >= PRUNE_MAX as u64)
}

/// The last pass of a kind.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = Pass))]
pub struct PassRow {
    pub kind: String,
    /// None: over all queues.
    pub queue: Option<String>,
    pub ended_at: DateTime<Utc>,
    pub took_ms: i64,
    pub added: i64,
    pub copied: i64,
    pub ended: i64,
    pub settings: i64,
    /// Of all passes of this kind.
    pub repaired_total: i64,
    pub repaired_at: Option<DateTime<Utc>>,
}

/// The last passes, those over all queues first, then those that repaired something last.
pub async fn list(view: &mut View, prefix: &str) -> Result<Vec<PassRow>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT kind, nullif(job_queue, '') AS queue, ended_at, took_ms, added, copied, ended,
           settings, repaired_total, repaired_at
         FROM bullwark.passes WHERE prefix = $1
         ORDER BY job_queue <> '', repaired_at DESC NULLS LAST, job_queue, kind LIMIT $2",
    )
    .bind(prefix)
    .bind(PASSES_MAX)
    .fetch_all(view.connection())
    .await?)
}

/// What the record knows of its agreement with Redis.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Agreement {
    /// The memory of Redis that was compared last.
    pub epoch: Option<String>,
    pub compared_at: Option<DateTime<Utc>>,
    /// Somebody makes another memory agree right now.
    pub is_rebuilding: bool,
    /// Jobs that Redis was not told of, up to [`UNTOLD_MAX`].
    pub untold: i64,
    /// Open jobs, up to [`OPEN_MAX`].
    pub open: i64,
}

/// Entries of the outbox that are counted at most.
pub const UNTOLD_MAX: i64 = 100_000;
/// Open jobs that are counted at most.
pub const OPEN_MAX: i64 = 200_000;

/// Reads it. A rebuild is known by its turn, which is a lock (see [`super::rebuild::take_turn`]).
/// Open jobs are counted where all passes look for them: finished ones cost nothing.
pub async fn agreement(view: &mut View, prefix: &str) -> Result<Agreement, RecordError> {
    Ok(sqlx::query_as(
        "WITH turn AS (SELECT hashtextextended($2, 0) AS key),
         sealed AS (SELECT job_id FROM bullwark.watermarks WHERE name = 'sealed')
         SELECT e.epoch, e.compared_at,
           EXISTS (
             SELECT FROM pg_locks l, turn
             WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
               AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
               AND l.classid::bigint = (turn.key >> 32) & 4294967295
               AND l.objid::bigint = turn.key & 4294967295) AS is_rebuilding,
           (SELECT count(*) FROM (SELECT FROM bullwark.outbox LIMIT $3) AS told) AS untold,
           (SELECT count(*) FROM (
              (SELECT FROM bullwark.stragglers s JOIN jobs j ON j.id = s.job_id
               WHERE s.job_id <= (SELECT job_id FROM sealed)
                 AND j.status IN ('pending', 'processing', 'failed') LIMIT $4)
              UNION ALL
              (SELECT FROM jobs WHERE id > (SELECT job_id FROM sealed)
                 AND status IN ('pending', 'processing', 'failed') LIMIT $4)
              LIMIT $4) AS counted) AS open
         FROM (SELECT) one LEFT JOIN bullwark.epochs e ON e.prefix = $1",
    )
    .bind(prefix)
    .bind(super::rebuild::turn_of(prefix))
    .bind(UNTOLD_MAX)
    .bind(OPEN_MAX)
    .fetch_one(view.connection())
    .await?)
}
