//! What admins do to a webhook: change, delete, give it another secret, and try it.

use axum::extract::{FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::{Extension, Json, extract};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Caller;
use super::body;
use super::observe::RequestId;
use super::problem::Problem;
use super::state::State;
use super::webhook_deliveries::{OneDelivery, sent};
use super::webhooks::{
    BODY_MAX, OneWebhook, WithSecret, address, description, events, id_in_path, job_types,
    new_secret, unknown,
};
use crate::job::webhook::WebhookEvent;
use crate::record::access::Permission;
use crate::record::webhook_deliveries;
use crate::record::webhooks::{self, WebhookChange};

/// What is to be different; what is not given stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schema(as = WebhookChange)]
struct Change {
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_length = 1, max_length = 2048)]
    url: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, max_length = 500)]
    description: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_items = 1)]
    events: Option<Vec<WebhookEvent>>,
    /// `null`: all types.
    #[serde(default, deserialize_with = "given", alias = "job_types")]
    #[schema(value_type = Option<Vec<String>>, min_items = 1, max_items = 100)]
    job_types: Option<Option<Vec<String>>>,
    /// `true` puts it into service again, and clears why it was out of it.
    #[serde(default, deserialize_with = "given", alias = "is_active")]
    #[schema(nullable = false)]
    is_active: Option<bool>,
}

/// What is there is given: `null` only where that means something.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

/// Change a webhook
///
/// For admins. Deliveries that are under way go to the new address with their next attempt.
#[utoipa::path(patch, path = "/api/webhooks/{id}", operation_id = "changeWebhook",
    tag = "webhooks",
    params(("id" = Uuid, Path, description = "The webhook")),
    request_body = Change,
    responses((status = 200, description = "The webhook as it is now", body = OneWebhook)))]
pub(super) async fn patch(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<Json<OneWebhook>, Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    let caller = caller.who_may(Permission::Admin)?;
    let id = id_in_path(&mut parts, &state).await?;
    body::expect_json(&parts.headers)?;
    let whole = body::read(&state, caller, &parts.headers, body, BODY_MAX).await?;
    let wish: Change = body::object(&whole.bytes, &json!({}))?;
    let types = wish.job_types.map(|types| types.map(job_types).transpose());
    let change = WebhookChange {
        url: wish.url.map(|url| address(&state, &url)).transpose()?,
        description: wish
            .description
            .map(|text| description(&text))
            .transpose()?,
        events: wish.events.map(|named| events(&named)).transpose()?,
        job_types: types.transpose()?,
        is_active: wish.is_active,
    };
    let (record, by) = (&state.services.record, caller.by(&request_id));
    let changed = webhooks::change(record, (caller.workspace_id, id), &change, &by).await?;
    let webhook = changed.ok_or_else(unknown)?;
    Ok(Json(OneWebhook { webhook }))
}

/// That it is done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookDeleted)]
pub(super) struct Deleted {
    success: bool,
}

/// Delete a webhook
///
/// For admins. Deliveries that are under way end without being sent.
#[utoipa::path(delete, path = "/api/webhooks/{id}", operation_id = "deleteWebhook",
    tag = "webhooks",
    params(("id" = Uuid, Path, description = "The webhook")),
    responses((status = 200, description = "It is gone", body = Deleted)))]
pub(super) async fn delete(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Deleted>, Problem> {
    let caller = caller.who_may(Permission::Admin)?;
    let id: Uuid = id.parse().map_err(|_| unknown())?;
    let (record, by) = (&state.services.record, caller.by(&request_id));
    match webhooks::delete(record, (caller.workspace_id, id), &by).await? {
        true => Ok(Json(Deleted { success: true })),
        false => Err(unknown()),
    }
}

/// Give a webhook another secret
///
/// For admins. The new one is shown once. The one before signs beside it for a day, so that
/// receivers have time to learn the new one; one before that signs no more.
#[utoipa::path(post, path = "/api/webhooks/{id}/rotate", operation_id = "rotateWebhookSecret",
    tag = "webhooks",
    params(("id" = Uuid, Path, description = "The webhook")),
    responses((status = 200, description = "The webhook, and its new secret",
        body = WithSecret)))]
pub(super) async fn rotate(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<WithSecret>, Problem> {
    let caller = caller.who_may(Permission::Admin)?;
    let id: Uuid = id.parse().map_err(|_| unknown())?;
    let about = (caller.workspace_id, id);
    let (record, by) = (&state.services.record, caller.by(&request_id));
    let (secret, sealed) = new_secret(&state, caller.workspace_id, id).await?;
    let rotated = webhooks::rotate(record, about, &sealed, &by).await?;
    let webhook = rotated.ok_or_else(unknown)?;
    let secret = String::from(&secret);
    Ok(Json(WithSecret { webhook, secret }))
}

/// Try a webhook
///
/// Sends a message of the type `webhook.test`, which tells of nothing. What became of it says its
/// delivery.
#[utoipa::path(post, path = "/api/webhooks/{id}/test", operation_id = "testWebhook",
    tag = "webhooks",
    params(("id" = Uuid, Path, description = "The webhook")),
    responses(
        (status = 202, description = "The delivery, which is under way", body = OneDelivery),
        (status = 409, description = "It is out of service: `webhook_inactive`")))]
pub(super) async fn test(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<OneDelivery>), Problem> {
    let caller = caller.who_may(Permission::Write)?;
    let id: Uuid = id.parse().map_err(|_| unknown())?;
    let about = (caller.workspace_id, id);
    let (record, by) = (&state.services.record, caller.by(&request_id));
    let sending = webhook_deliveries::test(record, about, &by);
    sent(&state, caller, sending).await
}
