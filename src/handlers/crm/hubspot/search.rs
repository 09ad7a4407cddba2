//! Search: what was changed since, and who has a value.
//!
//! Search orders by one property, and gives at most 10,000 results of a question. So no question is
//! paged: each asks for what lies at or behind a moment. Of a full page the records of its last
//! millisecond are left to the next question, which begins there. When one millisecond alone fills
//! a page (an import does that), its records are asked for by id, until there are no more.
//!
//! A question has at most 3,000 characters ("Search the CRM", Limits): values go in groups, and
//! where the names of the mapped properties alone have as many, records are found without them and
//! then read. Values of `IN` are compared in lower case, and have to be sent so.

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};

use super::super::client::{
    Crm, CrmError, Cursor, Entity, FIND_MAX, FOUND_MAX, PAGE_MAX, Page, Remote,
};
use super::call::Class;
use super::{Hubspot, modified, object, unreadable};

/// The largest question, in bytes: never more than its characters.
const QUESTION_MAX: usize = 3000;
/// What is left of it for values, at least.
const VALUES_ROOM: usize = 1500;

impl Hubspot {
    pub(super) async fn search_changes(
        &self,
        entity: Entity,
        fields: &[String],
        cursor: &Cursor,
    ) -> Result<Page, CrmError> {
        let since = cursor.since.timestamp_millis().to_string();
        let property = modified(entity);
        let (filters, sort) = match &cursor.after {
            None => (
                json!([{ "propertyName": property, "operator": "GTE", "value": since }]),
                property,
            ),
            Some(id) => (
                json!([
                    { "propertyName": property, "operator": "EQ", "value": since },
                    { "propertyName": "hs_object_id", "operator": "GT", "value": id },
                ]),
                "hs_object_id",
            ),
        };
        let whole = self.question(entity, fields, &filters, sort);
        let is_whole = whole.to_string().len() <= QUESTION_MAX;
        let (question, names) = match is_whole {
            true => (whole, fields),
            false => (self.question(entity, &[], &filters, sort), &[][..]),
        };
        let records = self.search(entity, names, question).await?;
        let mut page = match &cursor.after {
            None => by_moment(records),
            Some(_) => by_id(records, cursor.since),
        };
        if !is_whole {
            page.records = self.filled(entity, fields, &page.records).await?;
        }
        Ok(page)
    }

    pub(super) async fn search_values(
        &self,
        entity: Entity,
        field: &str,
        values: &[String],
        fields: &[String],
    ) -> Result<Vec<Remote>, CrmError> {
        let question = |names: &[String], values: &[String]| {
            let filter = json!({ "propertyName": field, "operator": "IN", "values": values });
            self.question(entity, names, &json!([filter]), "hs_object_id")
        };
        let mut taken = question(fields, &[]).to_string().len();
        let is_whole = taken + VALUES_ROOM <= QUESTION_MAX;
        let names = if is_whole { fields } else { &[] };
        if !is_whole {
            taken = question(names, &[]).to_string().len();
        }
        let mut found = Vec::new();
        for group in groups(values, QUESTION_MAX.saturating_sub(taken)) {
            let body = question(names, &group);
            found.extend(self.search(entity, names, body).await?);
        }
        found.truncate(FOUND_MAX);
        match is_whole {
            true => Ok(found),
            false => self.filled(entity, fields, &found).await,
        }
    }

    fn question(&self, entity: Entity, fields: &[String], filters: &Value, sort: &str) -> Value {
        json!({
            "filterGroups": [{ "filters": filters }],
            "sorts": [{ "propertyName": sort, "direction": "ASCENDING" }],
            "properties": self.asked(entity, fields),
            "limit": PAGE_MAX,
        })
    }

    /// The same records with these fields, in their order, as far as they are still there.
    async fn filled(
        &self,
        entity: Entity,
        fields: &[String],
        found: &[Remote],
    ) -> Result<Vec<Remote>, CrmError> {
        let mut filled = Vec::with_capacity(found.len());
        for part in found.chunks(FIND_MAX) {
            let ids: Vec<String> = part.iter().map(|remote| remote.id.clone()).collect();
            let mut read = self.read(entity, &ids, fields).await?;
            read.sort_by_key(|remote| ids.iter().position(|id| *id == remote.id));
            filled.extend(read);
        }
        Ok(filled)
    }

    async fn search(
        &self,
        entity: Entity,
        fields: &[String],
        body: Value,
    ) -> Result<Vec<Remote>, CrmError> {
        let path = format!("/crm/v3/objects/{}/search", object(entity));
        let answer = self
            .json(Method::POST, &path, Some(body), Class::Search)
            .await?;
        let results = answer.get("results").and_then(Value::as_array);
        let results = results.ok_or_else(|| unreadable("results"))?;
        // One that is left out would make a full page look like the last one.
        let remote = |value| {
            let remote = self.remote(entity, fields, value);
            remote.ok_or_else(|| unreadable("the id or the moment of a record"))
        };
        results.iter().map(remote).collect()
    }
}

/// Values in lower case, in groups of so many bytes. One that is larger by itself is nowhere.
fn groups(values: &[String], room: usize) -> Vec<Vec<String>> {
    let mut groups: Vec<Vec<String>> = Vec::new();
    let mut left = 0;
    for value in values {
        let value = value.to_lowercase();
        // With its quotes and a comma.
        let cost = json!(value).to_string().len() + 1;
        match groups.last_mut() {
            _ if cost > room => continue,
            Some(group) if cost <= left => group.push(value),
            _ => {
                groups.push(vec![value]);
                left = room;
            }
        }
        left -= cost;
    }
    groups
}

/// A page of records in the order of their moments.
fn by_moment(mut records: Vec<Remote>) -> Page {
    let last = records.last().map(|remote| remote.modified_at);
    let Some(last) = last.filter(|_| records.len() >= PAGE_MAX) else {
        return Page {
            records,
            next: None,
        };
    };
    let same = |remote: &Remote| same_ms(remote.modified_at, last);
    if records.iter().all(same) {
        // In no order among themselves: from the first id on.
        return Page {
            records: Vec::new(),
            next: Some(Cursor {
                since: last,
                after: Some("0".to_owned()),
            }),
        };
    }
    records.retain(|remote| !same(remote));
    Page {
        records,
        next: Some(Cursor {
            since: last,
            after: None,
        }),
    }
}

/// A page of records of one millisecond, in the order of their ids.
fn by_id(records: Vec<Remote>, since: DateTime<Utc>) -> Page {
    let next = match records.last() {
        Some(last) if records.len() >= PAGE_MAX => Cursor {
            since,
            after: Some(last.id.clone()),
        },
        _ => Cursor {
            since: since + TimeDelta::milliseconds(1),
            after: None,
        },
    };
    Page {
        records,
        next: Some(next),
    }
}

fn same_ms(one: DateTime<Utc>, other: DateTime<Utc>) -> bool {
    one.timestamp_millis() == other.timestamp_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(moments: impl Iterator<Item = i64>) -> Vec<Remote> {
        let record = |(id, ms)| Remote {
            id: format!("{id}"),
            fields: Default::default(),
            modified_at: DateTime::from_timestamp_millis(ms).unwrap(),
            modified_by: None,
            local_id: None,
            parent_id: None,
        };
        moments.enumerate().map(record).collect()
    }

    #[test]
    fn values_go_in_groups_that_fit_and_in_lower_case() {
        let values: Vec<String> = (0..100).map(|n| format!("Ann{n:03}@x.com")).collect();
        let all = groups(&values, 200);
        let sent: Vec<String> = all.concat();
        let lower: Vec<String> = values.iter().map(|value| value.to_lowercase()).collect();
        assert_eq!(sent, lower);
        assert!(
            all.iter()
                .all(|group| json!(group).to_string().len() <= 202)
        );
        let long = ["x".repeat(500), "short".to_owned()];
        assert_eq!(groups(&long, 200), [["short".to_owned()]]);
        assert!(groups(&[], 200).is_empty());
    }

    #[test]
    fn a_moment_is_never_cut_in_two_and_a_full_one_is_gone_through_by_id() {
        let cut = by_moment(records((0..200).map(|n| 1000 + n / 2)));
        assert_eq!(cut.records.len(), 198);
        let next = cut.next.unwrap();
        assert_eq!((next.since.timestamp_millis(), next.after), (1099, None));
        let full = by_moment(records((0..200).map(|_| 1000)));
        assert!(full.records.is_empty());
        let from = full.next.unwrap();
        assert_eq!(from.after.as_deref(), Some("0"));
        let more = by_id(records((0..200).map(|_| 1000)), from.since)
            .next
            .unwrap();
        assert_eq!(more.after.as_deref(), Some("199"));
        let done = by_id(records((0..3).map(|_| 1000)), from.since)
            .next
            .unwrap();
        assert_eq!((done.since.timestamp_millis(), done.after), (1001, None));
        assert_eq!(by_moment(records(0..199)).next, None);
    }
}
