//! Salesforce, as a sync needs it.
//!
//! Records are upserted by an external id field that holds our id (`Bullwark_Id__c`, or the setting
//! `external_id_field` of the connection), or updated by their id there, 200 a call (sObject
//! Collections, `allOrNone: false`); above 2,000 with the Bulk API 2.0. Changes are read by
//! `SystemModstamp`, deleted records with `queryAll`.
//!
//! Promises: those of [`super::client`]; what is uploaded in bulk is uploaded once, whoever dies:
//! its job there is in the record, and the next attempt waits for that one.

mod bulk;
mod calls;
mod collections;
mod describe;
mod log_in;
mod outcome;
mod session;
mod soql;
mod table;

use std::sync::OnceLock;

use chrono::{DateTime, Utc};

use super::client::{
    Crm, CrmError, Cursor, Deletion, Deletions, Description, Entity, FIND_MAX, FOUND_MAX, Identity,
    Outcome, Outside, PAGE_MAX, Page, Push, Remote, VALUES_MAX,
};
use super::patience::Patience;
use crate::handlers::connection::Connection;
use crate::worker::JobContext;
use soql::{IN_ORDER, behind, groups, object, quoted, room};

/// From so many records on, the Bulk API is used.
pub const BULK_FROM: usize = 2_001;
const VERSION: &str = "62.0";
const EXTERNAL_ID: &str = "Bullwark_Id__c";

/// Salesforce through one connection.
#[derive(Debug)]
pub struct Salesforce {
    outside: Outside,
    ctx: JobContext,
    connection: Connection,
    patience: Patience,
    /// Where the data of the organization are: `/services/data/v62.0`.
    data: String,
    external_id: String,
    /// Of the first session.
    org_id: OnceLock<String>,
}

impl Salesforce {
    pub fn new(outside: Outside, ctx: JobContext, connection: Connection) -> Self {
        let version = connection.setting("api_version").unwrap_or(VERSION);
        let version = version.trim_start_matches('v');
        // What is no version leads nowhere, with words of Salesforce for it.
        let is_version = |c: char| c.is_ascii_digit() || c == '.';
        let version: String = version.chars().filter(|c| is_version(*c)).collect();
        let external_id = connection.setting("external_id_field");
        let external_id = external_id.unwrap_or(EXTERNAL_ID).to_owned();
        Self {
            outside,
            ctx,
            connection,
            patience: Patience::default(),
            data: format!("/services/data/v{version}"),
            external_id,
            org_id: OnceLock::new(),
        }
    }

    async fn remotes(
        &self,
        entity: Entity,
        fields: &[String],
        soql: &str,
        max: usize,
    ) -> Result<Vec<Remote>, CrmError> {
        let records = self.query(soql, false, max).await?;
        let records = records
            .iter()
            .map(|record| self.remote(entity, fields, record));
        records.collect()
    }
}

impl Crm for Salesforce {
    fn connection(&self) -> &Connection {
        &self.connection
    }

    fn bulk_from(&self) -> Option<usize> {
        Some(BULK_FROM)
    }

    async fn identity(&self) -> Result<Identity, CrmError> {
        Ok(self.session().await?.identity)
    }

    async fn describe(&self, entity: Entity) -> Result<Description, CrmError> {
        self.description(entity).await
    }

    async fn changes(
        &self,
        entity: Entity,
        fields: &[String],
        cursor: &Cursor,
    ) -> Result<Page, CrmError> {
        let select = self.select(entity, fields)?;
        let soql = format!(
            "{select} WHERE {} {IN_ORDER} LIMIT {PAGE_MAX}",
            behind(cursor)?
        );
        let records = self.remotes(entity, fields, &soql, PAGE_MAX).await?;
        let is_last = records.len() < PAGE_MAX;
        let next = records.last().filter(|_| !is_last).map(|last| Cursor {
            since: last.modified_at,
            after: Some(last.id.clone()),
        });
        if next.as_ref() == Some(cursor) {
            return Err(calls::unreadable("a page that leads to itself"));
        }
        Ok(Page { records, next })
    }

    async fn deletions(
        &self,
        entity: Entity,
        since: DateTime<Utc>,
        after: Option<&str>,
    ) -> Result<Deletions, CrmError> {
        let cursor = match after {
            None => Cursor { since, after: None },
            Some(token) => soql::read_token(token).ok_or_else(|| {
                CrmError::PermanentRun("the place to go on from can not be read".to_owned())
            })?,
        };
        let soql = format!(
            "SELECT Id, SystemModstamp FROM {} WHERE IsDeleted = true AND {} {IN_ORDER} \
             LIMIT {PAGE_MAX}",
            object(entity),
            behind(&cursor)?
        );
        let records = self.query(&soql, true, PAGE_MAX).await?;
        let read = |record| soql::deleted(record).ok_or_else(|| calls::unreadable("a deletion"));
        let all = records.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let next = all.last().filter(|_| all.len() == PAGE_MAX);
        let next = next.map(|(id, at)| soql::token(*at, id));
        if next.is_some() && next.as_deref() == after {
            return Err(calls::unreadable("a page that leads to itself"));
        }
        let deletion = |(id, deleted_at)| Deletion { id, deleted_at };
        Ok(Deletions {
            records: all.into_iter().map(deletion).collect(),
            next,
        })
    }

    async fn read(
        &self,
        entity: Entity,
        ids: &[String],
        fields: &[String],
    ) -> Result<Vec<Remote>, CrmError> {
        // One that is no id is not there.
        let ids = ids.iter().filter(|id| log_in::is_id(id)).take(FIND_MAX);
        let ids: Vec<String> = ids.map(|id| quoted(id)).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let select = self.select(entity, fields)?;
        let soql = format!("{select} WHERE Id IN ({})", ids.join(", "));
        self.remotes(entity, fields, &soql, FIND_MAX).await
    }

    async fn find(
        &self,
        entity: Entity,
        field: &str,
        values: &[String],
        fields: &[String],
    ) -> Result<Vec<Remote>, CrmError> {
        let field = soql::checked_name(field)?;
        let select = self.select(entity, fields)?;
        let values = &values[..values.len().min(VALUES_MAX)];
        let mut found: Vec<Remote> = Vec::new();
        for group in groups(values, room(&select)) {
            let left = FOUND_MAX - found.len();
            if left == 0 {
                break;
            }
            let group = group.join(", ");
            let soql = format!("{select} WHERE {field} IN ({group}) LIMIT {left}");
            found.extend(self.remotes(entity, fields, &soql, left).await?);
        }
        Ok(found)
    }

    async fn upsert(&self, entity: Entity, records: &[Push]) -> Result<Vec<Outcome>, CrmError> {
        let mut order: Vec<usize> = (0..records.len()).collect();
        // Children of one parent next to each other: writes to them lock it.
        order.sort_by_key(|index| records[*index].parent_id.as_ref());
        let (known, new): (Vec<usize>, Vec<usize>) = order
            .into_iter()
            .partition(|index| records[*index].id.is_some());
        let mut outcomes: Vec<Option<Outcome>> = vec![None; records.len()];
        let mut groups = [known, new];
        // What takes long first: who has to come back for it does the others once.
        groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
        for group in groups {
            let pushes: Vec<&Push> = group.iter().map(|index| &records[*index]).collect();
            let ends = match pushes.len() {
                0 => continue,
                BULK_FROM.. => self.bulk(entity, &pushes).await?,
                _ => self.collection(entity, &pushes).await?,
            };
            for (index, end) in group.into_iter().zip(ends) {
                outcomes[index] = Some(end);
            }
        }
        let outcomes: Option<Vec<Outcome>> = outcomes.into_iter().collect();
        outcomes.ok_or_else(|| calls::unconfirmed("fewer results than records"))
    }

    async fn archive(&self, entity: Entity, ids: &[String]) -> Result<Vec<Outcome>, CrmError> {
        self.delete(entity, ids).await
    }
}
