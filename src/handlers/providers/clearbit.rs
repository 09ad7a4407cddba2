//! Clearbit's Company API: `GET /v2/companies/find?domain=`, and its Combined API:
//! `GET /v2/combined/find?email=`, at another host.
//!
//! 200 has the company, or a `person` and a `company`, each perhaps null; 202 says that it
//! is being looked for (asked again later, it is there), 404
//! that nobody knows it (or that there is no such route, told apart by `error.type`), 402 that the
//! plan's credits are used up. 202 has no body, and a retry is worth it "after a few minutes".
//!
//! Sources: help.clearbit.com ("What is a 202 status code", "Enrichment API"), answers of
//! company.clearbit.com, and the fields of the clients that Clearbit has published.

use serde_json::Value;

use super::facts::{Facts, at, list};
use super::fields::{ContactField, Field};
use super::person::Person;

pub(super) const PATH: &str = "/v2/companies/find?domain=";

pub(super) const PERSON: &str = "/v2/combined/find";
/// Where companies are asked for, and where people are.
const COMPANIES_AT: &str = "https://company.clearbit.com";
const PEOPLE_AT: &str = "https://person.clearbit.com";

/// Where people are asked for, by a connection of this address.
pub(super) fn people_at(base: &str) -> &str {
    match base {
        COMPANIES_AT => PEOPLE_AT,
        own => own,
    }
}

/// None: it knows no such person, perhaps their company only.
pub(super) fn read_person(answer: &Value) -> Option<Person> {
    let found = answer.get("person")?;
    found.as_object()?;
    let domain = at(found, "/employment/domain");
    let mut facts = Person {
        domain: domain.map(str::to_ascii_lowercase),
        ..Person::default()
    };
    facts.email(ContactField::Email, at(found, "/email"));
    facts.text(ContactField::FirstName, at(found, "/name/givenName"));
    facts.text(ContactField::LastName, at(found, "/name/familyName"));
    facts.text(ContactField::Title, at(found, "/employment/title"));
    facts.text(ContactField::Company, at(found, "/employment/name"));
    facts.text(ContactField::Phone, at(found, "/phone"));
    facts.text(ContactField::City, at(found, "/geo/city"));
    facts.country(
        ContactField::Country,
        at(found, "/geo/countryCode").or(at(found, "/geo/country")),
    );
    // The handle has the part `in/`.
    let handle = at(found, "/linkedin/handle").filter(|handle| !handle.is_empty());
    let page = handle.map(|handle| format!("https://www.linkedin.com/{handle}"));
    facts.linkedin(ContactField::LinkedinUrl, page.as_deref());
    Some(facts)
}

/// An answer about an address that is neither a person's nor a company's.
pub(super) fn says_no_person(answer: &Value) -> bool {
    answer.as_object().is_some_and(|answer| {
        answer.contains_key("person") && answer.get("person").is_some_and(Value::is_null)
    })
}

/// None: it is no company. What has another form than it is documented with says nothing.
pub(super) fn read(answer: &Value) -> Option<Facts<Field>> {
    answer.as_object()?;
    let mut facts = Facts {
        domain: at(answer, "/domain").map(str::to_ascii_lowercase),
        ..Facts::default()
    };
    facts.text(Field::Description, at(answer, "/description"));
    facts.text(Field::Phone, at(answer, "/phone"));
    facts.text(Field::Industry, at(answer, "/category/industry"));
    facts.number(
        Field::EmployeeCount,
        answer.pointer("/metrics/employees"),
        1,
    );
    facts.number(Field::Revenue, answer.pointer("/metrics/annualRevenue"), 1);
    facts.text(Field::City, at(answer, "/geo/city"));
    facts.country(
        Field::Country,
        at(answer, "/geo/countryCode").or(at(answer, "/geo/country")),
    );
    let technologies = list(answer, "/tech").iter();
    facts.technologies(technologies.filter_map(Value::as_str));
    if let Some(domain) = &facts.domain {
        let site = format!("https://{domain}");
        facts.url(Field::Website, Some(&site));
    }
    // The handle at LinkedIn has the part `company/`.
    for (network, site, handle) in [
        ("linkedin", "www.linkedin.com", "/linkedin/handle"),
        ("twitter", "twitter.com", "/twitter/handle"),
        ("facebook", "www.facebook.com", "/facebook/handle"),
        ("crunchbase", "www.crunchbase.com", "/crunchbase/handle"),
    ] {
        let Some(handle) = at(answer, handle).filter(|handle| !handle.is_empty()) else {
            continue;
        };
        let page = format!("https://{site}/{handle}");
        facts.social(network, Some(&page));
        if network == "linkedin" {
            facts.url(Field::LinkedinUrl, Some(&page));
        }
    }
    Some(facts)
}

/// An address that is no lookup at all.
pub(super) fn is_unknown_route(body: &serde_json::Map<String, Value>) -> bool {
    body.get("error").and_then(|error| at(error, "/type")) == Some("unknown_route")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_person_is_read_and_an_address_of_a_company_only_is_none() {
        let answer = json!({ "company": {"name": "Acme"}, "person": {
            "name": {"fullName": "Ann Lee", "givenName": "Ann", "familyName": "Lee"},
            "email": "ann@acme.com", "geo": {"city": "Berlin", "countryCode": "DE"},
            "employment": {"domain": "acme.com", "name": "Acme", "title": "CTO"},
            "linkedin": {"handle": "in/ann"}, "phone": null, "fuzzy": false,
        } });
        let expected = json!({
            "email": "ann@acme.com", "first_name": "Ann", "last_name": "Lee", "title": "CTO",
            "company": "Acme", "city": "Berlin", "country": "DE",
            "linkedin_url": "https://www.linkedin.com/in/ann",
        });
        assert_eq!(json!(read_person(&answer).unwrap().values), expected);
        let company_only = json!({ "person": null, "company": {"name": "Acme"} });
        assert!(read_person(&company_only).is_none() && says_no_person(&company_only));
        assert!(!says_no_person(&json!({})));
        assert_eq!(people_at(COMPANIES_AT), PEOPLE_AT);
        assert_eq!(people_at("http://127.0.0.1:1"), "http://127.0.0.1:1");
    }

    #[test]
    fn a_company_is_read_whatever_else_it_has_or_lacks() {
        let answer = json!({
            "id": "c5a6a9c5", "name": "Acme", "domain": "ACME.com", "new_field": {"a": []},
            "category": {"sector": "Industrials", "industry": "Machinery"},
            "metrics": {"employees": 1200, "annualRevenue": null, "raised": 5},
            "geo": {"city": "Berlin", "countryCode": "DE"}, "phone": null,
            "tech": ["nginx", "postgresql"], "linkedin": {"handle": "company/acme"},
            "twitter": {"handle": "acme", "followers": 4}, "facebook": {"handle": 7},
        });
        let facts = read(&answer).unwrap();
        assert_eq!(facts.domain.as_deref(), Some("acme.com"));
        let expected = json!({
            "employee_count": 1200, "industry": "Machinery", "city": "Berlin", "country": "DE",
            "technologies": ["nginx", "postgresql"], "website": "https://acme.com",
            "linkedin_url": "https://www.linkedin.com/company/acme",
            "social_links": {
                "linkedin": "https://www.linkedin.com/company/acme",
                "twitter": "https://twitter.com/acme",
            },
        });
        assert_eq!(json!(facts.values), expected);
        assert_eq!(read(&json!("nonsense")), None);
    }
}
