//! A schedule as both stores hold it: the texts of its hash, and when it is due.

use std::collections::{BTreeMap, HashMap};

use super::{Kept, Rhythm, Schedule, Template};

/// In the record alone, until Redis has made the first iteration.
const IMMEDIATELY: &str = "immediately";

/// Everything that Redis holds of a schedule besides its jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredSchedule {
    pub id: String,
    /// When its current iteration is due; none: there is none yet.
    pub due_ms: Option<i64>,
    /// Its hash. Empty for a repeatable of an older client.
    pub fields: BTreeMap<String, String>,
}

impl StoredSchedule {
    /// One that Redis does not know yet.
    pub fn new(id: &str, schedule: &Schedule, template: &Template) -> Self {
        let mut fields: BTreeMap<String, String> = schedule.fields(template).into_iter().collect();
        if schedule.immediately {
            fields.insert(IMMEDIATELY.to_owned(), "true".to_owned());
        }
        Self {
            id: id.to_owned(),
            due_ms: None,
            fields,
        }
    }

    /// What it was made of; none: it can not be understood.
    pub fn read(&self) -> Option<(Schedule, Template)> {
        let fields: HashMap<String, String> = self.fields.clone().into_iter().collect();
        let kept = Kept::read(&self.id, self.due_ms.unwrap_or_default(), &fields);
        let mut schedule = kept.schedule?;
        schedule.immediately = self.fields.contains_key(IMMEDIATELY);
        Some((schedule, kept.template))
    }
}

impl Schedule {
    /// What the hash of a schedule says, but for its phase and its count.
    pub fn fields(&self, template: &Template) -> Vec<(String, String)> {
        let mut fields = vec![("name".to_owned(), template.name.clone())];
        let mut put = |name: &str, value: Option<String>| {
            fields.extend(value.map(|value| (name.to_owned(), value)));
        };
        match &self.rhythm {
            Rhythm::Every { every_ms, .. } => put("every", Some(every_ms.to_string())),
            Rhythm::Cron { pattern, zone } => {
                put("pattern", Some(pattern.clone()));
                put("tz", zone.clone());
            }
        }
        put("limit", self.limit.map(|limit| limit.to_string()));
        put("startDate", self.start_ms.map(|ms| ms.to_string()));
        put("endDate", self.end_ms.map(|ms| ms.to_string()));
        for (name, json) in [("opts", &template.opts), ("data", &template.data)] {
            put(name, (json != "{}").then(|| json.clone()));
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_read_back_as_it_was_stored() {
        let template = Template {
            name: "mail".into(),
            data: r#"{"a":1}"#.into(),
            opts: r#"{"attempts":3}"#.into(),
        };
        let immediately = Schedule {
            immediately: true,
            limit: Some(7),
            ..Schedule::cron("0 5 * * *", "Europe/Berlin")
        };
        let every = Schedule {
            start_ms: Some(5),
            end_ms: Some(99),
            ..Schedule::every(60_000)
        };
        for schedule in [immediately, every] {
            let stored = StoredSchedule::new("s", &schedule, &template);
            assert_eq!(stored.read(), Some((schedule, template.clone())));
        }
        assert_eq!(StoredSchedule::default().read(), None);
    }
}
