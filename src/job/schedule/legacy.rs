//! Repeatables of `BullMQ` 4 and older: chains of jobs that are not kept as schedules.
//!
//! Their key says everything: `name:id:endDate:zone:pattern`. Only chains that were begun with
//! such a key still run by these rules; newer clients keep even their repeatables like schedules.

use md5::{Digest, Md5};
use serde_json::{Value, json};

use super::iteration::{Iteration, as_clients_read, number_of, object};
use super::{InvalidSchedule, Rhythm, Schedule, When, millis};

/// The next job of a repeatable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeatable {
    pub job_id: String,
    /// The moment that the chain is at.
    pub tick_ms: i64,
    /// When the job is due: the same, but for chains with an offset.
    pub due_ms: i64,
    /// How the job is made; its `when` is `due_ms`.
    pub iteration: Iteration,
}

/// Whether a job's `rjk` may be the key of a repeatable: schedules may be called so, too, but are
/// kept with a count of their iterations.
pub fn may_be_repeatable(repeat_job_key: &str) -> bool {
    repeat_job_key.split(':').count() >= 5
}

impl Repeatable {
    /// The job after this one; none: limit, end or pattern allow no further one, or it does not
    /// repeat at all.
    pub fn next(
        key: &str,
        name: &str,
        data: &str,
        opts: &str,
        now_ms: i64,
    ) -> Result<Option<Self>, InvalidSchedule> {
        let Some(opts) = object(opts) else {
            return Ok(None);
        };
        let Some(Value::Object(mut repeat)) = opts.get("repeat").cloned() else {
            return Ok(None);
        };
        let schedule = Schedule::from_repeat(&repeat)?;
        let number = number_of(&repeat) + 1;
        if !schedule.allows(number, now_ms) {
            return Ok(None);
        }
        let previous_ms = opts.get("prevMillis").and_then(millis).unwrap_or(0);
        let after_ms = now_ms.max(previous_ms);
        let tick_ms = match (&schedule.rhythm, schedule.due_after(after_ms)?) {
            (Rhythm::Every { every_ms, .. }, _) => {
                let every_ms = *every_ms as i64;
                after_ms.div_euclid(every_ms) * every_ms + every_ms
            }
            (Rhythm::Cron { .. }, Some(When::At(tick_ms))) => tick_ms,
            (Rhythm::Cron { .. }, _) => return Ok(None),
        };
        let offset_ms = repeat.get("offset").and_then(millis).unwrap_or(0);
        let due_ms = tick_ms + offset_ms;
        if let Some(pattern) = repeat.remove("cron") {
            repeat.entry("pattern").or_insert(pattern);
        }
        repeat.remove("immediately");
        repeat.insert("count".into(), json!(number));
        let mut opts = as_clients_read(opts);
        opts.insert("repeat".into(), Value::Object(repeat));
        opts.insert("prevMillis".into(), json!(tick_ms));
        opts.remove("repeatJobKey");
        Ok(Some(Self {
            job_id: job_id(key, name, data, tick_ms),
            tick_ms,
            due_ms,
            iteration: Iteration::of_options(opts, When::At(due_ms)),
        }))
    }
}

/// The same id as every other client makes, so that a chain is never doubled.
fn job_id(key: &str, name: &str, data: &str, tick_ms: i64) -> String {
    let data_id = match object(data).as_mut().and_then(|data| data.remove("id")) {
        Some(Value::String(id)) => id,
        Some(Value::Number(id)) if id.as_f64() != Some(0.0) => id.to_string(),
        _ => String::new(),
    };
    let namespace = hash(key);
    format!(
        "repeat:{}:{tick_ms}",
        hash(&format!("{name}{data_id}{namespace}"))
    )
}

fn hash(text: &str) -> String {
    let digest = Md5::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
