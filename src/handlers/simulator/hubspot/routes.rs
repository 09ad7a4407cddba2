//! What the simulated `HubSpot` answers.

use serde_json::{Map, Value, json};

use super::store::{Kept, Seen, Store};
use super::{Said, Spoiled};

/// The largest batch.
const BATCH_MAX: usize = 100;
/// The largest question of a search.
const QUESTION_MAX: usize = 3000;
/// Properties of every object; `bullwark_id` has unique values.
const PROPERTIES: &[&str] = &[
    "name",
    "domain",
    "website",
    "numberofemployees",
    "annualrevenue",
    "country",
    "city",
    "phone",
    "linkedin_company_page",
    "description",
    "email",
    "firstname",
    "lastname",
    "jobtitle",
    "company",
    "dealname",
    "dealstage",
    "amount",
    "closedate",
    "bullwark_id",
];

pub(super) fn said(status: u16, body: Value) -> Said {
    Said {
        status,
        body,
        headers: vec![
            ("x-hubspot-ratelimit-daily", "250000".to_owned()),
            ("x-hubspot-ratelimit-daily-remaining", "249000".to_owned()),
        ],
        spoiled: None,
    }
}

pub(super) fn error(status: u16, category: &str, message: &str) -> Said {
    let body = json!({
        "status": "error", "category": category, "message": message, "correlationId": "c-1",
    });
    said(status, body)
}

impl Store {
    pub(super) fn answer(
        &mut self,
        method: &str,
        (path, query): (&str, &str),
        bearer: Option<&str>,
        bytes: &[u8],
    ) -> Said {
        let body: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let inputs = body
            .get("inputs")
            .and_then(Value::as_array)
            .map_or(0, Vec::len);
        let said = match self.scripted(path) {
            Some(instead) => {
                if instead.is_done {
                    self.routed(method, (path, query), bearer, bytes);
                }
                Said {
                    status: instead.status,
                    body: instead.body,
                    headers: instead.headers,
                    spoiled: None,
                }
            }
            None => self.routed(method, (path, query), bearer, bytes),
        };
        let spoiled = self.spoiled(path);
        let said = Said { spoiled, ..said };
        self.seen.push(Seen {
            path: path.to_owned(),
            inputs,
            status: said.status,
        });
        said
    }

    fn scripted(&mut self, path: &str) -> Option<super::Instead> {
        let place = self.script.iter().position(|one| path.contains(one.path))?;
        if self.script[place].after > 0 {
            self.script[place].after -= 1;
            return None;
        }
        Some(self.script.remove(place))
    }

    fn spoiled(&mut self, path: &str) -> Option<Spoiled> {
        let place = self.spoiled.iter().position(|one| path.ends_with(one.0))?;
        if self.spoiled[place].1 > 0 {
            self.spoiled[place].1 -= 1;
            return None;
        }
        Some(self.spoiled.remove(place).2)
    }

    fn routed(
        &mut self,
        method: &str,
        (path, query): (&str, &str),
        bearer: Option<&str>,
        bytes: &[u8],
    ) -> Said {
        if (method, path) == ("POST", "/oauth/v1/token") {
            return self.log_in(bytes);
        }
        if bearer != Some(self.token.as_str()) {
            return error(
                401,
                "INVALID_AUTHENTICATION",
                "Authentication credentials not found.",
            );
        }
        let body: &Value = &serde_json::from_slice(bytes).unwrap_or_default();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (method, parts.as_slice()) {
            ("GET", ["account-info", "v3", "details"]) => said(200, json!({ "portalId": 62_515 })),
            ("GET", ["crm", "v3", "properties", object]) => self.described(object),
            ("GET", ["crm", "v3", "objects", object]) => {
                let from = query
                    .split('&')
                    .find_map(|pair| pair.strip_prefix("after="));
                self.list_archived(object, from)
            }
            ("POST", ["crm", "v3", "objects", _, "search"]) if bytes.len() > QUESTION_MAX => error(
                400,
                "VALIDATION_ERROR",
                "the request has over 3000 characters",
            ),
            ("POST", ["crm", "v3", "objects", object, "search"]) => self.search(object, body),
            ("POST", ["crm", "v3", "objects", object, "batch", verb]) => {
                self.batch(object, verb, body)
            }
            (
                "POST",
                [
                    "crm",
                    "v4",
                    "associations",
                    object,
                    "companies",
                    "batch",
                    rest @ ..,
                ],
            ) => self.associations(object, rest, body),
            _ => error(404, "OBJECT_NOT_FOUND", "there is no such route"),
        }
    }

    fn list_archived(&self, object: &str, from: Option<&str>) -> Said {
        let from: usize = from.and_then(|text| text.parse().ok()).unwrap_or(0);
        let all = self.archived(object);
        let page = all.iter().skip(from).take(BATCH_MAX);
        let mut body = json!({
            "results": page.map(|kept| kept.shown(object)).collect::<Vec<_>>(),
        });
        if all.len() > from + BATCH_MAX {
            body["paging"] = json!({ "next": { "after": (from + BATCH_MAX).to_string() } });
        }
        said(200, body)
    }

    fn search(&self, object: &str, body: &Value) -> Said {
        let filters = body
            .pointer("/filterGroups/0/filters")
            .and_then(Value::as_array);
        let filters = filters.cloned().unwrap_or_default();
        let is_of_values = filters.iter().any(|filter| filter["operator"] == "IN");
        let mut found: Vec<Kept> = self
            .records(object)
            .into_iter()
            .filter(|kept| !(is_of_values && self.hidden.contains(&kept.id)))
            .filter(|kept| filters.iter().all(|filter| fits(kept, filter)))
            .collect();
        let by = body
            .pointer("/sorts/0/propertyName")
            .and_then(Value::as_str);
        match by {
            Some("hs_object_id") => found.sort_by_key(|kept| number(&kept.id)),
            _ => found.sort_by_key(|kept| kept.modified_at),
        }
        let limit = body
            .get("limit")
            .and_then(Value::as_u64)
            .unwrap_or(10)
            .min(200) as usize;
        let results = found.iter().take(limit).map(|kept| kept.shown(object));
        said(
            200,
            json!({ "total": found.len(), "results": results.collect::<Vec<_>>() }),
        )
    }

    fn batch(&mut self, object: &str, verb: &str, body: &Value) -> Said {
        let inputs = body
            .get("inputs")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        if inputs.len() > BATCH_MAX {
            return error(
                400,
                "VALIDATION_ERROR",
                "The maximum number of inputs is 100.",
            );
        }
        let whole = inputs.iter().any(|input| self.is_bad(input, true));
        if whole && matches!(verb, "update" | "upsert") {
            return error(400, "VALIDATION_ERROR", "Property values were not valid");
        }
        let id_of = |input: &Value| input["id"].as_str().unwrap_or_default().to_owned();
        if verb == "archive" && inputs.iter().any(|one| self.is_fast(&id_of(one), true)) {
            return error(400, "VALIDATION_ERROR", "An object can not be archived");
        }
        let (mut results, mut errors) = (Vec::new(), Vec::new());
        for input in &inputs {
            let text = |name: &str| input.get(name).and_then(Value::as_str).unwrap_or_default();
            let id = text("id").to_owned();
            let refused = |category: &str, message: &str| {
                json!({
                    "status": "error", "category": category, "message": message,
                    "context": { "id": [id] },
                })
            };
            let (found, is_new) = match verb {
                "archive" => {
                    match self.is_fast(&id, false) {
                        true => errors.push(refused("VALIDATION_ERROR", "it is not let go")),
                        false => self.archive(object, &id),
                    }
                    continue;
                }
                "upsert" => {
                    if self.is_bad(input, false) {
                        errors.push(refused("VALIDATION_ERROR", "a value is not valid"));
                        continue;
                    }
                    let name = text("idProperty").to_owned();
                    let mut properties = input.get("properties").cloned().unwrap_or_default();
                    properties[&name] = Value::from(id.as_str());
                    let email = properties.get("email").and_then(Value::as_str);
                    let other = email.and_then(|email| self.find_by(object, "email", email));
                    match (self.find_by(object, &name, &id), other) {
                        (Some(found), _) => {
                            self.change(object, &found, &properties);
                            (found, false)
                        }
                        (None, Some(other)) if object == "contacts" => {
                            let why = format!("Contact already exists. Existing ID: {other}");
                            errors.push(refused("CONFLICT", &why));
                            continue;
                        }
                        (None, _) => (self.make(object, &properties), true),
                    }
                }
                _ if self.find(object, &id).is_none() => {
                    errors.push(refused("OBJECT_NOT_FOUND", "Could not get some objects"));
                    continue;
                }
                "update" => {
                    if self.is_bad(input, false) {
                        errors.push(refused("VALIDATION_ERROR", "a value is not valid"));
                        continue;
                    }
                    let properties = input.get("properties").cloned().unwrap_or_default();
                    self.change(object, &id, &properties);
                    (id.clone(), false)
                }
                _ => (id.clone(), false),
            };
            if let Some(kept) = self.find(object, &found) {
                let mut shown = kept.shown(object);
                shown["new"] = Value::from(is_new);
                results.push(shown);
            }
        }
        match verb {
            "archive" if errors.is_empty() => said(204, Value::Null),
            _ if errors.is_empty() => {
                said(200, json!({ "status": "COMPLETE", "results": results }))
            }
            _ => said(
                207,
                json!({
                    "status": "COMPLETE", "results": results, "numErrors": errors.len(),
                    "errors": errors,
                }),
            ),
        }
    }

    fn described(&self, object: &str) -> Said {
        let names = PROPERTIES.iter().copied();
        let names = names.chain(self.properties.iter().map(String::as_str));
        let mut all: Vec<Value> = names
            .filter(|name| !self.missing.contains(*name))
            .map(|name| {
                json!({
                    "name": name, "type": "string", "fieldType": "text",
                    "hasUniqueValue": name == "bullwark_id", "calculated": false,
                    "modificationMetadata": { "readOnlyValue": false }, "options": [],
                })
            })
            .collect();
        if object == "companies" {
            all.push(json!({
                "name": "industry", "type": "enumeration", "fieldType": "select",
                "options": [{ "label": "Software", "value": "COMPUTER_SOFTWARE" }],
            }));
        }
        said(200, json!({ "results": all }))
    }

    fn is_bad(&self, input: &Value, whole: bool) -> bool {
        let properties = input.get("properties").and_then(Value::as_object);
        let mut values = properties.into_iter().flat_map(Map::values);
        values.any(|value| {
            let mut bad = self.bad.iter();
            bad.any(|(bad, is_whole)| *is_whole == whole && value.as_str() == Some(bad))
        })
    }
}

fn number(id: &str) -> u64 {
    id.parse().unwrap_or_default()
}

fn fits(kept: &Kept, filter: &Value) -> bool {
    let text = |name: &str| filter.get(name).and_then(Value::as_str).unwrap_or_default();
    let property = text("propertyName");
    let value = text("value");
    let moment = kept.modified_at.timestamp_millis();
    match (property, text("operator")) {
        ("hs_lastmodifieddate" | "lastmodifieddate", "GTE") => {
            moment >= value.parse().unwrap_or(i64::MAX)
        }
        ("hs_lastmodifieddate" | "lastmodifieddate", "EQ") => Ok(moment) == value.parse(),
        ("hs_object_id", "GT") => number(&kept.id) > number(value),
        (_, "IN") => {
            let values = filter
                .get("values")
                .and_then(Value::as_array)
                .into_iter()
                .flatten();
            let own = kept
                .properties
                .get(property)
                .and_then(Value::as_str)
                .unwrap_or_default();
            let mut values = values.filter_map(Value::as_str);
            // What is kept is compared in lower case, what is asked for is not.
            values.any(|value| value == own.to_lowercase())
        }
        _ => false,
    }
}
