//! Which jobs a request means: what lists and actions check alike, and a filter as it stands in a
//! body. What it means is one thing for both, see `record::filter`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::problem::{Code, Problem};
use crate::job::{QueueName, Status};
use crate::record::filter::{JobFilter, Search};

/// The longest text that is searched for, in characters.
const SEARCH_MAX: usize = 200;
/// Paths of the payload that are looked at, at most.
pub(super) const PATHS_MAX: usize = 5;
/// Jobs that are named by their ids, at most.
const IDS_MAX: usize = 1000;

/// A text that is searched for, or what it must be.
pub(super) fn searched(text: &str) -> Result<String, String> {
    match text.chars().count() > SEARCH_MAX || text.contains('\0') {
        true => Err(format!(
            "must have at most {SEARCH_MAX} characters and no U+0000"
        )),
        false => Ok(text.to_owned()),
    }
}

/// A place in the payload and what is to stand there.
pub(super) fn at_path(path: &str, value: &str) -> Result<(Vec<String>, String), String> {
    let is_name = |part: &str| !part.is_empty() && !part.contains('\0');
    if path.len() > SEARCH_MAX || !path.split('.').all(is_name) {
        return Err("a path is names with dots between them".to_owned());
    }
    let value = searched(value).map_err(|must| format!("its value {must}"))?;
    Ok((path.split('.').map(str::to_owned).collect(), value))
}

/// Which jobs are meant: those to which all of this applies, as in `GET /api/jobs`.
// The names are those of lists.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[schema(as = JobFilter)]
pub(super) struct Wanted {
    #[schema(value_type = Option<Status>)]
    status: Option<String>,
    #[serde(alias = "job_type")]
    #[schema(min_length = 1, max_length = 200)]
    job_type: Option<String>,
    #[schema(min_length = 1)]
    queue: Option<String>,
    /// From this moment on.
    #[serde(alias = "created_from")]
    #[schema(value_type = Option<DateTime<Utc>>)]
    created_from: Option<String>,
    /// Before this moment.
    #[serde(alias = "created_to")]
    #[schema(value_type = Option<DateTime<Utc>>)]
    created_to: Option<String>,
    /// Only dead letters of this cause.
    fingerprint: Option<Uuid>,
    #[serde(alias = "attempts_min")]
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    attempts_min: Option<i64>,
    /// In the error message, in whatever case.
    #[schema(min_length = 1, max_length = 200)]
    error: Option<String>,
    /// In the payload or the error message, in whatever case.
    #[schema(min_length = 1, max_length = 200)]
    q: Option<String>,
    /// What stands at these paths of the payload: a text, a number or a boolean. Up to five.
    #[schema(example = json!({"to.name": "Ada"}))]
    payload: BTreeMap<String, Value>,
    /// Only these jobs, if the rest fits them as well.
    #[schema(min_items = 1, max_items = 1000)]
    ids: Option<Vec<Uuid>>,
}

impl Wanted {
    /// The filter, or the first thing that is wrong with it, `at` a place of the body.
    pub(super) fn read(&self, at: &str) -> Result<JobFilter, Problem> {
        let wrong = |field: &str, message: String| {
            let pointer = format!("{at}/{}", field.replace('~', "~0").replace('/', "~1"));
            let detail = format!("{pointer}: {message}");
            Problem::new(Code::InvalidRequest, detail).with_error(&pointer, message)
        };
        // An empty text would match everything, which nobody says like that.
        let text = |field: &str, text: &Option<String>| match text.as_deref() {
            None => Ok(None),
            Some("") => Err(wrong(field, "must not be empty".to_owned())),
            Some(text) => searched(text).map(Some).map_err(|must| wrong(field, must)),
        };
        let status = self.status.as_deref().map(str::parse::<Status>).transpose();
        let queue = text("queue", &self.queue)?;
        let queue = queue.map(|queue| queue.parse::<QueueName>()).transpose();
        let attempts_min = self.attempts_min.map(i32::try_from).transpose();
        let attempts_min = attempts_min
            .ok()
            .filter(|min| min.is_none_or(|min| min > 0));
        if self.payload.len() > PATHS_MAX {
            return Err(wrong("payload", format!("at most {PATHS_MAX} paths")));
        }
        let mut payload = Vec::with_capacity(self.payload.len());
        for (path, value) in &self.payload {
            let place = format!("payload/{}", path.replace('~', "~0").replace('/', "~1"));
            let pointed = |message| {
                let pointer = format!("{at}/{place}");
                let detail = format!("{pointer}: {message}");
                Problem::new(Code::InvalidRequest, detail).with_error(&pointer, message)
            };
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                _ => return Err(pointed("must be a text, a number or a boolean".to_owned())),
            };
            payload.push(at_path(path, &value).map_err(pointed)?);
        }
        if let Some(ids) = &self.ids
            && !(1..=IDS_MAX).contains(&ids.len())
        {
            return Err(wrong("ids", format!("must be 1 to {IDS_MAX} ids")));
        }
        Ok(JobFilter {
            status: status.map_err(|error| wrong("status", error.to_string()))?,
            job_type: text("jobType", &self.job_type)?,
            queue: queue
                .map_err(|error| wrong("queue", error.to_string()))?
                .map(String::from),
            ids: self.ids.clone(),
            fingerprint: self.fingerprint,
            created_from: moment(&self.created_from).map_err(|must| wrong("createdFrom", must))?,
            created_to: moment(&self.created_to).map_err(|must| wrong("createdTo", must))?,
            search: Search {
                attempts_min: attempts_min
                    .ok_or_else(|| wrong("attemptsMin", "must be from 1 on".to_owned()))?,
                error: text("error", &self.error)?,
                text: text("q", &self.q)?,
                hidden: Vec::new(),
                payload,
            },
            ..JobFilter::default()
        })
    }
}

fn moment(text: &Option<String>) -> Result<Option<DateTime<Utc>>, String> {
    let Some(text) = text else { return Ok(None) };
    match DateTime::parse_from_rfc3339(text) {
        Ok(time) => Ok(Some(time.with_timezone(&Utc))),
        Err(_) => Err("must be a time as 2026-01-31T08:00:00Z".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(filter: Value) -> Result<JobFilter, Problem> {
        serde_json::from_value::<Wanted>(filter)
            .unwrap()
            .read("/filter")
    }

    #[test]
    fn both_ways_to_write_a_name_mean_the_same() {
        let camel = json!({"jobType": "a", "createdTo": "2026-01-31T08:00:00Z", "attemptsMin": 2});
        let snake = json!({"job_type": "a", "created_to": "2026-01-31T08:00:00Z",
            "attempts_min": 2});
        let filter = read(camel).unwrap();
        assert_eq!(read(snake).unwrap(), filter);
        assert_eq!(filter.search.attempts_min, Some(2));
        assert!(read(json!({})).unwrap().is_empty());
        let payload = read(json!({"payload": {"a.b": 1, "c": true, "d": "x"}})).unwrap();
        let values: Vec<_> = payload
            .search
            .payload
            .iter()
            .map(|(_, v)| v.as_str())
            .collect();
        assert_eq!(values, ["1", "true", "x"]);
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        let long = "x".repeat(201);
        let many: BTreeMap<String, i32> = (0..6).map(|n| (n.to_string(), n)).collect();
        for (filter, pointer) in [
            (json!({"status": "waiting"}), "/filter/status"),
            (json!({"jobType": ""}), "/filter/jobType"),
            (json!({"jobType": "a\0b"}), "/filter/jobType"),
            (json!({"queue": "a:b"}), "/filter/queue"),
            (json!({"createdFrom": "yesterday"}), "/filter/createdFrom"),
            (
                json!({"createdTo": "+262142-01-01T00:00:00Z"}),
                "/filter/createdTo",
            ),
            (json!({"attemptsMin": 0}), "/filter/attemptsMin"),
            (json!({"attemptsMin": 1_i64 << 40}), "/filter/attemptsMin"),
            (json!({"q": long}), "/filter/q"),
            (json!({"error": ""}), "/filter/error"),
            (json!({"ids": []}), "/filter/ids"),
            (json!({"payload": {"a/b..c": 1}}), "/filter/payload/a~1b..c"),
            (json!({"payload": {"a": [1]}}), "/filter/payload/a"),
            (json!({"payload": {"a": long}}), "/filter/payload/a"),
            (json!({ "payload": many }), "/filter/payload"),
        ] {
            let document = read(filter.clone()).unwrap_err().document();
            assert_eq!(document["errors"][0]["pointer"], pointer, "{filter}");
        }
    }
}
