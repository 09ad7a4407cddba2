//! `GET /api/jobs/stats`: how much there is to do.

use std::collections::BTreeMap;

use axum::{Json, extract};
use serde::Serialize;
use serde_json::{Value, json};

use super::auth::Caller;
use super::problem::Problem;
use super::state::State;
use crate::record::access::Permission;
use crate::record::stats::{self, OPEN_MAX};

/// One queue, or all of them.
#[derive(Debug, Default, Serialize)]
struct Depth {
    /// Waiting to run: new, delayed, or between two attempts.
    depth: i64,
    processing: i64,
}

/// The open jobs of the caller's workspace, counted in the record: Redis does not tell workspaces
/// apart, and may be away.
pub(super) async fn stats(
    extract::State(state): extract::State<State>,
    caller: Caller,
) -> Result<Json<Value>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let _turn = state.read_turn().await?;
    let record = &state.services.record;
    let open = stats::count_open(record, caller.workspace_id).await?;
    let dead_letter = stats::count_dead(record, caller.workspace_id).await?;

    let mut queues: BTreeMap<String, Depth> = BTreeMap::new();
    let mut by_status: BTreeMap<String, i64> = BTreeMap::new();
    let mut all = Depth::default();
    for count in open {
        let queue = queues.entry(count.job_queue).or_default();
        for depth in [queue, &mut all] {
            match count.status.as_str() {
                "processing" => depth.processing += count.jobs,
                _ => depth.depth += count.jobs,
            }
        }
        *by_status.entry(count.status).or_default() += count.jobs;
    }
    by_status.insert("dead_letter".to_owned(), dead_letter);
    let is_exact = all.depth + all.processing < OPEN_MAX && dead_letter < OPEN_MAX;
    Ok(Json(json!({
        "queue_depth": all.depth,
        "processing": all.processing,
        "by_status": by_status,
        "queues": queues,
        "is_exact": is_exact,
    })))
}
