//! Webhooks of a workspace: who outside is told of what. Members see them, admins make them.

use axum::extract::{FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::{Extension, Json, extract};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Caller;
use super::body;
use super::observe::RequestId;
use super::problem::{Code, Problem};
use super::sealing::seal;
use super::state::State;
use crate::handlers::deliver_webhook::SEALED_AS;
use crate::job::webhook::WebhookEvent;
use crate::outbound::{Forbidden, check_url};
use crate::record::access::Permission;
use crate::record::webhooks::{self, NewWebhook, WEBHOOKS_MAX, WebhookRow};
use crate::sealed::Place;
use crate::secret::Secret;

/// The largest request for a webhook.
pub(super) const BODY_MAX: usize = 64 * 1024;
/// The longest description, in characters.
const DESCRIPTION_MAX: usize = 500;
/// Job types that one webhook names, and the longest name.
const JOB_TYPES_MAX: usize = 100;
const JOB_TYPE_MAX: usize = 100;

/// The webhooks of a workspace.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Webhooks {
    webhooks: Vec<WebhookRow>,
}

/// One webhook.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OneWebhook {
    pub(super) webhook: WebhookRow,
}

/// A webhook with its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = MadeWebhook)]
pub(super) struct WithSecret {
    pub(super) webhook: WebhookRow,
    /// Signs deliveries, as Standard Webhooks has it. It is shown this once.
    #[schema(pattern = "^whsec_[A-Za-z0-9+/]+=*$")]
    pub(super) secret: String,
}

/// List webhooks
///
/// Oldest first, without their secrets.
#[utoipa::path(get, path = "/api/webhooks", operation_id = "listWebhooks", tag = "webhooks",
    responses((status = 200, description = "The webhooks", body = Webhooks)))]
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
) -> Result<Json<Webhooks>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let mut view = state.view(caller).await?;
    let webhooks = webhooks::list(&mut view, caller.workspace_id).await?;
    Ok(Json(Webhooks { webhooks }))
}

/// Look at a webhook
#[utoipa::path(get, path = "/api/webhooks/{id}", operation_id = "getWebhook", tag = "webhooks",
    params(("id" = Uuid, Path, description = "The webhook")),
    responses((status = 200, description = "The webhook", body = OneWebhook)))]
pub(super) async fn show(
    extract::State(state): extract::State<State>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<OneWebhook>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let id: Uuid = id.parse().map_err(|_| unknown())?;
    let mut view = state.view(caller).await?;
    let webhook = webhooks::get(&mut view, caller.workspace_id, id).await?;
    let webhook = webhook.ok_or_else(unknown)?;
    Ok(Json(OneWebhook { webhook }))
}

/// A webhook that is wished for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schema(as = NewWebhook)]
struct Wish {
    /// Where messages are sent: `https://`, to an address of the public internet.
    #[schema(
        min_length = 1,
        max_length = 2048,
        example = "https://example.com/hooks/bullwark"
    )]
    url: String,
    /// For people.
    #[serde(default)]
    #[schema(max_length = 500)]
    description: String,
    #[schema(min_items = 1)]
    events: Vec<WebhookEvent>,
    /// Of which types of jobs; all without it.
    #[serde(default, alias = "job_types")]
    #[schema(min_items = 1, max_items = 100)]
    job_types: Option<Vec<String>>,
}

/// Make a webhook
///
/// For admins. The secret is shown once. A workspace may have 20.
#[utoipa::path(post, path = "/api/webhooks", operation_id = "createWebhook", tag = "webhooks",
    request_body = Wish,
    responses(
        (status = 201, description = "The new webhook, and its secret", body = WithSecret),
        (status = 409, description = "The workspace has too many: `too_many_webhooks`")))]
pub(super) async fn create(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<(StatusCode, Json<WithSecret>), Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    let caller = caller.who_may(Permission::Admin)?;
    body::expect_json(&parts.headers)?;
    let whole = body::read(&state, caller, &parts.headers, body, BODY_MAX).await?;
    let minimal = json!({ "url": "", "events": [] });
    let wish: Wish = body::object(&whole.bytes, &minimal)?;
    let id = Uuid::now_v7();
    let (secret, sealed_secret) = new_secret(&state, caller.workspace_id, id).await?;
    let new = NewWebhook {
        id,
        workspace_id: caller.workspace_id,
        url: address(&state, &wish.url)?,
        description: description(&wish.description)?,
        events: events(&wish.events)?,
        job_types: wish.job_types.map(job_types).transpose()?,
        sealed_secret,
        created_by: caller.user_id(),
    };
    let by = caller.by(&request_id);
    let made = webhooks::create(&state.services.record, &new, &by).await?;
    let webhook = made.ok_or_else(|| {
        let detail = format!("this workspace has {WEBHOOKS_MAX} webhooks, which is the most");
        Problem::new(Code::TooManyWebhooks, detail)
    })?;
    let secret = String::from(&secret);
    Ok((StatusCode::CREATED, Json(WithSecret { webhook, secret })))
}

/// A fresh secret, and as it is stored.
pub(super) async fn new_secret(
    state: &State,
    workspace_id: Uuid,
    id: Uuid,
) -> Result<(Secret, String), Problem> {
    let random: [u8; 32] = rand::random();
    let secret = Secret(format!("whsec_{}", STANDARD.encode(random)));
    let place = Place {
        kind: SEALED_AS,
        workspace_id,
        id,
    };
    let sealed = seal(state, &place, &secret).await?;
    Ok((secret, sealed))
}

/// The address, if it may be called.
pub(super) fn address(state: &State, url: &str) -> Result<String, Problem> {
    match check_url(url, state.services.allows_private_addresses) {
        Ok(_) => Ok(url.to_owned()),
        Err(Forbidden(why)) => Err(Problem::of_field("/url", why)),
    }
}

pub(super) fn description(text: &str) -> Result<String, Problem> {
    if text.chars().count() <= DESCRIPTION_MAX && !text.contains('\0') {
        return Ok(text.to_owned());
    }
    let message = format!("must have at most {DESCRIPTION_MAX} characters and no U+0000");
    Err(Problem::of_field("/description", message))
}

/// The names, each once.
pub(super) fn events(events: &[WebhookEvent]) -> Result<Vec<String>, Problem> {
    let all = WebhookEvent::ALL.into_iter();
    let named: Vec<String> = all
        .filter(|event| events.contains(event))
        .map(|event| event.as_str().to_owned())
        .collect();
    match named.is_empty() {
        true => Err(Problem::of_field("/events", "must name at least one event")),
        false => Ok(named),
    }
}

/// Types that nobody has declared may come later.
pub(super) fn job_types(mut types: Vec<String>) -> Result<Vec<String>, Problem> {
    let is_name = |name: &String| {
        (1..=JOB_TYPE_MAX).contains(&name.len()) && !name.contains(char::is_control)
    };
    if !(1..=JOB_TYPES_MAX).contains(&types.len()) || !types.iter().all(is_name) {
        let message = format!(
            "must have 1 to {JOB_TYPES_MAX} names of job types, each of 1 to {JOB_TYPE_MAX} bytes; \
             leave it out for all types"
        );
        return Err(Problem::of_field("/jobTypes", message));
    }
    types.sort();
    types.dedup();
    Ok(types)
}

pub(super) fn unknown() -> Problem {
    Problem::new(Code::WebhookNotFound, "there is no such webhook here")
}

/// The id in the path of a request whose body is read by hand.
pub(super) async fn id_in_path(parts: &mut Parts, state: &State) -> Result<Uuid, Problem> {
    let path = Path::<String>::from_request_parts(parts, state).await;
    let id = path.ok().and_then(|Path(id)| id.parse().ok());
    id.ok_or_else(unknown)
}
