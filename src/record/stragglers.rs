//! The stragglers: open jobs that are older than the seal (see [`super::open`]), each with its
//! workspace, so that what a workspace's lists and counts cost does not grow with the backlog of
//! the others.
//!
//! A job of no workspace has `bullwark.nobody()` there. None means that nobody has said it yet: a
//! row that is older than the column, or one of a process of an older version. Readers look among
//! those as well, and [`name_owners`] leaves none for long. It may die anywhere and be done again,
//! and several processes may do it at once.

use uuid::Uuid;

use super::filter::Query;
use super::{Record, RecordError};

/// Rows that are given their owner at once.
pub const NAME_MAX: i64 = 5_000;

/// A part of the stragglers that one index serves, newest or oldest first.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    All,
    Of(Uuid),
    /// Of which nobody has said whose they are.
    Unsaid,
}

impl Part {
    /// The parts in which the jobs of a workspace are, or all jobs.
    pub(super) fn with(workspace_id: Option<Uuid>) -> Vec<Self> {
        workspace_id.map_or_else(|| vec![Self::All], |id| vec![Self::Of(id), Self::Unsaid])
    }

    /// The condition on the straggler `s`.
    pub(super) fn push(self, query: &mut Query) {
        match self {
            Self::All => query.push(" AND true"),
            Self::Of(id) => query.push(" AND s.owner_id = ").push_bind(id),
            Self::Unsaid => query.push(" AND s.owner_id IS NULL"),
        };
    }
}

/// Says whose the next rows are of which nobody has said it. Returns whether there may be more.
pub async fn name_owners(record: &Record) -> Result<bool, RecordError> {
    let done = sqlx::query(
        "UPDATE bullwark.stragglers s SET owner_id = coalesce(j.workspace_id, bullwark.nobody())
         FROM jobs j
         WHERE j.id = s.job_id AND s.job_id = ANY(ARRAY(
           SELECT job_id FROM bullwark.stragglers WHERE owner_id IS NULL
           ORDER BY job_id LIMIT $1 FOR UPDATE SKIP LOCKED))",
    )
    .bind(NAME_MAX)
    .execute(&record.pool)
    .await?;
    Ok(done.rows_affected() == NAME_MAX as u64)
}
