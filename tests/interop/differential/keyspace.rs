//! All keys below a prefix, in a form in which two histories can be compared.
//!
//! Left out: ids of stream entries and the order of sets, hash fields and JSON members. A time to
//! live is a bucket. Everything else counts: types, values, scores, the order of lists, every event
//! in its order.

use std::collections::BTreeMap;

use redis::aio::MultiplexedConnection;
use serde_json::{Map, Value};

/// Reads all keys in one step.
const DUMP: &str = include_str!("dump.lua");
/// A slow run still sees the time to live that was set.
const TTL_BUCKET_MS: i64 = 10_000;

/// One line per member, field or event: its place, and what is there.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Keyspace {
    pub(crate) lines: BTreeMap<String, String>,
    /// The events of each queue, in order.
    pub(crate) events: BTreeMap<String, Vec<String>>,
}

impl Keyspace {
    pub(crate) async fn read(redis: &MultiplexedConnection, prefix: &str) -> Self {
        let dump: String = redis::cmd("EVAL")
            .arg(DUMP)
            .arg(0)
            .arg(prefix)
            .query_async(&mut redis.clone())
            .await
            .unwrap();
        // The prefix also stands inside of values: parents, children, deduplication.
        let dump = dump.replace(&format!("{prefix}:"), "P:");
        let keys: Vec<(String, String, i64, Value)> = match dump.as_str() {
            "{}" => Vec::new(),
            dump => serde_json::from_str(dump).unwrap(),
        };
        let mut keyspace = Self::default();
        for (key, kind, ttl_ms, value) in keys {
            keyspace.enter(key.strip_prefix("P:").unwrap(), &kind, ttl_ms, &value);
        }
        keyspace
    }

    fn enter(&mut self, key: &str, kind: &str, ttl_ms: i64, value: &Value) {
        let mut put = |place: String, what: String| {
            self.lines.insert(place, what);
        };
        if ttl_ms >= 0 {
            let bucket = (ttl_ms + TTL_BUCKET_MS - 1) / TTL_BUCKET_MS * TTL_BUCKET_MS / 1000;
            put(format!("{key} expires"), format!("within {bucket} s"));
        }
        let items: Vec<Value> = value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match kind {
            "string" => put(format!("{key} ="), text(value)),
            "list" => {
                let items: Vec<String> = items.iter().map(text).collect();
                put(format!("{key} list"), items.join(" "));
            }
            "set" => {
                for item in &items {
                    put(
                        format!("{key} member {}", text(item)),
                        "in the set".to_owned(),
                    );
                }
            }
            "zset" => {
                for pair in items.chunks(2) {
                    let score: f64 = text(&pair[1]).parse().unwrap();
                    put(
                        format!("{key} score of {}", text(&pair[0])),
                        score.to_string(),
                    );
                }
            }
            "hash" => {
                for pair in items.chunks(2) {
                    put(
                        format!("{key} field {}", text(&pair[0])),
                        plain(&text(&pair[1])),
                    );
                }
            }
            "stream" => {
                let events = items.iter().map(|entry| event(&entry[1]));
                self.events.insert(key.to_owned(), events.collect());
            }
            other => panic!("{key} is a {other}"),
        }
    }

    /// What differs, one line each; nothing when they are the same.
    pub(crate) fn differences(&self, theirs: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let places: Vec<&String> = self.lines.keys().chain(theirs.lines.keys()).collect();
        let mut places: Vec<&String> = places.into_iter().collect();
        places.sort();
        places.dedup();
        for place in places {
            let (ours, theirs) = (self.lines.get(place), theirs.lines.get(place));
            if ours != theirs {
                found.push(format!("{place}: npm {theirs:?}, Bullwark {ours:?}"));
            }
        }
        let none = Vec::new();
        for queue in self.events.keys().chain(theirs.events.keys()) {
            let ours = self.events.get(queue).unwrap_or(&none);
            let theirs = theirs.events.get(queue).unwrap_or(&none);
            if ours != theirs {
                let same = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
                found.push(format!(
                    "{queue} from entry {same} on:\n      npm      {:?}\n      Bullwark {:?}",
                    &theirs[same..],
                    &ours[same..]
                ));
                break;
            }
        }
        found
    }
}

/// JSON with its members in order, other text as it is.
fn plain(text: &str) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(json @ (Value::Object(_) | Value::Array(_))) => sorted(json).to_string(),
        _ => text.to_owned(),
    }
}

/// Lua can not tell an empty array from an empty object.
fn sorted(json: Value) -> Value {
    match json {
        Value::Object(members) => {
            let sort = |(name, value)| (name, sorted(value));
            Value::Object(members.into_iter().map(sort).collect::<Map<_, _>>())
        }
        Value::Array(items) if items.is_empty() => Value::Object(Map::new()),
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

/// `name field=value …` of one entry.
fn event(fields: &Value) -> String {
    let fields = fields.as_array().unwrap();
    let mut parts = Vec::new();
    for pair in fields.chunks(2) {
        let (name, value) = (pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
        parts.push(match name {
            "event" => value.to_owned(),
            _ => format!("{name}={}", plain(value)),
        });
    }
    parts[1..].sort();
    parts.join(" ")
}

#[test]
fn only_what_has_no_meaning_is_left_out() {
    let space = |value: &str| {
        let mut space = Keyspace::default();
        let fields = serde_json::json!(["opts", value, "n", "1"]);
        space.enter("q:a", "hash", -1, &fields);
        space
    };
    let one = space(r#"{"a":1,"b":[]}"#);
    assert_eq!(
        one.differences(&space(r#"{"b":{},"a":1}"#)),
        Vec::<String>::new()
    );
    let found = one.differences(&space(r#"{"a":2,"b":[]}"#));
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("q:a field opts"), "{found:?}");
}
