//! Alerts: losses that a person must know of. They are of the installation, not of a workspace.

use axum::extract::{FromRequestParts, Path, Request};
use axum::http::Uri;
use axum::{Extension, Json, extract};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Caller;
use super::body;
use super::control::reason;
use super::observe::RequestId;
use super::problem::{Code, Problem};
use super::query::{Parameters, invalid};
use super::state::State;
use crate::record::alerts::{self, AlertRow};

/// Alerts of a page when nothing else is said, and at most.
const LIMIT: i64 = 50;
const LIMIT_MAX: i64 = 200;
/// The largest body of a change.
const BODY_MAX: usize = 16 * 1024;

/// A page of alerts, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Alerts {
    alerts: Vec<AlertRow>,
    /// What to pass as `before` for the next page; null: this was the last.
    next_before: Option<Uuid>,
}

/// One alert.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OneAlert {
    alert: AlertRow,
}

/// List alerts
///
/// Losses that a person must know of, newest first. For those who may see all workspaces.
#[utoipa::path(get, path = "/api/alerts", operation_id = "listAlerts", tag = "operations",
    params(
        ("status" = Option<String>, Query, pattern = "^(open|resolved)$",
            description = "`open` or `resolved`; all without it."),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200,
            description = "50 without it."),
        ("before" = Option<Uuid>, Query, description = "The `next_before` of a page.")),
    responses((status = 200, description = "A page of alerts", body = Alerts)))]
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Alerts>, Problem> {
    caller.who_sees_all()?;
    let given = Parameters::parse(&uri, &["status", "limit", "before"])?;
    let is_open = match given.text("status") {
        None => None,
        Some("open") => Some(true),
        Some("resolved") => Some(false),
        Some(other) => {
            let other = super::shortened(other);
            let allowed = "it must be `open` or `resolved`";
            return Err(invalid(&format!("`status` is `{other}`; {allowed}")));
        }
    };
    let limit = given.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT);
    let before: Option<Uuid> = given.parsed("before")?;
    let mut view = state.view_of_all(caller).await?;
    // One more tells whether there is a next page.
    let mut alerts = alerts::page(&mut view, is_open, before, limit + 1).await?;
    let has_more = alerts.len() as i64 > limit;
    alerts.truncate(limit as usize);
    let next_before = alerts.last().filter(|_| has_more).map(|alert| alert.id);
    Ok(Json(Alerts {
        alerts,
        next_before,
    }))
}

/// What a person has to say of an alert.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ResolveAlert)]
struct Seen {
    /// For the audit.
    #[serde(default)]
    #[schema(max_length = 500)]
    reason: Option<String>,
}

/// Resolve an alert
///
/// A person has seen to it. Doing it again changes nothing. For those who run the installation.
#[utoipa::path(post, path = "/api/alerts/{id}/resolve", operation_id = "resolveAlert",
    tag = "operations",
    params(("id" = Uuid, Path, description = "The alert")),
    request_body = Option<Seen>,
    responses((status = 200, description = "The alert", body = OneAlert)))]
pub(super) async fn resolve(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<Json<OneAlert>, Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    let caller = caller.who_operates()?;
    let unknown = || Problem::new(Code::AlertNotFound, "there is no such alert");
    let path = Path::<String>::from_request_parts(&mut parts, &state).await;
    let id: Option<Uuid> = path.ok().and_then(|Path(id)| id.parse().ok());
    let id = id.ok_or_else(unknown)?;
    let whole = body::read(&state, caller, &parts.headers, body, BODY_MAX).await?;
    let seen = match body::is_absent(&whole.bytes) {
        true => Seen::default(),
        false => {
            body::expect_json(&parts.headers)?;
            body::object(&whole.bytes, &json!({}))?
        }
    };
    let why = seen.reason.map(|given| reason(Some(given))).transpose()?;
    let by = caller.by(&request_id);
    let noted = (&by, why.as_deref());
    let resolved = alerts::resolve(&state.services.record, id, noted).await?;
    let alert = resolved.ok_or_else(unknown)?;
    Ok(Json(OneAlert { alert }))
}
