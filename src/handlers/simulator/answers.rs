//! What the providers of the simulator answer, in the shapes that they document.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::providers::CompanySource;

/// An answer, and how it comes.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
    /// In the middle of the body.
    pub(super) pause: Duration,
    /// It ends there.
    pub(super) is_cut: bool,
}

impl Said {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            body: body.to_string(),
            ..Self::default()
        }
    }

    pub(super) fn error(status: u16, message: &str) -> Self {
        Self::json(status, &json!({ "error": { "message": message } }))
    }
}

/// A company, or that there is none. Each provider knows something that another does not.
pub(super) fn company(source: CompanySource, domain: &str) -> Said {
    if domain.starts_with("unknown") {
        return unknown(source);
    }
    let word = domain.split('.').next().unwrap_or(domain);
    let size = domain.bytes().fold(7_u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u32::from(byte)) % 5000
    });
    let employees = 20 + size;
    let body = match source {
        // Knows no revenue.
        CompanySource::Clearbit => json!({
            "id": "a8f1", "name": word, "domain": domain, "type": "private",
            "category": { "sector": "Information Technology", "industry": "Internet Software" },
            "description": format!("{word} makes things."), "phone": null,
            "geo": { "city": "San Francisco", "country": "United States", "countryCode": "US" },
            "metrics": { "employees": employees, "annualRevenue": null },
            "tech": ["google_apps", "nginx"],
            "linkedin": { "handle": format!("company/{word}") },
            "twitter": { "handle": word, "followers": 12 }, "facebook": { "handle": null },
        }),
        CompanySource::Apollo => json!({ "organization": {
            "id": "5e66", "name": word, "primary_domain": domain,
            "website_url": format!("http://www.{domain}"),
            "linkedin_url": format!("http://www.linkedin.com/company/{word}"),
            "primary_phone": { "number": "+1 415-555-0100", "source": "Owler" },
            "industry": "information technology & services",
            "estimated_num_employees": employees + 1, "annual_revenue": 1_000_000.0,
            "technology_names": ["Nginx", "Slack"], "short_description": "Makes things.",
            "city": "San Francisco", "country": "United States",
        } }),
        // In thousands of dollars.
        CompanySource::Zoominfo => json!({ "success": true, "data": {
            "outputFields": [["id"]],
            "result": [{ "input": { "companywebsite": domain }, "matchStatus": "FULL_MATCH",
              "data": [{
                "id": 344_589_814, "name": word, "website": format!("www.{domain}"),
                "domainList": [domain], "descriptionList": [{ "description": "Makes things." }],
                "phone": "(415) 555-0100", "revenue": 1000, "employeeCount": employees + 2,
                "city": "San Francisco", "country": "United States",
                "primaryIndustry": ["Software"],
                "socialMediaUrls": [{
                    "type": "TWITTER", "url": format!("http://www.twitter.com/{word}"),
                }],
                "techAttributes": [{ "product": "Oracle Database", "vendor": "Oracle" }],
            }] }],
        } }),
    };
    Said::json(200, &body)
}

fn unknown(source: CompanySource) -> Said {
    match source {
        CompanySource::Clearbit => {
            let error = json!({ "type": "unknown_record", "message": "Unknown company." });
            Said::json(404, &json!({ "error": error }))
        }
        CompanySource::Apollo => Said::json(200, &json!({})),
        CompanySource::Zoominfo => Said::json(
            200,
            &json!({ "success": true, "data": {
                "outputFields": [["id"]],
                "result": [{ "input": {}, "data": [], "matchStatus": "NO_MATCH" }],
            } }),
        ),
    }
}

/// What it says of its limit: how many calls, how many are left, and when it begins anew.
pub(super) fn limit_headers(
    source: CompanySource,
    (max, left): (usize, usize),
    resets_at: i64,
) -> Vec<(&'static str, String)> {
    match source {
        CompanySource::Apollo => vec![
            ("x-rate-limit-minute", max.to_string()),
            ("x-minute-usage", (max - left).to_string()),
            ("x-minute-requests-left", left.to_string()),
        ],
        CompanySource::Zoominfo => Vec::new(),
        CompanySource::Clearbit => vec![
            ("x-ratelimit-limit", max.to_string()),
            ("x-ratelimit-remaining", left.to_string()),
            ("x-ratelimit-reset", resets_at.to_string()),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::providers::read;
    use super::*;

    #[test]
    fn what_it_answers_is_what_the_clients_read() {
        for source in CompanySource::ALL {
            let said = company(source, "acme.com");
            let body = serde_json::from_str(&said.body).unwrap();
            let facts = read(source, &body).unwrap();
            assert_eq!(facts.domain.as_deref(), Some("acme.com"), "{source:?}");
            assert!(facts.values.len() >= 7, "{source:?}: {facts:?}");
        }
    }
}
