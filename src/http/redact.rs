//! Secrets in payloads, results and progress are shown to admins only.
//!
//! Jobs carry what their handlers need, and sometimes that is a password. Whoever may take jobs
//! away may see it; everybody else is shown [`HIDDEN`] in its place. It is told by its name, so
//! this is no wall: a payload is no place for secrets that members must not have.

use serde_json::Value;

use super::auth::Caller;
use super::problem::Problem;
use super::query::invalid;
use crate::record::access::Permission;
use crate::record::jobs::JobRow;
use crate::record::list::Search;

/// Stands for what is not shown.
pub(super) const HIDDEN: &str = "[redacted]";
/// The ends of names of secrets, when nothing else is said.
const NAMES: [&str; 15] = [
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "secret",
    "token",
    "jwt",
    "api_key",
    "access_key",
    "private_key",
    "signing_key",
    "encryption_key",
    "authorization",
    "credentials",
    "cookie",
];

/// Which members of objects are secrets: those whose names end so, whatever their case, with `_` or
/// `-` or without.
#[derive(Debug)]
pub(super) struct Redaction {
    ends: Vec<String>,
    /// The same as patterns of SQL.
    patterns: Vec<String>,
}

impl Redaction {
    pub(super) fn new(names: Option<&[String]>) -> Self {
        let ends: Vec<String> = match names {
            Some(names) => names.iter().map(|name| plain(name)).collect(),
            None => NAMES.iter().map(|name| plain(name)).collect(),
        };
        let patterns = ends.iter().map(|end| format!("%{}", literal(end)));
        Self {
            patterns: patterns.collect(),
            ends,
        }
    }

    /// The row as this caller may see it.
    pub(super) fn show(&self, caller: Caller, row: &mut JobRow) {
        if self.shows_all(caller) {
            return;
        }
        self.hide(&mut row.payload);
        for value in [&mut row.progress, &mut row.result].into_iter().flatten() {
            self.hide(value);
        }
    }

    /// A part of a row as this caller may see it.
    pub(super) fn show_part(&self, caller: Caller, part: &mut Value) {
        if !self.shows_all(caller) {
            self.hide(part);
        }
    }

    /// A part of a row as everybody may see it.
    pub(super) fn show_to_all(&self, part: &mut Value) {
        self.hide(part);
    }

    /// The filter of an action as this caller may see it. What an admin looked for may be a secret,
    /// and that something was found would tell that it is one.
    pub(super) fn show_filter(&self, caller: Caller, filter: &mut Value) {
        let Some(members) = filter.as_object_mut() else {
            return;
        };
        let was_hidden = members.remove("hidden").is_some();
        if self.shows_all(caller) {
            return;
        }
        if let Some(text) = members.get_mut("q").filter(|_| !was_hidden) {
            *text = HIDDEN.into();
        }
        let payload = members.get_mut("payload").and_then(Value::as_object_mut);
        for (path, value) in payload.into_iter().flatten() {
            if path.split('.').any(|name| self.is_secret(name)) {
                *value = HIDDEN.into();
            }
        }
    }

    /// The search as this caller may make it: a text is looked for in what is shown only. Refuses
    /// one for what is not shown.
    pub(super) fn permit(&self, caller: Caller, search: &mut Search) -> Result<(), Problem> {
        if self.shows_all(caller) {
            return Ok(());
        }
        if search.text.is_some() {
            search.hidden.clone_from(&self.patterns);
        }
        let mut paths = search.payload.iter().map(|(path, _)| path);
        let Some(path) = paths.find(|path| path.iter().any(|name| self.is_secret(name))) else {
            return Ok(());
        };
        let path = super::shortened(&path.join("."));
        Err(invalid(&format!(
            "`payload.{path}` is shown to admins only"
        )))
    }

    fn shows_all(&self, caller: Caller) -> bool {
        self.ends.is_empty() || caller.who_may(Permission::Admin).is_ok()
    }

    fn hide(&self, value: &mut Value) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    // Whether there is one is no secret, nor is a yes or no about it.
                    match member {
                        Value::Null | Value::Bool(_) => {}
                        _ if self.is_secret(name) => *member = HIDDEN.into(),
                        _ => self.hide(member),
                    }
                }
            }
            Value::Array(members) => members.iter_mut().for_each(|member| self.hide(member)),
            _ => {}
        }
    }

    fn is_secret(&self, name: &str) -> bool {
        let name = plain(name);
        self.ends.iter().any(|end| name.ends_with(end.as_str()))
    }
}

/// A text that a pattern of SQL takes as it is.
fn literal(text: &str) -> String {
    let escape = |c: char| matches!(c, '%' | '_' | '\\').then_some('\\');
    text.chars()
        .flat_map(|c| escape(c).into_iter().chain([c]))
        .collect()
}

fn plain(name: &str) -> String {
    let letters = name.chars().filter(|c| !matches!(c, '_' | '-' | ' '));
    letters.flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_told_by_the_ends_of_their_names_at_any_depth() {
        let mut value = json!({
            "to": "Ada", "max_tokens": 5, "tokenizer": "x", "has_token": true, "password": null,
            "dbPassword": "a", "API-Key": "b", "access_token": 7, "client": {"secret": {"c": "d"}},
            "headers": [{"Authorization": "Bearer e", "accept": "*/*"}],
        });
        Redaction::new(None).hide(&mut value);
        let hidden = json!({
            "to": "Ada", "max_tokens": 5, "tokenizer": "x", "has_token": true, "password": null,
            "dbPassword": HIDDEN, "API-Key": HIDDEN, "access_token": HIDDEN,
            "client": {"secret": HIDDEN},
            "headers": [{"Authorization": HIDDEN, "accept": "*/*"}],
        });
        assert_eq!(value, hidden);
    }

    #[test]
    fn other_names_replace_the_usual_ones() {
        let mut value = json!({ "iban": "DE", "password": "p" });
        Redaction::new(Some(&["IBAN".to_owned()])).hide(&mut value);
        assert_eq!(value, json!({ "iban": HIDDEN, "password": "p" }));
    }
}
