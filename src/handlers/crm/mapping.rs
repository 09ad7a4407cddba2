//! Which field here is which field there, and the one form that values have between the two.
//!
//! Each provider has a mapping of its own; a connection (its setting `mapping`, JSON text) and a
//! payload go over it, field by field. A field of the CRM may be any that it has; one here is a
//! column that a sync may write, or `custom.NAME`.
//!
//! The one form: texts are trimmed and never empty, numbers are numbers, days are `2026-01-31`, and
//! what is missing is null. Providers answer with texts where they were given numbers; compared in
//! this form, what we sent and what comes back is the same.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::client::Entity;
use super::defaults::{columns, defaults};
use super::form::{Kind, form};
use super::merge::Values;
use super::payload::{CrmProvider, Mapping};
use crate::handlers::connection::Connection;

/// The parent, a pseudo field: its value is the id of the account in the CRM.
pub(super) const PARENT: &str = "@account";
const CUSTOM: &str = "custom.";
/// The most fields of a mapping.
const FIELDS_MAX: usize = 200;
/// The longest name of a field, in bytes.
const NAME_MAX: usize = 100;

/// Which way a field goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    #[default]
    Both,
    Push,
    Pull,
}

/// What a field here is mapped to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Choice {
    Name(String),
    Full {
        field: String,
        #[serde(default)]
        direction: Flow,
    },
}

/// One field.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mapped {
    pub(super) remote: String,
    pub(super) flow: Flow,
    kind: Kind,
}

/// The fields of an entity, by their names here.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fields {
    pub(super) entity: Entity,
    by_local: BTreeMap<String, Mapped>,
}

impl Fields {
    /// The mapping of an entity, with what the connection and the payload say over it.
    pub(super) fn of(
        provider: CrmProvider,
        entity: Entity,
        connection: &Connection,
        payload: &Mapping,
    ) -> Result<Self, String> {
        let own: Mapping = match connection.setting("mapping") {
            Some(text) => serde_json::from_str(text).map_err(|error| {
                format!(
                    "the setting `mapping` of connection {}: {error}",
                    connection.id
                )
            })?,
            None => Mapping::new(),
        };
        Self::over(provider, entity, &[&own, payload])
    }

    fn over(provider: CrmProvider, entity: Entity, layers: &[&Mapping]) -> Result<Self, String> {
        let mut by_local = BTreeMap::new();
        for (local, remote, flow) in defaults(provider, entity) {
            by_local.insert((*local).to_owned(), mapped(entity, local, remote, *flow)?);
        }
        for (local, choice) in layers
            .iter()
            .filter_map(|layer| layer.get(&entity))
            .flatten()
        {
            let (remote, flow) = match choice {
                None => {
                    by_local.remove(local);
                    continue;
                }
                Some(Choice::Name(name)) => (name, Flow::Both),
                Some(Choice::Full { field, direction }) => (field, *direction),
            };
            by_local.insert(local.clone(), mapped(entity, local, remote, flow)?);
        }
        let mut remotes: Vec<&str> = by_local.values().map(|one| one.remote.as_str()).collect();
        remotes.sort_unstable();
        if let Some(twice) = remotes.windows(2).find(|two| two[0] == two[1]) {
            let (entity, name) = (entity.as_str(), twice[0]);
            return Err(format!(
                "the mapping of {entity} has `{name}` for two fields"
            ));
        }
        if by_local.is_empty() || by_local.len() > FIELDS_MAX {
            let entity = entity.as_str();
            return Err(format!(
                "the mapping of {entity} must have 1 to {FIELDS_MAX} fields"
            ));
        }
        Ok(Self { entity, by_local })
    }

    /// The names there.
    pub(super) fn remote_names(&self) -> Vec<String> {
        let names = self.by_local.values();
        names.map(|mapped| mapped.remote.clone()).collect()
    }

    pub(super) fn get(&self, local: &str) -> Option<&Mapped> {
        self.by_local.get(local)
    }

    pub(super) fn flow(&self, local: &str) -> Flow {
        self.get(local).map_or(Flow::Both, |mapped| mapped.flow)
    }

    /// The name here of a field there.
    pub(super) fn local_name(&self, remote: &str) -> Option<&str> {
        let mut pairs = self.by_local.iter();
        let found = pairs.find(|(_, mapped)| mapped.remote == remote);
        found.map(|(local, _)| local.as_str())
    }

    /// The values of a row here.
    pub(super) fn ours(&self, row: &Map<String, Value>) -> Values {
        let custom = row.get("custom").and_then(Value::as_object);
        let value = |local: &str| match local.strip_prefix(CUSTOM) {
            Some(name) => custom.and_then(|custom| custom.get(name)),
            None => row.get(local),
        };
        let pairs = self.by_local.iter().map(|(local, mapped)| {
            let value = value(local).unwrap_or(&Value::Null);
            // What the table holds is taken as it is, if it has no such form.
            let form = form(mapped.kind, value).unwrap_or_else(|_| value.clone());
            (local.clone(), form)
        });
        pairs.collect()
    }

    /// The values of a record there; or which field has one that we can not hold.
    pub(super) fn theirs(
        &self,
        remote: &BTreeMap<String, Value>,
    ) -> Result<Values, (String, String)> {
        let pairs = self.by_local.iter().map(|(local, mapped)| {
            let value = remote.get(&mapped.remote).unwrap_or(&Value::Null);
            let form = form(mapped.kind, value);
            let form = form.map_err(|why| (mapped.remote.clone(), why))?;
            Ok((local.clone(), form))
        });
        pairs.collect()
    }

    /// The text that a record there has in one field, whatever is in the others: in the one form
    /// if it has one, else as it is.
    pub(super) fn text(&self, local: &str, remote: &BTreeMap<String, Value>) -> Option<String> {
        let mapped = self.get(local)?;
        let value = remote.get(&mapped.remote)?;
        let form = form(mapped.kind, value).unwrap_or_else(|_| value.clone());
        form.as_str().map(str::to_owned)
    }

    /// Values by the names there.
    pub(super) fn sent(&self, values: &Values) -> BTreeMap<String, Value> {
        let pairs = values.iter().filter_map(|(local, value)| {
            let mapped = self.get(local)?;
            Some((mapped.remote.clone(), value.clone()))
        });
        pairs.collect()
    }
}

/// Columns, and what goes into `custom`.
pub(super) fn row(values: &Values) -> (Map<String, Value>, Map<String, Value>) {
    let (mut columns, mut custom) = (Map::new(), Map::new());
    for (local, value) in values {
        match local.strip_prefix(CUSTOM) {
            Some(name) => custom.insert(name.to_owned(), value.clone()),
            None if local == PARENT => None,
            None => columns.insert(local.clone(), value.clone()),
        };
    }
    (columns, custom)
}

fn mapped(entity: Entity, local: &str, remote: &str, flow: Flow) -> Result<Mapped, String> {
    let is_name = |name: &str| {
        (1..=NAME_MAX).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if !is_name(remote) {
        return Err(format!(
            "`{remote}` is no name of a field in a CRM: 1 to {NAME_MAX} letters, digits and `_`"
        ));
    }
    let kind = match local.strip_prefix(CUSTOM) {
        Some(name) if (1..=NAME_MAX).contains(&name.len()) && !name.contains('\0') => Kind::Any,
        Some(_) => return Err(format!("`{local}` has no name of 1 to {NAME_MAX} bytes")),
        None => {
            let columns = columns(entity);
            let found = columns.iter().find(|(name, _)| *name == local);
            let (_, kind) = found.ok_or_else(|| {
                let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
                format!(
                    "{} have no field `{local}`: there are {}, and `custom.NAME`",
                    entity.as_str(),
                    names.join(", ")
                )
            })?;
            *kind
        }
    };
    Ok(Mapped {
        remote: remote.to_owned(),
        flow,
        kind,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_sent_and_comes_back_as_text_is_the_same() {
        let fields = Fields::over(CrmProvider::Hubspot, Entity::Opportunities, &[]).unwrap();
        let row = json!({
            "name": " Big one ", "stage": "won", "amount": 1200.5, "close_date": "2026-03-01",
            "description": "", "custom": {},
        });
        let ours = fields.ours(row.as_object().unwrap());
        let back = json!({
            "dealname": "Big one", "dealstage": "won", "amount": "1200.50",
            "closedate": "2026-03-01T00:00:00Z", "description": null,
        });
        let back = serde_json::from_value(back).unwrap();
        assert_eq!(fields.theirs(&back).unwrap(), ours);
        assert_eq!(ours["description"], Value::Null);
        assert_eq!(form(Kind::Money, &json!("1200.00")), Ok(json!(1200)));
        assert_eq!(
            form(Kind::Day, &json!("1772323200000")),
            Ok(json!("2026-03-01"))
        );
        assert_eq!(form(Kind::Integer, &json!("12.0")), Ok(json!(12)));
        assert!(form(Kind::Percent, &json!(101)).is_err());
        assert!(form(Kind::Email, &json!("nobody")).is_err());
    }

    #[test]
    fn a_mapping_goes_over_the_own_one_and_says_what_is_wrong_with_it() {
        let of = |text: Value| {
            let layer: Mapping = serde_json::from_value(text).unwrap();
            Fields::over(CrmProvider::Salesforce, Entity::Accounts, &[&layer])
        };
        let changed = of(json!({ "accounts": {
            "phone": null, "custom.tier": { "field": "Tier__c", "direction": "push" },
            "domain": "Domain__c",
        } }));
        let changed = changed.unwrap();
        assert_eq!(changed.get("phone"), None);
        assert_eq!(changed.flow("custom.tier"), Flow::Push);
        assert_eq!(changed.local_name("Domain__c"), Some("domain"));
        for wrong in [
            json!({ "accounts": { "shoe_size": "Shoe__c" } }),
            json!({ "accounts": { "city": "Name" } }),
            json!({ "accounts": { "city": "a b" } }),
        ] {
            assert!(of(wrong).is_err());
        }
    }

    #[test]
    fn every_default_has_a_column() {
        for provider in [CrmProvider::Hubspot, CrmProvider::Salesforce] {
            for entity in Entity::ALL {
                assert!(
                    Fields::over(provider, entity, &[]).is_ok(),
                    "{provider:?} {entity:?}"
                );
            }
        }
    }
}
