//! Apollo's enrichment of organizations and people, one or up to ten at a time, `x-api-key`:
//! `GET /api/v1/organizations/enrich?domain=`, `POST /api/v1/organizations/bulk_enrich`,
//! `POST /api/v1/people/match`, `POST /api/v1/people/bulk_match`.
//!
//! An unknown company or person is 200 without an `organization` or a `person`, or 404. Answers to
//! several people have their `matches` in the order of the question, null for unknown ones; of
//! organizations those that were found, told by their domain. The team's limits come along as
//! `x-rate-limit-minute`, `x-minute-requests-left` and so on. That credits are used up is told in
//! words, with 422 or 403, which is not documented; other answers of 403 mean that the key, or the
//! plan, may not do this. Personal addresses and telephone numbers are not asked for: they cost
//! more, and come later by another way.
//!
//! Source: docs.apollo.io ("Organization Enrichment", "People Enrichment", "Rate Limits", "API
//! Pricing", and the two of "Bulk" enrichment).

use serde_json::{Value, json};

use super::facts::{Facts, at, list};
use super::fields::{ContactField, Field};
use super::person::{Employer, Person, PersonKey};

pub(super) const PATH: &str = "/api/v1/organizations/enrich?domain=";

pub(super) const PERSON: &str = "/api/v1/people/match";

/// The question about a person, alone or as one of several.
pub(super) fn person_question(person: &PersonKey) -> Value {
    match person {
        PersonKey::Email(email) => json!({ "email": email }),
        PersonKey::Linkedin(page) => json!({ "linkedin_url": page }),
        PersonKey::Name {
            first,
            last,
            employer,
        } => {
            let mut question = json!({ "first_name": first, "last_name": last });
            match employer {
                Employer::Domain(domain) => question["domain"] = json!(domain),
                Employer::Name(name) => question["organization_name"] = json!(name),
            }
            question
        }
    }
}

/// None: it knows no such person.
pub(super) fn read_person(answer: &Value) -> Option<Person> {
    let found = answer.get("person")?;
    found.as_object()?;
    let domain = at(found, "/organization/primary_domain");
    let mut facts = Person {
        domain: domain.map(str::to_ascii_lowercase),
        ..Person::default()
    };
    // What it has not verified is a guess, or a text in its place.
    let is_guess = matches!(
        at(found, "/email_status"),
        Some("unavailable" | "guessed" | "bounced" | "pending_manual_fulfillment")
    );
    if !is_guess {
        facts.email(ContactField::Email, at(found, "/email"));
    }
    facts.text(ContactField::FirstName, at(found, "/first_name"));
    facts.text(ContactField::LastName, at(found, "/last_name"));
    facts.text(ContactField::Title, at(found, "/title"));
    facts.linkedin(ContactField::LinkedinUrl, at(found, "/linkedin_url"));
    facts.text(ContactField::Company, at(found, "/organization/name"));
    facts.text(ContactField::City, at(found, "/city"));
    facts.country(ContactField::Country, at(found, "/country"));
    let phone = at(found, "/phone_numbers/0/sanitized_number");
    facts.text(ContactField::Phone, phone);
    Some(facts)
}

/// None: it knows no such company. What has another form than it is documented with says nothing.
pub(super) fn read(answer: &Value) -> Option<Facts<Field>> {
    let found = answer.get("organization")?;
    found.as_object()?;
    let mut facts = Facts {
        domain: at(found, "/primary_domain").map(str::to_ascii_lowercase),
        ..Facts::default()
    };
    facts.url(Field::Website, at(found, "/website_url"));
    facts.url(Field::LinkedinUrl, at(found, "/linkedin_url"));
    facts.text(Field::Industry, at(found, "/industry"));
    facts.text(Field::Description, at(found, "/short_description"));
    facts.text(Field::City, at(found, "/city"));
    facts.country(Field::Country, at(found, "/country"));
    facts.text(Field::Phone, at(found, "/primary_phone/number"));
    let employees = found.get("estimated_num_employees");
    facts.number(Field::EmployeeCount, employees, 1);
    facts.number(Field::Revenue, found.get("annual_revenue"), 1);
    let technologies = list(found, "/technology_names").iter();
    facts.technologies(technologies.filter_map(Value::as_str));
    for (network, address) in [
        ("linkedin", "/linkedin_url"),
        ("twitter", "/twitter_url"),
        ("facebook", "/facebook_url"),
        ("crunchbase", "/crunchbase_url"),
    ] {
        facts.social(network, at(found, address));
    }
    Some(facts)
}

pub(super) fn says_unknown(answer: &Value) -> bool {
    let has = |name: &str| answer.get(name).is_some_and(|value| !value.is_null());
    answer.is_object() && !has("organization") && !has("person") && !has("error")
}

/// Words that come with 403 and 422.
pub(super) fn says_no_credits(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body).to_ascii_lowercase();
    text.contains("insufficient credits")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_address_that_is_guessed_is_no_address() {
        let person = |status: &str| {
            json!({ "person": {
            "first_name": "Ann", "email": "ann@acme.com", "email_status": status,
            "linkedin_url": "http://www.linkedin.com/in/ann", "country": "Germany",
            "organization": {"name": "Acme", "primary_domain": "acme.com"},
        } })
        };
        let known = read_person(&person("verified")).unwrap();
        assert_eq!(known.values[&ContactField::Email], "ann@acme.com");
        assert_eq!(
            known.values[&ContactField::LinkedinUrl],
            "https://www.linkedin.com/in/ann"
        );
        let guessed = read_person(&person("guessed")).unwrap();
        assert!(!guessed.values.contains_key(&ContactField::Email));
        assert_eq!(guessed.values[&ContactField::Company], "Acme");
    }

    #[test]
    fn an_organization_is_read_and_an_answer_without_one_is_none() {
        let answer = json!({ "organization": {
            "primary_domain": "acme.com", "website_url": "http://www.acme.com",
            "linkedin_url": "http://www.linkedin.com/company/acme",
            "primary_phone": {"number": "+49 30 1", "source": "Account"},
            "estimated_num_employees": 150, "annual_revenue": 50_000_000.0,
            "technology_names": ["Slack"], "country": "United States", "industry": "machinery",
        } });
        let facts = read(&answer).unwrap();
        let expected = json!({
            "employee_count": 150, "revenue": 50_000_000, "technologies": ["Slack"],
            "website": "http://www.acme.com", "phone": "+49 30 1", "country": "US",
            "linkedin_url": "http://www.linkedin.com/company/acme", "industry": "machinery",
            "social_links": {"linkedin": "http://www.linkedin.com/company/acme"},
        });
        assert_eq!(json!(facts.values), expected);
        for unknown in [json!({}), json!({ "organization": null }), json!([])] {
            assert_eq!(read(&unknown), None, "{unknown}");
        }
    }
}
