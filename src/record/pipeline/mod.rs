//! What a workspace's pipeline did in a span of time: the figures of a report.
//!
//! All is read as the workspace itself sees it, by statements of bounded size: row level security
//! leaves out what is not its own, whatever a statement forgets to say. Volumes and times come from
//! the sums that are kept of every ended attempt (`rollups`), not from jobs, so a report costs the
//! same at any number of jobs.

mod ended;
mod files;
mod matches;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::dead_letters::{self, DeadOfPeriod};
use super::stats::{self, OpenCount};
use super::{Record, RecordError, Tx, Viewer};
use crate::job::period::{Slot, Span};
pub use ended::{OTHERS, TYPES_MAX, Volumes};
pub use files::{ExportSum, ImportSum};
pub use matches::{EmailSum, Matched, Matches};

/// Causes of dead letters that are told.
pub const CAUSES_MAX: i64 = 20;

/// All of a report.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    pub workspace: String,
    /// The moment of the record that was read.
    pub read_at: DateTime<Utc>,
    pub volumes: Volumes,
    /// Jobs that are open at that moment.
    pub open: Vec<OpenCount>,
    /// Dead letters at that moment, whenever they died.
    pub dead_now: i64,
    pub died: DeadOfPeriod,
    pub imports: Vec<ImportSum>,
    pub exports: Vec<ExportSum>,
    pub matches: Matches,
}

/// When a job was due, by the record's clock: what its period is counted back from. A job that was
/// to run at once counts from now.
pub async fn due(tx: &mut Tx, job_id: Uuid) -> Result<DateTime<Utc>, RecordError> {
    Ok(
        sqlx::query_scalar("SELECT least(now(), scheduled_for) FROM jobs WHERE id = $1")
            .bind(job_id)
            .fetch_one(tx.connection())
            .await?,
    )
}

/// Reads the figures of a workspace: one moment of them, but for the matches, which are read after
/// that and left out if that takes too long.
pub async fn read(
    record: &Record,
    workspace_id: Uuid,
    span: Span,
    slots: &[Slot],
) -> Result<Figures, RecordError> {
    let viewer = Viewer::Tenant(workspace_id);
    let mut view = record.view_for(viewer).await?;
    let (workspace, read_at): (String, DateTime<Utc>) =
        sqlx::query_as("SELECT coalesce((SELECT name FROM workspaces WHERE id = $1), ''), now()")
            .bind(workspace_id)
            .fetch_one(view.connection())
            .await?;
    let volumes = ended::read(&mut view, workspace_id, span, slots).await?;
    let open = stats::count_open(&mut view, workspace_id).await?;
    let dead_now = stats::count_dead(&mut view, workspace_id).await?;
    let died = dead_letters::of_period(&mut view, workspace_id, span, CAUSES_MAX).await?;
    let imports = files::imports(&mut view, workspace_id, span).await?;
    let exports = files::exports(&mut view, workspace_id, span).await?;
    view.end().await?;
    let matches = matches::read(record, workspace_id, span).await?;
    Ok(Figures {
        workspace,
        read_at,
        volumes,
        open,
        dead_now,
        died,
        imports,
        exports,
        matches,
    })
}
