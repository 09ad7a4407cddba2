//! What people do to all jobs that match a filter: said once, carried out from here on, by this
//! server or another one. How far it has come can be looked at; it can be stopped, and a cancel can
//! be undone for a while.

use std::time::Duration;

use axum::extract::{Path, Request};
use axum::http::header::LOCATION;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, extract};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Caller;
use super::job_filter::Wanted;
use super::observe::RequestId;
use super::problem::{Code, Problem};
use super::query::Parameters;
use super::state::State;
use super::{body, control, enqueue};
use crate::job::Change;
use crate::record::access::Permission;
use crate::record::actions::{
    self, ActionRow, Bounds, Created, NewAction, Preview, RUNNING_MAX, Undo,
};

/// The largest request: as many ids as a filter may have.
const BODY_MAX: usize = 128 * 1024;
/// The most jobs that `limit` may allow.
const LIMIT_MAX: i64 = 1_000_000_000;
/// Actions of a page when nothing else is said, and at most.
const PAGE: i64 = 50;
const PAGE_MAX: i64 = 200;
/// How far a dry run looks.
const DRY_RUN: Bounds = Bounds {
    jobs: 200_000,
    time: Duration::from_secs(5),
};
/// How far the jobs of an action are counted before it begins.
const COUNT: Bounds = Bounds {
    jobs: 100_000,
    time: Duration::from_secs(1),
};

/// An action that is wished for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schema(as = NewAction)]
struct Wish {
    action: Change,
    /// To which jobs; those that are made after the start are not touched.
    #[serde(default)]
    filter: Wanted,
    /// Every job is meant: only then may the filter be empty.
    #[serde(default)]
    all: bool,
    /// Only say what would be done.
    #[serde(default, alias = "dry_run")]
    dry_run: bool,
    /// For the audit, and for the jobs that are cancelled.
    #[serde(default)]
    #[schema(max_length = 500)]
    reason: Option<String>,
    /// Only so many jobs, the newest that match.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    limit: Option<i64>,
}

/// What an action would do.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ActionDryRun)]
struct DryRun {
    dry_run: bool,
    action: Change,
    limit: Option<i64>,
    #[serde(flatten)]
    preview: Preview,
}

/// An action.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OneAction {
    action: ActionRow,
}

/// What a start is answered with when nothing begins.
#[derive(ToSchema)]
#[schema(as = DryRunOrAction)]
#[serde(untagged)]
#[expect(dead_code, reason = "names two answers in the document")]
enum DryRunOrAction {
    DryRun(DryRun),
    Action(OneAction),
}

/// A page of actions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Actions {
    actions: Vec<ActionRow>,
    /// For the next page.
    next_before: Option<Uuid>,
}

/// Change all jobs that match
///
/// The action is written down and carried out from here on. To cancel or delete is for admins. A
/// dry run changes nothing and says what would be done.
#[utoipa::path(post, path = "/api/jobs/actions", operation_id = "startAction", tag = "jobs",
    request_body = Wish,
    params(("Idempotency-Key" = Option<String>, Header, nullable = false,
        min_length = 1, max_length = 255,
        description = "The same request with the same key gives the same action back.")),
    responses(
        (status = 202, description = "The action, which has begun", body = OneAction,
            headers(("Location" = String, description = "Where to look at it"))),
        (status = 200, description = "What a dry run found; or the action that this key made",
            body = DryRunOrAction),
        (status = 409, description = "`too_many_actions` run in this workspace, or the key is of \
            another request: `idempotency_key_reused`")))]
pub(super) async fn start(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<Response, Problem> {
    let (caller, headers, body) = enqueue::open(&state, request, body::expect_json).await?;
    let whole = body::read(&state, caller, &headers, body, BODY_MAX).await?;
    let wish: Wish = body::object(&whole.bytes, &json!({ "action": "retry" }))?;
    let caller = caller.who_may(needed(wish.action.as_str()))?;
    let mut filter = wish.filter.read("/filter")?;
    let asked = json!([wish.action, filter]);
    state.redaction.permit(caller, &mut filter.search)?;
    if filter.is_empty() && !wish.all {
        let message = "is empty: say which jobs, or that you mean every one with \"all\": true";
        let detail = format!("`filter` {message}");
        return Err(Problem::new(Code::InvalidRequest, detail).with_error("/filter", message));
    }
    if wish
        .limit
        .is_some_and(|limit| !(1..=LIMIT_MAX).contains(&limit))
    {
        let message = format!("must be from 1 to {LIMIT_MAX}");
        let detail = format!("`limit` {message}");
        return Err(Problem::new(Code::InvalidRequest, detail).with_error("/limit", message));
    }
    let reason = control::reason(wish.reason)?;
    filter.workspace_id = Some(caller.workspace_id);
    let mut view = state.view(caller).await?;
    let bounds = if wish.dry_run { DRY_RUN } else { COUNT };
    let preview = actions::preview(&mut view, wish.action, &filter, wish.limit, bounds).await?;
    drop(view);
    if wish.dry_run {
        let (action, limit) = (wish.action, wish.limit);
        let answer = DryRun {
            dry_run: true,
            action,
            limit,
            preview,
        };
        return Ok(Json(answer).into_response());
    }

    let key = enqueue::key(&headers)?;
    let same = json!([asked, reason, wish.limit]).to_string();
    let fingerprint = Sha256::digest(same).to_vec();
    let new = NewAction {
        workspace_id: caller.workspace_id,
        change: wish.action,
        filter: &filter,
        reason: &reason,
        limit: wish.limit,
        expected: Some((preview.matched, preview.is_exact)),
        key: key.as_deref().map(|key| (key, fingerprint.as_slice())),
    };
    let record = &state.services.record;
    match actions::create(record, &new, &caller.by(&request_id)).await? {
        Created::New(row) => Ok(accepted(&state, caller, *row)),
        Created::Known(row) => Ok(answer(StatusCode::OK, &state, caller, *row)),
        Created::KeyReused(id) => {
            let detail = format!("this Idempotency-Key was used for another request: action {id}");
            let problem = Problem::new(Code::IdempotencyKeyReused, detail);
            Err(problem.with_member("action_id", id.to_string()))
        }
        Created::TooMany => {
            let detail = format!("{RUNNING_MAX} actions run here, which is the most: wait or stop");
            Err(Problem::new(Code::TooManyActions, detail))
        }
    }
}

/// What one must be allowed to do for an action.
fn needed(action: &str) -> Permission {
    match action {
        "retry" | "promote" => Permission::Write,
        _ => Permission::Admin,
    }
}

/// It is carried out from here on.
fn accepted(state: &State, caller: Caller, row: ActionRow) -> Response {
    state.carry_out(row.id);
    answer(StatusCode::ACCEPTED, state, caller, row)
}

fn answer(status: StatusCode, state: &State, caller: Caller, row: ActionRow) -> Response {
    let location = (LOCATION, format!("/api/jobs/actions/{}", row.id));
    let body = Json(OneAction {
        action: shown(state, caller, row),
    });
    (status, [location], body).into_response()
}

/// As the audit, which is for admins: that it was a person is no secret, who it was is.
fn shown(state: &State, caller: Caller, mut row: ActionRow) -> ActionRow {
    state.redaction.show_filter(caller, &mut row.filter);
    let is_admin = caller.who_may(Permission::Admin).is_ok();
    ActionRow {
        actor_id: row.actor_id.filter(|_| is_admin),
        ..row
    }
}

/// List actions
///
/// Newest first, for 30 days after their end.
#[utoipa::path(get, path = "/api/jobs/actions", operation_id = "listActions", tag = "jobs",
    params(
        ("limit" = Option<i64>, Query, description = "How many", minimum = 1, maximum = 200),
        ("before" = Option<Uuid>, Query, description = "The `next_before` of a page")),
    responses((status = 200, description = "A page", body = Actions)))]
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Actions>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let given = Parameters::parse(&uri, &["limit", "before"])?;
    let limit = given.number("limit", 1, PAGE_MAX)?.unwrap_or(PAGE);
    let before: Option<Uuid> = given.parsed("before")?;
    let mut view = state.view(caller).await?;
    let rows = actions::list(&mut view, caller.workspace_id, before, limit).await?;
    let is_full = rows.len() as i64 == limit;
    let next_before = rows.last().filter(|_| is_full).map(|row| row.id);
    let actions = rows
        .into_iter()
        .map(|row| shown(&state, caller, row))
        .collect();
    Ok(Json(Actions {
        actions,
        next_before,
    }))
}

/// Look at an action, and how far it has come
#[utoipa::path(get, path = "/api/jobs/actions/{id}", operation_id = "getAction", tag = "jobs",
    params(("id" = Uuid, Path, description = "The id of the action")),
    responses((status = 200, description = "The action", body = OneAction)))]
pub(super) async fn show(
    extract::State(state): extract::State<State>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<OneAction>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let row = find(&state, caller, &id).await?;
    Ok(Json(OneAction {
        action: shown(&state, caller, row),
    }))
}

/// An action of the caller. One of another workspace is as unknown as one that never was.
async fn find(state: &State, caller: Caller, id: &str) -> Result<ActionRow, Problem> {
    let id: Uuid = id.parse().map_err(|_| unknown())?;
    let mut view = state.view(caller).await?;
    let row = actions::get(&mut view, caller.workspace_id, id).await?;
    row.ok_or_else(unknown)
}

fn unknown() -> Problem {
    Problem::new(Code::ActionNotFound, "there is no such action here")
}

/// Stop an action
///
/// What is done stays done. Doing it again changes nothing.
#[utoipa::path(post, path = "/api/jobs/actions/{id}/stop", operation_id = "stopAction",
    tag = "jobs", params(("id" = Uuid, Path, description = "The id of the action")),
    responses(
        (status = 200, description = "The action, which is stopped", body = OneAction),
        (status = 409, description = "It is done: `action_state`")))]
pub(super) async fn stop(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<OneAction>, Problem> {
    let caller = caller.who_may(Permission::Write)?;
    let row = find(&state, caller, &id).await?;
    let caller = caller.who_may(needed(&row.action))?;
    let (record, by) = (&state.services.record, caller.by(&request_id));
    let row = actions::stop(record, caller.workspace_id, row.id, &by).await?;
    let row = row.ok_or_else(unknown)?;
    if row.state == "done" {
        return Err(wrong_state(&row, "there is nothing left to stop"));
    }
    Ok(Json(OneAction {
        action: shown(&state, caller, row),
    }))
}

fn wrong_state(row: &ActionRow, why: &str) -> Problem {
    let (action, state) = (&row.action, &row.state);
    let detail = format!("the action {} is a {action} and {state}: {why}", row.id);
    Problem::new(Code::ActionState, detail).with_member("action_state", state.as_str())
}

/// Undo a cancel
///
/// For admins. As far as nobody has touched its jobs since, they are what they were; one that runs
/// is stopped first.
#[utoipa::path(post, path = "/api/jobs/actions/{id}/undo", operation_id = "undoAction",
    tag = "jobs",
    params(
        ("id" = Uuid, Path, description = "The id of the cancel"),
        ("reason" = Option<String>, Query, description = "For the audit", max_length = 500)),
    responses(
        (status = 202, description = "The action that undoes it, which has begun",
            body = OneAction),
        (status = 200, description = "The action that undoes it already", body = OneAction),
        (status = 409, description = "It is no cancel, or it is too late: `action_state`"),
        (status = 422, description = "The reason is too long: `invalid_request`")))]
pub(super) async fn undo(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    caller: Caller,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let caller = caller.who_may(Permission::Admin)?;
    let given = Parameters::parse(&uri, &["reason"])?;
    let reason = control::reason(given.text("reason").map(str::to_owned))?;
    let row = find(&state, caller, &id).await?;
    let (record, by) = (&state.services.record, caller.by(&request_id));
    match actions::undo(record, caller.workspace_id, row.id, &by, &reason).await? {
        Undo::Made(undo) => Ok(accepted(&state, caller, *undo)),
        Undo::Known(undo) => Ok(answer(StatusCode::OK, &state, caller, *undo)),
        Undo::Unknown => Err(unknown()),
        Undo::NotACancel => Err(wrong_state(&row, "only a cancel can be undone")),
        Undo::Over(until) => {
            let until = until.map_or_else(String::new, |until| until.to_rfc3339());
            let why = format!("it could be undone until {until}");
            Err(wrong_state(&row, &why))
        }
    }
}
