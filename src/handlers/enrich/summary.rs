//! What an enrichment came to, as the job's result says it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::merge::Fate;

/// What an enrichment came to.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Which record it was, and what it was looked up by.
    #[serde(flatten)]
    pub(in super::super) about: Map<String, Value>,
    /// Whether any provider knows it.
    pub(in super::super) matched: bool,
    pub(super) is_dry_run: bool,
    /// Whom was asked, or would be, in this order.
    pub(in super::super) providers: Vec<Said>,
    /// What became of each value.
    pub(in super::super) fields: BTreeMap<&'static str, FieldSummary>,
    /// Fields that nobody could tell.
    pub(super) unknown: Vec<Value>,
    /// Fields that were not asked for: what is there stays.
    pub(super) kept: Vec<Value>,
    /// The job that verifies the address of the contact, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) verification: Option<Uuid>,
}

/// What one provider said.
#[derive(Debug, Serialize)]
pub(in super::super) struct Said {
    pub(in super::super) provider: &'static str,
    pub(in super::super) said: Told,
    /// The answer was there before, and cost nothing; none: nobody was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) from_cache: Option<bool>,
    /// Why it could not be asked, or did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) why: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum Told {
    Known,
    Unknown,
    /// What it answered can not be read. The next one is asked, and it not for an hour.
    Unreadable,
    /// Would be asked.
    NotAsked,
    /// Can not be asked by what is known of the record.
    CanNotAsk,
    /// Refused, failed again and again, or is not connected: the others were asked without it.
    Failed,
}

impl Summary {
    /// Whose answer could not be read, the first one.
    pub(in super::super) fn unreadable(&self) -> Option<&'static str> {
        let mut said = self.providers.iter();
        let one = said.find(|one| one.said == Told::Unreadable);
        one.map(|one| one.provider)
    }
}

/// What is told of that.
pub(in super::super) fn unreadable(provider: &str) -> String {
    format!("unreadable answer of {provider}")
}

/// What became of a value.
#[derive(Debug, Serialize)]
pub(in super::super) struct FieldSummary {
    pub(in super::super) fate: Fate,
    value: Value,
    source: &'static str,
    confidence: f32,
    fetched_at: DateTime<Utc>,
}

impl FieldSummary {
    pub(super) fn new(fate: Fate, new: &crate::record::enriched::NewValue) -> Self {
        Self {
            fate,
            value: new.value.clone(),
            source: new.source,
            confidence: new.confidence,
            fetched_at: new.fetched_at,
        }
    }
}
