//! Apollo's organization enrichment: `GET /api/v1/organizations/enrich?domain=`, `x-api-key`.
//!
//! An unknown company is 200 without an `organization`, or 404. The team's limits come along as
//! `x-rate-limit-minute`, `x-minute-requests-left` and so on. That credits are used up is told in
//! words, with 422 or 403, which is not documented; other answers of 403 mean that the key, or the
//! plan, may not do this.
//!
//! Source: docs.apollo.io ("Organization Enrichment", "Rate Limits", "API Pricing").

use serde_json::Value;

use super::facts::{Facts, Field, at, list};

pub(super) const PATH: &str = "/api/v1/organizations/enrich?domain=";

/// None: it knows no such company. What has another form than it is documented with says nothing.
pub(super) fn read(answer: &Value) -> Option<Facts> {
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
    facts.country(at(found, "/country"));
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
    answer.is_object() && !has("organization") && !has("error")
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
