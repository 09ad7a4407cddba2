//! One entity of a run: its fields, and what the CRM says of them.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::Value;

use super::client::{Description, Entity, FieldInfo, Refusal};
use super::mapping::{Fields, Flow, PARENT};
use super::merge::Values;
use crate::record::crm::locals::Local;

/// What is kept of the description: the mapped fields only.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) fields: Fields,
    described: OnceLock<BTreeMap<String, FieldInfo>>,
}

impl Target {
    pub(super) fn new(fields: Fields) -> Self {
        Self {
            fields,
            described: OnceLock::new(),
        }
    }

    pub(super) fn entity(&self) -> Entity {
        self.fields.entity
    }

    pub(super) fn has_parent(&self) -> bool {
        self.entity() != Entity::Accounts
    }

    /// Every mapped field must be there: a sync that leaves one out without a word is worse than
    /// none.
    pub(super) fn check(&self, described: &Description) -> Result<(), String> {
        let names = self.fields.remote_names();
        if let Some(missing) = names.iter().find(|name| !described.contains_key(*name)) {
            return Err(format!(
                "{} have no field `{missing}` in the CRM, or the connection may not see it: \
                 change the mapping, or its rights",
                self.entity().as_str()
            ));
        }
        self.keep(described);
        Ok(())
    }

    /// Remembers what is said of the fields, for [`Self::precheck`].
    pub(super) fn keep(&self, described: &Description) {
        let _ = self.described.set(described.clone());
    }

    pub(super) fn is_described(&self) -> bool {
        self.described.get().is_some()
    }

    /// The values of a row here. The account is among them unless it is not linked itself.
    pub(super) fn ours(&self, local: &Local) -> Values {
        let mut ours = self.fields.ours(&local.row);
        if self.has_parent() {
            match (&local.account_id, &local.parent_remote_id) {
                (None, _) => ours.insert(PARENT.to_owned(), Value::Null),
                (Some(_), Some(id)) => ours.insert(PARENT.to_owned(), Value::from(id.as_str())),
                (Some(_), None) => None,
            };
        }
        ours
    }

    /// Whether something here waits to be sent.
    pub(super) fn is_changed(&self, local: &Local, ours: &Values) -> bool {
        let agreed = local.agreed.as_ref();
        let disputed = local.disputed.as_ref();
        ours.iter().any(|(field, our)| {
            self.fields.flow(field) != Flow::Pull
                && disputed.and_then(|disputed| disputed.get(field)).is_none()
                && agreed.and_then(|agreed| agreed.get(field)) != Some(our)
        })
    }

    /// What the CRM would refuse, without asking it.
    pub(super) fn precheck(&self, values: &Values, is_new: bool) -> Result<(), Refusal> {
        let Some(described) = self.described.get() else {
            return Ok(());
        };
        let refused = |code: &str, remote: &str, message: String| {
            Err(Refusal {
                code: code.to_owned(),
                message,
                fields: vec![remote.to_owned()],
            })
        };
        for (local, value) in values {
            let Some(mapped) = self.fields.get(local) else {
                continue;
            };
            let remote = mapped.remote.as_str();
            let Some(info) = described.get(remote) else {
                continue;
            };
            if !info.is_writable {
                let message = format!(
                    "`{remote}` may not be written: map `{local}` with the direction `pull`"
                );
                return refused("read_only", remote, message);
            }
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Null => continue,
                other => other.to_string(),
            };
            let length = text.chars().count();
            if let Some(max) = info.max_length.filter(|max| length > *max as usize) {
                let message =
                    format!("`{local}` has {length} characters, `{remote}` at most {max}");
                return refused("too_long", remote, message);
            }
            if !info.choices.is_empty() && !info.choices.contains(&text) {
                let some: Vec<&str> = info.choices.iter().take(10).map(String::as_str).collect();
                let message = format!(
                    "`{text}` is no choice of `{remote}`, which has {}",
                    some.join(", ")
                );
                return refused("no_such_choice", remote, message);
            }
        }
        if is_new {
            let given = |remote: &str| {
                let local = self.fields.local_name(remote);
                local
                    .and_then(|local| values.get(local))
                    .is_some_and(|value| !value.is_null())
            };
            let mut required = described.iter().filter(|(_, info)| info.is_required);
            if let Some((remote, _)) = required.find(|(remote, _)| !given(remote)) {
                let message = format!("a new record needs `{remote}`");
                return refused("required", remote, message);
            }
        }
        Ok(())
    }
}
