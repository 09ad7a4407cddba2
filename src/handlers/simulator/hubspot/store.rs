//! What the simulated `HubSpot` keeps.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use super::{Instead, Spoiled, TOKEN};
use crate::clock;

/// A record.
#[derive(Debug, Clone)]
pub struct Kept {
    pub id: String,
    pub properties: Map<String, Value>,
    /// The primary one of the companies that it is associated with.
    pub company: Option<String>,
    /// All of them.
    pub companies: BTreeSet<String>,
    pub modified_at: DateTime<Utc>,
    pub archived_at: Option<DateTime<Utc>>,
}

/// A call that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub path: String,
    /// Records of its batch.
    pub inputs: usize,
    pub status: u16,
}

#[derive(Debug)]
pub(super) struct Store {
    objects: BTreeMap<String, BTreeMap<u64, Kept>>,
    last_id: u64,
    last_moment: DateTime<Utc>,
    pub(super) token: String,
    /// Refresh tokens that it takes, with the secret of their client.
    pub(super) grants: BTreeSet<[String; 3]>,
    pub(super) log_ins: usize,
    /// Properties that there are besides the usual ones.
    pub(super) properties: Vec<String>,
    /// Usual ones that there are not.
    pub(super) missing: BTreeSet<String>,
    pub(super) bad: Vec<(String, bool)>,
    /// Records by id that stay, and whether they spoil their batch.
    pub(super) fast: Vec<(String, bool)>,
    pub(super) hidden: BTreeSet<String>,
    pub(super) spoiled: Vec<(&'static str, usize, Spoiled)>,
    pub(super) script: Vec<Instead>,
    pub(super) seen: Vec<Seen>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            last_id: 1000,
            last_moment: DateTime::UNIX_EPOCH,
            token: TOKEN.to_owned(),
            grants: BTreeSet::new(),
            log_ins: 0,
            properties: Vec::new(),
            missing: BTreeSet::new(),
            bad: Vec::new(),
            fast: Vec::new(),
            hidden: BTreeSet::new(),
            spoiled: Vec::new(),
            script: Vec::new(),
            seen: Vec::new(),
        }
    }
}

impl Store {
    /// No two changes are at the same moment.
    fn moment(&mut self) -> DateTime<Utc> {
        let now = DateTime::from_timestamp_millis(clock::now().timestamp_millis());
        let next = self.last_moment + TimeDelta::milliseconds(1);
        self.last_moment = now.unwrap_or_default().max(next);
        self.last_moment
    }

    pub(super) fn make(&mut self, object: &str, properties: &Value) -> String {
        self.last_id += 1;
        let (id, modified_at) = (self.last_id, self.moment());
        let kept = Kept {
            id: id.to_string(),
            properties: Map::new(),
            company: None,
            companies: BTreeSet::new(),
            modified_at,
            archived_at: None,
        };
        self.objects
            .entry(object.to_owned())
            .or_default()
            .insert(id, kept);
        self.change(object, &id.to_string(), properties);
        id.to_string()
    }

    /// False: there is no such record.
    pub(super) fn change(&mut self, object: &str, id: &str, properties: &Value) -> bool {
        let moment = self.moment();
        let Some(kept) = self.find(object, id) else {
            return false;
        };
        for (name, value) in properties.as_object().into_iter().flatten() {
            let text = match value {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            match text.is_empty() {
                true => kept.properties.remove(name),
                false => kept.properties.insert(name.clone(), Value::from(text)),
            };
        }
        kept.modified_at = moment;
        true
    }

    pub(super) fn is_fast(&self, id: &str, whole: bool) -> bool {
        let mut fast = self.fast.iter();
        fast.any(|(known, is_whole)| known == id && *is_whole == whole)
    }

    pub(super) fn archive(&mut self, object: &str, id: &str) {
        let moment = self.moment();
        if let Some(kept) = self.find(object, id) {
            kept.archived_at = Some(moment);
        }
    }

    /// The first company is the primary one; another only if it is made so.
    pub(super) fn associate(
        &mut self,
        object: &str,
        id: &str,
        company: &str,
        is_primary: bool,
    ) -> bool {
        let is_there = self.find("companies", company).is_some();
        let moment = self.moment();
        match self.find(object, id) {
            Some(kept) if is_there => {
                kept.companies.insert(company.to_owned());
                if is_primary || kept.company.is_none() {
                    kept.company = Some(company.to_owned());
                }
                kept.modified_at = moment;
                true
            }
            _ => false,
        }
    }

    pub(super) fn dissociate(&mut self, object: &str, id: &str, company: &str) -> bool {
        let moment = self.moment();
        let Some(kept) = self.find(object, id) else {
            return false;
        };
        if kept.companies.remove(company) {
            kept.company.take_if(|primary| primary == company);
            kept.modified_at = moment;
        }
        true
    }

    /// One that is not archived.
    pub(super) fn find(&mut self, object: &str, id: &str) -> Option<&mut Kept> {
        let all = self.objects.get_mut(object)?;
        all.get_mut(&id.parse().ok()?)
            .filter(|kept| kept.archived_at.is_none())
    }

    pub(super) fn find_by(&self, object: &str, name: &str, value: &str) -> Option<String> {
        let mut all = self.objects.get(object)?.values();
        let found = all.find(|kept| {
            let text = kept.properties.get(name).and_then(Value::as_str);
            kept.archived_at.is_none() && text.is_some_and(|text| text.eq_ignore_ascii_case(value))
        });
        found.map(|kept| kept.id.clone())
    }

    pub(super) fn records(&self, object: &str) -> Vec<Kept> {
        let all = self
            .objects
            .get(object)
            .into_iter()
            .flat_map(BTreeMap::values);
        all.filter(|kept| kept.archived_at.is_none())
            .cloned()
            .collect()
    }

    pub(super) fn archived(&self, object: &str) -> Vec<Kept> {
        let all = self
            .objects
            .get(object)
            .into_iter()
            .flat_map(BTreeMap::values);
        all.filter(|kept| kept.archived_at.is_some())
            .cloned()
            .collect()
    }
}

impl Kept {
    /// As an answer shows it.
    pub(super) fn shown(&self, object: &str) -> Value {
        let mut properties = self.properties.clone();
        let modified = match object {
            "contacts" => "lastmodifieddate",
            _ => "hs_lastmodifieddate",
        };
        let text =
            |moment: DateTime<Utc>| moment.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        properties.insert(modified.to_owned(), Value::from(text(self.modified_at)));
        let parent = match object {
            "contacts" => "associatedcompanyid",
            _ => "hs_primary_associated_company",
        };
        if let Some(company) = &self.company {
            properties.insert(parent.to_owned(), Value::from(company.as_str()));
        }
        json!({
            "id": self.id, "properties": properties, "updatedAt": text(self.modified_at),
            "archived": self.archived_at.is_some(), "archivedAt": self.archived_at.map(text),
        })
    }
}
