//! The fields of an object, as the organization has them; kept for a while, they are long.
//!
//! Source: REST API Developer Guide, "sObject Describe".

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::super::client::{CrmError, Description, Entity, FieldInfo};
use super::Salesforce;
use super::calls::{Request, unreadable};
use super::soql::object;

const KEPT: Duration = Duration::from_secs(300);
const DESCRIPTIONS_MAX: usize = 200;
/// Objects with hundreds of fields and choices have several MiB.
const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// By connection, version of its credentials, and object.
type Key = (Uuid, i32, Entity);
static KNOWN: LazyLock<Mutex<HashMap<Key, (Instant, Description)>>> = LazyLock::new(Mutex::default);

#[derive(Deserialize)]
struct Said {
    fields: Vec<Field>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Field {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    length: u32,
    nillable: bool,
    defaulted_on_create: bool,
    createable: bool,
    updateable: bool,
    external_id: bool,
    restricted_picklist: bool,
    picklist_values: Vec<Choice>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Choice {
    value: String,
    active: bool,
}

impl Salesforce {
    pub(super) async fn description(&self, entity: Entity) -> Result<Description, CrmError> {
        let key = (self.connection.id, self.connection.version(), entity);
        {
            let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, description)) = known.get(&key)
                && at.elapsed() < KEPT
            {
                return Ok(description.clone());
            }
        }
        let path = format!("{}/sobjects/{}/describe", self.data, object(entity));
        let request = Request {
            answer_max: ANSWER_MAX,
            ..Request::get(path)
        };
        let answer = self.must(&request).await?;
        let said: Said = serde_json::from_slice(&answer.bytes)
            .map_err(|_| unreadable("a description without fields"))?;
        let own = said
            .fields
            .iter()
            .find(|field| field.name == self.external_id);
        if !own.is_some_and(|field| field.external_id) {
            return Err(CrmError::PermanentRun(format!(
                "{} has no field `{}` that is an external id: make one (Text, 36 characters, \
                 External ID, Unique) that the integration's user may edit, or name yours in the \
                 setting `external_id_field` of connection {}",
                object(entity),
                self.external_id,
                self.connection.id
            )));
        }
        let fields = said.fields.into_iter();
        let description: Description = fields.filter_map(info).collect();
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= DESCRIPTIONS_MAX {
            known.retain(|_, (at, _)| at.elapsed() < KEPT);
        }
        if known.len() < DESCRIPTIONS_MAX {
            known.insert(key, (Instant::now(), description.clone()));
        }
        Ok(description)
    }
}

/// None: it has several values in one, and its parts are fields of their own.
fn info(field: Field) -> Option<(String, FieldInfo)> {
    let kind = field.kind.as_str();
    if matches!(kind, "address" | "location" | "base64" | "complexvalue") {
        return None;
    }
    let active = field
        .picklist_values
        .into_iter()
        .filter(|choice| choice.active);
    let choices = match field.restricted_picklist && kind == "picklist" {
        true => active.map(|choice| choice.value).collect(),
        false => Vec::new(),
    };
    let info = FieldInfo {
        max_length: Some(field.length).filter(|length| *length > 0 && kind != "picklist"),
        is_required: field.createable && !field.nillable && !field.defaulted_on_create,
        is_writable: field.createable && field.updateable,
        choices,
    };
    Some((field.name, info))
}
