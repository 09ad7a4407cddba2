//! How many jobs a workspace may create in an hour, and how many it has created.
//!
//! One short row per workspace holds what was taken in each minute of the last hour. Its lock makes
//! several servers count as one, and it survives all of them.

use std::collections::HashSet;

use serde_json::json;
use uuid::Uuid;

use super::access::{self, Actor, Audit};
use super::{Record, RecordError, Tx};

/// What is said about a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Nothing: the setting of the server holds.
    Unsaid,
    /// By its plan.
    None,
    PerHour(u32),
}

/// The plan of a workspace and its own number, as people set them.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct LimitRow {
    pub plan: Option<String>,
    /// Goes before the plan's.
    pub jobs_per_hour: Option<i32>,
    pub plan_jobs_per_hour: Option<i32>,
}

impl LimitRow {
    pub fn limit(&self) -> Limit {
        let number = |jobs: i32| Limit::PerHour(jobs.unsigned_abs());
        match (self.jobs_per_hour, &self.plan) {
            (Some(own), _) => number(own),
            (None, Some(_)) => self.plan_jobs_per_hour.map_or(Limit::None, number),
            (None, None) => Limit::Unsaid,
        }
    }
}

const LIMIT: &str = "SELECT w.plan, w.jobs_per_hour, p.jobs_per_hour AS plan_jobs_per_hour
  FROM workspaces w LEFT JOIN bullwark.plans p ON p.name = w.plan WHERE w.id = $1";

/// What is said about a workspace; none: there is no such workspace. By two primary keys.
pub async fn limit(record: &Record, workspace_id: Uuid) -> Result<Option<LimitRow>, RecordError> {
    Ok(sqlx::query_as(LIMIT)
        .bind(workspace_id)
        .fetch_optional(&record.pool)
        .await?)
}

/// A new plan or number; what is not given stays, and an inner none takes it away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitChange {
    pub plan: Option<Option<String>>,
    pub jobs_per_hour: Option<Option<u32>>,
}

/// Changes the limit of a workspace and notes who did; none: there is no such workspace.
///
/// Doing it twice changes nothing more, but is noted twice. An unknown plan is refused by the
/// constraint `workspaces_plan_fkey`.
pub async fn change_limit(
    record: &Record,
    workspace_id: Uuid,
    change: &LimitChange,
    actor: Actor,
    request_id: &str,
) -> Result<Option<LimitRow>, RecordError> {
    let mut tx = Tx::begin(record.pool.clone()).await?;
    sqlx::query("SELECT FROM workspaces WHERE id = $1 FOR NO KEY UPDATE")
        .bind(workspace_id)
        .execute(tx.connection())
        .await?;
    let before: Option<LimitRow> = sqlx::query_as(LIMIT)
        .bind(workspace_id)
        .fetch_optional(tx.connection())
        .await?;
    let Some(before) = before else {
        return Ok(None);
    };
    sqlx::query(
        "UPDATE workspaces SET plan = CASE WHEN $2 THEN $3 ELSE plan END,
           jobs_per_hour = CASE WHEN $4 THEN $5 ELSE jobs_per_hour END
         WHERE id = $1",
    )
    .bind(workspace_id)
    .bind(change.plan.is_some())
    .bind(change.plan.clone().flatten())
    .bind(change.jobs_per_hour.is_some())
    .bind(change.jobs_per_hour.flatten().map(|jobs| jobs as i32))
    .execute(tx.connection())
    .await?;
    let after: LimitRow = sqlx::query_as(LIMIT)
        .bind(workspace_id)
        .fetch_one(tx.connection())
        .await?;
    let said = |row: &LimitRow| json!({ "plan": row.plan, "jobs_per_hour": row.jobs_per_hour });
    let audit = Audit {
        workspace_id: Some(workspace_id),
        actor,
        action: "workspace.limit",
        target: ("workspace", workspace_id.to_string()),
        reason: None,
        before: Some(said(&before)),
        after: Some(said(&after)),
        request_id: Some(request_id),
    };
    access::note(tx.connection(), &audit).await?;
    tx.commit().await?;
    Ok(Some(after))
}

/// What came of taking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Taken {
    pub granted: i64,
    /// Of the quota, with what was granted.
    pub used: i64,
    /// Seconds until something of it is free again; none: nothing is used.
    pub restored_in: Option<i32>,
    /// Seconds until what was needed is free; none: it is now, or never will be.
    pub retry_in: Option<i32>,
    /// In which minute since 1970 it was taken; none: nothing was.
    pub minute: Option<i64>,
}

/// Takes up to `wanted` of what is left of the quota, or nothing if that is less than `needed`. By
/// the primary key; two at once wait for each other.
///
/// What was taken by a process that dies, or whose answer is lost, stays taken for an hour.
pub async fn take(
    record: &Record,
    workspace_id: Uuid,
    quota: u32,
    wanted: u64,
    needed: u64,
) -> Result<Taken, RecordError> {
    Ok(
        sqlx::query_as("SELECT * FROM bullwark.take_creations_in($1, $2, $3, $4)")
            .bind(workspace_id)
            .bind(i64::from(quota))
            .bind(i64::try_from(wanted).unwrap_or(i64::MAX))
            .bind(i64::try_from(needed).unwrap_or(i64::MAX))
            .fetch_one(&record.pool)
            .await?,
    )
}

/// Gives back what was taken in this minute and not used. A minute that does not count any more has
/// nothing to give back.
pub async fn give_back(
    record: &Record,
    workspace_id: Uuid,
    minute: i64,
    unused: u64,
) -> Result<(), RecordError> {
    sqlx::query(
        "UPDATE bullwark.creations
         SET counts[array_position(minutes, $2)] =
           greatest(counts[array_position(minutes, $2)] - $3, 0)
         WHERE workspace_id = $1 AND array_position(minutes, $2) IS NOT NULL",
    )
    .bind(workspace_id)
    .bind(minute)
    .bind(i64::try_from(unused).unwrap_or(i64::MAX))
    .execute(&record.pool)
    .await?;
    Ok(())
}

/// The job that this idempotency key made, if it is still there.
pub async fn made_with_key(
    record: &Record,
    workspace_id: Uuid,
    key: &str,
) -> Result<Option<Uuid>, RecordError> {
    Ok(sqlx::query_scalar(
        "SELECT k.job_id FROM bullwark.idempotency_keys k JOIN jobs j ON j.id = k.job_id
         WHERE k.workspace_id = $1 AND k.key = $2 AND j.deleted_at IS NULL",
    )
    .bind(workspace_id)
    .bind(key)
    .fetch_optional(&record.pool)
    .await?)
}

/// Which of these idempotency keys have made a job that is still there. By the primary keys of both
/// tables.
pub async fn used_keys(
    record: &Record,
    workspace_id: Uuid,
    keys: &[&str],
) -> Result<HashSet<String>, RecordError> {
    let used: Vec<String> = sqlx::query_scalar(
        "SELECT k.key FROM bullwark.idempotency_keys k JOIN jobs j ON j.id = k.job_id
         WHERE k.workspace_id = $1 AND k.key = ANY($2) AND j.deleted_at IS NULL",
    )
    .bind(workspace_id)
    .bind(keys)
    .fetch_all(&record.pool)
    .await?;
    Ok(used.into_iter().collect())
}
