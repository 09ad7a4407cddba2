//! Clearbit's Company API: `GET /v2/companies/find?domain=`.
//!
//! 200 has the company, 202 says that it is being looked for (asked again later, it is there), 404
//! that nobody knows it (or that there is no such route, told apart by `error.type`), 402 that the
//! plan's credits are used up. 202 has no body, and a retry is worth it "after a few minutes".
//!
//! Sources: help.clearbit.com ("What is a 202 status code", "Enrichment API"), answers of
//! company.clearbit.com, and the fields of the clients that Clearbit has published.

use serde_json::Value;

use super::facts::{Facts, Field, at, list};

pub(super) const PATH: &str = "/v2/companies/find?domain=";

/// None: it is no company. What has another form than it is documented with says nothing.
pub(super) fn read(answer: &Value) -> Option<Facts> {
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
    facts.country(at(answer, "/geo/countryCode").or(at(answer, "/geo/country")));
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
