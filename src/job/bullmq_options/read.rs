//! Forgiving reading: a foreign client may have written anything.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::{BackoffOption, JobsOptions};

/// Names that producers write long and the wire writes short.
const SHORT_NAMES: [(&str, &str); 7] = [
    ("deduplication", "de"),
    ("debounce", "de"),
    ("failParentOnFailure", "fpof"),
    ("continueParentOnFailure", "cpof"),
    ("ignoreDependencyOnFailure", "idof"),
    ("removeDependencyOnFailure", "rdof"),
    ("keepLogs", "kl"),
];
/// The same, of members of `telemetry`.
const SHORT_TELEMETRY_NAMES: [(&str, &str); 2] = [("metadata", "tm"), ("omitContext", "omc")];

impl JobsOptions {
    /// Reads the `opts` of a job, or options under their long names. Anything unreadable counts as
    /// absent.
    pub fn read(text: &str) -> Self {
        let mut members: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
        for (long, short) in SHORT_NAMES {
            if let Some(value) = members.remove(long) {
                members.entry(short).or_insert(value);
            }
        }
        let mut telemetry = match members.remove("telemetry") {
            Some(Value::Object(telemetry)) => telemetry,
            _ => Map::new(),
        };
        for (long, short) in SHORT_TELEMETRY_NAMES {
            if let Some(value) = telemetry.remove(long) {
                members.entry(short).or_insert(value);
            }
        }
        members.retain(|_, value| !value.is_null());
        serde_json::from_value(Value::Object(members)).unwrap_or_default()
    }
}

/// A member that makes no sense counts as absent.
pub(super) fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

/// Lua and JavaScript may write an integer as `1e3` or `5.0`.
pub(super) fn integer<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let whole = match value.as_f64() {
        Some(number) if !value.is_i64() && !value.is_u64() => Value::from(number as i64),
        _ => value,
    };
    Ok(serde_json::from_value(whole).unwrap_or_default())
}

/// A number is a fixed delay.
pub(super) fn backoff<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BackoffOption>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    if let Some(delay) = value.as_f64() {
        return Ok(Some(BackoffOption {
            kind: "fixed".to_owned(),
            delay_ms: Some(delay as i64),
            jitter: None,
        }));
    }
    Ok(serde_json::from_value(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::{Deduplication, RemoveRule};
    use super::*;

    #[test]
    fn long_and_short_names_read_the_same() {
        let long = r#"{"attempts":3,"backoff":500,"delay":10,"deduplication":{"id":"d","ttl":5},
            "failParentOnFailure":true,"keepLogs":7,"removeOnFail":{"age":60,"count":2},
            "telemetry":{"metadata":"m","omitContext":true},"mine":1}"#;
        let options = JobsOptions::read(long);
        assert_eq!(options.attempts, 3);
        assert_eq!(options.backoff.as_ref().unwrap().kind, "fixed");
        let id = "d".to_owned();
        let ttl_ms = Some(5);
        let deduplication = Deduplication {
            id,
            ttl_ms,
            ..Deduplication::default()
        };
        assert_eq!(options.deduplication, Some(deduplication));
        let (age, count, limit) = (Some(60), Some(2), None);
        assert_eq!(
            options.remove_on_fail,
            Some(RemoveRule::Keep { age, count, limit })
        );
        let short = options.write();
        let expected = serde_json::json!({"attempts": 3, "backoff": {"type": "fixed", "delay": 500},
            "delay": 10, "de": {"id": "d", "ttl": 5}, "fpof": true, "kl": 7,
            "removeOnFail": {"age": 60, "count": 2}, "tm": "m", "omc": true, "mine": 1});
        assert_eq!(serde_json::from_str::<Value>(&short).unwrap(), expected);
        assert_eq!(JobsOptions::read(&short), options);
    }

    #[test]
    fn what_makes_no_sense_counts_as_absent() {
        for text in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"attempts":"x","delay":{},"de":5,"fpof":"yes","removeOnFail":"no","jobId":7}"#,
            r#"{"backoff":"soon","parent":{"id":1},"telemetry":3,"kl":-1,"priority":null}"#,
        ] {
            assert_eq!(JobsOptions::read(text), JobsOptions::default(), "{text}");
        }
        let options = JobsOptions::read(r#"{"attempts":3.0,"delay":1e3,"timestamp":1.7e12}"#);
        assert_eq!(options.attempts, 3);
        assert_eq!(options.delay_ms, Some(1000));
        assert_eq!(options.timestamp_ms, Some(1_700_000_000_000));
    }

    #[test]
    fn the_forms_of_a_removal_rule_are_told_apart() {
        for (text, rule) in [
            ("true", RemoveRule::Always(true)),
            ("100", RemoveRule::Count(100)),
            ("-1", RemoveRule::Count(-1)),
        ] {
            let options = JobsOptions::read(&format!(r#"{{"removeOnComplete":{text}}}"#));
            assert_eq!(options.remove_on_complete, Some(rule));
        }
    }
}
