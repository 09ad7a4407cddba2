//! What the simulator is asked, read from the shapes that the providers document.

use hyper::{Method, Uri};
use reqwest::Url;
use serde_json::Value;

use super::super::providers::{DataSource, Employer, PersonKey, Topic};

/// Who is asked, and about what; no topic: the question does not say. None: there is no such route.
pub(super) fn read(
    method: &Method,
    uri: &Uri,
    body: &Value,
) -> Option<(DataSource, Option<Topic>)> {
    let company = |domain: Option<String>| domain.map(Topic::Company);
    let asked = match (method, uri.path()) {
        (&Method::GET, "/v2/companies/find") => {
            (DataSource::Clearbit, company(parameter(uri, "domain")))
        }
        (&Method::GET, "/v2/combined/find") => {
            let email = parameter(uri, "email").map(PersonKey::Email);
            (DataSource::Clearbit, email.map(Topic::Person))
        }
        (&Method::GET, "/api/v1/organizations/enrich") => {
            (DataSource::Apollo, company(parameter(uri, "domain")))
        }
        (&Method::POST, "/api/v1/people/match") => {
            (DataSource::Apollo, apollo_person(body).map(Topic::Person))
        }
        (&Method::POST, "/enrich/company") => {
            let site = text(body, "/matchCompanyInput/0/companyWebsite");
            let domain = site.map(|site| site.trim_start_matches("http://www.").to_owned());
            (DataSource::Zoominfo, company(domain))
        }
        (&Method::POST, "/enrich/contact") => {
            let input = body.pointer("/matchPersonInput/0")?;
            (
                DataSource::Zoominfo,
                zoominfo_person(input).map(Topic::Person),
            )
        }
        _ => return None,
    };
    Some(asked)
}

/// Who is asked about several at once, and about which; none: it is no such question.
pub(super) fn read_many(method: &Method, uri: &Uri, body: &Value) -> Option<Vec<Option<Topic>>> {
    let items = |name: &str| {
        let items = body.get(name).and_then(Value::as_array);
        items.map_or(&[][..], Vec::as_slice).iter()
    };
    match (method, uri.path()) {
        (&Method::POST, "/api/v1/organizations/bulk_enrich") => {
            let domains = items("domains");
            Some(
                domains
                    .map(|domain| Some(Topic::Company(domain.as_str()?.to_owned())))
                    .collect(),
            )
        }
        (&Method::POST, "/api/v1/people/bulk_match") => {
            let people = items("details");
            Some(
                people
                    .map(|person| apollo_person(person).map(Topic::Person))
                    .collect(),
            )
        }
        _ => None,
    }
}

/// One person, as Apollo is asked about them.
pub(super) fn apollo_person(body: &Value) -> Option<PersonKey> {
    let email = text(body, "/email").map(PersonKey::Email);
    let page = || text(body, "/linkedin_url").map(PersonKey::Linkedin);
    let named = || {
        let domain = text(body, "/domain").map(Employer::Domain);
        Some(PersonKey::Name {
            first: text(body, "/first_name")?,
            last: text(body, "/last_name")?,
            employer: domain.or_else(|| text(body, "/organization_name").map(Employer::Name))?,
        })
    };
    email.or_else(page).or_else(named)
}

fn zoominfo_person(input: &Value) -> Option<PersonKey> {
    let email = text(input, "/emailAddress").map(PersonKey::Email);
    let page = || text(input, "/externalURL").map(PersonKey::Linkedin);
    let named = || {
        Some(PersonKey::Name {
            first: text(input, "/firstName")?,
            last: text(input, "/lastName")?,
            employer: Employer::Name(text(input, "/companyName")?),
        })
    };
    email.or_else(page).or_else(named)
}

fn text(body: &Value, pointer: &str) -> Option<String> {
    let text = body.pointer(pointer)?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let url = Url::parse("http://simulator")
        .ok()?
        .join(&uri.to_string())
        .ok()?;
    let found = url.query_pairs().find(|(key, _)| key == name)?;
    let value = found.1.into_owned();
    (!value.is_empty()).then_some(value)
}
