//! A schedule as Redis keeps it, and how its chain goes on when the current job is over or lost.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::iteration::{as_clients_read, object};
use super::{InvalidSchedule, Iteration, Schedule, Template, When};

/// A schedule that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub id: String,
    /// When the current iteration is due.
    pub due_ms: i64,
    /// How many iterations were made; none: it is a repeatable of an older client.
    pub iterations: Option<u64>,
    /// None: what is kept can not be understood.
    pub schedule: Option<Schedule>,
    pub template: Template,
}

/// Fields of the hash that are numbers.
const NUMBERS: [&str; 5] = ["every", "limit", "startDate", "endDate", "offset"];

impl Kept {
    /// Reads the hash of a schedule.
    pub fn read(id: &str, due_ms: i64, fields: &HashMap<String, String>) -> Self {
        let text = |name: &str, default: &str| {
            let text = fields.get(name).map_or(default, String::as_str);
            text.to_owned()
        };
        Self {
            id: id.to_owned(),
            due_ms,
            iterations: fields.get("ic").and_then(|count| count.parse().ok()),
            schedule: Schedule::from_repeat(&repeat_of(fields)).ok(),
            template: Template {
                name: text("name", id),
                data: text("data", "{}"),
                opts: text("opts", "{}"),
            },
        }
    }

    /// The current iteration once more, for it was lost before it was due.
    pub fn again(&self) -> Result<Option<Iteration>, InvalidSchedule> {
        let (Some(schedule), Some(number)) = (&self.schedule, self.iterations) else {
            return Ok(None);
        };
        let when = When::At(self.due_ms);
        let mut opts = object(&self.template.opts).ok_or(InvalidSchedule::Options)?;
        if number > 1 {
            opts = as_clients_read(opts);
        }
        let iteration = Iteration::of_schedule(&self.id, opts, schedule, number, when);
        Ok(Some(iteration))
    }

    /// The iteration after the current one, of which only the schedule is left.
    pub fn next(&self, now_ms: i64) -> Result<Option<Iteration>, InvalidSchedule> {
        let Some(last) = self.again()? else {
            return Ok(None);
        };
        Iteration::next(&self.id, &format!("{}}}", last.opts), now_ms)
    }
}

fn repeat_of(fields: &HashMap<String, String>) -> Map<String, Value> {
    let mut repeat = Map::new();
    for (name, text) in fields {
        let number = NUMBERS
            .contains(&name.as_str())
            .then(|| text.parse::<f64>().ok())
            .flatten();
        let value = number.map_or_else(|| json!(text), |number| json!(number as i64));
        repeat.insert(name.clone(), value);
    }
    repeat
}
