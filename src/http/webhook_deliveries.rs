//! Deliveries of a webhook: what became of each, and sending one again.

use axum::extract::Path;
use axum::http::{StatusCode, Uri};
use axum::{Extension, Json, extract};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Caller;
use super::observe::RequestId;
use super::problem::{Code, Problem};
use super::query::Parameters;
use super::state::State;
use super::webhooks::unknown;
use crate::reconcile;
use crate::record::RecordError;
use crate::record::access::Permission;
use crate::record::webhook_deliveries::{self, DeliveryRow, Sending};
use crate::record::webhooks;

/// Deliveries of a page when nothing else is said, and at most.
const LIMIT: i64 = 50;
const LIMIT_MAX: i64 = 200;

/// A page of deliveries, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookDeliveries)]
pub(super) struct Deliveries {
    deliveries: Vec<DeliveryRow>,
    /// What to pass as `before` for the next page; null: this was the last.
    next_before: Option<Uuid>,
}

/// One delivery.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OneWebhookDelivery)]
pub(super) struct OneDelivery {
    delivery: DeliveryRow,
}

/// List deliveries
///
/// Newest first. A delivery is a job: its log is that of the job.
#[utoipa::path(get, path = "/api/webhooks/{id}/deliveries",
    operation_id = "listWebhookDeliveries", tag = "webhooks",
    params(
        ("id" = Uuid, Path, description = "The webhook"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200,
            description = "50 without it."),
        ("before" = Option<Uuid>, Query, description = "The `next_before` of a page.")),
    responses((status = 200, description = "A page of deliveries", body = Deliveries)))]
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Json<Deliveries>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let id: Uuid = id.parse().map_err(|_| unknown())?;
    let given = Parameters::parse(&uri, &["limit", "before"])?;
    let limit = given.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT);
    let before: Option<Uuid> = given.parsed("before")?;
    let mut view = state.view(caller).await?;
    let webhook = webhooks::get(&mut view, caller.workspace_id, id).await?;
    webhook.ok_or_else(unknown)?;
    let about = (caller.workspace_id, id);
    // One more tells whether there is a next page.
    let mut deliveries = webhook_deliveries::page(&mut view, about, before, limit + 1).await?;
    let has_more = deliveries.len() as i64 > limit;
    deliveries.truncate(limit as usize);
    let next_before = deliveries.last().filter(|_| has_more).map(|one| one.id);
    Ok(Json(Deliveries {
        deliveries,
        next_before,
    }))
}

/// Deliver again
///
/// What has ended, well or not, is sent once more by a delivery of its own, with the id of the
/// message that it had: a receiver that has had it knows it.
#[utoipa::path(post, path = "/api/webhooks/{id}/deliveries/{delivery_id}/replay",
    operation_id = "replayWebhookDelivery", tag = "webhooks",
    params(
        ("id" = Uuid, Path, description = "The webhook"),
        ("delivery_id" = Uuid, Path, description = "The delivery")),
    responses(
        (status = 202, description = "The new delivery, which is under way",
            body = OneDelivery),
        (status = 409, description = "It has not ended: `delivery_state`; or the webhook is out \
            of service: `webhook_inactive`")))]
pub(super) async fn replay(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    caller: Caller,
    Path((id, delivery_id)): Path<(String, String)>,
) -> Result<(StatusCode, Json<OneDelivery>), Problem> {
    let caller = caller.who_may(Permission::Write)?;
    let id: Uuid = id.parse().map_err(|_| unknown())?;
    let delivery_id: Uuid = delivery_id.parse().map_err(|_| no_delivery())?;
    let about = (caller.workspace_id, id);
    let (record, by) = (&state.services.record, caller.by(&request_id));
    let sending = webhook_deliveries::replay(record, about, delivery_id, &by);
    sent(&state, caller, sending).await
}

/// The answer to a wish to send something, which takes one job from the allowance of the workspace;
/// Redis is told of the job, or the relay does it.
pub(super) async fn sent(
    state: &State,
    caller: Caller,
    sending: impl Future<Output = Result<Sending, RecordError>>,
) -> Result<(StatusCode, Json<OneDelivery>), Problem> {
    let (record, broker) = (&state.services.record, &state.services.broker);
    let allowances = &state.allowances;
    let mut grant = allowances
        .whole(record, caller.workspace_id, 1, None)
        .await?;
    let sending = sending.await;
    // Of one of which nobody knows whether it was made is taken that it was.
    let is_none = matches!(&sending, Ok(sending) if !matches!(sending, Sending::Made(_)));
    grant.used(u64::from(!is_none)).await;
    let delivery = match sending? {
        Sending::NoWebhook => return Err(unknown()),
        Sending::NoDelivery => return Err(no_delivery()),
        Sending::Inactive => {
            let detail = "this webhook is out of service; put it back with `isActive`: true";
            return Err(Problem::new(Code::WebhookInactive, detail));
        }
        Sending::Open(status) => {
            let detail = format!("this delivery is {status}: it has not ended yet");
            let problem = Problem::new(Code::DeliveryState, detail);
            return Err(problem.with_member("job_status", status));
        }
        Sending::Made(delivery) => *delivery,
    };
    if let Err(error) = reconcile::relay(record, broker, &[delivery.id]).await {
        tracing::debug!(%error, job.id = %delivery.id, "redis not told; the relay will");
    }
    Ok((StatusCode::ACCEPTED, Json(OneDelivery { delivery })))
}

fn no_delivery() -> Problem {
    let detail = "this webhook has no such delivery";
    Problem::new(Code::DeliveryNotFound, detail)
}
