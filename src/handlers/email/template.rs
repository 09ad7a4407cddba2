//! The texts of a step, as templates (Jinja, by `minijinja`).
//!
//! Promises: a field that a contact has not, or that is blank, is a mistake of that mail and never
//! a gap in its text, unless the step has a default or the template asks with `if` or `default`.
//! What a contact's fields say is text in HTML, never markup. No template takes long or makes much:
//! its work and its memory are bounded by fuel, and it reads nothing but what it is given.

use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value};

use crate::record::sequences::StepRow;

/// Bounds time and memory of one text: about so many instructions, or 64 times as many bytes.
const FUEL: u64 = 50_000;
/// The longest line that may be sent is 998 (RFC 5322, 2.1.1); its name is in it, too.
const SUBJECT_MAX: usize = 900;

const SUBJECT: &str = "subject";
const TEXT: &str = "text";
const HTML: &str = "html";

/// The texts of a step, ready to be filled in.
pub struct Templates {
    environment: Environment<'static>,
    defaults: Map<String, Value>,
    has_text: bool,
    has_html: bool,
}

impl std::fmt::Debug for Templates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Templates").finish_non_exhaustive()
    }
}

/// A mail's texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Texts {
    pub subject: String,
    pub text: Option<String>,
    pub html: Option<String>,
}

/// Why a mail has no texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Unfit {
    pub code: &'static str,
    pub message: String,
}

impl Templates {
    /// The templates of a step; else what is wrong with which.
    pub fn of(step: &StepRow) -> Result<Self, String> {
        let defaults = step.defaults.as_object().cloned().unwrap_or_default();
        let (text, html) = (step.text_body.as_deref(), step.html_body.as_deref());
        Self::new(&step.subject, text, html, defaults)
    }

    /// The same from its parts.
    pub fn new(
        subject: &str,
        text: Option<&str>,
        html: Option<&str>,
        defaults: Map<String, Value>,
    ) -> Result<Self, String> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(|name| match name {
            HTML => AutoEscape::Html,
            _ => AutoEscape::None,
        });
        // What contacts say must not become markup.
        environment.remove_filter("safe");
        for (name, source) in [(SUBJECT, Some(subject)), (TEXT, text), (HTML, html)] {
            if let Some(source) = source {
                let tags = source.split("{%").skip(1);
                let mut tags = tags.map(|tag| tag.trim_start_matches(['-', '+']).trim_start());
                if tags.any(|tag| tag.starts_with("autoescape")) {
                    return Err(format!("{name}: there is no `autoescape` here"));
                }
                environment
                    .add_template_owned(name, source.to_owned())
                    .map_err(|error| format!("{name}: {}", told(&error)))?;
            }
        }
        Ok(Self {
            environment,
            defaults,
            has_text: text.is_some(),
            has_html: html.is_some(),
        })
    }

    /// Fills in the fields of a contact. `unsubscribe_url` is there if the mail has one.
    pub fn fill(&self, fields: &Value, unsubscribe_url: Option<&str>) -> Result<Texts, Unfit> {
        let mut known = merged(&self.defaults, fields);
        if let Some(url) = unsubscribe_url {
            known.insert("unsubscribe_url".to_owned(), Value::from(url));
        }
        let known = minijinja::Value::from(minijinja::value::Serde(&known));
        let fill = |name: &str| {
            let template = self.environment.get_template(name);
            let filled = template.and_then(|template| template.render(known.clone()));
            filled.map_err(|error| Unfit {
                code: match error.kind() {
                    ErrorKind::UndefinedError => "merge_variable_missing",
                    _ => "template_failed",
                },
                message: format!("{name}: {}", told(&error)),
            })
        };
        let subject = fill(SUBJECT)?;
        let subject = subject.trim();
        // A line's end would begin another header.
        if subject.is_empty() || subject.contains(char::is_control) {
            return Err(Unfit {
                code: "subject_invalid",
                message: "subject: is empty, or has control characters".to_owned(),
            });
        }
        if subject.len() > SUBJECT_MAX {
            return Err(Unfit {
                code: "subject_invalid",
                message: format!("subject: has more than {SUBJECT_MAX} bytes"),
            });
        }
        Ok(Texts {
            subject: subject.to_owned(),
            text: self.has_text.then(|| fill(TEXT)).transpose()?,
            html: self.has_html.then(|| fill(HTML)).transpose()?,
        })
    }
}

/// The fields over the defaults: what is null or blank is not there.
fn merged(defaults: &Map<String, Value>, fields: &Value) -> Map<String, Value> {
    let mut known = defaults.clone();
    for (name, value) in fields.as_object().into_iter().flatten() {
        match value {
            Value::Object(inner) => {
                let below = known.get(name).and_then(Value::as_object).cloned();
                let inner = merged(&below.unwrap_or_default(), &Value::Object(inner.clone()));
                known.insert(name.clone(), Value::Object(inner));
            }
            Value::Null => {}
            Value::String(text) if text.trim().is_empty() => {}
            other => {
                known.insert(name.clone(), other.clone());
            }
        }
    }
    known
}

/// What went wrong, where, without the source around it.
fn told(error: &minijinja::Error) -> String {
    let detail = error.detail().map(|detail| format!(": {detail}"));
    let line = error.line().map(|line| format!(" (line {line})"));
    format!(
        "{}{}{}",
        error.kind(),
        detail.unwrap_or_default(),
        line.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled(subject: &str, html: &str, defaults: Value, fields: Value) -> Result<Texts, Unfit> {
        let defaults = defaults.as_object().cloned().unwrap();
        let templates = Templates::new(subject, None, Some(html), defaults).unwrap();
        templates.fill(&fields, Some("https://x.example/u/1"))
    }

    #[test]
    fn a_field_that_is_missing_or_blank_is_a_mistake_and_never_a_gap() {
        for fields in [
            json!({}),
            json!({ "first_name": null }),
            json!({ "first_name": "  " }),
        ] {
            let unfit = filled("Hi {{ first_name }}", "x", json!({}), fields.clone()).unwrap_err();
            assert_eq!(unfit.code, "merge_variable_missing", "{fields}");
            assert!(unfit.message.starts_with("subject:"), "{}", unfit.message);
            let defaults = json!({ "first_name": "there" });
            let texts = filled("Hi {{ first_name }}", "x", defaults, fields.clone()).unwrap();
            assert_eq!(texts.subject, "Hi there");
            let asks = "Hi{% if first_name %} {{ first_name }}{% endif %}";
            assert_eq!(filled(asks, "x", json!({}), fields).unwrap().subject, "Hi");
        }
        let deep = "{{ account.name }} {{ custom.plan|default('free') }}";
        let fields = json!({ "account": { "name": "Acme" }, "custom": null });
        let defaults = json!({ "custom": {} });
        let texts = filled(deep, "x", defaults, fields).unwrap();
        assert_eq!(texts.subject, "Acme free");
        let unfit = filled(
            "{{ account.name }}",
            "x",
            json!({}),
            json!({ "account": {} }),
        );
        assert_eq!(unfit.unwrap_err().code, "merge_variable_missing");
        for hidden in ["{{ 'Hi ' ~ first_name }}", "{{ first_name|upper }}"] {
            let unfit = filled(hidden, "x", json!({}), json!({})).unwrap_err();
            assert_eq!(unfit.code, "merge_variable_missing", "{hidden}");
        }
    }

    #[test]
    fn what_contacts_say_is_text_in_html_and_no_header_in_a_subject() {
        let fields = json!({ "first_name": "<b>&\"" });
        let texts = filled(
            "{{ first_name }}",
            "<p>{{ first_name }}</p>",
            json!({}),
            fields,
        );
        let texts = texts.unwrap();
        assert_eq!(texts.subject, "<b>&\"");
        assert_eq!(texts.html.as_deref(), Some("<p>&lt;b&gt;&amp;&quot;</p>"));
        for name in ["a\r\nBcc: all@x.example", "a\nb", "a\0"] {
            let fields = json!({ "first_name": name });
            let unfit = filled("Hi {{ first_name }}", "x", json!({}), fields).unwrap_err();
            assert_eq!(unfit.code, "subject_invalid", "{name:?}");
        }
        let fields = json!({ "first_name": "<b>" });
        let unfit = filled("x", "{{ first_name|safe }}", json!({}), fields).unwrap_err();
        assert_eq!(unfit.code, "template_failed");
        for source in [
            "{% autoescape false %}x{% endautoescape %}",
            "{%-  autoescape x %}",
        ] {
            let refused = Templates::new("x", None, Some(source), Map::new());
            assert!(refused.is_err(), "{source}");
        }
    }

    #[test]
    fn no_template_reads_files_takes_long_or_makes_much() {
        for source in [
            "{% include 'html' %}",
            "{% import 'html' as x %}",
            "{% extends 'html' %}",
            "{{ first_name",
            "{% for %}",
        ] {
            let refused = Templates::new("x", None, Some(source), Map::new());
            assert!(refused.is_err(), "{source}");
        }
        let doubled = "{% set a = a ~ a %}".repeat(40);
        for source in [
            "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
            "{{ 'x' * 100000000 }}",
            &format!("{{% set a = 'xxxxxxxx' %}}{doubled}{{{{ a }}}}"),
        ] {
            let unfit = filled("x", source, json!({}), json!({})).unwrap_err();
            assert_eq!(unfit.code, "template_failed", "{source}: {}", unfit.message);
        }
    }
}
