//! `HubSpot`, by its CRM API v3 (objects, search, properties) and v4 (associations).
//!
//! | what | how |
//! |---|---|
//! | changes | search, by the moment of the change; never past its 10,000 results: see [`search`] |
//! | deletions | the list of archived records, which knows no "since" |
//! | writing | batches of 100: update by id, else upsert by the property of external ids |
//! | accounts | associations with the primary company, read as its property |
//!
//! A batch that is refused as a whole is bisected. `207` names who was refused. Sources: the API
//! reference of `HubSpot` (batch, search, associations, usage guidelines).

mod call;
mod halves;
mod outcome;
mod search;
mod write;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};

use super::super::connection::Connection;
use super::client::{
    Crm, CrmError, Cursor, Deletion, Deletions, Description, Entity, FieldInfo, Identity, Outcome,
    Outside, Page, Push, Remote,
};
use super::patience::Patience;
use crate::job::JobError;
use crate::secret::Secret;
use crate::worker::JobContext;
use call::Class;

/// The property of external ids, unless the connection names another.
const EXTERNAL_ID: &str = "bullwark_id";
/// Records of one list of archived ones.
const LIST_MAX: usize = 100;

/// A client.
pub(super) struct Hubspot {
    outside: Outside,
    ctx: JobContext,
    connection: Connection,
    patience: Patience,
    /// Got for a refresh token, in this attempt.
    token: Mutex<Option<Secret>>,
    /// Properties by object, as they are described.
    described: [OnceCell<BTreeMap<String, Property>>; 3],
}

/// What is said of a property.
#[derive(Debug, Clone)]
struct Property {
    info: FieldInfo,
    is_unique: bool,
}

impl Hubspot {
    pub(super) fn new(outside: Outside, ctx: JobContext, connection: Connection) -> Self {
        Self {
            outside,
            ctx,
            connection,
            patience: Patience::default(),
            token: Mutex::new(None),
            described: Default::default(),
        }
    }

    fn external_id(&self) -> &str {
        self.connection
            .setting("external_id_field")
            .unwrap_or(EXTERNAL_ID)
    }

    /// The properties of an object, asked for once.
    async fn properties(&self, entity: Entity) -> Result<&BTreeMap<String, Property>, CrmError> {
        let cell = &self.described[entity as usize];
        cell.get_or_try_init(|| async {
            let path = format!("/crm/v3/properties/{}", object(entity));
            let answer = self.json(Method::GET, &path, None, Class::Objects).await?;
            let results = answer.get("results").and_then(Value::as_array);
            let results = results.ok_or_else(|| unreadable("properties"))?;
            Ok(results.iter().filter_map(property).collect())
        })
        .await
    }

    /// What a record without an id is upserted by.
    async fn upserted_by(&self, entity: Entity) -> Result<&str, CrmError> {
        let properties = self.properties(entity).await?;
        let name = self.external_id();
        if properties
            .get(name)
            .is_some_and(|property| property.is_unique)
        {
            return Ok(name);
        }
        if entity == Entity::Contacts {
            return Ok("email");
        }
        Err(CrmError::PermanentRun(format!(
            "{} in HubSpot have no property `{name}` with unique values, which new records are \
             written by: make one (a single-line text that requires unique values), or name \
             another in the setting `external_id_field` of connection {}",
            object(entity),
            self.connection.id
        )))
    }

    /// What is asked for of each record, besides the mapped fields.
    fn asked(&self, entity: Entity, fields: &[String]) -> Vec<String> {
        let mut names = fields.to_vec();
        let own = [
            self.external_id(),
            modified(entity),
            "hs_updated_by_user_id",
        ];
        names.extend(own.map(str::to_owned));
        names.extend(parent(entity).map(str::to_owned));
        names.sort_unstable();
        names.dedup();
        names
    }

    /// A record of an answer.
    fn remote(&self, entity: Entity, fields: &[String], value: &Value) -> Option<Remote> {
        let properties = value.get("properties")?;
        let text = |name: &str| {
            let text = properties.get(name)?.as_str()?.trim();
            (!text.is_empty()).then(|| text.to_owned())
        };
        let moment = |text: &str| DateTime::parse_from_rfc3339(text).ok();
        let modified_at = text(modified(entity))
            .and_then(|text| moment(&text))
            .or_else(|| moment(value.get("updatedAt")?.as_str()?))?;
        let field = |name: &String| {
            (
                name.clone(),
                properties.get(name).cloned().unwrap_or(Value::Null),
            )
        };
        Some(Remote {
            id: id_of(value)?,
            fields: fields.iter().map(field).collect(),
            modified_at: modified_at.with_timezone(&Utc),
            modified_by: text("hs_updated_by_user_id"),
            local_id: text(self.external_id()).and_then(|id| id.parse().ok()),
            parent_id: parent(entity).and_then(text),
        })
    }
}

impl Crm for Hubspot {
    fn connection(&self) -> &Connection {
        &self.connection
    }

    async fn identity(&self) -> Result<Identity, CrmError> {
        let path = "/account-info/v3/details";
        let answer = self.json(Method::GET, path, None, Class::Objects).await?;
        let org_id = answer.get("portalId").map(|id| match id {
            Value::String(id) => id.clone(),
            other => other.to_string(),
        });
        // A private app is no user: its writes are known by what they wrote.
        Ok(Identity {
            user_id: None,
            org_id,
        })
    }

    async fn describe(&self, entity: Entity) -> Result<Description, CrmError> {
        let properties = self.properties(entity).await?;
        let info = |(name, property): (&String, &Property)| (name.clone(), property.info.clone());
        Ok(properties.iter().map(info).collect())
    }

    async fn changes(
        &self,
        entity: Entity,
        fields: &[String],
        cursor: &Cursor,
    ) -> Result<Page, CrmError> {
        self.search_changes(entity, fields, cursor).await
    }

    async fn deletions(
        &self,
        entity: Entity,
        since: DateTime<Utc>,
        after: Option<&str>,
    ) -> Result<Deletions, CrmError> {
        let after = after
            .map(|after| format!("&after={after}"))
            .unwrap_or_default();
        let path = format!(
            "/crm/v3/objects/{}?archived=true&limit={LIST_MAX}{after}",
            object(entity)
        );
        let answer = self.json(Method::GET, &path, None, Class::Objects).await?;
        let results = answer.get("results").and_then(Value::as_array);
        let results = results.ok_or_else(|| unreadable("archived records"))?;
        let deletion = |value: &Value| {
            let moment = value.get("archivedAt").or_else(|| value.get("updatedAt"))?;
            let moment = DateTime::parse_from_rfc3339(moment.as_str()?).ok()?;
            Some(Deletion {
                id: id_of(value)?,
                deleted_at: moment.with_timezone(&Utc),
            })
        };
        let records = results.iter().filter_map(deletion);
        Ok(Deletions {
            records: records.filter(|one| one.deleted_at >= since).collect(),
            next: next_of(&answer),
        })
    }

    async fn read(
        &self,
        entity: Entity,
        ids: &[String],
        fields: &[String],
    ) -> Result<Vec<Remote>, CrmError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let inputs: Vec<Value> = ids.iter().map(|id| json!({ "id": id })).collect();
        let body = json!({ "properties": self.asked(entity, fields), "inputs": inputs });
        let path = format!("/crm/v3/objects/{}/batch/read", object(entity));
        // 207: some of them are not there.
        let answer = self
            .json(Method::POST, &path, Some(body), Class::Objects)
            .await?;
        let results = answer.get("results").and_then(Value::as_array);
        let results = results.ok_or_else(|| unreadable("records"))?;
        Ok(results
            .iter()
            .filter_map(|value| self.remote(entity, fields, value))
            .collect())
    }

    async fn find(
        &self,
        entity: Entity,
        field: &str,
        values: &[String],
        fields: &[String],
    ) -> Result<Vec<Remote>, CrmError> {
        self.search_values(entity, field, values, fields).await
    }

    async fn upsert(&self, entity: Entity, records: &[Push]) -> Result<Vec<Outcome>, CrmError> {
        self.write(entity, records).await
    }

    async fn archive(&self, entity: Entity, ids: &[String]) -> Result<Vec<Outcome>, CrmError> {
        self.archive_all(entity, ids).await
    }
}

/// What they call it.
fn object(entity: Entity) -> &'static str {
    match entity {
        Entity::Accounts => "companies",
        Entity::Contacts => "contacts",
        Entity::Opportunities => "deals",
    }
}

/// The property of the moment of the last change.
fn modified(entity: Entity) -> &'static str {
    match entity {
        Entity::Contacts => "lastmodifieddate",
        Entity::Accounts | Entity::Opportunities => "hs_lastmodifieddate",
    }
}

/// The property of the company that it is first of all associated with.
fn parent(entity: Entity) -> Option<&'static str> {
    match entity {
        Entity::Accounts => None,
        Entity::Contacts => Some("associatedcompanyid"),
        Entity::Opportunities => Some("hs_primary_associated_company"),
    }
}

/// The type of that association (HubSpot's own: "Contact to primary company", "Deal to primary
/// company"). One without a label would leave the former company the primary one.
fn parent_type(entity: Entity) -> Option<u32> {
    match entity {
        Entity::Accounts => None,
        Entity::Contacts => Some(1),
        Entity::Opportunities => Some(5),
    }
}

fn id_of(value: &Value) -> Option<String> {
    match value.get("id")? {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

fn next_of(answer: &Value) -> Option<String> {
    let next = answer.pointer("/paging/next/after")?;
    next.as_str().map(str::to_owned)
}

fn property(value: &Value) -> Option<(String, Property)> {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    let flag = |pointer: &str| value.pointer(pointer).and_then(Value::as_bool);
    let options = value.get("options").and_then(Value::as_array);
    // Several choices are one text with `;` between them.
    let has_one = text("/type") == Some("enumeration") && text("/fieldType") != Some("checkbox");
    let choices = options.into_iter().flatten().filter(|_| has_one);
    let choices = choices.filter_map(|option| Some(option.get("value")?.as_str()?.to_owned()));
    let info = FieldInfo {
        max_length: None,
        is_required: false,
        is_writable: flag("/modificationMetadata/readOnlyValue") != Some(true)
            && flag("/calculated") != Some(true),
        choices: choices.collect(),
    };
    let property = Property {
        info,
        is_unique: flag("/hasUniqueValue") == Some(true),
    };
    Some((text("/name")?.to_owned(), property))
}

fn unreadable(what: &str) -> CrmError {
    let why = format!("HubSpot answered without {what}, against its documentation");
    CrmError::Job(JobError::Retry(why))
}
