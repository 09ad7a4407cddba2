//! `POST /api/flows`: a tree of jobs, accepted whole or not at all.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::Response;
use axum::{Json, extract};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::body;
use super::enqueue::{open, take_key, with_standing};
use super::problem::{Code, Problem};
use super::state::State;
use crate::broker::FLOW_NODES_MAX;
use crate::enqueue::{EnqueueError, EnqueuedFlow};
use crate::job::flow::FlowRequest;
use crate::job::{self, JobRequest};

/// The largest body of a flow.
const FLOW_BODY_MAX: usize = 32 * 1024 * 1024;
/// Faults that are named at once.
const FAULTS_MAX: usize = 100;

/// A flow that was accepted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Flow)]
struct Accepted {
    root: Uuid,
    /// The ids of all jobs, level by level, the root's first; of a flow that was there before only
    /// the root's.
    ids: Vec<Uuid>,
    /// Not, when the root's idempotency key gave a flow that was there before.
    created: bool,
}

/// An answer that is a flow.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OneFlow {
    flow: Accepted,
}

/// Enqueue a flow
///
/// A tree of jobs, accepted whole or not at all: parents run when their children are done.
#[utoipa::path(post, path = "/api/flows", operation_id = "enqueueFlow", tag = "jobs",
    params(("Idempotency-Key" = Option<String>, Header, nullable = false,
        min_length = 1, max_length = 255,
        description = "The same as `idempotencyKey` of the root")),
    request_body = FlowRequest,
    responses(
        (status = 201, description = "It is accepted", body = OneFlow,
            headers(("Location" = String, description = "Where its root is shown"))),
        (status = 202, description = "It is accepted, and begins when Redis is back",
            body = OneFlow,
            headers(("Location" = String, description = "Where its root is shown"))),
        (status = 200, description = "The root's idempotency key gave a flow that was there before",
            body = OneFlow,
            headers(("Location" = String, description = "Where its root is shown"))),
        (status = 409,
            description = "The key was used for other content: `idempotency_key_reused`"),
    ))]
pub(super) async fn one(
    extract::State(state): extract::State<State>,
    request: Request,
) -> Result<Response, Problem> {
    let (caller, headers, body) = open(&state, request, body::expect_json).await?;
    let whole = body::read(&state, caller, &headers, body, FLOW_BODY_MAX).await?;
    let mut flow = read(&whole.bytes)?;
    drop(whole);
    take_key(&headers, &mut flow.job)?;
    let mut jobs = 0;
    let mut waiting = vec![&mut flow];
    while let Some(node) = waiting.pop() {
        jobs += 1;
        node.job.workspace_id = Some(caller.workspace_id);
        node.job.created_by = caller.user_id();
        waiting.extend(node.children.iter_mut());
    }
    let record = &state.services.record;
    let key = flow.job.idempotency_key.clone();
    let allowances = &state.allowances;
    let taken = allowances.whole(record, caller.workspace_id, jobs, key.as_deref());
    let mut grant = taken.await?;
    let accepted = state.services.enqueue.enqueue_flow(flow).await;
    grant.used(created(&accepted)).await;
    let accepted = accepted?;
    let status = match (accepted.root.is_new, state.is_redis_well()) {
        (false, _) => StatusCode::OK,
        (true, true) => StatusCode::CREATED,
        (true, false) => StatusCode::ACCEPTED,
    };
    let root = accepted.root.id;
    let location = (LOCATION, format!("/api/jobs/{root}"));
    let flow = Accepted {
        root,
        ids: accepted.ids,
        created: accepted.root.is_new,
    };
    let answer = (status, [location], Json(OneFlow { flow }));
    Ok(with_standing(answer, &grant))
}

/// How many jobs this call created, as far as it is known: those of which nobody knows count.
fn created(accepted: &Result<EnqueuedFlow, EnqueueError>) -> u64 {
    match accepted {
        Ok(flow) if flow.root.is_new => flow.ids.len() as u64,
        Err(error) if error.is_unavailable() => u64::MAX,
        Ok(_) | Err(_) => 0,
    }
}

fn read(bytes: &[u8]) -> Result<FlowRequest, Problem> {
    let problem = match body::object(bytes, &json!({ "job": { "jobType": "" } })) {
        Ok(flow) => return Ok(flow),
        Err(problem) => problem,
    };
    let mut faults = Vec::new();
    if let Ok(value) = serde_json::from_slice(bytes) {
        find_faults(&value, "", &mut { FLOW_NODES_MAX }, &mut faults);
        faults.truncate(FAULTS_MAX);
    }
    if faults.is_empty() {
        return Err(problem);
    }
    let texts: Vec<String> = faults
        .iter()
        .map(|fault| format!("{}: {}", fault.pointer, fault.message))
        .collect();
    let detail = format!("the flow is invalid: {}", texts.join("; "));
    Err(Problem::new(Code::InvalidRequest, detail).with_errors(faults))
}

/// The wrong fields of each job, with the job's place in the tree: the first of them, and the first
/// jobs. No deeper than JSON is read.
fn find_faults(node: &Value, place: &str, left: &mut usize, faults: &mut Vec<job::Problem>) {
    if *left == 0 || faults.len() >= FAULTS_MAX {
        return;
    }
    *left -= 1;
    // Each part of the node alone: then all that is wrong is found, and not only the first.
    let alone = match node.as_object() {
        None => node.clone(),
        Some(parts) => parts
            .iter()
            .filter(|(name, _)| *name != "children")
            .map(|(name, part)| match name.as_str() {
                "job" => (name.clone(), json!({ "jobType": "" })),
                _ => (name.clone(), part.clone()),
            })
            .collect(),
    };
    let minimal = json!({ "jobType": "" });
    note::<FlowRequest>(&alone, &json!({ "job": minimal }), place, faults);
    if let Some(job) = node.get("job") {
        note::<JobRequest>(job, &minimal, &format!("{place}/job"), faults);
    }
    match node.get("children") {
        None => {}
        Some(Value::Array(children)) => {
            for (nth, child) in children.iter().enumerate() {
                find_faults(child, &format!("{place}/children/{nth}"), left, faults);
                if *left == 0 || faults.len() >= FAULTS_MAX {
                    break;
                }
            }
        }
        Some(_) => faults.push(job::Problem {
            pointer: format!("{place}/children"),
            message: "expected an array".to_owned(),
        }),
    }
}

/// Notes what is wrong with one part of the tree.
fn note<T: DeserializeOwned>(
    part: &Value,
    minimal: &Value,
    place: &str,
    faults: &mut Vec<job::Problem>,
) {
    let Err(problem) = body::object::<T>(part.to_string().as_bytes(), minimal) else {
        return;
    };
    faults.extend(problem.errors().iter().map(|error| job::Problem {
        pointer: format!("{place}{}", error.pointer),
        message: error.message.clone(),
    }));
}
