//! Which of the values that providers gave are written, and why the others are not.
//!
//! What a person wrote stays, and so does what nobody knows the writer of. A field that a person
//! emptied was written by a person, too.

use serde::Serialize;
use serde_json::Value;

use super::super::providers::Field;
use crate::record::enriched_accounts::{AccountState, NewValue};

/// What becomes of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fate {
    Written,
    /// The account has it already.
    Same,
    /// A person wrote what is there, or nobody knows who did.
    KeptPersons,
    /// An import or another job wrote what is there.
    KeptJobs,
    /// What is there is newer than the answer.
    KeptNewer,
}

/// Whether the field could be written at all, whatever its value: if not, nobody need be asked.
pub(super) fn is_open(state: &AccountState, field: Field, overwrite: bool) -> bool {
    let current = current(state, field);
    match state.writers.get(field.column()) {
        None => current.is_null(),
        Some(writer) if !writer.is_job => false,
        Some(_) => current.is_null() || is_ours(state, field) || overwrite,
    }
}

/// What becomes of a value that was fetched.
pub(super) fn fate(state: &AccountState, field: Field, new: &NewValue, overwrite: bool) -> Fate {
    let current = current(state, field);
    if *current == new.value {
        return Fate::Same;
    }
    let writer = match state.writers.get(field.column()) {
        // It was never written.
        None if current.is_null() => return Fate::Written,
        None => return Fate::KeptPersons,
        Some(writer) if !writer.is_job => return Fate::KeptPersons,
        Some(writer) => writer,
    };
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
pub(super) fn is_ours(state: &AccountState, field: Field) -> bool {
    let source = state.sources.get(field.column());
    source.is_some_and(|source| source.value == *current(state, field))
}

fn current(state: &AccountState, field: Field) -> &Value {
    state.values.get(field.column()).unwrap_or(&Value::Null)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta, Utc};
    use serde_json::json;

    use super::*;
    use crate::record::enriched_accounts::{Source, Writer};

    fn at(minute: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minute)
    }

    /// An account whose employees were written by this one at minute 10; `ours` is what enrichment
    /// wrote at minute 5.
    fn state(current: Value, is_job: Option<bool>, ours: Option<Value>) -> AccountState {
        let mut state = AccountState::default();
        let name = || "employee_count".to_owned();
        state.values.insert(name(), current);
        if let Some(is_job) = is_job {
            state.writers.insert(name(), Writer { is_job, at: at(10) });
        }
        if let Some(value) = ours {
            let fetched_at = at(5);
            state.sources.insert(name(), Source { value, fetched_at });
        }
        state
    }

    #[test]
    fn what_people_wrote_stays_and_what_nobody_wrote_is_filled() {
        let (person, job) = (Some(false), Some(true));
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
            (json!(null), job, ours, false, 20, Fate::Written),
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
}
