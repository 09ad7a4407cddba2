//! Amazon SES, API version 2: `SendEmail` and `GetAccount`
//! (<https://docs.aws.amazon.com/ses/latest/APIReference-V2/Welcome.html>).
//!
//! It sends no headers about its quota: that is asked for before a batch begins.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::super::super::connection::Connection;
use super::super::message::Mail;
use super::sigv4::{self, Keys};
use super::{CALL_TIMEOUT, Handed, learned, without_answer};
use crate::clock;
use crate::outbound::{Answer, Call, Caller};
use crate::quota::Learned;

const ANSWER_MAX_BYTES: usize = 16 * 1024;
/// How long an account that may not send is left alone.
const PAUSED_WAIT: std::time::Duration = std::time::Duration::from_secs(900);
const JSON: &str = "application/json";

pub(in crate::handlers) struct Ses {
    caller: Caller,
    base_url: String,
    region: String,
    keys: Keys,
    configuration_set: Option<String>,
}

impl Ses {
    pub(super) fn new(connection: &Connection, caller: Caller) -> Result<Self, String> {
        let region = connection.setting("region").unwrap_or_default().to_owned();
        let base_url = connection.base_url.clone();
        let credential = |name: &str| connection.credential(name);
        let keys = credential("access_key_id").zip(credential("secret_access_key"));
        let (id, secret) = keys.ok_or("the connection has no keys")?;
        Ok(Self {
            caller,
            base_url: base_url.unwrap_or_else(|| format!("https://email.{region}.amazonaws.com")),
            keys: Keys {
                id: id.to_string(),
                secret,
                session_token: credential("session_token"),
            },
            region,
            configuration_set: connection.setting("configuration_set").map(str::to_owned),
        })
    }

    pub(super) async fn hand_over(&self, mail: &Mail) -> (Handed, Option<Learned>) {
        let bytes = match mail.mime() {
            Ok(bytes) => bytes,
            Err(message) => {
                let code = "message_invalid";
                let is_bounce = false;
                return (
                    Handed::Rejected {
                        code,
                        message,
                        is_bounce,
                    },
                    None,
                );
            }
        };
        let mut body = json!({
            "Destination": { "ToAddresses": [mail.to.to_string()] },
            "Content": { "Raw": { "Data": STANDARD.encode(bytes) } },
            "EmailTags": [{ "Name": "bullwark_send_id", "Value": mail.id.to_string() }],
        });
        if let Some(set) = &self.configuration_set {
            body["ConfigurationSetName"] = json!(set);
        }
        let path = "/v2/email/outbound-emails";
        match self.call(Method::POST, path, body.to_string()).await {
            Ok(answer) => {
                let (handed, mut learned) =
                    (judge(&answer), learned(answer.status, &answer.headers));
                // It throttles with a name, and not always with a 429.
                let is_refused = matches!(handed, Handed::Unavailable(..));
                learned.is_limited |= is_refused && answer.status < 500;
                (handed, Some(learned))
            }
            Err(handed) => (handed, None),
        }
    }

    /// What is left of today, and how many a second.
    pub(super) async fn quota(&self) -> Result<Option<Learned>, Handed> {
        let asked = self.call(Method::GET, "/v2/email/account", String::new());
        let answer = match asked.await {
            Ok(answer) => answer,
            // Nothing was to be sent.
            Err(Handed::Ambiguous(why)) => return Err(Handed::Unavailable(why, None)),
            Err(handed) => return Err(handed),
        };
        if !(200..300).contains(&answer.status) {
            return match judge(&answer) {
                refused @ Handed::CredentialsRefused(_) => Err(refused),
                Handed::Unavailable(why, after) => Err(Handed::Unavailable(why, after)),
                // Who may only send may not ask: then nothing is known.
                _ => Ok(None),
            };
        }
        let account: Value = serde_json::from_slice(&answer.bytes).unwrap_or_default();
        if account["SendingEnabled"] == false {
            let why = "the account may not send now (SendingEnabled is false)".to_owned();
            return Err(Handed::Unavailable(why, Some(PAUSED_WAIT)));
        }
        let quota = &account["SendQuota"];
        let number = |name: &str| quota[name].as_f64();
        let figures = number("Max24HourSend")
            .zip(number("MaxSendRate"))
            .zip(number("SentLast24Hours"));
        Ok(figures.map(|((max, rate), sent)| Learned::ses(max, rate, sent)))
    }

    async fn call(&self, method: Method, path: &str, body: String) -> Result<Answer, Handed> {
        let url = format!("{}{path}", self.base_url);
        let signed = sigv4::sign(
            &self.keys,
            &sigv4::Request {
                method: method.as_str(),
                url: &url,
                body: body.as_bytes(),
                region: &self.region,
                service: "ses",
                at: clock::now(),
            },
        )
        .map_err(Handed::Misconfigured)?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        for (name, value) in signed {
            let why = "the keys have characters that no key has";
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| Handed::CredentialsRefused(why.to_owned()))?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static(name), value);
        }
        let call = Call {
            method,
            url,
            headers,
            body: body.into(),
            timeout: CALL_TIMEOUT,
            answer_max_bytes: ANSWER_MAX_BYTES,
        };
        self.caller.call(&call).await.map_err(without_answer)
    }
}

fn judge(answer: &Answer) -> Handed {
    let body: Value = serde_json::from_slice(&answer.bytes).unwrap_or_default();
    // `x-amzn-errortype: TooManyRequestsException:http://…`, or a member of the body.
    let header = answer.headers.get("x-amzn-errortype");
    let kind = header
        .and_then(|kind| kind.to_str().ok())
        .or_else(|| body["__type"].as_str())
        .unwrap_or_default();
    let kind = kind.split(':').next().unwrap_or_default();
    let kind = kind.rsplit('#').next().unwrap_or_default();
    let rejected = |code| Handed::Rejected {
        code,
        message: answer.told(),
        is_bounce: false,
    };
    match (answer.status, kind) {
        (200..300, _) => Handed::Sent(body["MessageId"].as_str().map(str::to_owned)),
        // True of every mail.
        (_, "MailFromDomainNotVerifiedException" | "NotFoundException") => {
            Handed::Misconfigured(answer.told())
        }
        (_, "TooManyRequestsException" | "LimitExceededException" | "ThrottlingException") => {
            Handed::Unavailable(answer.told(), answer.retry_after)
        }
        (_, "SendingPausedException" | "AccountSuspendedException") => {
            Handed::Unavailable(answer.told(), Some(PAUSED_WAIT))
        }
        (401 | 403, _) => Handed::CredentialsRefused(answer.told()),
        (429, _) | (503, "ServiceUnavailable" | "ServiceUnavailableException") => {
            Handed::Unavailable(answer.told(), answer.retry_after)
        }
        // A 503 of a proxy may be about a request that went through and lost its answer.
        (408 | 500.., _) => Handed::Ambiguous(answer.told()),
        _ => rejected("message_rejected"),
    }
}
