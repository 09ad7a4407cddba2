//! Syncs with a CRM, for people: what is linked, how far it is, what was not taken, and what both
//! sides have changed. Members see it and decide it; the run itself is a job.

use axum::extract::{FromRequestParts, Path, Request};
use axum::http::Uri;
use axum::{Extension, Json, extract};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Caller;
use super::body;
use super::observe::RequestId;
use super::problem::{Code, Problem};
use super::query::{Parameters, invalid};
use super::state::State;
use crate::handlers::crm::{columns, hash};
use crate::record::access::Permission;
use crate::record::crm::conflicts::{self, ConflictRow, Decided, Decision};
use crate::record::crm::cursors::{self, CursorRow};
use crate::record::crm::errors::{self, ErrorRow};
use crate::record::crm::links::{self, LinkFilter, LinkRow};

/// The largest decision.
const BODY_MAX: usize = 256 * 1024;
/// Rows of a page when nothing else is said, and at most.
const LIMIT: i64 = 50;
const LIMIT_MAX: i64 = 200;
/// Errors are looked at from the newest on, so far at most.
const OFFSET_MAX: i64 = 10_000;

/// A page of conflicts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CrmConflicts {
    conflicts: Vec<ConflictRow>,
    /// What `before` must be for the next page; null: there is none.
    next_before: Option<Uuid>,
}

/// List conflicts of CRM syncs
///
/// Fields that both sides have changed and that `manual_review` leaves to a person, newest first.
#[utoipa::path(get, path = "/api/crm/conflicts", operation_id = "listCrmConflicts", tag = "crm",
    params(
        ("state" = Option<String>, Query, description = "`open`, `resolved`, `gone`; all if none"),
        ("connection_id" = Option<Uuid>, Query, description = "Of this connection"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200,
            description = "Conflicts of the page; 50 if none"),
        ("before" = Option<Uuid>, Query, description = "The `next_before` of the page before"),
    ),
    responses((status = 200, description = "A page of conflicts", body = CrmConflicts)))]
pub(super) async fn conflicts(
    extract::State(state): extract::State<State>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<CrmConflicts>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let given = Parameters::parse(&uri, &["state", "connection_id", "limit", "before"])?;
    let limit = given.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT);
    let wanted = given.text("state");
    if wanted.is_some_and(|text| !matches!(text, "open" | "resolved" | "gone")) {
        return Err(invalid("`state` must be one of open, resolved, gone"));
    }
    let of = (wanted, given.parsed("connection_id")?);
    let page = (given.parsed("before")?, limit);
    let mut view = state.view(caller).await?;
    let conflicts = conflicts::list(&mut view, caller.workspace_id, of, page).await?;
    let is_full = conflicts.len() as i64 == limit;
    let next_before = conflicts.last().filter(|_| is_full).map(|last| last.id);
    Ok(Json(CrmConflicts {
        conflicts,
        next_before,
    }))
}

/// Which side is right.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = CrmKeep)]
enum Keep {
    Ours,
    Theirs,
}

/// How a conflict is to be decided: `keep`, or `values`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CrmDecision)]
struct Wish {
    #[serde(default)]
    keep: Option<Keep>,
    /// Of each field of the conflict the value: a text, a number, a boolean or null.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    values: Option<Map<String, Value>>,
}

/// One conflict.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OneCrmConflict {
    conflict: ConflictRow,
}

/// Decide a conflict
///
/// The record here gets the chosen values at once; the CRM gets them with the next run that pushes.
#[utoipa::path(post, path = "/api/crm/conflicts/{id}/resolve", operation_id = "resolveCrmConflict",
    tag = "crm", request_body = Wish,
    params(("id" = Uuid, Path, description = "The conflict")),
    responses(
        (status = 200, description = "The conflict, resolved", body = OneCrmConflict),
        (status = 404, description = "`crm_conflict_not_found`"),
        (status = 409, description = "It is over, or its record is gone: `crm_conflict_over`")))]
pub(super) async fn resolve(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<OneCrmConflict>, Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    let caller = caller.who_may(Permission::Write)?;
    let unknown = || {
        let detail = "there is no such conflict here";
        Problem::new(Code::CrmConflictNotFound, detail)
    };
    let id: Uuid = id.parse().map_err(|_| unknown())?;
    body::expect_json(&parts.headers)?;
    let whole = body::read(&state, caller, &parts.headers, body, BODY_MAX).await?;
    let wish: Wish = body::object(&whole.bytes, &json!({}))?;
    let decision = match (wish.keep, wish.values) {
        (Some(Keep::Ours), None) => Decision::Ours,
        (Some(Keep::Theirs), None) => Decision::Theirs,
        (None, Some(values)) => {
            let is_single = |value: &Value| !value.is_object() && !value.is_array();
            if let Some((field, _)) = values.iter().find(|(_, value)| !is_single(value)) {
                let pointer = format!("/values/{field}");
                return Err(Problem::of_field(
                    &pointer,
                    "must be a single value".to_owned(),
                ));
            }
            Decision::Values(values)
        }
        _ => {
            let why = "give `keep` (`ours` or `theirs`) or `values`, and not both".to_owned();
            return Err(Problem::of_field("/keep", why));
        }
    };
    let (record, by) = (&state.services.record, caller.by(&request_id));
    let about = (caller.workspace_id, id);
    let over = |detail: String| Problem::new(Code::CrmConflictOver, detail);
    match conflicts::decide(record, about, &decision, &by, (columns, hash)).await? {
        Decided::Done(conflict) => Ok(Json(OneCrmConflict {
            conflict: *conflict,
        })),
        Decided::Unknown => Err(unknown()),
        Decided::Over(conflict) => Err(over(format!("it is {}", conflict.state))),
        Decided::NoRecord => Err(over("its record here was deleted".to_owned())),
        Decided::Fields(names) => {
            let names = names.join(", ");
            let why = format!("must have the fields of the conflict, each once; see: {names}");
            Err(Problem::of_field("/values", why))
        }
        Decided::Refused(why) => Err(Problem::of_field("/values", why)),
    }
}

/// A page of links.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CrmLinks {
    links: Vec<LinkRow>,
    /// What `after` must be for the next page; null: there is none.
    next_after: Option<Uuid>,
}

/// List links to a CRM
///
/// Which record here is which one there, by the id here.
#[utoipa::path(get, path = "/api/crm/links", operation_id = "listCrmLinks", tag = "crm",
    params(
        ("connection_id" = Option<Uuid>, Query, description = "Of this connection"),
        ("local_id" = Option<Uuid>, Query, description = "Of this record here"),
        ("remote_id" = Option<String>, Query, description = "Of this record there"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200,
            description = "Links of the page; 50 if none"),
        ("after" = Option<Uuid>, Query, description = "The `next_after` of the page before"),
    ),
    responses((status = 200, description = "A page of links", body = CrmLinks)))]
pub(super) async fn links(
    extract::State(state): extract::State<State>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<CrmLinks>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let names = ["connection_id", "local_id", "remote_id", "limit", "after"];
    let given = Parameters::parse(&uri, &names)?;
    let limit = given.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT);
    let filter = LinkFilter {
        connection_id: given.parsed("connection_id")?,
        local_id: given.parsed("local_id")?,
        remote_id: remote_id(&given)?,
        after: given.parsed("after")?,
    };
    let mut view = state.view(caller).await?;
    let links = links::list(&mut view, caller.workspace_id, &filter, limit).await?;
    let is_full = links.len() as i64 == limit;
    let next_after = links.last().filter(|_| is_full).map(|last| last.local_id);
    Ok(Json(CrmLinks { links, next_after }))
}

fn remote_id(given: &Parameters) -> Result<Option<String>, Problem> {
    match given.text("remote_id") {
        Some(id) if id.contains('\0') => Err(invalid("`remote_id` has a NUL character in it")),
        id => Ok(id.map(str::to_owned)),
    }
}

/// A page of errors.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CrmErrors {
    errors: Vec<ErrorRow>,
}

/// List records that a CRM sync did not take
///
/// Newest first. The next run tries each of them again; an error goes when its record is taken.
#[utoipa::path(get, path = "/api/crm/errors", operation_id = "listCrmErrors", tag = "crm",
    params(
        ("connection_id" = Option<Uuid>, Query, description = "Of this connection"),
        ("job_id" = Option<Uuid>, Query, description = "Met last by this job"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200,
            description = "Errors of the page; 50 if none"),
        ("offset" = Option<i64>, Query, minimum = 0, maximum = 10000,
            description = "So many newer ones are left out"),
    ),
    responses((status = 200, description = "A page of errors", body = CrmErrors)))]
pub(super) async fn errors(
    extract::State(state): extract::State<State>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<CrmErrors>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let given = Parameters::parse(&uri, &["connection_id", "job_id", "limit", "offset"])?;
    let limit = given.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT);
    let offset = given.number("offset", 0, OFFSET_MAX)?.unwrap_or(0);
    let of = (given.parsed("connection_id")?, given.parsed("job_id")?);
    let mut view = state.view(caller).await?;
    let errors = errors::list(&mut view, caller.workspace_id, of, (offset, limit)).await?;
    Ok(Json(CrmErrors { errors }))
}

/// How far the syncs are.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CrmStates {
    states: Vec<CursorRow>,
}

/// Look how far CRM syncs are
///
/// Per connection, entity and direction.
#[utoipa::path(get, path = "/api/crm/states", operation_id = "listCrmStates", tag = "crm",
    responses((status = 200, description = "The states", body = CrmStates)))]
pub(super) async fn states(
    extract::State(state): extract::State<State>,
    caller: Caller,
) -> Result<Json<CrmStates>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let mut view = state.view(caller).await?;
    let states = cursors::list(&mut view, caller.workspace_id).await?;
    Ok(Json(CrmStates { states }))
}
