//! The tables of the Bulk API: records that go up, results that come down.
//!
//! A column that a record does not name is empty there, which leaves the field as it is; `#N/A`
//! empties it. Results come in any order, each with the columns of its record: they are joined by
//! our id.
//!
//! Source: Bulk API 2.0 Developer Guide, "Prepare CSV Files", "Get Job Successful Record Results".

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use uuid::Uuid;

use super::super::client::{CrmError, Entity, Outcome, Push, Refusal};
use super::Salesforce;
use super::calls::unreadable;
use super::outcome::SaidError;
use super::soql::checked_name;

/// The largest table that is sent, in bytes. Salesforce takes 100 MB; results come with all columns
/// again and are held in memory.
const TABLE_MAX: usize = 16 * 1024 * 1024;
const NOTHING: &str = "#N/A";

/// Some of the records, as they are sent.
pub(super) struct Table {
    pub(super) text: Vec<u8>,
    /// Which records, from where to where.
    pub(super) from: usize,
    pub(super) to: usize,
}

impl Salesforce {
    /// One or more tables: none is larger than [`TABLE_MAX`].
    pub(super) fn tables(&self, entity: Entity, pushes: &[&Push]) -> Result<Vec<Table>, CrmError> {
        let is_update = pushes.first().is_some_and(|push| push.id.is_some());
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for push in pushes {
            names.extend(self.values(entity, push).map(|(name, _)| name));
        }
        for name in &names {
            checked_name(name)?;
        }
        let mut head: Vec<&str> = if is_update { vec!["Id"] } else { Vec::new() };
        head.extend(&names);
        let mut tables: Vec<Table> = Vec::new();
        for (index, push) in pushes.iter().enumerate() {
            let values: BTreeMap<&str, Value> = self.values(entity, push).collect();
            let id = push.id.as_deref().filter(|_| is_update);
            let columns = names
                .iter()
                .map(|name| values.get(name).map_or("".into(), cell));
            let row = line(id.map(str::to_owned).into_iter().chain(columns))?;
            match tables.last_mut() {
                Some(table) if table.text.len() + row.len() <= TABLE_MAX => {
                    table.text.extend(row);
                    table.to = index + 1;
                }
                _ => {
                    let mut text = line(head.iter().map(|name| (*name).to_owned()))?;
                    text.extend(row);
                    let (from, to) = (index, index + 1);
                    tables.push(Table { text, from, to });
                }
            }
        }
        Ok(tables)
    }

    /// Adds the outcomes that a table of results has, by our ids.
    pub(super) fn read_results(
        &self,
        kind: Results,
        bytes: &[u8],
        outcomes: &mut BTreeMap<Uuid, Outcome>,
        known: &BTreeMap<Uuid, &Push>,
    ) -> Result<(), CrmError> {
        read(&self.external_id, kind, bytes, outcomes, known)
    }
}

fn read(
    external_id: &str,
    kind: Results,
    bytes: &[u8],
    outcomes: &mut BTreeMap<Uuid, Outcome>,
    known: &BTreeMap<Uuid, &Push>,
) -> Result<(), CrmError> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    let head = reader
        .headers()
        .map_err(|_| unreadable("no table"))?
        .clone();
    let place = |name: &str| head.iter().position(|known| known == name);
    let is_table = head.is_empty() || place("sf__Id").or(place(external_id)).is_some();
    if !is_table && kind != Results::Unprocessed {
        // A page of a proxy may have one line, and be no empty table.
        return Err(unreadable("another table"));
    }
    let mut rows = reader.records().peekable();
    // Without any result the table may be empty, or have no column but Salesforce's own.
    if rows.peek().is_none() {
        return Ok(());
    }
    let own = place(external_id);
    let own = own.ok_or_else(|| unreadable("results without the field of our ids"))?;
    let (id, created, error) = (place("sf__Id"), place("sf__Created"), place("sf__Error"));
    for row in rows {
        let row = row.map_err(|_| unreadable("a broken table"))?;
        let cell = |place: Option<usize>| place.and_then(|n| row.get(n)).unwrap_or_default();
        let Some(push) = cell(Some(own))
            .parse()
            .ok()
            .and_then(|id: Uuid| known.get(&id))
        else {
            return Err(unreadable("a result of a record that was not sent"));
        };
        let outcome = match kind {
            Results::Successful => Outcome::Done {
                id: match cell(id) {
                    "" => push.id.clone().ok_or_else(|| unreadable("no `sf__Id`"))?,
                    id => id.to_owned(),
                },
                is_new: cell(created) == "true",
                modified_at: None,
            },
            Results::Failed => SaidError::parse(cell(error)).outcome(push.id.as_deref()),
            Results::Unprocessed => not_processed("the bulk job ended before this record"),
        };
        outcomes.insert(push.local_id, outcome);
    }
    Ok(())
}

/// Which of the three tables of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Results {
    Successful,
    Failed,
    Unprocessed,
}

impl Results {
    pub(super) const ALL: [Self; 3] = [Self::Successful, Self::Failed, Self::Unprocessed];

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Successful => "successfulResults",
            Self::Failed => "failedResults",
            Self::Unprocessed => "unprocessedrecords",
        }
    }
}

pub(super) fn not_processed(message: &str) -> Outcome {
    Outcome::Retryable(Refusal {
        code: "NOT_PROCESSED".to_owned(),
        message: message.to_owned(),
        fields: Vec::new(),
    })
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => NOTHING.to_owned(),
        Value::String(text) if text.is_empty() => NOTHING.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn line(cells: impl Iterator<Item = String>) -> Result<Vec<u8>, CrmError> {
    let failed = |why: &dyn std::fmt::Display| CrmError::PermanentRun(format!("a table: {why}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    let cells: Vec<String> = cells.collect();
    writer
        .write_record(&cells)
        .map_err(|error| failed(&error))?;
    writer.into_inner().map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_joined_by_our_id_and_none_may_be_any_empty_table() {
        let push = Push {
            local_id: Uuid::from_u128(7),
            id: None,
            fields: BTreeMap::new(),
            parent_id: None,
            trace: String::new(),
        };
        let known = BTreeMap::from([(push.local_id, &push)]);
        let of = |kind, text: &str| {
            let mut outcomes = BTreeMap::new();
            read("Own__c", kind, text.as_bytes(), &mut outcomes, &known).map(|()| outcomes)
        };
        for text in [
            "",
            "\"sf__Id\",\"sf__Error\"\n",
            "sf__Id,sf__Error,Own__c\n",
        ] {
            assert!(of(Results::Failed, text).unwrap().is_empty(), "{text:?}");
        }
        for page in ["<html>We are sorry</html>", "<html>\nWe are sorry\n</html>"] {
            for kind in Results::ALL.into_iter().take(2) {
                assert!(of(kind, page).is_err(), "{page:?}");
            }
        }
        let good = format!("sf__Id,sf__Created,Own__c\n003x,true,{}\n", push.local_id);
        let good = of(Results::Successful, &good).unwrap();
        let done = good.get(&push.local_id);
        assert!(matches!(done, Some(Outcome::Done { id, is_new: true, .. }) if id == "003x"));
        assert!(of(Results::Failed, "sf__Id,sf__Error\n,CODE:why:--\n").is_err());
        let other = format!("sf__Id,sf__Error,Own__c\n,CODE:why:--,{}\n", Uuid::nil());
        assert!(
            of(Results::Failed, &other).is_err(),
            "of a record that was not sent"
        );
    }
}
