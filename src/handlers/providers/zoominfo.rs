//! `ZoomInfo`'s Enterprise API: `POST /authenticate` gives a token for an hour, which
//! `POST /enrich/company` takes.
//!
//! An answer has one result per question, with `matchStatus`; an unknown company is one of
//! `NO_MATCH`, with 200, and costs no credit. Nor does one that was bought before: it is "under
//! management" for a year.
//!
//! Source: `ZoomInfo`'s description of the Enterprise API (api-docs.zoominfo.com, "Company Enrich"
//! and its output fields): a website is asked for as `http://www.example.com`, `revenue` is in
//! thousands ("a 100M company is expressed as 100000"), and `X-RateLimit-*` come along.
//! `LIMIT_EXCEEDED` and `OPT_OUT` are met in the field.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::import_csv::normalize;
use super::facts::{Facts, Field, at, list};
use crate::clock;
use crate::secret::Secret;

pub(super) const AUTHENTICATE: &str = "/authenticate";
pub(super) const ENRICH: &str = "/enrich/company";
/// Tokens live for an hour; they are renewed a little earlier.
pub(super) const TOKEN_KEPT: Duration = Duration::from_secs(55 * 60);
/// How long the assertion that a token is asked for with may be used.
const ASSERTION_S: i64 = 300;

/// What is wanted of a company.
const FIELDS: [&str; 13] = [
    "id",
    "name",
    "website",
    "domainList",
    "descriptionList",
    "phone",
    "revenue",
    "employeeCount",
    "city",
    "country",
    "primaryIndustry",
    "socialMediaUrls",
    "techAttributes",
];

pub(super) fn question(domain: &str) -> Value {
    let website = format!("http://www.{domain}");
    json!({ "matchCompanyInput": [{ "companyWebsite": website }], "outputFields": FIELDS })
}

#[derive(serde::Serialize)]
struct Assertion<'a> {
    aud: &'a str,
    iss: &'a str,
    username: &'a str,
    client_id: &'a str,
    iat: i64,
    exp: i64,
}

/// What a token is asked for with, where the connection has a private key instead of a password.
pub(super) fn assertion(
    username: &Secret,
    client_id: &Secret,
    private_key: &Secret,
) -> Result<Secret, String> {
    let key = EncodingKey::from_rsa_pem(private_key.as_bytes());
    let key = key.map_err(|_| "the `private_key` is no RSA key in PEM form".to_owned())?;
    // A little earlier, for clocks that are not quite the same.
    let now = clock::now().timestamp() - 60;
    let claims = Assertion {
        aud: "enterprise_api",
        iss: "api-client@zoominfo.com",
        username,
        client_id,
        iat: now,
        exp: now + ASSERTION_S,
    };
    jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &key)
        .map(Secret)
        .map_err(|_| "the `private_key` can not sign".to_owned())
}

#[derive(Deserialize)]
struct Token {
    jwt: String,
}

pub(super) fn token(bytes: &[u8]) -> Option<Secret> {
    let token: Token = serde_json::from_slice(bytes).ok()?;
    (!token.jwt.is_empty()).then_some(Secret(token.jwt))
}

/// None: it knows no such company. What has another form than it is documented with says nothing.
pub(super) fn read(answer: &Value) -> Option<Facts> {
    let result = answer.pointer("/data/result/0")?;
    if says_unknown(answer) {
        return None;
    }
    // One company, or a list of one.
    let company = match result.get("data")? {
        Value::Array(all) => all.first()?,
        one => one,
    };
    company.as_object()?;
    let website = at(company, "/website");
    let mut facts = Facts {
        domain: website.and_then(|website| normalize::domain(website).ok()),
        ..Facts::default()
    };
    facts.url(Field::Website, website);
    let domains = list(company, "/domainList")
        .iter()
        .filter_map(Value::as_str);
    facts.also = domains
        .filter_map(|one| normalize::domain(one).ok())
        .collect();
    let description = at(company, "/descriptionList/0/description");
    facts.text(Field::Description, description);
    facts.text(Field::Phone, at(company, "/phone"));
    facts.number(Field::Revenue, company.get("revenue"), 1000);
    facts.number(Field::EmployeeCount, company.get("employeeCount"), 1);
    facts.text(Field::City, at(company, "/city"));
    facts.country(at(company, "/country"));
    let industry = at(company, "/primaryIndustry/0").or(at(company, "/primaryIndustry"));
    facts.text(Field::Industry, industry);
    let technologies = list(company, "/techAttributes").iter();
    facts.technologies(technologies.filter_map(|one| at(one, "/product")));
    for social in list(company, "/socialMediaUrls") {
        let network = match at(social, "/type").map(str::to_ascii_lowercase).as_deref() {
            Some("linked_in" | "linkedin") => "linkedin",
            Some("twitter") => "twitter",
            Some("facebook") => "facebook",
            Some("crunchbase") => "crunchbase",
            _ => continue,
        };
        facts.social(network, at(social, "/url"));
        if network == "linkedin" {
            facts.url(Field::LinkedinUrl, at(social, "/url"));
        }
    }
    Some(facts)
}

/// Also of companies that do not want to be known.
pub(super) fn says_unknown(answer: &Value) -> bool {
    let status = at(answer, "/data/result/0/matchStatus");
    matches!(status, Some("NO_MATCH" | "INVALID_INPUT" | "OPT_OUT"))
}

/// That its credits are used up.
pub(super) fn says_no_credits(answer: &Value) -> bool {
    at(answer, "/data/result/0/matchStatus") == Some("LIMIT_EXCEEDED")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_is_read_and_no_match_is_none() {
        let company = json!({
            "id": 1, "website": "www.acme.com", "domainList": ["acme.com", "acme.de"],
            "descriptionList": [{"description": "Makes things."}], "revenue": 51_000,
             "employeeCount": 300,
            "primaryIndustry": ["Manufacturing"], "country": "France",
            "socialMediaUrls": [{"type": "LINKED_IN", "url": "http://www.linkedin.com/company/a"}],
            "techAttributes": [{"product": "Oracle", "vendor": "Oracle"}, {"vendor": "x"}],
        });
        let answer = |data: Value, status: &str| {
            let result = json!([{ "input": {}, "data": data, "matchStatus": status }]);
            json!({ "success": true, "data": { "outputFields": [], "result": result } })
        };
        let listed = read(&answer(json!([company]), "FULL_MATCH")).unwrap();
        assert_eq!(listed.domain.as_deref(), Some("acme.com"));
        assert_eq!(listed.values[&Field::Revenue], 51_000_000);
        assert_eq!(listed.values[&Field::Technologies], json!(["Oracle"]));
        assert_eq!(listed.values[&Field::Industry], "Manufacturing");
        assert_eq!(listed.values[&Field::Description], "Makes things.");
        assert!(listed.confidence("acme.de") > listed.confidence("other.com"));
        assert_eq!(Some(listed), read(&answer(company, "FULL_MATCH")));
        assert_eq!(read(&answer(json!([]), "NO_MATCH")), None);
        assert_eq!(read(&json!({ "success": false })), None);
    }
}
