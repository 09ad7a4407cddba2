//! What SendGrid tells of mails: its signed event webhook
//! (<https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event>).
//!
//! Promises: nothing is believed that the key of the connection has not signed; each event counts
//! once; an answer of 200 means that all of it is in the record, and everything else makes
//! SendGrid tell it again. Connections that there are not, and those without a key, look the same.

use axum::extract::{FromRequestParts, Path, Request};
use axum::http::HeaderMap;
use axum::{Json, extract};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::body;
use super::problem::{Code, Problem};
use super::state::State;
use crate::clock;
use crate::handlers::connection::SEALED_AS;
use crate::job::connection::{Credentials, Provider};
use crate::record::email_events::{self, EVENTS_MAX, EmailEvent, Teller, Told};
use crate::sealed::Place;

/// The largest request.
const BODY_MAX: usize = 4 * 1024 * 1024;
const SIGNATURE: &str = "x-twilio-email-event-webhook-signature";
const TIMESTAMP: &str = "x-twilio-email-event-webhook-timestamp";
/// A request that was signed longer ago, in seconds, is none of SendGrid's: it tries for a day. It
/// is less than what the record remembers of events, so no request that somebody kept counts twice.
const AGE_MAX: i64 = 7 * 24 * 3600;
/// How a public key of P-256 begins (RFC 5480); behind it are the 65 bytes of its point.
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// An event, of which the rest does not matter.
#[derive(Debug, Deserialize)]
struct Event {
    #[serde(default)]
    sg_event_id: String,
    #[serde(default)]
    event: String,
    /// Of a bounce: `bounce` or `blocked`.
    #[serde(default)]
    r#type: String,
    /// What was sent along with the mail.
    #[serde(default)]
    bullwark_send_id: Option<String>,
}

/// What was taken in.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TakenIn {
    /// Events that were not told before.
    pub(super) taken: usize,
}

/// Take in events of SendGrid
///
/// What SendGrid calls; the connection needs its `webhook_public_key`, and signed events are
/// switched on there.
#[utoipa::path(post, path = "/api/email/events/sendgrid/{connection_id}",
    operation_id = "takeInSendgridEvents", tag = "email", security(()),
    params(("connection_id" = Uuid, Path, description = "The connection that sends the mails"),
        ("X-Twilio-Email-Event-Webhook-Signature" = String, Header,
            description = "Of the timestamp and the body"),
        ("X-Twilio-Email-Event-Webhook-Timestamp" = String, Header)),
    request_body(content = String, content_type = "application/json"),
    responses(
        (status = 200, description = "They are taken in", body = TakenIn),
        (status = 401, description = "The signature is not of this connection: \
            `invalid_signature`")))]
pub(super) async fn take_in(
    extract::State(state): extract::State<State>,
    request: Request,
) -> Result<Json<TakenIn>, Problem> {
    let (mut parts, body) = request.into_parts();
    let path = Path::<String>::from_request_parts(&mut parts, &state).await;
    let id = path.ok().and_then(|Path(id)| id.parse::<Uuid>().ok());
    let _turn = state.bounds.link_turn().await?;
    let teller = match id {
        Some(id) => email_events::teller(&state.services.record, id).await?,
        None => None,
    };
    let is_sendgrid = |teller: &Teller| teller.provider == Provider::Sendgrid.as_str();
    let teller = teller.filter(is_sendgrid).ok_or_else(unsigned)?;
    let point = point(&state, &teller)?.ok_or_else(unsigned)?;
    let of = teller.workspace_id;
    let whole = body::read_of(&state, of, &parts.headers, body, BODY_MAX).await?;
    if !is_signed(&point, &parts.headers, &whole.bytes) {
        return Err(unsigned());
    }
    let events: Vec<Event> = serde_json::from_slice(&whole.bytes).map_err(|error| {
        let detail = format!("the body is no list of events: {error}");
        Problem::new(Code::MalformedJson, detail)
    })?;
    if events.len() > EVENTS_MAX {
        return Err(body::too_large(BODY_MAX as u64));
    }
    let told: Vec<Told> = events.iter().filter_map(told).collect();
    let taken = email_events::take_in(&state.services.record, &teller, &told).await?;
    Ok(Json(TakenIn { taken }))
}

/// The point of the connection's key; none: it has none.
fn point(state: &State, teller: &Teller) -> Result<Option<Vec<u8>>, Problem> {
    let place = Place {
        kind: SEALED_AS,
        workspace_id: teller.workspace_id,
        id: teller.id,
    };
    let opened = state.services.sealer.open(&place, &teller.credentials);
    let opened = opened.map_err(|error| Problem::internal(&error))?;
    let credentials: Credentials =
        serde_json::from_str(&opened).map_err(|error| Problem::internal(&error))?;
    let key = credentials.get("webhook_public_key");
    let key = key.and_then(|text| STANDARD.decode(text.trim()).ok());
    Ok(key.and_then(|der| der.strip_prefix(&P256).map(<[u8]>::to_vec)))
}

fn is_signed(point: &[u8], headers: &HeaderMap, body: &[u8]) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(signature), Some(timestamp)) = (text(SIGNATURE), text(TIMESTAMP)) else {
        return false;
    };
    let Ok(signature) = STANDARD.decode(signature) else {
        return false;
    };
    let age = timestamp
        .parse::<i64>()
        .map(|at| clock::now().timestamp().abs_diff(at));
    if !age.is_ok_and(|age| age <= AGE_MAX.unsigned_abs()) {
        return false;
    }
    let signed = [timestamp.as_bytes(), body].concat();
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point);
    key.verify(&signed, &signature).is_ok()
}

/// What an event says of a mail of ours.
fn told(event: &Event) -> Option<Told> {
    let kind = match (event.event.as_str(), event.r#type.as_str()) {
        ("processed", _) => EmailEvent::Taken,
        ("delivered", _) => EmailEvent::Delivered,
        ("bounce", "blocked") => EmailEvent::Blocked,
        ("bounce", _) => EmailEvent::Bounced,
        ("dropped", _) => EmailEvent::Dropped,
        ("spamreport", _) => EmailEvent::Complained,
        ("unsubscribe" | "group_unsubscribe", _) => EmailEvent::Unsubscribed,
        // Opened, clicked, deferred and whatever comes.
        _ => return None,
    };
    let id = &event.sg_event_id;
    let is_id = (1..=200).contains(&id.len()) && !id.contains('\0');
    is_id.then_some(())?;
    Some(Told {
        event_id: id.clone(),
        send_id: event.bullwark_send_id.as_ref()?.parse().ok()?,
        event: kind,
    })
}

fn unsigned() -> Problem {
    let detail = "this is not signed with the key of a connection of this id";
    Problem::new(Code::InvalidSignature, detail)
}
