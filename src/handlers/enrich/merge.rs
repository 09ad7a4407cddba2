//! Which of the values that providers gave are written, and why the others are not.
//!
//! What a person wrote stays, and so does what nobody knows the writer of. A field that a person
//! emptied was written by a person, too. What a person wrote or emptied in the CRM, and a
//! synchronization brought, stays unless it is to be overwritten.

use serde::Serialize;
use serde_json::Value;

use super::super::providers::EnrichField;
use crate::record::enriched::{NewValue, RecordState, Who};

/// What becomes of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum Fate {
    Written,
    /// The record has it already.
    Same,
    /// A person wrote what is there, or nobody knows who did.
    KeptPersons,
    /// An import or another job wrote what is there.
    KeptJobs,
    /// What is there is newer than the answer.
    KeptNewer,
    /// Another contact has it: it is found by it.
    Taken,
}

/// Whether the field could be written at all, whatever its value: if not, nobody need be asked.
pub(super) fn is_open(state: &RecordState, field: impl EnrichField, overwrite: bool) -> bool {
    let overwrite = overwrite && !field.is_key();
    let current = current(state, field);
    match state.writers.get(field.column()) {
        None => current.is_null(),
        Some(writer) => match writer.who {
            Who::Person => false,
            Who::InCrm => overwrite,
            Who::Job => current.is_null() || is_ours(state, field) || overwrite,
        },
    }
}

/// What becomes of a value that was fetched.
pub(super) fn fate(
    state: &RecordState,
    field: impl EnrichField,
    new: &NewValue,
    overwrite: bool,
) -> Fate {
    let overwrite = overwrite && !field.is_key();
    let current = current(state, field);
    if *current == new.value {
        return Fate::Same;
    }
    let writer = match state.writers.get(field.column()) {
        // It was never written.
        None if current.is_null() => return Fate::Written,
        None => return Fate::KeptPersons,
        Some(writer) => writer,
    };
    let is_kept = match writer.who {
        Who::Person => true,
        Who::InCrm => !overwrite,
        Who::Job => false,
    };
    if is_kept {
        return Fate::KeptPersons;
    }
    if current.is_null() {
        return Fate::Written;
    }
    let source = state.sources.get(field.column());
    match source.filter(|source| source.value == *current) {
        Some(ours) if ours.fetched_at > new.fetched_at => Fate::KeptNewer,
        Some(_) => Fate::Written,
        None if !overwrite => Fate::KeptJobs,
        None if writer.at > new.fetched_at => Fate::KeptNewer,
        None => Fate::Written,
    }
}

/// Whether enrichment wrote what is there.
pub(super) fn is_ours(state: &RecordState, field: impl EnrichField) -> bool {
    let source = state.sources.get(field.column());
    source.is_some_and(|source| source.value == *current(state, field))
}

fn current(state: &RecordState, field: impl EnrichField) -> &Value {
    state.values.get(field.column()).unwrap_or(&Value::Null)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta, Utc};
    use serde_json::json;

    use super::super::super::providers::{ContactField, Field};
    use super::*;
    use crate::record::enriched::{Source, Writer};
    use Who::{InCrm, Job, Person};

    fn at(minute: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minute)
    }

    /// An account whose employees were written by this one at minute 10; `ours` is what enrichment
    /// wrote at minute 5.
    fn state(current: Value, who: Option<Who>, ours: Option<Value>) -> RecordState {
        let mut state = RecordState::default();
        let name = || "employee_count".to_owned();
        state.values.insert(name(), current);
        if let Some(who) = who {
            state.writers.insert(name(), Writer { who, at: at(10) });
        }
        if let Some(value) = ours {
            let fetched_at = at(5);
            state.sources.insert(name(), Source { value, fetched_at });
        }
        state
    }

    #[test]
    fn what_people_wrote_stays_and_what_nobody_wrote_is_filled() {
        let (person, crm, job) = (Some(Person), Some(InCrm), Some(Job));
        let (ours, none) = (Some(json!(10)), None);
        for (current, writer, source, overwrite, minute, expected) in [
            (json!(null), None, none.clone(), false, 20, Fate::Written),
            (json!(10), None, none.clone(), true, 20, Fate::KeptPersons),
            (json!(10), person, none.clone(), true, 20, Fate::KeptPersons),
            // Also what enrichment wrote before, and a person put back.
            (json!(10), person, ours.clone(), true, 20, Fate::KeptPersons),
            (
                json!(null),
                person,
                ours.clone(),
                true,
                20,
                Fate::KeptPersons,
            ),
            (json!(10), job, none.clone(), false, 20, Fate::KeptJobs),
            (json!(10), job, none.clone(), true, 20, Fate::Written),
            (json!(10), job, none.clone(), true, 9, Fate::KeptNewer),
            (json!(10), job, ours.clone(), false, 6, Fate::Written),
            (json!(10), job, ours.clone(), true, 4, Fate::KeptNewer),
            // An import came after the enrichment.
            (json!(11), job, ours.clone(), false, 20, Fate::KeptJobs),
            (json!(null), job, ours.clone(), false, 20, Fate::Written),
            (json!(11), crm, none.clone(), false, 20, Fate::KeptPersons),
            (json!(11), crm, ours.clone(), true, 20, Fate::Written),
            (json!(11), crm, none.clone(), true, 9, Fate::KeptNewer),
            // What enrichment wrote before, and somebody put back there.
            (json!(10), crm, ours.clone(), false, 20, Fate::KeptPersons),
            (json!(null), crm, ours.clone(), false, 20, Fate::KeptPersons),
            (json!(null), crm, ours, true, 20, Fate::Written),
            (json!(99), person, none, false, 20, Fate::Same),
        ] {
            let state = state(current.clone(), writer, source);
            let new = NewValue {
                field: "employee_count",
                value: json!(99),
                source: "clearbit",
                confidence: 0.9,
                fetched_at: at(minute),
            };
            let found = fate(&state, Field::EmployeeCount, &new, overwrite);
            assert_eq!(found, expected, "{current} {writer:?} {overwrite} {minute}");
            if found == Fate::Written {
                assert!(is_open(&state, Field::EmployeeCount, overwrite));
            }
            if found == Fate::KeptPersons {
                assert!(!is_open(&state, Field::EmployeeCount, overwrite));
            }
        }
    }
    #[test]
    fn what_a_contact_is_found_by_is_filled_and_not_replaced() {
        let mut state = RecordState::default();
        let new = NewValue {
            field: "email",
            value: json!("new@acme.com"),
            source: "apollo",
            confidence: 0.9,
            fetched_at: at(20),
        };
        assert!(is_open(&state, ContactField::Email, false));
        assert_eq!(
            fate(&state, ContactField::Email, &new, false),
            Fate::Written
        );
        state
            .values
            .insert("email".to_owned(), json!("old@acme.com"));
        let writer = Writer {
            who: Job,
            at: at(10),
        };
        state.writers.insert("email".to_owned(), writer);
        assert!(!is_open(&state, ContactField::Email, true));
        assert_eq!(
            fate(&state, ContactField::Email, &new, true),
            Fate::KeptJobs
        );
    }
}
