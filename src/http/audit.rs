//! Who did what in a workspace.

use axum::http::Uri;
use axum::{Json, extract};
use serde_json::{Value, json};
use uuid::Uuid;

use super::auth::Caller;
use super::problem::Problem;
use super::query::{Parameters, invalid};
use super::state::State;
use crate::record::access::{self, Permission};

/// Actions of a page when nothing else is said, and at most.
const LIMIT: i64 = 50;
const LIMIT_MAX: i64 = 200;

/// A page of actions, newest first; of one target, with `target_kind` and `target_id`.
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Value>, Problem> {
    let caller = caller.who_may(Permission::Admin)?;
    let given = Parameters::parse(&uri, &["limit", "before", "target_kind", "target_id"])?;
    let limit = given.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT);
    let before: Option<Uuid> = given.parsed("before")?;
    let target = match (given.text("target_kind"), given.text("target_id")) {
        (Some(kind), Some(id)) => Some((kind, id)),
        (None, None) => None,
        _ => return Err(invalid("`target_kind` and `target_id` go together")),
    };
    let mut view = state.view(caller).await?;
    let rows = access::audit_page(&mut view, caller.workspace_id, target, before, limit).await?;
    let is_full = rows.len() as i64 == limit;
    let next = rows.last().filter(|_| is_full).map(|row| row.id);
    Ok(Json(json!({ "audit": rows, "next_before": next })))
}
