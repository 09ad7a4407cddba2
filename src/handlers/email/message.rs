//! A mail, and its form on the wire (RFC 5322).
//!
//! Promises: no text of a contact or of a template becomes a header; a mail of marketing says how
//! to be spared further ones, in one click (RFC 8058); its id is the one of its row, so that
//! whoever sees it again knows which it is.

use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::{Address, Message};
use uuid::Uuid;

use super::template::Texts;

/// The largest mail, in bytes. What providers take is more; nobody likes to get that.
const SIZE_MAX: usize = 2 * 1024 * 1024;

const LIST_UNSUBSCRIBE: &str = "List-Unsubscribe";
const LIST_UNSUBSCRIBE_POST: &str = "List-Unsubscribe-Post";
const ONE_CLICK: &str = "List-Unsubscribe=One-Click";

/// Who sends.
#[derive(Debug, Clone)]
pub(in crate::handlers) struct Sender {
    pub(super) from: Mailbox,
    pub(super) reply_to: Option<Mailbox>,
}

impl Sender {
    /// From the fields of a step.
    pub(in crate::handlers) fn new(
        address: &str,
        name: &str,
        reply_to: Option<&str>,
    ) -> Result<Self, String> {
        let parse = |field: &str, text: &str| {
            let parsed = text.parse::<Address>();
            parsed.map_err(|_| format!("`{field}` is no address of mail: {text}"))
        };
        let name = Some(name.trim()).filter(|name| !name.is_empty());
        if name.is_some_and(|name| name.contains(char::is_control)) {
            return Err("`from_name` must have no control characters".to_owned());
        }
        let from = Mailbox::new(name.map(str::to_owned), parse("from_address", address)?);
        let reply_to = reply_to.map(|text| parse("reply_to", text)).transpose()?;
        Ok(Self {
            from,
            reply_to: reply_to.map(|address| Mailbox::new(None, address)),
        })
    }

    /// Whose reputation it is.
    pub(super) fn domain(&self) -> String {
        self.from.email.domain().to_ascii_lowercase()
    }
}

/// A mail that is to be handed over.
#[derive(Debug, Clone)]
pub(in crate::handlers) struct Mail {
    /// Of its row.
    pub(in crate::handlers) id: Uuid,
    pub(in crate::handlers) sender: Sender,
    pub(in crate::handlers) to: Address,
    pub(in crate::handlers) texts: Texts,
    /// Where a click unsubscribes.
    pub(in crate::handlers) unsubscribe_url: Option<String>,
}

impl Mail {
    pub(super) fn message_id(&self) -> String {
        format!("<{}@{}>", self.id, self.sender.domain())
    }

    /// The headers about unsubscribing, by name.
    pub(super) fn list_headers(&self) -> Vec<(&'static str, String)> {
        match &self.unsubscribe_url {
            None => Vec::new(),
            Some(url) => vec![
                (LIST_UNSUBSCRIBE, format!("<{url}>")),
                (LIST_UNSUBSCRIBE_POST, ONE_CLICK.to_owned()),
            ],
        }
    }

    /// The whole mail as bytes.
    pub(super) fn mime(&self) -> Result<Vec<u8>, String> {
        let mut message = Message::builder()
            .message_id(Some(self.message_id()))
            .from(self.sender.from.clone())
            .to(Mailbox::new(None, self.to.clone()))
            .subject(&self.texts.subject);
        if let Some(reply_to) = &self.sender.reply_to {
            message = message.reply_to(reply_to.clone());
        }
        for (name, value) in self.list_headers() {
            let name = HeaderName::new_from_ascii(name.to_owned()).map_err(|e| e.to_string())?;
            // It is ASCII without blanks; folded or encoded, no mail program would find the link.
            let value = HeaderValue::dangerous_new_pre_encoded(name, value.clone(), value);
            message = message.raw_header(value);
        }
        let message = match (self.texts.text.clone(), self.texts.html.clone()) {
            (Some(text), Some(html)) => {
                message.multipart(MultiPart::alternative_plain_html(text, html))
            }
            (None, Some(html)) => message.singlepart(SinglePart::html(html)),
            (text, None) => message.singlepart(SinglePart::plain(text.unwrap_or_default())),
        };
        let bytes = message.map_err(|error| error.to_string())?.formatted();
        match bytes.len() <= SIZE_MAX {
            true => Ok(bytes),
            false => Err(format!("the mail has more than {SIZE_MAX} bytes")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(name: &str, subject: &str) -> Mail {
        Mail {
            id: Uuid::nil(),
            sender: Sender::new("News@Acme.example", name, Some("help@acme.example")).unwrap(),
            to: "ada@x.example".parse().unwrap(),
            texts: Texts {
                subject: subject.to_owned(),
                text: Some("Hëllo\n.\nend".to_owned()),
                html: Some("<p>Hëllo</p>".to_owned()),
            },
            unsubscribe_url: Some(format!("https://mail.acme.example/u/{}", "x".repeat(120))),
        }
    }

    #[test]
    fn a_mail_has_its_headers_and_both_texts() {
        let bytes = mail("Acme, Inc.", "Grüße").mime().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        for line in [
            "Message-ID: <00000000-0000-0000-0000-000000000000@acme.example>",
            "From: =?utf-8?b?QWNtZSwgSW5jLg==?= <News@Acme.example>",
            "To: ada@x.example",
            "Reply-To: help@acme.example",
            "Subject: =?utf-8?b?R3LDvMOfZQ==?=",
            "List-Unsubscribe-Post: List-Unsubscribe=One-Click",
            &format!(
                "List-Unsubscribe: <https://mail.acme.example/u/{}>",
                "x".repeat(120)
            ),
            "Content-Type: multipart/alternative;",
        ] {
            assert!(head.contains(line), "{line}\n{head}");
        }
        assert!(head.contains("\r\nDate: "), "{head}");
        assert!(
            body.contains("text/plain") && body.contains("text/html"),
            "{body}"
        );
        assert!(text.is_ascii(), "every server takes it");
    }

    #[test]
    fn nothing_that_is_said_begins_another_header() {
        assert!(Sender::new("a@x.example", "a\r\nBcc: b@x.example", None).is_err());
        assert!(Sender::new("a@x.example\r\nBcc: b@x.example", "", None).is_err());
        // Subjects with line ends are refused before; even so, they stay one header.
        let bytes = mail("Acme", "a\r\nBcc: b@x.example").mime().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(!text.contains("\nBcc:"), "{text}");
    }
}
