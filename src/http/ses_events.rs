//! What Amazon SES tells of mails: events of a configuration set, by a topic of SNS
//! (<https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-contents.html>).
//!
//! Promises: nothing is believed that SNS has not signed, for the topic that the connection names:
//! anybody may have a topic, and SNS signs for all of them. Each message counts once, by its id; an
//! answer of 200 means that it is in the record, and everything else makes SNS send it again. The
//! subscription of that topic is confirmed by itself.

use axum::extract::{FromRequestParts, Path, Request};
use axum::{Json, extract};
use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::body;
use super::email_events::TakenIn;
use super::problem::{Code, Problem};
use super::sns::{Doubt, Envelope};
use super::state::State;
use crate::clock;
use crate::job::connection::Provider;
use crate::record::email_events::{self, EmailEvent, Teller, Told};

/// The largest request: SNS sends 256 KiB at most, in JSON within JSON.
const BODY_MAX: usize = 1024 * 1024;
/// A message that was sent longer ago is not taken: less than what the record remembers of events.
const AGE_MAX: chrono::Duration = chrono::Duration::days(7);

/// Take in events of SES
///
/// What SNS calls; the connection needs its setting `events_topic_arn`, the topic of the event
/// destination.
#[utoipa::path(post, path = "/api/email/events/ses/{connection_id}",
    operation_id = "takeInSesEvents", tag = "email", security(()),
    params(("connection_id" = Uuid, Path, description = "The connection that sends the mails")),
    request_body(content = String, content_type = "text/plain"),
    responses(
        (status = 200, description = "They are taken in", body = TakenIn),
        (status = 401, description = "SNS has not signed it for the topic of this connection: \
            `invalid_signature`"),
        (status = 503, description = "The certificate of SNS can not be had now: \
            `keys_unavailable`")))]
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
    let is_ses = |teller: &Teller| teller.provider == Provider::Ses.as_str();
    let teller = teller.filter(is_ses).ok_or_else(unsigned)?;
    let topic = teller.settings["events_topic_arn"].as_str();
    let topic = topic.ok_or_else(unsigned)?.to_owned();
    let of = teller.workspace_id;
    let whole = body::read_of(&state, of, &parts.headers, body, BODY_MAX).await?;
    let envelope = serde_json::from_slice::<Envelope>(&whole.bytes);
    let envelope = envelope.map_err(|_| unsigned())?;
    // Before anything is fetched for it.
    if envelope.topic_arn != topic || !is_recent(&envelope.timestamp, clock::now()) {
        return Err(unsigned());
    }
    let own = teller.base_url.as_deref();
    state.sns.verify(&envelope, own).await.map_err(doubt)?;
    match envelope.r#type.as_str() {
        "SubscriptionConfirmation" => {
            state.sns.confirm(&envelope, own).await.map_err(doubt)?;
            tracing::info!(connection.id = %teller.id, topic, "subscribed to events of SES");
            return Ok(Json(TakenIn { taken: 0 }));
        }
        "UnsubscribeConfirmation" => {
            tracing::warn!(connection.id = %teller.id, topic, "events of SES come no more");
            return Ok(Json(TakenIn { taken: 0 }));
        }
        _ => {}
    }
    let event = serde_json::from_str(&envelope.message).unwrap_or(Value::Null);
    let told: Vec<Told> = told(&envelope.message_id, &event).into_iter().collect();
    let taken = email_events::take_in(&state.services.record, &teller, &told).await?;
    Ok(Json(TakenIn { taken }))
}

fn is_recent(timestamp: &str, now: DateTime<Utc>) -> bool {
    let at = DateTime::parse_from_rfc3339(timestamp);
    at.is_ok_and(|at| (now - at.to_utc()).abs() <= AGE_MAX)
}

/// What an event says of a mail of ours. Those of a configuration set say `eventType`, those of an
/// identity `notificationType`; both have the tags of the mail when they have any.
fn told(message_id: &str, event: &Value) -> Option<Told> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = match text(&event["eventType"]) {
        kind if kind.is_empty() => text(&event["notificationType"]),
        kind => kind,
    };
    let kind = match kind.as_str() {
        // It was taken, and tried again: whoever was in doubt is not any more.
        "Send" | "DeliveryDelay" => EmailEvent::Taken,
        "Delivery" => EmailEvent::Delivered,
        "Bounce" => match event["bounce"]["bounceType"].as_str() {
            Some("Permanent") => EmailEvent::Bounced,
            // The address may work tomorrow; this mail did not arrive.
            _ => EmailEvent::Blocked,
        },
        "Reject" | "Rendering Failure" => EmailEvent::Dropped,
        "Complaint" => EmailEvent::Complained,
        // Opened, clicked and whatever comes.
        _ => return None,
    };
    let is_id = (1..=200).contains(&message_id.len()) && !message_id.contains('\0');
    is_id.then_some(())?;
    let send_id = &event["mail"]["tags"]["bullwark_send_id"][0];
    Some(Told {
        event_id: message_id.to_owned(),
        send_id: send_id.as_str()?.parse().ok()?,
        event: kind,
    })
}

fn doubt(doubt: Doubt) -> Problem {
    match doubt {
        Doubt::Unsigned => unsigned(),
        Doubt::Unavailable(why) => {
            tracing::warn!(why, "a message of SNS can not be looked at now");
            let detail = "SNS can not be asked now; send it again later";
            Problem::new(Code::KeysUnavailable, detail)
        }
    }
}

fn unsigned() -> Problem {
    let detail = "SNS has not signed this for the topic of a connection of this id";
    Problem::new(Code::InvalidSignature, detail)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_mean_what_they_say() {
        let mail = json!({ "tags": { "bullwark_send_id": [Uuid::nil().to_string()] } });
        let of = |mut event: Value| {
            event["mail"] = mail.clone();
            told("x", &event).map(|told| told.event)
        };
        for (event, expected) in [
            (json!({ "eventType": "Send" }), Some(EmailEvent::Taken)),
            (
                json!({ "eventType": "DeliveryDelay" }),
                Some(EmailEvent::Taken),
            ),
            (
                json!({ "notificationType": "Delivery" }),
                Some(EmailEvent::Delivered),
            ),
            (
                json!({ "eventType": "Bounce", "bounce": { "bounceType": "Permanent" } }),
                Some(EmailEvent::Bounced),
            ),
            (
                json!({ "eventType": "Bounce", "bounce": { "bounceType": "Transient" } }),
                Some(EmailEvent::Blocked),
            ),
            (json!({ "eventType": "Reject" }), Some(EmailEvent::Dropped)),
            (
                json!({ "eventType": "Complaint" }),
                Some(EmailEvent::Complained),
            ),
            (json!({ "eventType": "Open" }), None),
            (json!({}), None),
        ] {
            assert_eq!(of(event.clone()), expected, "{event}");
        }
        let others = json!({ "eventType": "Send", "mail": { "tags": {} } });
        assert!(told("x", &others).is_none());
    }

    #[test]
    fn old_messages_and_those_without_a_time_are_not_taken() {
        let now: DateTime<Utc> = "2026-11-28T04:00:00Z".parse().unwrap();
        assert!(is_recent("2026-11-27T20:48:33.123Z", now));
        assert!(!is_recent("2026-11-20T20:48:33.123Z", now));
        assert!(!is_recent("yesterday", now));
    }
}
