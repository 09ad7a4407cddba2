//! Salesforce in the simulator: organizations with accounts, contacts and opportunities.
//!
//! It speaks OAuth, SOQL as far as a sync needs it, sObject Collections, `describe` and the Bulk
//! API 2.0, in the shapes that Salesforce documents, and keeps to its limits: 200 records a call,
//! one upload per bulk job, addresses of 16 KiB, a budget of calls with
//! `Sforce-Limit-Info`. An organization is made by the first log-in of a `client_id`, which names
//! it.

mod bulk;
mod data;
mod log_in;
mod soql;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::Method;
use serde_json::{Value, json};

use super::answers::{PAGE, Said};
use bulk::BulkJob;
use data::{FIELDS, Fields, Org, prefix};
pub use log_in::Signer;

/// The largest request, in bytes: a table of the Bulk API.
pub(super) const QUESTION_MAX: usize = 100 * 1024 * 1024;
const RECORDS_MAX: usize = 200;
const ADDRESS_MAX: usize = 16_384;

/// Something that happens at one call for data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SalesforceTurn {
    /// This status, with this `errorCode`; nothing is done.
    Refused(u16, &'static str),
    /// Every session ends.
    SessionsEnd,
    /// It is done, and the answer does not arrive.
    LostAnswer,
    /// It is done, and the answer is 200 with a page for people.
    Nonsense,
    /// It is done, and nothing comes, for as long as somebody waits.
    Silence,
    /// It is answered as usual.
    Fine,
}

/// Salesforce as it is out there. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct SalesforceSide(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    orgs: BTreeMap<String, Org>,
    tokens: BTreeMap<String, String>,
    refused: BTreeSet<String>,
    /// By client, who must sign its assertions; of others the signature is not looked at.
    signers: BTreeMap<String, Signer>,
    /// By client, the one refresh token that is good; of others any is.
    rotating: BTreeMap<String, String>,
    script: VecDeque<SalesforceTurn>,
    log_ins: usize,
    calls: usize,
    violations: usize,
    /// Bulk jobs stay in work until this is false.
    is_bulk_held: bool,
}

/// A request, taken apart.
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) bearer: Option<&'a str>,
    pub(super) body: &'a [u8],
    pub(super) origin: &'a str,
}

impl SalesforceSide {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happens at the next calls for data, one after the other.
    pub fn script(&self, turns: impl IntoIterator<Item = SalesforceTurn>) {
        self.inner().script.extend(turns);
    }

    /// Log-ins of this client are refused from now on.
    pub fn refuse(&self, client_id: &str) {
        self.inner().refused.insert(client_id.to_owned());
    }

    /// Takes assertions of this client from this signer only.
    pub fn trust(&self, client_id: &str, signer: Signer) {
        self.inner().signers.insert(client_id.to_owned(), signer);
    }

    /// Takes of this client this refresh token only; each log-in ends it and gives the next one.
    pub fn rotate(&self, client_id: &str, refresh_token: &str) {
        let (client_id, token) = (client_id.to_owned(), refresh_token.to_owned());
        self.inner().rotating.insert(client_id, token);
    }

    /// Answers questions of an organization in portions of so many records.
    pub fn answer_by(&self, org: &str, records: usize) {
        self.inner().org(org).portion = records;
    }

    /// Makes a record as a person there would; its id.
    pub fn make(&self, org: &str, object: &str, fields: Value) -> String {
        let mut inner = self.inner();
        inner.org(org).make(object, data::map(fields), data::PERSON)
    }

    /// Changes a record as a person there would.
    pub fn change(&self, org: &str, object: &str, id: &str, fields: Value) {
        let mut inner = self.inner();
        inner
            .org(org)
            .change(object, id, data::map(fields), data::PERSON);
    }

    /// Deletes a record as a person there would.
    pub fn delete(&self, org: &str, object: &str, id: &str) {
        self.inner().org(org).delete(object, id);
    }

    /// Records that are not deleted, by id, with all their fields.
    pub fn records(&self, org: &str, object: &str) -> BTreeMap<String, Fields> {
        let mut inner = self.inner();
        inner.org(org).living(object)
    }

    /// The next so many writes of records with this external id find them locked.
    pub fn lock(&self, org: &str, external_id: &str, times: usize) {
        let mut inner = self.inner();
        inner.org(org).locked.insert(external_id.to_owned(), times);
    }

    /// So many calls in 24 hours.
    pub fn limit(&self, org: &str, calls: usize) {
        self.inner().org(org).budget = calls;
    }

    /// Bulk jobs stay in work while this is so.
    pub fn hold_bulk(&self, is_held: bool) {
        self.inner().is_bulk_held = is_held;
    }

    /// Bulk jobs of an organization: their states, and how often each got a table.
    pub fn bulk_jobs(&self, org: &str) -> Vec<(String, usize)> {
        let mut inner = self.inner();
        let jobs = inner.org(org).bulk.values();
        jobs.map(|job| (job.state.to_owned(), job.uploads))
            .collect()
    }

    pub fn log_ins(&self) -> usize {
        self.inner().log_ins
    }

    /// Calls for data.
    pub fn calls(&self) -> usize {
        self.inner().calls
    }

    /// Calls above a limit.
    pub fn violations(&self) -> usize {
        self.inner().violations
    }

    pub(super) fn answer(&self, asked: &Asked<'_>) -> Said {
        let mut inner = self.inner();
        match asked.path {
            "/services/oauth2/token" => inner.log_in(asked),
            _ => inner.data(asked),
        }
    }
}

pub(super) fn error(status: u16, code: &str, message: &str) -> Said {
    Said::json(status, &json!([{ "message": message, "errorCode": code }]))
}

impl Inner {
    fn org(&mut self, name: &str) -> &mut Org {
        self.orgs.entry(name.to_owned()).or_default()
    }

    fn data(&mut self, asked: &Asked<'_>) -> Said {
        self.calls += 1;
        let turn = self.script.pop_front().unwrap_or(SalesforceTurn::Fine);
        if turn == SalesforceTurn::SessionsEnd {
            self.tokens.clear();
        }
        let org = asked
            .bearer
            .and_then(|token| self.tokens.get(token))
            .cloned();
        let Some(name) = org else {
            return error(401, "INVALID_SESSION_ID", "Session expired or invalid");
        };
        if let SalesforceTurn::Refused(status, code) = turn {
            return error(status, code, "refused by the script");
        }
        let is_held = self.is_bulk_held;
        let org = self.org(&name);
        org.used += 1;
        let (used, budget) = (org.used, org.budget);
        let is_over = used > budget;
        let too_long = asked.path.len() + asked.query.len() > ADDRESS_MAX;
        let mut said = match (is_over, too_long) {
            (true, _) => error(
                403,
                "REQUEST_LIMIT_EXCEEDED",
                "TotalRequests Limit exceeded.",
            ),
            (_, true) => error(414, "URI_TOO_LONG", "URI Too Long"),
            _ => org.respond(asked, is_held),
        };
        let broken = org.broken + usize::from(is_over && used > budget + 1) + usize::from(too_long);
        org.broken = 0;
        let info = format!("api-usage={}/{budget}", used.min(budget));
        said.headers.push(("sforce-limit-info", info));
        self.violations += broken;
        match turn {
            SalesforceTurn::Nonsense => (said.status, said.body) = (200, PAGE.to_owned()),
            SalesforceTurn::LostAnswer => said.is_cut = true,
            SalesforceTurn::Silence => said.is_silent = true,
            SalesforceTurn::Refused(..) | SalesforceTurn::SessionsEnd | SalesforceTurn::Fine => {}
        }
        said
    }
}

impl Org {
    fn respond(&mut self, asked: &Asked<'_>, is_held: bool) -> Said {
        let Some(rest) = asked.path.strip_prefix("/services/data/v62.0/") else {
            return error(404, "NOT_FOUND", "The requested resource does not exist");
        };
        let parts: Vec<&str> = rest.split('/').collect();
        let query = pairs(asked.query);
        let json = || serde_json::from_slice::<Value>(asked.body).unwrap_or_default();
        match (asked.method, parts.as_slice()) {
            (&Method::GET, [way @ ("query" | "queryAll")]) => {
                let soql = query.get("q").map(String::as_str).unwrap_or_default();
                match soql::run(self, soql, *way == "queryAll") {
                    Ok(records) => self.portion(records.len(), records),
                    Err((code, why)) => error(400, code, &why),
                }
            }
            (&Method::GET, ["query", locator]) => match self.left.remove(*locator) {
                Some((all, records)) => self.portion(all, records),
                None => error(400, "INVALID_QUERY_LOCATOR", "invalid query locator"),
            },
            (&Method::GET, ["sobjects", object, "describe"]) => match FIELDS.get(*object) {
                Some(fields) => Said::json(200, &json!({ "name": object, "fields": fields })),
                None => error(404, "NOT_FOUND", "The requested resource does not exist"),
            },
            (&Method::PATCH, ["composite", "sobjects", object, field]) => {
                self.collection(&json(), Some((object, field)))
            }
            (&Method::PATCH, ["composite", "sobjects"]) => self.collection(&json(), None),
            (&Method::DELETE, ["composite", "sobjects"]) => {
                let ids = query.get("ids").map(String::as_str).unwrap_or_default();
                let said: Vec<Value> = ids.split(',').map(|id| self.remove(id)).collect();
                Said::json(200, &Value::Array(said))
            }
            (_, ["jobs", "ingest", rest @ ..]) => self.bulk(asked, rest, is_held),
            _ => error(404, "NOT_FOUND", "The requested resource does not exist"),
        }
    }

    /// The first of these records, and where the others are.
    fn portion(&mut self, all: usize, mut records: Vec<Value>) -> Said {
        let rest = records.split_off(records.len().min(self.portion));
        let mut said = json!({ "totalSize": all, "done": rest.is_empty(), "records": records });
        if !rest.is_empty() {
            let locator = format!("{}-{}", self.next_id("QueryLocator"), all - rest.len());
            said["nextRecordsUrl"] = json!(format!("/services/data/v62.0/query/{locator}"));
            self.left.insert(locator, (all, rest));
        }
        Said::json(200, &said)
    }

    /// `upsert`: the object, and the field of external ids.
    fn collection(&mut self, body: &Value, upsert: Option<(&str, &str)>) -> Said {
        let records = body.get("records").and_then(Value::as_array);
        let Some(records) = records.cloned() else {
            return error(400, "JSON_PARSER_ERROR", "no records");
        };
        if records.len() > RECORDS_MAX {
            self.broken += 1;
            return error(400, "INVALID_INPUT", "more than 200 records");
        }
        // One value that can not be read spoils the whole.
        if let Some(day) = records.iter().find_map(|record| {
            let day = record.get("CloseDate").and_then(Value::as_str)?;
            (!is_day(day)).then(|| day.to_owned())
        }) {
            let why = format!("Cannot deserialize instance of date from VALUE_STRING value {day}");
            return error(400, "JSON_PARSER_ERROR", &why);
        }
        let each = records.into_iter().map(|record| {
            let mut record = data::map(record);
            let attributes = record.remove("attributes").unwrap_or_default();
            let object = attributes
                .get("type")
                .and_then(Value::as_str)
                .unwrap_or_default();
            match upsert {
                Some((named, field)) if named == object => self.upsert(object, field, record),
                Some(_) => data::failed("INVALID_TYPE", "another type than that of the URI", &[]),
                None => self.update(object, record),
            }
        });
        let said: Vec<Value> = each.collect();
        Said::json(200, &Value::Array(said))
    }

    fn remove(&mut self, id: &str) -> Value {
        let objects = ["Account", "Contact", "Opportunity"];
        let object = objects
            .into_iter()
            .find(|object| id.starts_with(prefix(object)));
        match object.map(|object| self.delete(object, id)) {
            Some(true) => json!({ "id": id, "success": true, "errors": [] }),
            Some(false) => data::failed("ENTITY_IS_DELETED", "entity is deleted", &[]),
            None => data::failed(
                "INVALID_CROSS_REFERENCE_KEY",
                "invalid cross reference id",
                &[],
            ),
        }
    }
}

fn is_day(text: &str) -> bool {
    text.parse::<chrono::NaiveDate>().is_ok()
}

fn pairs(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
