//! What providers know of a company or a person, in the fields that accounts and contacts have.
//!
//! Nothing is taken as it comes: a value that the record could not hold, or that says nothing, is
//! left out, and the rest of the answer counts.

use std::collections::BTreeMap;

use reqwest::Url;
use serde_json::{Value, json};

use super::super::import_csv::{country, link, normalize};
use super::fields::{EnrichField, Field};

/// The longest text, in characters.
const TEXT_MAX: usize = super::fields::TEXT_MAX;
const URL_MAX: usize = 500;
/// The most technologies of a company.
const TECHNOLOGIES_MAX: usize = 200;
/// How sure it is that an answer is about the company that was meant: it names the same domain, or
/// another one (the company was renamed, or bought).
const SAME_DOMAIN: f32 = 0.95;
const OTHER_DOMAIN: f32 = 0.6;

/// What a provider says of a company or a person.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts<F> {
    /// Which company it means, or where the person works.
    pub domain: Option<String>,
    /// Other domains of the same company.
    pub also: Vec<String>,
    /// How sure the provider says that it is itself, from 0 to 1.
    pub own_score: Option<f32>,
    pub values: BTreeMap<F, Value>,
}

impl<F> Default for Facts<F> {
    fn default() -> Self {
        Self {
            domain: None,
            also: Vec::new(),
            own_score: None,
            values: BTreeMap::new(),
        }
    }
}

impl<F: EnrichField> Facts<F> {
    /// A text, in one line unless it is a description.
    pub(super) fn text(&mut self, field: F, value: Option<&str>) {
        if let Some(text) = value.and_then(|value| text(value, field.chars_max())) {
            self.values.insert(field, Value::String(text));
        }
    }

    pub(super) fn country(&mut self, field: F, value: Option<&str>) {
        let Some(value) = value.and_then(|value| text(value, TEXT_MAX)) else {
            return;
        };
        let known = country::by_code(&value).or_else(|| country::by_name(&value));
        let value = known.map_or(value, |known| known.code.to_owned());
        self.values.insert(field, Value::String(value));
    }

    pub(super) fn url(&mut self, field: F, value: Option<&str>) {
        if let Some(url) = value.and_then(web_address) {
            self.values.insert(field, Value::String(url));
        }
    }

    pub(super) fn linkedin(&mut self, field: F, value: Option<&str>) {
        if let Some(page) = value.and_then(|value| link::linkedin(value).ok()) {
            self.values.insert(field, Value::String(page));
        }
    }

    pub(super) fn email(&mut self, field: F, value: Option<&str>) {
        if let Some(address) = value.and_then(|value| normalize::email(value.trim()).ok()) {
            self.values.insert(field, Value::String(address));
        }
    }
}

impl Facts<Field> {
    /// How sure its values are, for a company of this domain: 0 to 1.
    pub fn confidence(&self, domain: &str) -> f32 {
        match self.domain.as_deref() {
            Some(named) if named != domain && !self.also.iter().any(|one| one == domain) => {
                OTHER_DOMAIN
            }
            _ => SAME_DOMAIN,
        }
    }

    /// A number of people, or of whole dollars. Fractions are cut; what is no number says nothing.
    pub(super) fn number(&mut self, field: Field, value: Option<&Value>, times: i64) {
        let Some(number) = value.and_then(number) else {
            return;
        };
        let max = match field {
            Field::EmployeeCount => f64::from(i32::MAX),
            // Exact in JSON everywhere.
            _ => 9_007_199_254_740_991.0,
        };
        let number = (number * times as f64).trunc();
        // Nobody works for nothing at a company that has nobody: it is how "unknown" is written.
        if number >= 1.0 && number <= max {
            self.values.insert(field, json!(number as i64));
        }
    }

    pub(super) fn technologies<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        let mut all: Vec<String> = Vec::new();
        for name in names {
            let Some(name) = text(name, TEXT_MAX) else {
                continue;
            };
            if all.len() < TECHNOLOGIES_MAX && !all.contains(&name) {
                all.push(name);
            }
        }
        if !all.is_empty() {
            // Another order is no other value.
            all.sort();
            self.values.insert(Field::Technologies, json!(all));
        }
    }

    pub(super) fn social(&mut self, network: &str, address: Option<&str>) {
        let Some(url) = address.and_then(web_address) else {
            return;
        };
        let links = self.values.entry(Field::SocialLinks);
        let links = links.or_insert_with(|| json!({}));
        links[network] = Value::String(url);
    }
}

/// A text somewhere in an answer.
pub(super) fn at<'a>(answer: &'a Value, pointer: &str) -> Option<&'a str> {
    answer.pointer(pointer)?.as_str()
}

/// A list somewhere in an answer; empty if it is none.
pub(super) fn list<'a>(answer: &'a Value, pointer: &str) -> &'a [Value] {
    let found = answer.pointer(pointer).and_then(Value::as_array);
    found.map_or(&[], Vec::as_slice)
}

fn text(value: &str, max: usize) -> Option<String> {
    let words: Vec<&str> = value.split_whitespace().collect();
    let text: String = words
        .join(" ")
        .replace('\0', "")
        .chars()
        .take(max)
        .collect();
    (!text.is_empty()).then_some(text)
}

/// Numbers, also those that are written as a text.
fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number| number.is_finite())
}

/// An address of the web; with a scheme, also if it came without. Anything else (`javascript:` …)
/// is none: people click on it.
fn web_address(value: &str) -> Option<String> {
    let value = value.trim();
    let whole = match value.contains("://") {
        true => value.to_owned(),
        false => format!("https://{value}"),
    };
    let url = Url::parse(&whole).ok()?;
    let is_fit = matches!(url.scheme(), "http" | "https")
        && url.host_str().is_some_and(|host| host.contains('.'))
        && url.username().is_empty()
        && whole.len() <= URL_MAX;
    is_fit.then(|| url.to_string().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_an_account_could_not_hold_are_left_out_and_the_rest_counts() {
        let mut facts = Facts::<Field>::default();
        facts.number(Field::EmployeeCount, Some(&json!(3_000_000_000_u64)), 1);
        facts.number(Field::Revenue, Some(&json!("1250.5")), 1000);
        facts.url(Field::Website, Some("javascript:alert(1)"));
        facts.url(Field::LinkedinUrl, Some("www.linkedin.com/company/acme/"));
        facts.text(Field::City, Some("  "));
        facts.text(Field::Industry, Some("Metal\n work\0s"));
        facts.country(Field::Country, Some("Germany"));
        facts.technologies(["b", "a", "b", ""].into_iter());
        facts.social("twitter", Some("https://user@x.com/acme"));
        let expected = json!({
            "revenue": 1_250_500, "linkedin_url": "https://www.linkedin.com/company/acme",
            "industry": "Metal works", "country": "DE", "technologies": ["a", "b"],
        });
        assert_eq!(json!(facts.values), expected);
    }

    #[test]
    fn nobody_and_nothing_are_how_unknown_is_written() {
        let mut facts = Facts::<Field>::default();
        for nothing in [json!(0), json!(-5), json!(null), json!("many"), json!([1])] {
            facts.number(Field::EmployeeCount, Some(&nothing), 1);
        }
        assert!(facts.values.is_empty(), "{facts:?}");
    }

    #[test]
    fn an_answer_about_another_domain_is_less_sure() {
        let named = |domain: Option<&str>| Facts {
            domain: domain.map(str::to_owned),
            ..Facts::default()
        };
        let same = named(Some("acme.com")).confidence("acme.com");
        assert!(same > named(Some("bigger.com")).confidence("acme.com"));
        assert!(same <= named(None).confidence("acme.com"));
    }
}
