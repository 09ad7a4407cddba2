//! Dead letters by what killed them.
//!
//! The cause is told by a fingerprint of job type and error, which is written with the dead letter:
//! making it from 100,000 messages takes ten seconds, grouping 100,000 fingerprints a tenth of one.
//! A job that was run again or deleted is no dead letter any more, and in no group.
//!
//! A process of an older version writes none, but zeros. Such a dead letter is counted, and in no
//! group, until [`find_causes`] comes to it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{Record, RecordError, View};
use crate::job::period::Span;

/// Dead letters that are looked at, the youngest jobs; what is beyond is not counted.
pub const LOOKED_AT_MAX: i64 = 200_000;
/// Jobs that are named for each group.
const EXAMPLES: i64 = 3;

/// Which dead letters.
#[derive(Debug, Clone)]
pub struct DeadFilter {
    pub workspace_id: Uuid,
    pub queue: Option<String>,
    pub job_type: Option<String>,
}

/// Dead letters of one cause.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = DeadLetterCause))]
pub struct DeadGroup {
    pub fingerprint: Uuid,
    pub job_type: String,
    /// The error without what differs each time.
    pub error_pattern: String,
    /// The error of the first example.
    pub error_message: Option<String>,
    pub count: i64,
    pub first_at: DateTime<Utc>,
    pub last_at: DateTime<Utc>,
    /// The newest jobs.
    pub example_job_ids: Vec<Uuid>,
}

/// How many dead letters a job type has.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct DeadOfType {
    pub job_type: String,
    pub count: i64,
}

/// Groups, the largest first.
#[derive(Debug, Clone)]
pub struct DeadGroups {
    pub groups: Vec<DeadGroup>,
    /// Of all groups, also of those that are not shown.
    pub types: Vec<DeadOfType>,
    /// False: there are some whose cause is not known yet, which are in no group.
    pub are_all_known: bool,
}

const UNKNOWN: Uuid = Uuid::nil();
/// Dead letters whose cause is found at once: a tenth of a second or so.
const CAUSES_MAX: i64 = 1_000;

/// Finds the causes of the next dead letters that have none. Returns whether there may be more;
/// done again, it goes on. By `dead_letters_unsaid`.
pub async fn find_causes(record: &Record) -> Result<bool, RecordError> {
    let done = sqlx::query(
        "UPDATE bullwark.dead_letters d
         SET fingerprint = bullwark.error_fingerprint(d.job_type, j.error_message)
         FROM jobs j
         WHERE j.id = d.job_id AND d.job_id = ANY(ARRAY(
           SELECT job_id FROM bullwark.dead_letters
           WHERE fingerprint = '00000000-0000-0000-0000-000000000000'
           LIMIT $1 FOR UPDATE SKIP LOCKED))",
    )
    .bind(CAUSES_MAX)
    .execute(&record.pool)
    .await?;
    Ok(done.rows_affected() == CAUSES_MAX as u64)
}

/// The dead letters that a filter leaves: those of the youngest jobs, by `dead_letters_workspace`.
const LOOKED_AT: &str = "SELECT job_id, job_type, fingerprint, died_at FROM bullwark.dead_letters
  WHERE workspace_id = $1 AND ($2::text IS NULL OR job_queue = $2)
    AND ($3::text IS NULL OR job_type = $3)
  ORDER BY job_id DESC LIMIT $4";

/// The largest groups, `limit` at most, and how the types share in all of them.
pub async fn groups(
    view: &mut View,
    filter: &DeadFilter,
    limit: i64,
) -> Result<DeadGroups, RecordError> {
    // Examples come by `dead_letters_fingerprint`. A job that is gone meanwhile has no message.
    let groups = format!(
        "WITH grouped AS (
           SELECT fingerprint, min(job_type) AS job_type, count(*) AS count,
             min(died_at) AS first_at, max(died_at) AS last_at
           FROM ({LOOKED_AT}) looked_at WHERE fingerprint <> $7
           GROUP BY fingerprint ORDER BY count(*) DESC, fingerprint LIMIT $5
         )
         SELECT g.*, e.example_job_ids, j.error_message,
           bullwark.error_pattern(j.error_message) AS error_pattern
         FROM grouped g CROSS JOIN LATERAL (
           SELECT coalesce(array_agg(job_id), '{{}}') AS example_job_ids FROM (
             SELECT d.job_id FROM bullwark.dead_letters d
             WHERE d.workspace_id = $1 AND d.fingerprint = g.fingerprint
               AND ($2::text IS NULL OR d.job_queue = $2)
             ORDER BY d.job_id DESC LIMIT $6) newest
         ) e LEFT JOIN jobs j ON j.id = e.example_job_ids[1]
         ORDER BY g.count DESC, g.fingerprint"
    );
    let groups = sqlx::query_as(sqlx::AssertSqlSafe(groups))
        .bind(filter.workspace_id)
        .bind(&filter.queue)
        .bind(&filter.job_type)
        .bind(LOOKED_AT_MAX)
        .bind(limit)
        .bind(EXAMPLES)
        .bind(UNKNOWN)
        .fetch_all(view.connection())
        .await?;
    let types = format!(
        "SELECT job_type, count(*) AS count FROM ({LOOKED_AT}) looked_at
         GROUP BY job_type ORDER BY count(*) DESC, job_type"
    );
    let types = sqlx::query_as(sqlx::AssertSqlSafe(types))
        .bind(filter.workspace_id)
        .bind(&filter.queue)
        .bind(&filter.job_type)
        .bind(LOOKED_AT_MAX)
        .fetch_all(view.connection())
        .await?;
    let are_all_known = sqlx::query_scalar(
        "SELECT NOT EXISTS (
           SELECT FROM bullwark.dead_letters WHERE workspace_id = $1
             AND fingerprint = '00000000-0000-0000-0000-000000000000')",
    )
    .bind(filter.workspace_id)
    .fetch_one(view.connection())
    .await?;
    Ok(DeadGroups {
        groups,
        types,
        are_all_known,
    })
}

/// The dead letters of a workspace by queue, up to [`LOOKED_AT_MAX`].
pub async fn by_queue(
    view: &mut View,
    workspace_id: Uuid,
) -> Result<Vec<(String, i64)>, RecordError> {
    let counts = sqlx::query_as(
        "SELECT job_queue, count(*) FROM (
           SELECT job_queue FROM bullwark.dead_letters WHERE workspace_id = $1 LIMIT $2) counted
         GROUP BY job_queue",
    )
    .bind(workspace_id)
    .bind(LOOKED_AT_MAX)
    .fetch_all(view.connection())
    .await?;
    Ok(counts)
}

/// Dead letters of one cause that died in a span.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Cause {
    pub fingerprint: Uuid,
    pub job_type: String,
    /// The error without what differs each time.
    pub error_pattern: String,
    pub count: i64,
    pub first_at: DateTime<Utc>,
    pub last_at: DateTime<Utc>,
    /// The newest job.
    pub example: Uuid,
    looked_at: i64,
}

/// What killed jobs in a span, the most frequent causes first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadOfPeriod {
    pub causes: Vec<Cause>,
    /// There are more than [`LOOKED_AT_MAX`]; the newest ones are counted.
    pub is_cut: bool,
}

/// Those that are still dead letters, by `dead_letters_died`; `limit` causes at most.
pub async fn of_period(
    view: &mut View,
    workspace_id: Uuid,
    span: Span,
    limit: i64,
) -> Result<DeadOfPeriod, RecordError> {
    let causes: Vec<Cause> = sqlx::query_as(
        "WITH died AS (
           SELECT job_id, job_type, fingerprint, died_at FROM bullwark.dead_letters
           WHERE workspace_id = $1 AND died_at >= $2 AND died_at < $3
           ORDER BY died_at DESC LIMIT $4
         ), grouped AS (
           SELECT fingerprint, min(job_type) AS job_type, count(*) AS count,
             min(died_at) AS first_at, max(died_at) AS last_at,
             (array_agg(job_id ORDER BY died_at DESC, job_id DESC))[1] AS example
           FROM died WHERE fingerprint <> $6
           GROUP BY fingerprint ORDER BY count(*) DESC, fingerprint LIMIT $5
         )
         SELECT g.*, bullwark.error_pattern(j.error_message) AS error_pattern,
           (SELECT count(*) FROM died) AS looked_at
         FROM grouped g LEFT JOIN jobs j ON j.id = g.example ORDER BY g.count DESC, g.fingerprint",
    )
    .bind(workspace_id)
    .bind(span.from)
    .bind(span.to)
    .bind(LOOKED_AT_MAX)
    .bind(limit)
    .bind(UNKNOWN)
    .fetch_all(view.connection())
    .await?;
    let is_cut = causes.iter().any(|cause| cause.looked_at == LOOKED_AT_MAX);
    Ok(DeadOfPeriod { causes, is_cut })
}
