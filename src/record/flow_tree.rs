//! A flow as a whole: from any of its jobs up to the root, and down again.
//!
//! Rows of a flow name their parent and their children, so each level is one look by primary keys.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::types::Json;
use uuid::Uuid;

use super::{RecordError, View};
use crate::job::flow::FlowWire;

/// Jobs of a flow that are told, level by level from the root.
pub const NODES_MAX: usize = 1_000;
/// Levels that are looked through; more than a request can nest.
const LEVELS_MAX: usize = 128;

/// A job of a flow.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct FlowNode {
    pub id: Uuid,
    /// None: it is the root.
    pub parent_id: Option<Uuid>,
    pub job_type: String,
    pub job_queue: String,
    #[cfg_attr(feature = "server", schema(value_type = crate::job::Status))]
    pub status: String,
    pub attempts: i32,
    pub error_message: Option<String>,
    pub created_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub completed_at: Option<DateTime<Utc>>,
}

/// A flow, or as much of it as is told.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowTree {
    /// Level by level, the root first, or the highest job that was looked for.
    pub nodes: Vec<FlowNode>,
    /// Nothing is left out, but for jobs that were deleted.
    pub is_whole: bool,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    job_type: String,
    job_queue: String,
    status: String,
    attempts: i32,
    error_message: Option<String>,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    completed_at: Option<DateTime<Utc>>,
    wire: Json<FlowWire>,
}

/// The flow that a job of this workspace is in; none: there is no such job, or it is in no flow
/// that Bullwark accepted.
pub async fn tree(
    view: &mut View,
    workspace_id: Uuid,
    id: Uuid,
) -> Result<Option<FlowTree>, RecordError> {
    let mut found = level(view, workspace_id, &[id]).await?;
    let Some(mut top) = found.pop() else {
        return Ok(None);
    };
    let mut is_whole = false;
    for _ in 0..LEVELS_MAX {
        let parent = match top.wire.parent_id() {
            Some(parent_id) => level(view, workspace_id, &[parent_id]).await?.pop(),
            None => None,
        };
        // A parent that was deleted leaves its child as the top of what is left.
        let Some(parent) = parent else {
            is_whole = true;
            break;
        };
        top = parent;
    }
    let mut nodes = Vec::new();
    let mut rows = vec![(None, top)];
    for _ in 0..LEVELS_MAX {
        let mut parents: HashMap<Uuid, Uuid> = HashMap::new();
        let mut children: Vec<Uuid> = Vec::new();
        for (parent_id, row) in rows {
            children.extend(&row.wire.children);
            parents.extend(row.wire.children.iter().map(|child| (*child, row.id)));
            nodes.push(row.node(parent_id));
        }
        if children.is_empty() {
            return Ok(Some(FlowTree { nodes, is_whole }));
        }
        let room = NODES_MAX.saturating_sub(nodes.len());
        is_whole &= children.len() <= room;
        children.truncate(room);
        let mut of_level: HashMap<Uuid, Row> = level(view, workspace_id, &children)
            .await?
            .into_iter()
            .map(|row| (row.id, row))
            .collect();
        let next = children.iter().filter_map(|id| of_level.remove(id));
        rows = next
            .map(|row| (parents.get(&row.id).copied(), row))
            .collect();
    }
    let is_whole = is_whole && rows.is_empty();
    Ok(Some(FlowTree { nodes, is_whole }))
}

/// Jobs of flows by their ids, in no order.
async fn level(view: &mut View, workspace_id: Uuid, ids: &[Uuid]) -> Result<Vec<Row>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT id, job_type, job_queue, status, attempts, error_message, created_at, started_at,
           completed_at, wire
         FROM jobs WHERE id = ANY($1) AND workspace_id = $2 AND deleted_at IS NULL
           AND wire -> 'children' IS NOT NULL",
    )
    .bind(ids)
    .bind(workspace_id)
    .fetch_all(view.connection())
    .await?)
}

impl Row {
    fn node(self, parent_id: Option<Uuid>) -> FlowNode {
        FlowNode {
            id: self.id,
            parent_id,
            job_type: self.job_type,
            job_queue: self.job_queue,
            status: self.status,
            attempts: self.attempts,
            error_message: self.error_message,
            created_at: self.created_at,
            started_at: self.started_at,
            completed_at: self.completed_at,
        }
    }
}
