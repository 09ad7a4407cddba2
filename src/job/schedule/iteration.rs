//! What the next job of a schedule is, decided from the job before it.

use serde_json::{Map, Value, json};

use super::{InvalidSchedule, Rhythm, Schedule, Template, millis};

/// When an iteration is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At this moment, in ms since 1970.
    At(i64),
    /// At the next of these moments: only where the schedule is kept it is known which one that
    /// is.
    Every {
        every_ms: u64,
        offset_ms: Option<u64>,
    },
}

/// A job of a schedule that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Iteration {
    pub when: When,
    /// A JSON object without its closing brace: `timestamp`, `delay` and `jobId`, which only the
    /// server's clock tells, are to follow.
    pub opts: String,
    pub priority: u32,
    pub lifo: bool,
    pub dedup_id: Option<String>,
}

impl Iteration {
    /// The first one of a new or changed schedule; none: its limit or its end allow no iteration.
    pub fn first(
        schedule_id: &str,
        schedule: &Schedule,
        template: &Template,
        now_ms: i64,
    ) -> Result<Option<Self>, InvalidSchedule> {
        super::check_schedule_id(schedule_id)?;
        schedule.check()?;
        if schedule.end_ms.is_some_and(|end| end < now_ms) {
            return Err(InvalidSchedule::Ended);
        }
        if !schedule.allows(1, now_ms) {
            return Ok(None);
        }
        let opts = object(&template.opts).ok_or(InvalidSchedule::Options)?;
        let is_cron = matches!(schedule.rhythm, Rhythm::Cron { .. });
        let when = if schedule.immediately && is_cron {
            Some(When::At(now_ms))
        } else {
            schedule.due_after(now_ms)?
        };
        Ok(when.map(|when| Self::of_schedule(schedule_id, opts, schedule, 1, when)))
    }

    /// The one with this number, from 1.
    pub(super) fn of_schedule(
        schedule_id: &str,
        opts: Map<String, Value>,
        schedule: &Schedule,
        number: u64,
        when: When,
    ) -> Self {
        Self::new(schedule_id, opts, repeat_of(schedule), number, when)
    }

    /// The one after the job with these options; none: the job has no `repeat` in its options, or
    /// limit, end or pattern allow no further iteration.
    pub fn next(
        schedule_id: &str,
        opts: &str,
        now_ms: i64,
    ) -> Result<Option<Self>, InvalidSchedule> {
        let Some(opts) = object(opts) else {
            return Ok(None);
        };
        let Some(Value::Object(repeat)) = opts.get("repeat").cloned() else {
            return Ok(None);
        };
        let schedule = Schedule::from_repeat(&repeat)?;
        let number = number_of(&repeat) + 1;
        if !schedule.allows(number, now_ms) {
            return Ok(None);
        }
        // The iteration before may be early: the one after it comes later all the same.
        let previous_ms = opts.get("prevMillis").and_then(millis).unwrap_or(0);
        let when = schedule.due_after(now_ms.max(previous_ms))?;
        let opts = as_clients_read(opts);
        Ok(when.map(|when| Self::new(schedule_id, opts, repeat, number, when)))
    }

    fn new(
        schedule_id: &str,
        mut opts: Map<String, Value>,
        mut repeat: Map<String, Value>,
        number: u64,
        when: When,
    ) -> Self {
        let is_cron = !repeat.contains_key("every");
        repeat.remove("immediately");
        repeat.remove("offset");
        if let When::Every {
            offset_ms: Some(offset_ms),
            ..
        } = when
        {
            repeat.insert("offset".into(), json!(offset_ms));
        }
        repeat.insert("count".into(), json!(number));
        for date in ["startDate", "endDate"] {
            match repeat.get(date).and_then(millis).filter(|ms| *ms != 0) {
                Some(ms) => repeat.insert(date.into(), json!(ms)),
                None => repeat.remove(date),
            };
        }
        opts.insert("repeat".into(), Value::Object(repeat));
        opts.insert("repeatJobKey".into(), json!(schedule_id));
        match when {
            When::At(ms) if is_cron => opts.insert("prevMillis".into(), json!(ms)),
            When::At(_) | When::Every { .. } => opts.remove("prevMillis"),
        };
        Self::of_options(opts, when)
    }

    /// What the options say about the job's place, and the options without their end.
    pub(super) fn of_options(mut opts: Map<String, Value>, when: When) -> Self {
        opts = without_moment(opts);
        let dedup = opts.get("de").and_then(|de| de.get("id"));
        let dedup_id = dedup.and_then(Value::as_str).map(str::to_owned);
        let priority = opts.get("priority").and_then(millis).unwrap_or(0);
        let lifo = opts.get("lifo").and_then(Value::as_bool).unwrap_or(false);
        let mut text = Value::Object(opts).to_string();
        text.pop();
        Self {
            when,
            opts: text,
            priority: u32::try_from(priority).unwrap_or(0),
            lifo,
            dedup_id,
        }
    }
}

pub(super) fn object(text: &str) -> Option<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}

/// Without what belongs to one job alone, and only the server's clock tells.
pub(super) fn without_moment(mut opts: Map<String, Value>) -> Map<String, Value> {
    for name in ["timestamp", "delay", "jobId"] {
        opts.remove(name);
    }
    opts
}

/// How many iterations there were before this one is over, this one included.
pub(super) fn number_of(repeat: &Map<String, Value>) -> u64 {
    let count = repeat.get("count").and_then(millis).unwrap_or(0);
    u64::try_from(count).unwrap_or(0)
}

/// Options as `BullMQ` clients have them after reading a job.
pub(super) fn as_clients_read(mut opts: Map<String, Value>) -> Map<String, Value> {
    opts.entry("attempts").or_insert(json!(0));
    if let Some(Value::Number(delay)) = opts.get("backoff") {
        let backoff = json!({ "type": "fixed", "delay": delay });
        opts.insert("backoff".into(), backoff);
    }
    opts
}

fn repeat_of(schedule: &Schedule) -> Map<String, Value> {
    let mut repeat = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            repeat.insert(name.to_owned(), value);
        }
    };
    match &schedule.rhythm {
        Rhythm::Every { every_ms, .. } => put("every", Some(json!(every_ms))),
        Rhythm::Cron { pattern, zone } => {
            put("pattern", Some(json!(pattern)));
            put("tz", zone.as_ref().map(|zone| json!(zone)));
        }
    }
    put("limit", schedule.limit.map(|limit| json!(limit)));
    put("startDate", schedule.start_ms.map(|start| json!(start)));
    put("endDate", schedule.end_ms.map(|end| json!(end)));
    repeat
}
