//! Job types: which there are, and declaring one that foreign or forwarded workers serve.

use axum::extract::{FromRequestParts, Request};
use axum::http::StatusCode;
use axum::{Extension, Json, extract};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Caller;
use super::body;
use super::observe::RequestId;
use super::problem::{Code, Problem};
use super::state::State;
use crate::job::{InvalidType, JobType};
use crate::record::access::Permission;
use crate::record::types;
use crate::upkeep;

/// The largest declaration.
const TYPE_BODY_MAX: usize = 256 * 1024;
/// The most types of an installation: every process reads all of them again and again.
const TYPES_MAX: usize = 1000;

pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
) -> Result<Json<Value>, Problem> {
    caller.who_may(Permission::Read)?;
    let _turn = state.read_turn().await?;
    let rows = types::list(&state.services.record).await?;
    Ok(Json(json!({ "job_types": rows })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Declaration {
    name: String,
    /// Anything is accepted without one.
    #[serde(default = "anything")]
    schema: Value,
}

fn anything() -> Value {
    Value::Bool(true)
}

/// Declares a type (201) or replaces the schema of one (200). This process accepts it at once,
/// others within seconds.
pub(super) async fn declare(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    let caller = caller.who_operates()?;
    body::expect_json(&parts.headers)?;
    let whole = body::read(&state, &parts.headers, body, TYPE_BODY_MAX).await?;
    let given: Declaration = body::object(&whole.bytes, &json!({ "name": "" }))?;
    JobType::new(&given.name, given.schema.clone()).map_err(|error| {
        let pointer = match error {
            InvalidType::Name(_) => "/name",
            InvalidType::Schema { .. } => "/schema",
        };
        let text = error.to_string();
        Problem::new(Code::InvalidRequest, text.clone()).with_error(pointer, text)
    })?;

    let app = &state.services;
    let known = types::list(&app.record).await?;
    let is_new = known.iter().all(|row| row.name != given.name);
    if is_new && known.len() >= TYPES_MAX {
        let detail = format!("there are {TYPES_MAX} job types already, which is the most");
        return Err(Problem::new(Code::InvalidRequest, detail));
    }
    let by = caller.by(&request_id);
    let is_builtin = app.types.get(&given.name).is_some();
    if is_builtin || !types::declare(&app.record, &given.name, &given.schema, &by).await? {
        let detail = format!(
            "`{}` is a built-in job type; choose another name",
            given.name
        );
        return Err(Problem::new(Code::BuiltinJobType, detail).with_error("/name", "is built in"));
    }
    let accepted = upkeep::declared_types(&app.record, app.types.clone()).await?;
    app.enqueue.set_types(accepted);
    let status = match is_new {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    let job_type = json!({ "name": given.name, "schema": given.schema, "builtin": false });
    Ok((status, Json(json!({ "job_type": job_type }))))
}
