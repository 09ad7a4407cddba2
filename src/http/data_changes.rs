//! Lineage: where what is in accounts, contacts and opportunities came from.

use axum::http::Uri;
use axum::{Json, extract};
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::Caller;
use super::problem::Problem;
use super::query::{Parameters, invalid};
use super::state::State;
use crate::record::access::Permission;
use crate::record::data_changes::{self, ChangesOf, DataChange};

/// Changes of a page when nothing else is said, and at most.
const LIMIT: i64 = 50;
const LIMIT_MAX: i64 = 200;

/// A page of changes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DataChanges {
    changes: Vec<DataChange>,
    /// What `before` must be for the next page; null: there is none.
    next_before: Option<i64>,
}

/// List what changed
///
/// The changes of one account, contact or opportunity (`entity_id`), or those that one job made
/// (`job_id`), newest first: the fields that changed, before and after, where that came from, and
/// which job or user did it. For admins.
#[utoipa::path(get, path = "/api/data-changes", operation_id = "listDataChanges",
    tag = "access",
    params(
        ("entity_id" = Option<Uuid>, Query,
            description = "An account, a contact or an opportunity; or `job_id`"),
        ("job_id" = Option<Uuid>, Query, description = "A job; or `entity_id`"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200,
            description = "Changes of the page; 50 if none"),
        ("before" = Option<i64>, Query, minimum = 1,
            description = "The `next_before` of the page before"),
    ),
    responses((status = 200, description = "A page of changes", body = DataChanges)))]
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<DataChanges>, Problem> {
    let caller = caller.who_may(Permission::Admin)?;
    let given = Parameters::parse(&uri, &["entity_id", "job_id", "limit", "before"])?;
    let limit = given.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT);
    let before = given.number("before", 1, i64::MAX)?;
    let of = match (given.parsed("entity_id")?, given.parsed("job_id")?) {
        (Some(id), None) => ChangesOf::Entity(id),
        (None, Some(id)) => ChangesOf::Job(id),
        _ => return Err(invalid("give `entity_id` or `job_id`, and not both")),
    };
    let mut view = state.view(caller).await?;
    let changes = data_changes::page(&mut view, caller.workspace_id, of, before, limit).await?;
    let is_full = changes.len() as i64 == limit;
    let next_before = changes.last().filter(|_| is_full).map(|change| change.id);
    Ok(Json(DataChanges {
        changes,
        next_before,
    }))
}
