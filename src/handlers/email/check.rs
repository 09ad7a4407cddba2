//! What is wrong with a step, told when it is made and not by its mails.

use lettre::Address;
use serde_json::{Map, Value, json};

use super::message::Sender;
use super::template::Templates;
use crate::job::Problem;

/// The largest text of a step, in bytes.
pub const BODY_MAX_BYTES: usize = 256 * 1024;
/// The largest defaults of a step, in bytes.
pub const DEFAULTS_MAX_BYTES: usize = 32 * 1024;
/// The longest subject of a step, in characters.
pub const SUBJECT_MAX: usize = 1_000;
/// The longest name of a sender, in characters.
pub const FROM_NAME_MAX: usize = 100;

/// What a step says.
#[derive(Debug, Clone)]
pub struct Parts<'a> {
    pub from_address: &'a str,
    pub from_name: &'a str,
    pub reply_to: Option<&'a str>,
    pub subject: &'a str,
    pub text_body: Option<&'a str>,
    pub html_body: Option<&'a str>,
    pub defaults: &'a Map<String, Value>,
}

/// Whether mails can be made of it, by members of a request.
pub fn check(parts: &Parts<'_>) -> Result<(), Problem> {
    let problem = |pointer: &str, message: String| {
        Err(Problem {
            pointer: pointer.to_owned(),
            message,
        })
    };
    for (pointer, address) in [
        ("/fromAddress", Some(parts.from_address)),
        ("/replyTo", parts.reply_to),
    ] {
        let is_address = |text: &str| text.len() <= 254 && text.parse::<Address>().is_ok();
        if address.is_some_and(|address| !is_address(address)) {
            let message = "must be an address of mail, such as news@example.com";
            return problem(pointer, message.to_owned());
        }
    }
    if parts.from_name.chars().count() > FROM_NAME_MAX
        || Sender::new(parts.from_address, parts.from_name, parts.reply_to).is_err()
    {
        let message =
            format!("must have at most {FROM_NAME_MAX} characters and no control characters");
        return problem("/fromName", message);
    }
    let is_subject = (1..=SUBJECT_MAX).contains(&parts.subject.chars().count());
    if !is_subject || parts.subject.contains('\0') {
        let message = format!("must have 1 to {SUBJECT_MAX} characters and no U+0000");
        return problem("/subject", message);
    }
    let defaults = Value::Object(parts.defaults.clone()).to_string();
    if defaults.len() > DEFAULTS_MAX_BYTES || defaults.contains("\\u0000") {
        let message = format!("must have at most {DEFAULTS_MAX_BYTES} bytes and no U+0000");
        return problem("/defaults", message);
    }
    let bodies = [
        ("/textBody", parts.text_body),
        ("/htmlBody", parts.html_body),
    ];
    for (pointer, body) in bodies {
        if body.is_some_and(|body| body.len() > BODY_MAX_BYTES || body.contains('\0')) {
            let message = format!("must have at most {BODY_MAX_BYTES} bytes and no U+0000");
            return problem(pointer, message);
        }
    }
    if parts.text_body.is_none() && parts.html_body.is_none() {
        let message = "must be given, or `htmlBody`, or both";
        return problem("/textBody", message.to_owned());
    }
    let templates = Templates::new(
        parts.subject,
        parts.text_body,
        parts.html_body,
        parts.defaults.clone(),
    );
    let tried = templates.and_then(|templates| {
        let filled = templates.fill(&sample(), Some("https://example.com/u/x"));
        match filled {
            Err(unfit) if unfit.code == "template_failed" => Err(unfit.message),
            // A field of its own that the sample has not, or a sample in a subject.
            _ => Ok(()),
        }
    });
    tried.or_else(|why| {
        let (name, why) = why.split_once(": ").unwrap_or(("subject", &why));
        let pointer = match name {
            "text" => "/textBody",
            "html" => "/htmlBody",
            _ => "/subject",
        };
        problem(pointer, format!("is no template that works: {why}"))
    })
}

/// A contact that has everything.
fn sample() -> Value {
    let account = json!({
        "name": "Acme", "domain": "acme.example", "website": "https://acme.example",
        "industry": "Things", "employee_count": 12, "country": "DE", "city": "Berlin",
        "custom": {},
    });
    json!({
        "email": "ada@acme.example", "first_name": "Ada", "last_name": "Lovelace",
        "title": "Countess", "phone": "+49301234567", "company": "Acme",
        "linkedin_url": "https://linkedin.com/in/ada", "country": "DE", "city": "Berlin",
        "custom": {}, "account": account,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts<'a>(subject: &'a str, html: &'a str, defaults: &'a Map<String, Value>) -> Parts<'a> {
        Parts {
            from_address: "news@acme.example",
            from_name: "Acme",
            reply_to: None,
            subject,
            text_body: None,
            html_body: Some(html),
            defaults,
        }
    }

    #[test]
    fn a_step_that_could_send_nothing_is_refused_where_it_is_wrong() {
        let none = Map::new();
        assert!(check(&parts("Hi {{ first_name }}", "{{ custom.plan }}", &none)).is_ok());
        for (subject, html, pointer) in [
            ("{{ first_name", "x", "/subject"),
            ("", "x", "/subject"),
            ("x", "{{ first_name|nothing }}", "/htmlBody"),
            ("x", "{{ first_name|safe }}", "/htmlBody"),
            ("x", "{% include 'a' %}", "/htmlBody"),
            ("x", "{{ nothing() }}", "/htmlBody"),
        ] {
            let problem = check(&parts(subject, html, &none)).unwrap_err();
            assert_eq!(problem.pointer, pointer, "{subject} {html}");
        }
        for (address, name, pointer) in [
            ("nobody", "", "/fromAddress"),
            ("a@x.example\r\nBcc: b@x.example", "", "/fromAddress"),
            ("a@x.example", "a\nb", "/fromName"),
        ] {
            let mut wrong = parts("x", "x", &none);
            wrong.from_address = address;
            wrong.from_name = name;
            assert_eq!(check(&wrong).unwrap_err().pointer, pointer);
        }
    }
}
