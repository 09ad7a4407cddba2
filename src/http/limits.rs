//! How many jobs a workspace may create in an hour: to see, and for operators to change.

use axum::extract::{FromRequestParts, Path, Request};
use axum::{Extension, Json, extract};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::allowance::Standing;
use super::auth::Caller;
use super::body;
use super::observe::RequestId;
use super::problem::{Code, Problem};
use super::state::State;
use crate::record::RecordError;
use crate::record::access::Permission;
use crate::record::creations::{self, LimitChange, LimitRow};

/// The largest body of a change.
const CHANGE_BODY_MAX: usize = 4 * 1024;
/// The largest number of jobs in an hour.
const JOBS_PER_HOUR_MAX: u32 = 1_000_000_000;

/// Where a workspace stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Limits {
    workspace_id: Uuid,
    plan: Option<String>,
    /// None: the workspace has no limit.
    jobs_per_hour: Option<u32>,
    /// What may be created now.
    remaining: Option<u64>,
    /// Seconds until more may be.
    restored_in_seconds: Option<u64>,
}

/// What the workspace may create
///
/// Its limit of jobs per hour, and what is left of it. Creating jobs tells the same in the headers
/// `RateLimit-Policy` and `RateLimit`.
#[utoipa::path(get, path = "/api/limits", operation_id = "getLimits", tag = "access",
    responses((status = 200, description = "The limit of the caller's workspace", body = Limits)))]
pub(super) async fn show(
    extract::State(state): extract::State<State>,
    caller: Caller,
) -> Result<Json<Limits>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let _turn = state.read_turn(caller).await?;
    let record = &state.services.record;
    let row = creations::limit(record, caller.workspace_id).await?;
    let row = row.ok_or_else(|| unknown(caller.workspace_id))?;
    let standing = state.allowances.look(record, caller.workspace_id).await?;
    Ok(Json(limits(caller.workspace_id, row, standing)))
}

/// A new plan or number. What is not there stays as it is, `null` takes it away.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = LimitsChange)]
struct Change {
    /// `free`, `unlimited`, or another one that the operator has made.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    plan: Option<Option<String>>,
    /// Goes before that of the plan.
    #[serde(default, deserialize_with = "given", alias = "jobs_per_hour")]
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 1_000_000_000)]
    jobs_per_hour: Option<Option<u32>>,
}

/// What is there is given, be it `null`.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    value: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(value).map(Some)
}

/// Change what a workspace may create
///
/// For those who run the installation. This server follows at once, others within five seconds.
#[utoipa::path(patch, path = "/api/workspaces/{id}/limits", operation_id = "changeLimits",
    tag = "access", params(("id" = Uuid, Path, description = "The workspace")),
    request_body = Change,
    responses((status = 200, description = "The limit as it is now", body = Limits)))]
pub(super) async fn change(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<Json<Limits>, Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    let caller = caller.who_operates()?;
    let path = Path::<String>::from_request_parts(&mut parts, &state).await;
    let text = path.map_or_else(|_| String::new(), |Path(text)| text);
    let id = Uuid::parse_str(&text).map_err(|_| {
        let detail = format!("`{}` is no id of a workspace", super::shortened(&text));
        Problem::new(Code::InvalidId, detail)
    })?;
    body::expect_json(&parts.headers)?;
    let whole = body::read(&state, caller, &parts.headers, body, CHANGE_BODY_MAX).await?;
    let change: Change = body::object(&whole.bytes, &json!({}))?;
    if change.jobs_per_hour.flatten() > Some(JOBS_PER_HOUR_MAX) {
        let message = format!("must be at most {JOBS_PER_HOUR_MAX}");
        let problem = Problem::new(Code::InvalidRequest, format!("`jobsPerHour` {message}"));
        return Err(problem.with_error("/jobsPerHour", message));
    }
    let change = LimitChange {
        plan: change.plan,
        jobs_per_hour: change.jobs_per_hour,
    };
    let record = &state.services.record;
    let row = creations::change_limit(record, id, &change, caller.actor, &request_id).await;
    let row = row.map_err(|error| match &error {
        RecordError::Refused {
            constraint: Some(name),
            ..
        } if name == "workspaces_plan_fkey" => {
            let problem = Problem::new(Code::UnknownPlan, "there is no such plan");
            problem.with_error("/plan", "is no known plan")
        }
        _ => error.into(),
    })?;
    let row = row.ok_or_else(|| unknown(id))?;
    state.allowances.forget(id);
    let standing = state.allowances.look(record, id).await?;
    Ok(Json(limits(id, row, standing)))
}

fn limits(workspace_id: Uuid, row: LimitRow, standing: Option<Standing>) -> Limits {
    Limits {
        workspace_id,
        plan: row.plan,
        jobs_per_hour: standing.map(|standing| standing.quota),
        remaining: standing.map(|standing| standing.remaining),
        restored_in_seconds: standing.and_then(|standing| standing.restored_in),
    }
}

fn unknown(id: Uuid) -> Problem {
    let detail = format!("there is no workspace {id}");
    Problem::new(Code::WorkspaceNotFound, detail)
}
