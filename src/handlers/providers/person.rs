//! Whom a provider is asked for, and how sure it is that it answers about the same person.

use serde_json::Value;

use super::super::import_csv::{link, normalize};
use super::facts::Facts;
use super::fields::ContactField;

/// What a provider says of a person.
pub type Person = Facts<ContactField>;

/// How sure an answer is: it names what was asked for, it does not say, or it names another.
const NAMED: f32 = 0.95;
const NOT_SAID: f32 = 0.85;
const OTHER: f32 = 0.6;
/// Many people have the same name: also when the employer fits, and when the name does not.
const SAME_NAME: f32 = 0.75;
const OTHER_NAME: f32 = 0.3;
/// The longest part of a key, in bytes.
const PART_MAX: usize = 250;

/// What a person is looked up by, normalised: the best that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PersonKey {
    /// In small letters.
    Email(String),
    /// In the form that contacts have.
    Linkedin(String),
    Name {
        first: String,
        last: String,
        employer: Employer,
    },
}

/// Where a person works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Employer {
    Domain(String),
    Name(String),
}

impl PersonKey {
    /// The keys of a contact, the surest first. `domain`: of the account that it belongs to.
    pub fn of(text: impl Fn(&str) -> Option<String>, domain: Option<&str>) -> Vec<Self> {
        let email = text("email").and_then(|email| normalize::email(&email).ok());
        let page = text("linkedin_url").and_then(|page| link::linkedin(&page).ok());
        let name = |field: &str| {
            let text = text(field)?;
            let text = normalize::one_line(&text).trim().to_owned();
            (!text.is_empty() && text.len() <= PART_MAX).then_some(text)
        };
        let domain = domain.and_then(|domain| normalize::domain(domain).ok());
        let employer = domain.map(Employer::Domain);
        let employer = employer.or_else(|| name("company").map(Employer::Name));
        let named = || {
            Some(Self::Name {
                first: name("first_name")?,
                last: name("last_name")?,
                employer: employer?,
            })
        };
        let by_email = email.map(|email| Self::Email(email.to_lowercase()));
        let by_page = page
            .filter(|page| page.len() <= PART_MAX)
            .map(Self::Linkedin);
        [by_email, by_page, named()].into_iter().flatten().collect()
    }

    /// What it is called where answers are kept: equal for equal questions.
    pub fn key(&self) -> String {
        match self {
            Self::Email(email) => format!("email:{email}"),
            Self::Linkedin(page) => format!("linkedin:{page}"),
            Self::Name {
                first,
                last,
                employer,
            } => {
                let employer = match employer {
                    Employer::Domain(domain) => domain.clone(),
                    Employer::Name(name) => format!("={}", name.to_lowercase()),
                };
                let (first, last) = (first.to_lowercase(), last.to_lowercase());
                format!("name:{first}|{last}|{employer}")
            }
        }
    }

    /// What the contact is looked up by, for people.
    pub fn by(&self) -> &'static str {
        match self {
            Self::Email(_) => "email",
            Self::Linkedin(_) => "linkedin_url",
            Self::Name { .. } => "name",
        }
    }

    /// How sure the values of an answer are, from 0 to 1.
    pub fn confidence(&self, found: &Person) -> f32 {
        let said = |field: ContactField| found.values.get(&field).and_then(Value::as_str);
        let compare = |field: ContactField, asked: &str| match said(field) {
            Some(named) if named.eq_ignore_ascii_case(asked) => NAMED,
            Some(_) => OTHER,
            None => NOT_SAID,
        };
        let sure = match self {
            Self::Email(email) => compare(ContactField::Email, email),
            Self::Linkedin(page) => compare(ContactField::LinkedinUrl, page),
            Self::Name { first, last, .. } => {
                let is_same = |field, asked: &str| {
                    said(field)
                        .is_some_and(|named| normalize::fold(named) == normalize::fold(asked))
                };
                let has_same = is_same(ContactField::FirstName, first)
                    && is_same(ContactField::LastName, last);
                match has_same {
                    true => SAME_NAME,
                    false => OTHER_NAME,
                }
            }
        };
        found.own_score.map_or(sure, |own| own.min(sure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(contact: &[(&str, &str)], domain: Option<&str>) -> Vec<String> {
        let text = |field: &str| {
            let found = contact.iter().find(|(name, _)| *name == field);
            found.map(|(_, text)| (*text).to_owned())
        };
        let keys = PersonKey::of(text, domain);
        keys.iter().map(PersonKey::key).collect()
    }

    #[test]
    fn a_contact_is_looked_up_by_the_surest_that_it_has() {
        let all = [
            ("email", "Ann@ACME.com"),
            ("linkedin_url", "linkedin.com/in/Ann/"),
            ("first_name", " Ann "),
            ("last_name", "Lee"),
            ("company", "Acme Ltd"),
        ];
        let expected = [
            "email:ann@acme.com",
            "linkedin:https://www.linkedin.com/in/ann",
            "name:ann|lee|acme.com",
        ];
        assert_eq!(keys(&all, Some("www.acme.com")), expected);
        assert_eq!(keys(&all[2..], None), ["name:ann|lee|=acme ltd"]);
        assert!(keys(&all[2..4], None).is_empty(), "a name alone is nobody");
        assert!(keys(&[("email", "no address")], None).is_empty());
    }

    #[test]
    fn an_answer_about_somebody_else_is_less_sure() {
        let mut found = Person::default();
        let key = PersonKey::Email("ann@acme.com".to_owned());
        assert_eq!(key.confidence(&found), NOT_SAID);
        found.email(ContactField::Email, Some("ANN@acme.com"));
        assert_eq!(key.confidence(&found), NAMED);
        found.own_score = Some(0.2);
        assert_eq!(key.confidence(&found), 0.2);
        found.own_score = None;
        found.email(ContactField::Email, Some("bob@acme.com"));
        assert_eq!(key.confidence(&found), OTHER);
        let named = PersonKey::Name {
            first: "Jos\u{e9}".to_owned(),
            last: "Lee".to_owned(),
            employer: Employer::Domain("acme.com".to_owned()),
        };
        assert_eq!(named.confidence(&found), OTHER_NAME);
        found.text(ContactField::FirstName, Some("JOS\u{c9}"));
        found.text(ContactField::LastName, Some("Lee"));
        assert_eq!(named.confidence(&found), SAME_NAME);
    }
}
