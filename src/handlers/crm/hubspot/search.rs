//! Search: what was changed since, and who has a value.
//!
//! Search orders by one property, and gives at most 10,000 results of a question. So no question is
//! paged: each asks for what lies at or behind a moment. Of a full page the records of its last
//! millisecond are left to the next question, which begins there. When one millisecond alone fills
//! a page (an import does that), its records are asked for by id, until there are no more.

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};

use super::super::client::{CrmError, Cursor, Entity, PAGE_MAX, Page, Remote};
use super::call::Class;
use super::{Hubspot, modified, object, unreadable};

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
        let records = self.search(entity, fields, filters, sort).await?;
        Ok(match &cursor.after {
            None => by_moment(records),
            Some(_) => by_id(records, cursor.since),
        })
    }

    pub(super) async fn search_values(
        &self,
        entity: Entity,
        field: &str,
        values: &[String],
        fields: &[String],
    ) -> Result<Vec<Remote>, CrmError> {
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let filters = json!([{ "propertyName": field, "operator": "IN", "values": values }]);
        self.search(entity, fields, filters, "hs_object_id").await
    }

    async fn search(
        &self,
        entity: Entity,
        fields: &[String],
        filters: Value,
        sort: &str,
    ) -> Result<Vec<Remote>, CrmError> {
        let body = json!({
            "filterGroups": [{ "filters": filters }],
            "sorts": [{ "propertyName": sort, "direction": "ASCENDING" }],
            "properties": self.asked(entity, fields),
            "limit": PAGE_MAX,
        });
        let path = format!("/crm/v3/objects/{}/search", object(entity));
        let answer = self
            .json(Method::POST, &path, Some(body), Class::Search)
            .await?;
        let results = answer.get("results").and_then(Value::as_array);
        let results = results.ok_or_else(|| unreadable("results"))?;
        let remote = |value| self.remote(entity, fields, value);
        Ok(results.iter().filter_map(remote).collect())
    }
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
