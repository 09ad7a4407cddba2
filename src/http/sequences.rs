//! Sequences of mails, and their steps.

use axum::extract::{FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::{Extension, Json, extract};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Caller;
use super::body;
use super::observe::RequestId;
use super::problem::{Code, Problem};
use super::state::State;
use crate::handlers::email::check;
use crate::job::connection::Provider;
use crate::record::access::Permission;
use crate::record::connections;
use crate::record::sequences::{
    self, Made, NewSequence, SEQUENCES_MAX, STEPS_MAX, SequenceRow, StepRow, StepWish,
};

/// The largest request: two texts and what is around them.
const BODY_MAX: usize = 2 * check::BODY_MAX_BYTES + 64 * 1024;
/// The longest name, in characters.
const NAME_MAX: usize = 100;

/// The sequences of a workspace.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Sequences {
    sequences: Vec<SequenceRow>,
}

/// One sequence.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OneSequence {
    sequence: SequenceRow,
    /// In their order.
    steps: Vec<StepRow>,
}

/// One step.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OneStep {
    step: StepRow,
}

/// List sequences
///
/// Oldest first, without their steps.
#[utoipa::path(get, path = "/api/sequences", operation_id = "listSequences", tag = "email",
    responses((status = 200, description = "The sequences", body = Sequences)))]
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
) -> Result<Json<Sequences>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let mut view = state.view(caller).await?;
    let sequences = sequences::list(&mut view, caller.workspace_id).await?;
    Ok(Json(Sequences { sequences }))
}

/// Look at a sequence
#[utoipa::path(get, path = "/api/sequences/{id}", operation_id = "getSequence", tag = "email",
    params(("id" = Uuid, Path, description = "The sequence")),
    responses((status = 200, description = "The sequence and its steps", body = OneSequence)))]
pub(super) async fn show(
    extract::State(state): extract::State<State>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<OneSequence>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let id: Uuid = id.parse().map_err(|_| unknown())?;
    let mut view = state.view(caller).await?;
    let found = sequences::get(&mut view, (caller.workspace_id, id)).await?;
    let (sequence, steps) = found.ok_or_else(unknown)?;
    Ok(Json(OneSequence { sequence, steps }))
}

/// Which kind of mails it has.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SequenceKind {
    /// Has a link to unsubscribe, and goes to nobody who used one.
    #[default]
    Marketing,
    /// What its recipient needs: has no such link, and goes to who unsubscribed.
    Transactional,
}

/// A sequence that is wished for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewSequence)]
struct Wish {
    /// Each once in a workspace.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    #[serde(default)]
    kind: SequenceKind,
}

/// Make a sequence
///
/// It has no steps yet. A workspace may have 500.
#[utoipa::path(post, path = "/api/sequences", operation_id = "createSequence", tag = "email",
    request_body = Wish,
    responses(
        (status = 201, description = "The new sequence", body = OneSequence),
        (status = 409, description = "The workspace has too many (`too_many_sequences`), or \
            another one of this name (`sequence_name_taken`)")))]
pub(super) async fn create(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<(StatusCode, Json<OneSequence>), Problem> {
    let (caller, _, bytes) = read(&state, request).await?;
    let wish: Wish = body::object(&bytes, &json!({ "name": "" }))?;
    let is_name = (1..=NAME_MAX).contains(&wish.name.chars().count())
        && wish.name.trim() == wish.name
        && !wish.name.contains(char::is_control);
    if !is_name {
        let message = format!(
            "must have 1 to {NAME_MAX} characters, no blanks around them and no control characters"
        );
        return Err(Problem::of_field("/name", message));
    }
    let new = NewSequence {
        workspace_id: caller.workspace_id,
        name: wish.name,
        kind: match wish.kind {
            SequenceKind::Marketing => "marketing".to_owned(),
            SequenceKind::Transactional => "transactional".to_owned(),
        },
        created_by: caller.user_id(),
    };
    let by = caller.by(&request_id);
    let sequence = made(sequences::create(&state.services.record, &new, &by).await?)?;
    let steps = Vec::new();
    Ok((StatusCode::CREATED, Json(OneSequence { sequence, steps })))
}

/// What is to be different.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schema(as = SequenceChange)]
struct Change {
    /// False: its jobs wait until it is true again.
    #[serde(alias = "is_active")]
    is_active: bool,
}

/// Switch a sequence on or off
#[utoipa::path(patch, path = "/api/sequences/{id}", operation_id = "changeSequence",
    tag = "email", params(("id" = Uuid, Path, description = "The sequence")),
    request_body = Change,
    responses((status = 200, description = "The sequence as it is now", body = OneSequence)))]
pub(super) async fn patch(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<Json<OneSequence>, Problem> {
    let (caller, mut parts, bytes) = read(&state, request).await?;
    let path = Path::<String>::from_request_parts(&mut parts, &state).await;
    let id = path.ok().and_then(|Path(id)| id.parse().ok());
    let id: Uuid = id.ok_or_else(unknown)?;
    let change: Change = body::object(&bytes, &json!({ "isActive": true }))?;
    let (about, by) = ((caller.workspace_id, id), caller.by(&request_id));
    let record = &state.services.record;
    made(sequences::set_active(record, about, change.is_active, &by).await?)?;
    let mut view = state.view(caller).await?;
    let found = sequences::get(&mut view, about).await?;
    let (sequence, steps) = found.ok_or_else(unknown)?;
    Ok(Json(OneSequence { sequence, steps }))
}

/// A step that is wished for, whole.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schema(as = NewSequenceStep)]
struct Step {
    /// Its place in the sequence; behind the last one, or where it is, if not said.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 100)]
    position: Option<i32>,
    /// A connection to `smtp`, `sendgrid` or `ses`.
    #[serde(alias = "connection_id")]
    connection_id: Uuid,
    #[serde(alias = "from_address")]
    #[schema(min_length = 3, max_length = 254, example = "news@example.com")]
    from_address: String,
    #[serde(default, alias = "from_name")]
    #[schema(max_length = 100)]
    from_name: String,
    #[serde(default, alias = "reply_to")]
    #[schema(min_length = 3, max_length = 254)]
    reply_to: Option<String>,
    /// A template, as the bodies are.
    #[schema(min_length = 1, max_length = 1000, example = "Hello {{ first_name }}")]
    subject: String,
    /// One of both bodies, or both.
    #[serde(default, alias = "text_body")]
    #[schema(max_length = 262144)]
    text_body: Option<String>,
    #[serde(default, alias = "html_body")]
    #[schema(max_length = 262144)]
    html_body: Option<String>,
    /// What stands in for fields that a contact has not.
    #[serde(default)]
    #[schema(value_type = Object)]
    defaults: Map<String, Value>,
}

/// Add a step to a sequence
///
/// Its texts are tried with a contact that has every field.
#[utoipa::path(post, path = "/api/sequences/{id}/steps", operation_id = "createSequenceStep",
    tag = "email", params(("id" = Uuid, Path, description = "The sequence")),
    request_body = Step,
    responses(
        (status = 201, description = "The new step", body = OneStep),
        (status = 409, description = "The sequence has 100 (`too_many_steps`), or another one in \
            this place (`step_position_taken`)")))]
pub(super) async fn add_step(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<(StatusCode, Json<OneStep>), Problem> {
    let step = put(&state, &request_id, request, false).await?;
    Ok((StatusCode::CREATED, Json(step)))
}

/// Replace a step
///
/// Mails that were sent stay as they are; those that are planned are made of the new one.
#[utoipa::path(put, path = "/api/sequences/{id}/steps/{step_id}",
    operation_id = "replaceSequenceStep", tag = "email",
    params(("id" = Uuid, Path, description = "The sequence"),
        ("step_id" = Uuid, Path, description = "The step")),
    request_body = Step,
    responses(
        (status = 200, description = "The step as it is now", body = OneStep),
        (status = 409, description = "Another step is in this place: `step_position_taken`")))]
pub(super) async fn replace_step(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<Json<OneStep>, Problem> {
    Ok(Json(put(&state, &request_id, request, true).await?))
}

async fn put(
    state: &State,
    request_id: &str,
    request: Request,
    is_there: bool,
) -> Result<OneStep, Problem> {
    let (caller, mut parts, bytes) = read(state, request).await?;
    let path = Path::<Vec<(String, String)>>::from_request_parts(&mut parts, state).await;
    let ids = path.ok().map(|Path(parts)| parts).unwrap_or_default();
    let id = |at: usize| ids.get(at).and_then(|(_, id)| id.parse::<Uuid>().ok());
    let sequence_id = id(0).ok_or_else(unknown)?;
    let step_id = match is_there {
        true => Some(id(1).ok_or_else(unknown)?),
        false => None,
    };
    let minimal = json!({ "connectionId": Uuid::nil(), "fromAddress": "", "subject": "" });
    let step: Step = body::object(&bytes, &minimal)?;
    check::check(&check::Parts {
        from_address: &step.from_address,
        from_name: &step.from_name,
        reply_to: step.reply_to.as_deref(),
        subject: &step.subject,
        text_body: step.text_body.as_deref(),
        html_body: step.html_body.as_deref(),
        defaults: &step.defaults,
    })
    .map_err(|mistake| Problem::of_field(&mistake.pointer, mistake.message))?;
    if step
        .position
        .is_some_and(|at| !(1..=STEPS_MAX).contains(&at))
    {
        let message = format!("must be from 1 to {STEPS_MAX}");
        return Err(Problem::of_field("/position", message));
    }
    let mut view = state.view(caller).await?;
    let about = (caller.workspace_id, sequence_id);
    sequences::get(&mut view, about)
        .await?
        .ok_or_else(unknown)?;
    let about = (caller.workspace_id, step.connection_id);
    let connection = connections::get(&mut view, about).await?;
    drop(view);
    let provider = connection.and_then(|connection| connection.provider.parse::<Provider>().ok());
    let sends = [Provider::Smtp, Provider::Sendgrid, Provider::Ses];
    let provider = provider.filter(|provider| sends.contains(provider));
    let provider = provider.ok_or_else(|| {
        let message = "must be a connection of this workspace to `smtp`, `sendgrid` or `ses`";
        Problem::of_field("/connectionId", message)
    })?;
    let wish = StepWish {
        position: step.position,
        connection_id: step.connection_id,
        provider: provider.as_str().to_owned(),
        from_address: step.from_address,
        from_name: step.from_name.trim().to_owned(),
        reply_to: step.reply_to,
        subject: step.subject,
        text_body: step.text_body,
        html_body: step.html_body,
        defaults: Value::Object(step.defaults),
    };
    let about = (caller.workspace_id, sequence_id);
    let by = caller.by(request_id);
    let put = sequences::put_step(&state.services.record, about, step_id, &wish, &by).await?;
    let step = match put {
        Made::Done(step) => *step,
        Made::Unknown => return Err(unknown()),
        Made::TooMany => {
            let detail = format!("this sequence has {STEPS_MAX} steps, which is the most");
            return Err(Problem::new(Code::TooManySteps, detail));
        }
        Made::Taken => {
            let detail = "this sequence has another step in this place";
            return Err(Problem::new(Code::StepPositionTaken, detail));
        }
    };
    Ok(OneStep { step })
}

/// Who asks, for what, with which body.
async fn read(
    state: &State,
    request: Request,
) -> Result<(Caller, Parts, axum::body::Bytes), Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, state).await?;
    let caller = caller.who_may(Permission::Write)?;
    body::expect_json(&parts.headers)?;
    let whole = body::read(state, caller, &parts.headers, body, BODY_MAX).await?;
    Ok((caller, parts, whole.bytes.clone()))
}

fn made(made: Made<SequenceRow>) -> Result<SequenceRow, Problem> {
    match made {
        Made::Done(sequence) => Ok(*sequence),
        Made::Unknown => Err(unknown()),
        Made::TooMany => {
            let detail = format!("this workspace has {SEQUENCES_MAX} sequences, which is the most");
            Err(Problem::new(Code::TooManySequences, detail))
        }
        Made::Taken => {
            let detail = "this workspace has another sequence of this name";
            Err(Problem::new(Code::SequenceNameTaken, detail))
        }
    }
}

fn unknown() -> Problem {
    Problem::new(
        Code::SequenceNotFound,
        "there is no such sequence or step here",
    )
}
