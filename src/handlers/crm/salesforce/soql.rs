//! Questions in SOQL, and the records that come back.
//!
//! Pages go by `(SystemModstamp, Id)`, each a question of its own: a cursor of Salesforce ends with
//! its session and after two days, ours never does. `nextRecordsUrl` is followed within a page:
//! wide records come in smaller portions than were asked for.
//!
//! Source: SOQL and SOSL Reference ("Date Formats", "Quoted String Escape Sequences"); REST API
//! Developer Guide, "Query", "`QueryAll`".

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value};

use super::super::client::{CrmError, Cursor, Entity, PAGE_MAX, Remote};
use super::Salesforce;
use super::calls::{Request, body, unreadable};
use super::log_in::{encoded, is_id};

/// The longest address that Salesforce takes, in bytes, less its host.
const PATH_MAX: usize = 15_000;
/// Portions of one page.
const PORTIONS_MAX: usize = PAGE_MAX;

type Record = Map<String, Value>;

pub(super) fn object(entity: Entity) -> &'static str {
    match entity {
        Entity::Accounts => "Account",
        Entity::Contacts => "Contact",
        Entity::Opportunities => "Opportunity",
    }
}

/// The field with the id of the account.
pub(super) fn parent_field(entity: Entity) -> Option<&'static str> {
    (entity != Entity::Accounts).then_some("AccountId")
}

/// A name goes into the question as it is, so it has to be one.
pub(super) fn checked_name(name: &str) -> Result<&str, CrmError> {
    let is_name = (1..=100).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match is_name {
        true => Ok(name),
        false => Err(CrmError::PermanentRun(format!(
            "{name:?} is no name of a field in Salesforce"
        ))),
    }
}

pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        match c {
            '\'' | '\\' | '"' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

pub(super) fn moment(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// `2026-03-01T10:00:00.000+0000`.
fn read_moment(text: &str) -> Option<DateTime<Utc>> {
    let at = DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z");
    let at = at.or_else(|_| DateTime::parse_from_rfc3339(text)).ok()?;
    Some(at.with_timezone(&Utc))
}

/// Behind a cursor, in its order. The first condition alone is what an index serves.
pub(super) fn behind(cursor: &Cursor) -> Result<String, CrmError> {
    let since = moment(cursor.since);
    Ok(match &cursor.after {
        None => format!("SystemModstamp >= {since}"),
        Some(id) if is_id(id) => format!(
            "SystemModstamp >= {since} AND (SystemModstamp > {since} OR Id > {})",
            quoted(id)
        ),
        Some(_) => return Err(CrmError::PermanentRun("the cursor has no id".to_owned())),
    })
}

pub(super) const IN_ORDER: &str = "ORDER BY SystemModstamp ASC, Id ASC";

impl Salesforce {
    /// `SELECT … FROM …` with what every record needs.
    pub(super) fn select(&self, entity: Entity, fields: &[String]) -> Result<String, CrmError> {
        let mut names = vec!["Id", "SystemModstamp", "LastModifiedById"];
        let own = [Some(self.external_id.as_str()), parent_field(entity)];
        for name in own
            .into_iter()
            .flatten()
            .chain(fields.iter().map(String::as_str))
        {
            let name = checked_name(name)?;
            // The same field twice is an error there.
            if !names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                names.push(name);
            }
        }
        Ok(format!(
            "SELECT {} FROM {}",
            names.join(", "),
            object(entity)
        ))
    }

    /// Up to `max` records, deleted ones among them if `deleted`.
    pub(super) async fn query(
        &self,
        soql: &str,
        deleted: bool,
        max: usize,
    ) -> Result<Vec<Record>, CrmError> {
        let way = if deleted { "queryAll" } else { "query" };
        let mut path = format!("{}/{way}?q={}", self.data, encoded(soql));
        if path.len() > PATH_MAX {
            return Err(CrmError::PermanentRun(format!(
                "a question has {} bytes, and Salesforce takes {PATH_MAX}: map fewer fields",
                path.len()
            )));
        }
        let mut records: Vec<Record> = Vec::new();
        for _ in 0..PORTIONS_MAX {
            let mut body = body(&self.must(&Request::get(path)).await?)?;
            let Some(Value::Array(portion)) = body.get_mut("records").map(Value::take) else {
                return Err(unreadable("no `records`"));
            };
            let got = portion.len();
            for record in portion {
                match record {
                    Value::Object(record) => records.push(record),
                    _ => return Err(unreadable("a record that is none")),
                }
            }
            if records.len() >= max {
                records.truncate(max);
                return Ok(records);
            }
            let next = body.get("nextRecordsUrl").and_then(Value::as_str);
            match (body.get("done").and_then(Value::as_bool), next) {
                (Some(true), _) => return Ok(records),
                // Only there the token may go.
                (Some(false), Some(next)) if got > 0 && next.starts_with("/services/data/") => {
                    path = next.to_owned();
                }
                _ => return Err(unreadable("a page without an end")),
            }
        }
        Err(unreadable("more portions than records"))
    }

    /// A record as the engine wants it.
    pub(super) fn remote(
        &self,
        entity: Entity,
        fields: &[String],
        record: &Record,
    ) -> Result<Remote, CrmError> {
        let text = |name: &str| record.get(name).and_then(Value::as_str);
        let id = text("Id").filter(|id| is_id(id));
        let id = id.ok_or_else(|| unreadable("a record without `Id`"))?;
        let modified_at = text("SystemModstamp").and_then(read_moment);
        let value = |name: &String| {
            let value = record.get(name).cloned().unwrap_or_default();
            match value {
                Value::Array(_) | Value::Object(_) => Err(CrmError::PermanentRun(format!(
                    "`{name}` has several values in one: map its parts instead"
                ))),
                value => Ok((name.clone(), value)),
            }
        };
        Ok(Remote {
            id: id.to_owned(),
            fields: fields.iter().map(value).collect::<Result<_, _>>()?,
            modified_at: modified_at.ok_or_else(|| unreadable("no `SystemModstamp`"))?,
            modified_by: text("LastModifiedById").map(str::to_owned),
            local_id: text(&self.external_id).and_then(|text| text.trim().parse().ok()),
            parent_id: parent_field(entity).and_then(text).map(str::to_owned),
        })
    }
}

/// Where a page of deletions goes on: both parts of a cursor in one text.
pub(super) fn token(at: DateTime<Utc>, id: &str) -> String {
    format!("{} {id}", moment(at))
}

pub(super) fn read_token(token: &str) -> Option<Cursor> {
    let (since, id) = token.split_once(' ')?;
    Some(Cursor {
        since: read_moment(since)?,
        after: Some(id.to_owned()),
    })
}

/// What a list of deleted records says of each.
pub(super) fn deleted(record: &Record) -> Option<(String, DateTime<Utc>)> {
    let text = |name: &str| record.get(name).and_then(Value::as_str);
    let id = text("Id").filter(|id| is_id(id))?;
    Some((id.to_owned(), read_moment(text("SystemModstamp")?)?))
}

/// Values in groups that fit into one question.
pub(super) fn groups(values: &[String], room: usize) -> Vec<Vec<String>> {
    let mut groups: Vec<Vec<String>> = Vec::new();
    let mut left = 0;
    for value in values {
        let quoted = quoted(value);
        let cost = encoded(&quoted).len() + 3;
        match groups.last_mut() {
            Some(group) if cost <= left => group.push(quoted),
            _ => {
                groups.push(vec![quoted]);
                left = room;
            }
        }
        left = left.saturating_sub(cost);
    }
    groups
}

/// Bytes of a question that values may take, the fields being what they are.
pub(super) fn room(select: &str) -> usize {
    PATH_MAX.saturating_sub(encoded(select).len() + 400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_can_not_leave_its_quotes() {
        assert_eq!(quoted("O'Neil\\\n"), "'O\\'Neil\\\\\\n'");
        assert!(checked_name("Name FROM User").is_err());
        assert!(checked_name("Ext_Id__c").is_ok());
    }

    #[test]
    fn moments_are_read_in_the_form_that_salesforce_writes() {
        let at = read_moment("2026-03-01T10:00:00.000+0000").unwrap();
        assert_eq!(moment(at), "2026-03-01T10:00:00.000Z");
        let id = "003000000000001AAA";
        let cursor = read_token(&token(at, id)).unwrap();
        assert_eq!((cursor.since, cursor.after.as_deref()), (at, Some(id)));
        assert!(
            behind(&cursor)
                .unwrap()
                .contains("Id > '003000000000001AAA'")
        );
        let odd = Cursor {
            since: at,
            after: Some("x' OR Id != '".to_owned()),
        };
        assert!(behind(&odd).is_err());
    }

    #[test]
    fn many_values_become_several_questions() {
        let values: Vec<String> = (0..100).map(|n| format!("{n:0>200}")).collect();
        let groups = groups(&values, 2_100);
        assert_eq!(groups.iter().map(Vec::len).sum::<usize>(), 100);
        assert!(groups.iter().all(|group| group.join(", ").len() <= 2_100));
    }
}
