//! Who did what in a workspace.

use axum::http::Uri;
use axum::{Json, extract};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Caller;
use super::problem::Problem;
use super::query::{Parameters, invalid};
use super::state::State;
use crate::record::access::{self, AuditRow, Permission};

/// Actions of a page when nothing else is said, and at most.
const LIMIT: i64 = 50;
const LIMIT_MAX: i64 = 200;

/// A page of what was done.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuditPage {
    audit: Vec<AuditRow>,
    /// What `before` must be for the next page.
    next_before: Option<Uuid>,
}

/// List who did what
///
/// Privileged actions in the workspace, newest first; of one target, with `target_kind` and
/// `target_id`. For admins.
#[utoipa::path(get, path = "/api/audit", operation_id = "listAudit", tag = "access",
    params(
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200,
            description = "Actions of the page; 50 if none"),
        ("before" = Option<Uuid>, Query, description = "The `next_before` of the page before"),
        ("target_kind" = Option<String>, Query, description = "Such as `job`; with `target_id`"),
        ("target_id" = Option<String>, Query, description = "With `target_kind`"),
    ),
    responses((status = 200, description = "A page of actions", body = AuditPage)))]
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<AuditPage>, Problem> {
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
    Ok(Json(AuditPage {
        next_before: rows.last().filter(|_| is_full).map(|row| row.id),
        audit: rows,
    }))
}
