//! How mails leave: by SMTP, SendGrid or Amazon SES, and what each answer means.
//!
//! The question that matters is whether a mail may have been sent. What certainly was not is sent
//! again; of what may have been, nobody says that it was, and nobody sends it again.

mod sendgrid;
mod ses;
mod sigv4;
mod smtp;

use std::time::Duration;

use reqwest::header::HeaderMap;

use super::super::connection::Connection;
use super::message::Mail;
use crate::clock;
use crate::job::JobError;
use crate::job::connection::Provider;
use crate::outbound::{CallFailure, Caller};
use crate::quota::{Learned, Permit, learn};

/// How long a call to a provider may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that handing one over may take, whatever way it goes: connecting, signing in and a
/// slow server included.
pub(in crate::handlers) const HAND_OVER_MAX: Duration = Duration::from_secs(240);

/// What came of handing a mail over.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::handlers) enum Handed {
    /// It was taken; what the provider calls it.
    Sent(Option<String>),
    /// It was not, and never will be.
    Rejected {
        code: &'static str,
        message: String,
        /// There is no such address.
        is_bounce: bool,
    },
    /// It was not: later.
    Deferred(String),
    /// Nobody knows.
    Ambiguous(String),
    /// It was not, and no other would be now; when to come back.
    Unavailable(String, Option<Duration>),
    /// The provider does not take the credentials. It was not sent.
    CredentialsRefused(String),
    /// The connection can not be used as it is. It was not sent.
    Misconfigured(String),
}

impl Handed {
    /// The quota of the provider is used up for so long: a refusal that names no time means that.
    pub(in crate::handlers) fn not_before(self, closed: Option<Duration>) -> Self {
        match self {
            Self::Unavailable(why, None) => Self::Unavailable(why, closed),
            other => other,
        }
    }
}

/// Gives the permit back, with what the answer says of the provider; how long nobody should call.
pub(in crate::handlers) async fn give_back(
    permit: Permit,
    handed: &Handed,
    learned: Option<Learned>,
) -> Option<Duration> {
    let wait = match (handed, learned) {
        (_, Some(learned)) => permit.answered(&learned).await,
        (Handed::Sent(_) | Handed::Rejected { .. } | Handed::Deferred(_), None) => {
            permit.answered(&Learned::fine()).await
        }
        (Handed::Unavailable(..) | Handed::Ambiguous(_), None) => {
            permit.failed().await;
            None
        }
        (Handed::CredentialsRefused(_) | Handed::Misconfigured(_), None) => {
            permit.ended().await;
            None
        }
    };
    wait.map(|wait| wait.time)
}

/// Hands mails over. Keeps connections for the next one.
pub(in crate::handlers) enum Transport {
    Smtp(Box<smtp::Smtp>),
    Sendgrid(sendgrid::Sendgrid),
    Ses(ses::Ses),
}

impl Transport {
    pub(in crate::handlers) fn new(
        connection: &Connection,
        caller: &Caller,
    ) -> Result<Self, JobError> {
        let made = match connection.provider {
            Provider::Smtp => smtp::Smtp::new(connection, caller.allows_private())
                .map(|smtp| Self::Smtp(Box::new(smtp))),
            Provider::Sendgrid => {
                sendgrid::Sendgrid::new(connection, caller.clone()).map(Self::Sendgrid)
            }
            Provider::Ses => ses::Ses::new(connection, caller.clone()).map(Self::Ses),
            Provider::Clearbit
            | Provider::Zoominfo
            | Provider::Apollo
            | Provider::Salesforce
            | Provider::Hubspot
            | Provider::Http => Err(format!("{} sends no mail", connection.provider)),
        };
        made.map_err(JobError::Permanent)
    }

    /// Hands one over, and what the provider said of its quota.
    pub(in crate::handlers) async fn hand_over(&self, mail: &Mail) -> (Handed, Option<Learned>) {
        match self {
            Self::Smtp(smtp) => (smtp.hand_over(mail).await, None),
            Self::Sendgrid(sendgrid) => sendgrid.hand_over(mail).await,
            Self::Ses(ses) => ses.hand_over(mail).await,
        }
    }

    /// What is left of the provider's quota, where it has to be asked for that. `Err`: it does not
    /// let us send.
    pub(super) async fn quota(&self) -> Result<Option<Learned>, Handed> {
        match self {
            Self::Ses(ses) => ses.quota().await,
            Self::Smtp(_) | Self::Sendgrid(_) => Ok(None),
        }
    }

    /// Says good-bye.
    pub(in crate::handlers) async fn close(self) {
        if let Self::Smtp(smtp) = self {
            smtp.close().await;
        }
    }
}

/// What an answer says of the quota.
fn learned(status: u16, headers: &HeaderMap) -> Learned {
    let pairs = headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    learn(status, pairs, clock::now())
}

/// What it means that no answer came.
fn without_answer(failure: CallFailure) -> Handed {
    match failure {
        CallFailure::Forbidden(why) => Handed::Misconfigured(format!("the address {why}")),
        CallFailure::NotConnected(why) => Handed::Unavailable(why, None),
        CallFailure::Unavailable(why) => Handed::Ambiguous(why),
    }
}
