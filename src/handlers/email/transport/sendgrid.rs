//! SendGrid, `POST /v3/mail/send`
//! (<https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send>).
//!
//! It knows no idempotency keys, so an answer that did not come is no answer.

use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Map, Value, json};

use super::super::super::connection::Connection;
use super::super::message::Mail;
use super::{CALL_TIMEOUT, Handed, learned, without_answer};
use crate::outbound::{ANSWER_MAX_BYTES, Answer, Call, Caller};
use crate::quota::Learned;
use crate::secret::Secret;

/// What comes back with each event of the mail.
pub(in crate::handlers::email) const OUR_ID: &str = "bullwark_send_id";

pub(in crate::handlers) struct Sendgrid {
    caller: Caller,
    url: String,
    key: Secret,
}

impl Sendgrid {
    pub(super) fn new(connection: &Connection, caller: Caller) -> Result<Self, String> {
        let base = connection.base_url.as_deref().unwrap_or_default();
        let key = connection.credential("api_key");
        Ok(Self {
            caller,
            url: format!("{base}/v3/mail/send"),
            key: key.ok_or("the connection has no `api_key`")?,
        })
    }

    pub(super) async fn hand_over(&self, mail: &Mail) -> (Handed, Option<Learned>) {
        let bearer = HeaderValue::try_from(format!("Bearer {}", self.key.as_str()));
        let Ok(mut bearer) = bearer else {
            let why = "`api_key` has characters that no key has".to_owned();
            return (Handed::CredentialsRefused(why), None);
        };
        bearer.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, bearer);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let call = Call {
            method: Method::POST,
            url: self.url.clone(),
            headers,
            body: body(mail).to_string().into(),
            timeout: CALL_TIMEOUT,
            answer_max_bytes: ANSWER_MAX_BYTES,
        };
        match self.caller.call(&call).await {
            Ok(answer) => (
                judge(&answer),
                Some(learned(answer.status, &answer.headers)),
            ),
            Err(failure) => (without_answer(failure), None),
        }
    }
}

fn body(mail: &Mail) -> Value {
    let texts = [
        ("text/plain", &mail.texts.text),
        ("text/html", &mail.texts.html),
    ];
    let content: Vec<Value> = texts
        .into_iter()
        .filter_map(|(kind, text)| Some(json!({ "type": kind, "value": text.as_ref()? })))
        .collect();
    let mut from = json!({ "email": mail.sender.from.email.to_string() });
    if let Some(name) = &mail.sender.from.name {
        from["name"] = json!(name);
    }
    let mut body = json!({
        "personalizations": [{
            "to": [{ "email": mail.to.to_string() }],
            "custom_args": { OUR_ID: mail.id.to_string() },
        }],
        "from": from,
        "subject": mail.texts.subject,
        "content": content,
    });
    if let Some(reply_to) = &mail.sender.reply_to {
        body["reply_to"] = json!({ "email": reply_to.email.to_string() });
    }
    let headers = mail.list_headers().into_iter();
    let headers: Map<String, Value> = headers
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect();
    if !headers.is_empty() {
        body["headers"] = Value::Object(headers);
    }
    body
}

/// Whether the body is one in which SendGrid says what is wrong.
fn has_errors(answer: &Answer) -> bool {
    let body: Value = serde_json::from_slice(&answer.bytes).unwrap_or_default();
    body["errors"].is_array()
}

fn judge(answer: &Answer) -> Handed {
    let rejected = |code| Handed::Rejected {
        code,
        message: answer.told(),
        is_bounce: false,
    };
    match answer.status {
        200..300 => {
            let id = answer.headers.get("x-message-id");
            Handed::Sent(id.and_then(|id| id.to_str().ok()).map(str::to_owned))
        }
        401 => Handed::CredentialsRefused(answer.told()),
        // The sender is none that was verified, or the key may not send: true of every mail.
        403 => Handed::Misconfigured(answer.told()),
        429 => Handed::Unavailable(answer.told(), answer.retry_after),
        // SendGrid's own: a proxy says the same of a request that went through and lost its answer.
        503 if answer.retry_after.is_some() || has_errors(answer) => {
            Handed::Unavailable(answer.told(), answer.retry_after)
        }
        // It may have been taken, and the answer lost behind the one who gave this one.
        408 | 500.. => Handed::Ambiguous(answer.told()),
        _ => rejected("message_rejected"),
    }
}
