//! Log-ins of the simulated `HubSpot`, and its associations with companies.

use serde_json::{Value, json};

use super::Said;
use super::routes::{error, said};
use super::store::Store;

impl Store {
    /// A token for a refresh token (`application/x-www-form-urlencoded`).
    pub(super) fn log_in(&mut self, form: &[u8]) -> Said {
        let pairs: Vec<(String, String)> = url_pairs(form);
        let of = |name: &str| {
            let found = pairs.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let grant = ["client_id", "client_secret", "refresh_token"].map(of);
        if of("grant_type") != "refresh_token" || !self.grants.contains(&grant) {
            return error(400, "BAD_REFRESH_TOKEN", "missing or unknown refresh token");
        }
        self.log_ins += 1;
        self.token = format!("token-{}", self.log_ins);
        let token = self.token.clone();
        said(
            200,
            json!({
                "access_token": token, "refresh_token": of("refresh_token"),
                "expires_in": 1800, "token_type": "bearer",
            }),
        )
    }

    pub(super) fn associations(&mut self, object: &str, verb: &[&str], body: &Value) -> Said {
        let inputs = body
            .get("inputs")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let from_of = |input: &Value| {
            let id = input.pointer("/from/id").and_then(Value::as_str);
            id.unwrap_or_default().to_owned()
        };
        let ends = verb == ["archive"];
        if ends && inputs.iter().any(|one| self.is_fast(&from_of(one), true)) {
            return error(400, "VALIDATION_ERROR", "An association can not be ended");
        }
        let mut errors = Vec::new();
        for input in &inputs {
            let text = |pointer: &str| input.pointer(pointer).and_then(Value::as_str);
            let from = from_of(input);
            let to = text("/to/id").unwrap_or_default();
            let kind = input.pointer("/types/0/associationTypeId");
            let primary = if object == "contacts" { 1 } else { 5 };
            let is_done = match verb {
                ["associate", "default"] => self.associate(object, &from, to, false),
                ["create"] => {
                    let is_primary = kind.and_then(Value::as_u64) == Some(primary);
                    self.associate(object, &from, to, is_primary)
                }
                ["archive"] if self.is_fast(&from, false) => {
                    errors.push(json!({
                        "status": "error", "category": "VALIDATION_ERROR",
                        "message": "the association is not let go",
                        "context": { "fromObjectId": [from] },
                    }));
                    continue;
                }
                ["archive"] => {
                    let to = text("/to/0/id").unwrap_or_default();
                    self.dissociate(object, &from, to)
                }
                _ => return error(404, "OBJECT_NOT_FOUND", "there is no such route"),
            };
            if !is_done {
                return error(400, "VALIDATION_ERROR", "One of the objects does not exist");
            }
        }
        match (errors.is_empty(), ends) {
            (true, true) => said(204, Value::Null),
            (true, false) => said(201, json!({ "status": "COMPLETE", "results": [] })),
            (false, _) => {
                let count = errors.len();
                let body = json!({
                    "status": "COMPLETE", "results": [], "numErrors": count, "errors": errors,
                });
                said(207, body)
            }
        }
    }
}

fn url_pairs(form: &[u8]) -> Vec<(String, String)> {
    // The parser of addresses is what takes it apart.
    let form = String::from_utf8_lossy(form);
    let url = reqwest::Url::parse(&format!("http://localhost/?{form}"));
    let pairs = url.iter().flat_map(reqwest::Url::query_pairs);
    pairs
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}
