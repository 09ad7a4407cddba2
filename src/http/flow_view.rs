//! `GET /api/flows/{id}`: a flow as a whole, asked for by any of its jobs.

use std::collections::BTreeMap;

use axum::{Json, extract};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Caller;
use super::jobs::JobId;
use super::problem::{Code, Problem};
use super::state::State;
use crate::record::access::Permission;
use crate::record::flow_tree::{self, FlowNode, FlowTree};

/// A flow and where its jobs stand.
#[derive(Debug, Serialize, ToSchema)]
struct ShownFlow {
    root: Uuid,
    /// Level by level, the root first.
    #[schema(max_items = 1000)]
    jobs: Vec<FlowNode>,
    /// How many of them are in which status.
    by_status: BTreeMap<String, usize>,
    /// Nothing is left out, but for jobs that were deleted.
    is_whole: bool,
}

/// An answer that is a flow with its jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WholeFlow {
    flow: ShownFlow,
}

/// Show a flow
///
/// All jobs of the flow that this one is in, with their parents: at most 1,000, level by level from
/// the root. Of flows that were accepted here: what BullMQ clients add straight to Redis is shown
/// job by job.
#[utoipa::path(get, path = "/api/flows/{id}", operation_id = "getFlow", tag = "jobs",
    params(("id" = Uuid, Path, description = "The id of any job of the flow")),
    responses((status = 200, description = "The flow", body = WholeFlow)))]
pub(super) async fn show(
    extract::State(state): extract::State<State>,
    caller: Caller,
    JobId(id): JobId,
) -> Result<Json<WholeFlow>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let mut view = state.view(caller).await?;
    let tree = flow_tree::tree(&mut view, caller.workspace_id, id).await?;
    let unknown = || {
        let detail = format!("there is no job {id} that is in a flow");
        Problem::new(Code::FlowNotFound, detail)
    };
    let FlowTree { nodes, is_whole } = tree.ok_or_else(unknown)?;
    let root = nodes.first().ok_or_else(unknown)?.id;
    let mut by_status: BTreeMap<String, usize> = BTreeMap::new();
    for node in &nodes {
        *by_status.entry(node.status.clone()).or_default() += 1;
    }
    let flow = ShownFlow {
        root,
        jobs: nodes,
        by_status,
        is_whole,
    };
    Ok(Json(WholeFlow { flow }))
}
