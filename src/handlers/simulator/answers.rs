//! What the providers of the simulator answer, in the shapes that they document.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::providers::{DataSource, Employer, PersonKey, Topic};

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
    /// Nothing of it comes, and the connection stays open.
    pub(super) is_silent: bool,
}

/// What a proxy says when it has nothing better to say.
pub(super) const PAGE: &str = "<html>We are sorry</html>";

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

    /// The same with a member of so many bytes that nobody asked for.
    pub(super) fn with_more(self, bytes: usize) -> Self {
        let mut body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["more"] = Value::String("x".repeat(bytes));
        Self {
            body: body.to_string(),
            ..self
        }
    }
}

/// A company, or that there is none. Each provider knows something that another does not.
pub(super) fn company(source: DataSource, domain: &str) -> Said {
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
        DataSource::Clearbit => json!({
            "id": "a8f1", "name": word, "domain": domain, "type": "private",
            "category": { "sector": "Information Technology", "industry": "Internet Software" },
            "description": format!("{word} makes things."), "phone": null,
            "geo": { "city": "San Francisco", "country": "United States", "countryCode": "US" },
            "metrics": { "employees": employees, "annualRevenue": null },
            "tech": ["google_apps", "nginx"],
            "linkedin": { "handle": format!("company/{word}") },
            "twitter": { "handle": word, "followers": 12 }, "facebook": { "handle": null },
        }),
        DataSource::Apollo => json!({ "organization": {
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
        DataSource::Zoominfo => json!({ "success": true, "data": {
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

/// The answer about a company or a person.
pub(super) fn about(source: DataSource, topic: &Topic) -> Said {
    match topic {
        Topic::Company(domain) => company(source, domain),
        Topic::Person(key) => person(source, key),
    }
}

/// Whether nobody knows it: its domain, address, page or name begins with `unknown`.
pub(super) fn is_unknown(topic: &Topic) -> bool {
    let name = match topic {
        Topic::Company(domain) => domain,
        Topic::Person(PersonKey::Email(email)) => email,
        Topic::Person(PersonKey::Linkedin(page)) => page.rsplit('/').next().unwrap_or(page),
        Topic::Person(PersonKey::Name { first, .. }) => first,
    };
    name.to_lowercase().starts_with("unknown")
}

/// A person, or that there is none. Each provider knows something that another does not.
fn person(source: DataSource, key: &PersonKey) -> Said {
    if is_unknown(&Topic::Person(key.clone())) {
        return unknown(source);
    }
    let capital = |word: &str| {
        let mut letters = word.chars();
        let first = letters
            .next()
            .map(|letter| letter.to_uppercase().to_string());
        first.unwrap_or_default() + letters.as_str()
    };
    let (first, last, domain) = match key {
        PersonKey::Email(email) => {
            let (local, domain) = email.split_once('@').unwrap_or((email, "example.com"));
            let (first, last) = local.split_once('.').unwrap_or((local, "lee"));
            (capital(first), capital(last), domain.to_owned())
        }
        PersonKey::Linkedin(page) => {
            let name = page.rsplit('/').next().unwrap_or("ann");
            let (first, last) = name.split_once('-').unwrap_or((name, "lee"));
            (capital(first), capital(last), "example.com".to_owned())
        }
        PersonKey::Name {
            first,
            last,
            employer,
        } => {
            let domain = match employer {
                Employer::Domain(domain) => domain.clone(),
                Employer::Name(name) => format!("{}.com", name.to_lowercase().replace(' ', "")),
            };
            (first.clone(), last.clone(), domain)
        }
    };
    let (low_first, low_last) = (first.to_lowercase(), last.to_lowercase());
    let email = match key {
        PersonKey::Email(email) => email.clone(),
        _ => format!("{low_first}.{low_last}@{domain}"),
    };
    let handle = match key {
        PersonKey::Linkedin(page) => page.rsplit('/').next().unwrap_or_default().to_owned(),
        _ => format!("{low_first}-{low_last}"),
    };
    let company = capital(domain.split('.').next().unwrap_or("example"));
    let body = match source {
        // Knows no telephone.
        DataSource::Clearbit => json!({
            "person": {
                "id": "d54c", "email": email, "fuzzy": false, "phone": null,
                "name": { "fullName": format!("{first} {last}"), "givenName": first,
                          "familyName": last },
                "geo": { "city": "Berlin", "country": "Germany", "countryCode": "DE" },
                "employment": { "domain": domain, "name": company, "title": "Engineer" },
                "linkedin": { "handle": format!("in/{handle}") },
            },
            "company": { "domain": domain, "name": company },
        }),
        DataSource::Apollo => json!({ "person": {
            "id": "64a7", "first_name": first, "last_name": last, "title": "Head of Engineering",
            "name": format!("{first} {last}"), "email": email, "email_status": "verified",
            "linkedin_url": format!("http://www.linkedin.com/in/{handle}"),
            "city": "Berlin", "country": "Germany",
            "organization": { "name": company, "primary_domain": domain },
        } }),
        DataSource::Zoominfo => json!({ "success": true, "data": {
            "outputFields": [["id"]],
            "result": [{ "input": {}, "matchStatus": "FULL_MATCH", "data": [{
                "id": 1_296_069_318, "firstName": first, "lastName": last, "email": email,
                "phone": "+49 30 5550100", "jobTitle": "Engineer", "city": "Berlin",
                "country": "Germany", "companyName": company,
                "companyWebsite": format!("www.{domain}"), "contactAccuracyScore": 95,
                "externalUrls": [{
                    "type": "linkedin.com",
                    "url": format!("https://www.linkedin.com/in/{handle}"),
                }],
            }] }],
        } }),
    };
    Said::json(200, &body)
}

fn unknown(source: DataSource) -> Said {
    match source {
        DataSource::Clearbit => {
            let error = json!({ "type": "unknown_record", "message": "Unknown." });
            Said::json(404, &json!({ "error": error }))
        }
        DataSource::Apollo => Said::json(200, &json!({})),
        DataSource::Zoominfo => Said::json(
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
    source: DataSource,
    (max, left): (usize, usize),
    resets_at: i64,
) -> Vec<(&'static str, String)> {
    match source {
        DataSource::Apollo => vec![
            ("x-rate-limit-minute", max.to_string()),
            ("x-minute-usage", (max - left).to_string()),
            ("x-minute-requests-left", left.to_string()),
        ],
        DataSource::Zoominfo => Vec::new(),
        DataSource::Clearbit => vec![
            ("x-ratelimit-limit", max.to_string()),
            ("x-ratelimit-remaining", left.to_string()),
            ("x-ratelimit-reset", resets_at.to_string()),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::providers::{read, read_person};
    use super::*;

    #[test]
    fn a_person_that_it_tells_of_is_what_the_clients_read() {
        let key = PersonKey::Email("ann.lee@acme.com".to_owned());
        for source in DataSource::ALL {
            let said = person(source, &key);
            let body = serde_json::from_str(&said.body).unwrap();
            let facts = read_person(source, &body).unwrap();
            assert!(facts.values.len() >= 7, "{source:?}: {facts:?}");
            assert!(key.confidence(&facts) > 0.9, "{source:?}: {facts:?}");
        }
    }

    #[test]
    fn what_it_answers_is_what_the_clients_read() {
        for source in DataSource::ALL {
            let said = company(source, "acme.com");
            let body = serde_json::from_str(&said.body).unwrap();
            let facts = read(source, &body).unwrap();
            assert_eq!(facts.domain.as_deref(), Some("acme.com"), "{source:?}");
            assert!(facts.values.len() >= 7, "{source:?}: {facts:?}");
        }
    }
}
