//! What is looked at before a mail is sent: right before it, not when the job was made.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lettre::Address;

use super::message::{Mail, Sender};
use super::template::Templates;
use crate::record::email_sends::{Candidate, Refusal};
use crate::record::suppressions::token_hash;

/// Times that a mail is handed over and not taken; then it has failed.
pub(super) const TRIES_MAX: i32 = 6;
/// What a verification of an address says when nothing should go there.
const DEAD: [&str; 4] = ["invalid", "undeliverable", "bounced", "disposable"];
const TOKEN_BYTES: usize = 32;

/// What all mails of a job share.
pub(super) struct Letter {
    pub(super) sender: Sender,
    pub(super) templates: Templates,
    /// Where links to unsubscribe lead; none: it is no marketing.
    pub(super) public_url: Option<String>,
}

/// A mail that may be sent.
pub(super) struct Ready {
    pub(super) mail: Mail,
    /// Of the secret in its link.
    pub(super) unsubscribe_hash: Option<Vec<u8>>,
    pub(super) tries: i32,
}

impl Letter {
    /// The mail, or why there is none.
    pub(super) fn prepare(&self, candidate: &Candidate) -> Result<Ready, Refusal> {
        let no = |state, code, message: &str| {
            Err(Refusal {
                id: candidate.id,
                state,
                code,
                message: message.to_owned(),
            })
        };
        let is_marketing = self.public_url.is_some();
        let applies = |reason: &&String| is_marketing || *reason != "unsubscribed";
        if let Some(reason) = candidate.suppressed.iter().find(applies) {
            let code = match reason.as_str() {
                "unsubscribed" => "unsubscribed",
                "bounced" => "bounced",
                "complained" => "complained",
                _ => "suppressed",
            };
            return no(
                "suppressed",
                code,
                "the address or its domain is suppressed",
            );
        }
        if candidate.is_stopped && is_marketing {
            return no(
                "suppressed",
                "stopped",
                "the contact is out of the sequence",
            );
        }
        match candidate.address.as_deref() {
            None => {
                return no(
                    "failed",
                    "contact_gone",
                    "the contact is gone, or its address is",
                );
            }
            Some(address) if address != candidate.recipient => {
                let message = "the contact has another address now: name it in another job";
                return no("failed", "address_changed", message);
            }
            Some(_) => {}
        }
        let status = candidate.email_status.as_deref().unwrap_or_default();
        if DEAD.contains(&status) {
            return no(
                "suppressed",
                "address_dead",
                &format!("its verification says `{status}`"),
            );
        }
        let Ok(to) = candidate.recipient.parse::<Address>() else {
            return no("failed", "address_invalid", "this is no address of mail");
        };
        let token = self.public_url.is_some().then(token);
        let unsubscribe_url = self.public_url.as_ref().zip(token.as_ref());
        let unsubscribe_url = unsubscribe_url.map(|(url, token)| format!("{url}/u/{token}"));
        let texts = self
            .templates
            .fill(&candidate.fields, unsubscribe_url.as_deref());
        let texts = match texts {
            Ok(texts) => texts,
            Err(unfit) => return no("failed", unfit.code, &unfit.message),
        };
        Ok(Ready {
            mail: Mail {
                id: candidate.id,
                sender: self.sender.clone(),
                to,
                texts,
                unsubscribe_url,
            },
            unsubscribe_hash: token.as_deref().map(token_hash),
            tries: candidate.tries,
        })
    }
}

/// Whoever has it can unsubscribe one address, and do nothing else.
fn token() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; TOKEN_BYTES]>())
}
