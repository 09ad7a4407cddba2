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
use super::facts::{Facts, at, list};
use super::fields::{ContactField, Field};
use super::person::{Employer, Person, PersonKey};
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

pub(super) const ENRICH_PERSON: &str = "/enrich/contact";
/// What is wanted of a person.
const PERSON_FIELDS: [&str; 12] = [
    "id",
    "firstName",
    "lastName",
    "email",
    "phone",
    "jobTitle",
    "city",
    "country",
    "externalUrls",
    "companyName",
    "companyWebsite",
    "contactAccuracyScore",
];

/// None: it can not be asked for by this.
pub(super) fn person_question(person: &PersonKey) -> Option<Value> {
    let input = match person {
        PersonKey::Email(email) => json!({ "emailAddress": email }),
        PersonKey::Linkedin(page) => json!({ "externalURL": page }),
        PersonKey::Name {
            first,
            last,
            employer: Employer::Name(company),
        } => json!({ "firstName": first, "lastName": last, "companyName": company }),
        PersonKey::Name { .. } => return None,
    };
    Some(json!({ "matchPersonInput": [input], "outputFields": PERSON_FIELDS }))
}

/// None: it knows no such person.
pub(super) fn read_person(answer: &Value) -> Option<Person> {
    let found = one(answer)?;
    // Perhaps inside of `company`.
    let company = |flat: &str, nested: &str| at(found, flat).or(at(found, nested));
    let site = company("/companyWebsite", "/company/website");
    let score = found.get("contactAccuracyScore").and_then(Value::as_f64);
    let mut facts = Person {
        domain: site.and_then(|site| normalize::domain(site).ok()),
        own_score: score
            .filter(|score| *score > 0.0)
            .map(|score| (score / 100.0) as f32),
        ..Person::default()
    };
    facts.email(ContactField::Email, at(found, "/email"));
    facts.text(ContactField::FirstName, at(found, "/firstName"));
    facts.text(ContactField::LastName, at(found, "/lastName"));
    facts.text(ContactField::Title, at(found, "/jobTitle"));
    facts.text(ContactField::Phone, at(found, "/phone"));
    facts.text(ContactField::City, at(found, "/city"));
    facts.country(ContactField::Country, at(found, "/country"));
    facts.text(
        ContactField::Company,
        company("/companyName", "/company/name"),
    );
    for social in list(found, "/externalUrls") {
        // One that is no page there is left out.
        facts.linkedin(ContactField::LinkedinUrl, at(social, "/url"));
    }
    Some(facts)
}

/// What was found, one or a list of one.
fn one(answer: &Value) -> Option<&Value> {
    let result = answer.pointer("/data/result/0")?;
    if says_unknown(answer) {
        return None;
    }
    let found = match result.get("data")? {
        Value::Array(all) => all.first()?,
        one => one,
    };
    found.is_object().then_some(found)
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
pub(super) fn read(answer: &Value) -> Option<Facts<Field>> {
    let company = one(answer)?;
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
    facts.country(Field::Country, at(company, "/country"));
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
    fn a_person_is_read_and_is_as_sure_as_it_says() {
        let person = json!({
            "id": 1, "firstName": "Ann", "lastName": "Lee", "email": "ann@acme.com",
            "jobTitle": "CTO", "companyName": "Acme", "companyWebsite": "www.acme.com",
            "contactAccuracyScore": 70, "country": "France", "phone": "",
            "externalUrls": [{"type": "linkedin.com", "url": "https://www.linkedin.com/in/ann"}],
        });
        let result = json!([{ "input": {}, "data": [person], "matchStatus": "FULL_MATCH" }]);
        let answer = json!({ "success": true, "data": { "result": result } });
        let facts = read_person(&answer).unwrap();
        let expected = json!({
            "email": "ann@acme.com", "first_name": "Ann", "last_name": "Lee", "title": "CTO",
            "company": "Acme", "country": "FR", "linkedin_url": "https://www.linkedin.com/in/ann",
        });
        assert_eq!(json!(facts.values), expected);
        assert_eq!(facts.own_score, Some(0.7));
        assert_eq!(facts.domain.as_deref(), Some("acme.com"));
    }

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
