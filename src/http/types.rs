//! Job types: which there are, and declaring one that foreign or forwarded workers serve.

use axum::extract::{FromRequestParts, Request};
use axum::http::StatusCode;
use axum::{Extension, Json, extract};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};

use super::auth::Caller;
use super::body;
use super::observe::RequestId;
use super::problem::{Code, Problem};
use super::state::State;
use crate::job::{InvalidType, JobType};
use crate::record::access::Permission;
use crate::record::types::{self, TypeRow};
use crate::upkeep;

/// The largest declaration.
const TYPE_BODY_MAX: usize = 256 * 1024;
/// The most types of an installation: every process reads all of them again and again.
const TYPES_MAX: usize = 1000;

/// All job types that are known.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobTypes {
    job_types: Vec<TypeRow>,
}

/// List job types
#[utoipa::path(get, path = "/api/job-types", operation_id = "listJobTypes", tag = "job types",
    responses((status = 200, description = "The built-in and the declared ones, by name",
        body = JobTypes)))]
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
) -> Result<Json<JobTypes>, Problem> {
    caller.who_may(Permission::Read)?;
    let _turn = state.read_turn(caller).await?;
    let job_types = types::list(&state.services.record).await?;
    Ok(Json(JobTypes { job_types }))
}

/// A job type that a person declares.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewJobType)]
struct Declaration {
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$",
        example = "invoice.send"
    )]
    name: String,
    /// The JSON schema of its payloads. Anything is accepted without one.
    #[serde(default = "anything")]
    #[schema(schema_with = any_json_schema)]
    schema: Value,
}

fn any_json_schema() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Boolean]))
        .build()
}

fn anything() -> Value {
    Value::Bool(true)
}

/// A type that was declared.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeclaredJobType {
    job_type: TypeRow,
}

/// Declare a job type
///
/// One that foreign or forwarded workers serve; or replace the schema of one. This process accepts
/// it at once, others within seconds. For those who run the installation.
#[utoipa::path(post, path = "/api/job-types", operation_id = "declareJobType", tag = "job types",
    request_body = Declaration,
    responses(
        (status = 201, description = "A new type", body = DeclaredJobType),
        (status = 200, description = "Its schema was replaced", body = DeclaredJobType),
        (status = 409, description = "It is built in: `builtin_job_type`")))]
pub(super) async fn declare(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<(StatusCode, Json<DeclaredJobType>), Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    let caller = caller.who_operates()?;
    body::expect_json(&parts.headers)?;
    let whole = body::read(&state, caller, &parts.headers, body, TYPE_BODY_MAX).await?;
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
    let job_type = TypeRow {
        name: given.name,
        schema: given.schema,
        builtin: false,
    };
    Ok((status, Json(DeclaredJobType { job_type })))
}
