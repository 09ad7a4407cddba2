//! What became of a job, in the order in which it happened: read from what was written down then.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{RecordError, View};
use crate::job::flow::FlowWire;

/// Moments of a job that are told at most, the newest ones.
const MOMENTS_MAX: i64 = 1000;

/// A change of a job's status.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Moment {
    pub at: DateTime<Utc>,
    /// What it was from then on: a status, or `lease_lost` when its worker vanished.
    pub status: String,
    /// The number of the start that began or ended.
    pub attempt: Option<i32>,
    pub worker_id: Option<String>,
    /// Why: an error, or the reason that a person gave.
    pub reason: Option<String>,
    /// Who did it, if it was a person or a program with a key.
    pub actor_kind: Option<String>,
    pub actor_id: Option<Uuid>,
}

/// The moments of a job, oldest first. A run that completed before the job was run again by hand is
/// told by that hand only.
pub async fn timeline(view: &mut View, id: Uuid) -> Result<Vec<Moment>, RecordError> {
    let mut moments: Vec<Moment> = sqlx::query_as(
        "WITH job AS (SELECT * FROM jobs WHERE id = $1), failed AS (
           SELECT * FROM job_failures WHERE job_id = $1
         ), done AS (
           SELECT * FROM bullwark.audit_log WHERE target_kind = 'job' AND target_id = $1::text
         )
         SELECT at, status, attempt, worker_id, reason, actor_kind, actor_id FROM (
           SELECT created_at AS at, 0 AS rank, 'pending' AS status, NULL::int AS attempt,
             NULL::text AS worker_id, NULL::text AS reason, NULL::text AS actor_kind,
             NULL::uuid AS actor_id
           FROM job
           UNION ALL
           SELECT started_at, 2, 'processing', attempt, worker_id, NULL, NULL, NULL
           FROM failed WHERE started_at IS NOT NULL
           UNION ALL
           SELECT ended_at, 3, outcome, attempt, worker_id, error_message, NULL, NULL FROM failed
           UNION ALL
           SELECT started_at, 2, 'processing', attempt, worker_id, NULL, NULL, NULL
           FROM job WHERE started_at IS NOT NULL
             AND NOT EXISTS (SELECT FROM failed WHERE failed.attempt = job.attempt)
           UNION ALL
           SELECT completed_at, 3, status, attempt, worker_id, NULL, NULL, NULL
           FROM job WHERE status = 'completed'
           UNION ALL
           -- By a client, whom the audit does not know.
           SELECT completed_at, 3, status, NULL, NULL, error_message, NULL, NULL
           FROM job WHERE status = 'cancelled' AND NOT EXISTS (
             SELECT FROM done WHERE action = 'job.cancel' AND done.created_at = job.completed_at)
           UNION ALL
           -- Links to its files are made and revoked, too, and change no status.
           SELECT created_at, 1, after ->> 'status', NULL, NULL, reason, actor_kind, actor_id
           FROM done WHERE after ->> 'status' IS NOT NULL
         ) AS moments
         WHERE at IS NOT NULL ORDER BY at DESC, rank DESC, attempt DESC LIMIT $2",
    )
    .bind(id)
    .bind(MOMENTS_MAX)
    .fetch_all(view.connection())
    .await?;
    moments.reverse();
    Ok(moments)
}

/// A parent or a child of a job.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = Relative))]
pub struct Kin {
    pub id: Uuid,
    pub job_type: String,
    pub job_queue: String,
    #[cfg_attr(feature = "server", schema(value_type = crate::job::Status))]
    pub status: String,
    pub error_message: Option<String>,
}

/// Where a job stands, beside its own row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ties {
    /// Its id on the wire.
    pub wire_id: String,
    /// None: it is in no flow that Bullwark accepted.
    pub flow: Option<Flow>,
}

/// The next of kin of a job of a flow. Those that were deleted are left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Flow {
    pub parent: Option<Kin>,
    pub children: Vec<Kin>,
}

/// The ties of a job; none if there is no such job.
pub async fn ties(view: &mut View, id: Uuid) -> Result<Option<Ties>, RecordError> {
    let row: Option<(String, Option<sqlx::types::Json<FlowWire>>)> = sqlx::query_as(
        "SELECT coalesce(redis_id, id::text),
           CASE WHEN (wire -> 'children') IS NOT NULL THEN wire END
         FROM jobs WHERE id = $1 AND deleted_at IS NULL",
    )
    .bind(id)
    .fetch_optional(view.connection())
    .await?;
    let Some((wire_id, wire)) = row else {
        return Ok(None);
    };
    let Some(sqlx::types::Json(wire)) = wire else {
        let flow = None;
        return Ok(Some(Ties { wire_id, flow }));
    };
    let parent_id = wire.parent_id();
    let ids: Vec<Uuid> = wire.children.iter().copied().chain(parent_id).collect();
    let kin: Vec<Kin> = sqlx::query_as(
        "SELECT id, job_type, job_queue, status, error_message FROM jobs
         WHERE id = ANY($1) AND deleted_at IS NULL ORDER BY id",
    )
    .bind(ids)
    .fetch_all(view.connection())
    .await?;
    let (parents, children) = kin.into_iter().partition(|kin| Some(kin.id) == parent_id);
    let parents: Vec<Kin> = parents;
    let flow = Some(Flow {
        parent: parents.into_iter().next(),
        children,
    });
    Ok(Some(Ties { wire_id, flow }))
}
