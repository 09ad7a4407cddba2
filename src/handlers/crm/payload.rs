//! What a `sync_crm` is asked for.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::client::Entity;
use super::mapping::Choice;
use crate::job::connection::Provider;

/// Of the links of an entity, so many may be deleted by one run unless it is told otherwise.
const BRAKE_PERCENT: u8 = 10;
/// So few go in any case, unless it is told otherwise: of ten records one is ten per cent.
const BRAKE_FROM: u64 = 5;
/// How far changes are read again, for those that were committed or indexed late.
const OVERLAP_SECONDS: u32 = 300;

/// A sync that is wished for.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    #[serde(alias = "crmProvider")]
    pub(super) crm_provider: CrmProvider,
    #[serde(alias = "syncDirection")]
    pub(super) sync_direction: Direction,
    /// In any order: accounts go before contacts, and those before opportunities.
    #[serde(alias = "entityTypes")]
    #[schemars(length(min = 1, max = 3))]
    entity_types: Vec<Entity>,
    /// Where the first run begins to read changes in the CRM; later ones go on where it ended.
    #[serde(default, alias = "lastSyncAt")]
    pub(super) last_sync_at: Option<DateTime<Utc>>,
    /// Reads from `last_sync_at` again, or all there is, wherever the last run ended.
    #[serde(default)]
    pub(super) full: bool,
    /// Which connection; without it, the oldest one to the provider.
    #[serde(default, alias = "connectionId")]
    pub(super) connection_id: Option<Uuid>,
    /// Who wins where both sides have changed the same field.
    #[serde(default)]
    pub(super) strategy: Strategy,
    /// Who wins with `source_wins`; without it, the side that is read from, and the CRM if both
    /// are.
    #[serde(default)]
    source: Option<Side>,
    /// By entity and field here: the field there, `{"field", "direction"}`, or null for none. Goes
    /// over the mapping of the connection, and that over the provider's own.
    #[serde(default)]
    pub(super) mapping: Mapping,
    /// What becomes of a record whose other half was deleted.
    #[serde(default)]
    pub(super) deletions: Deletions,
    /// The run stops when more than this share of the linked records would be deleted.
    #[serde(default, alias = "brakePercent")]
    #[schemars(range(min = 0, max = 100))]
    brake_percent: Option<u8>,
    /// How far before the last change it is read again.
    #[serde(default, alias = "overlapSeconds")]
    #[schemars(range(min = 0, max = 86_400))]
    overlap_seconds: Option<u32>,
    /// Reads both sides, and writes to neither; tells what it would do.
    #[serde(default, alias = "dryRun")]
    pub(super) dry_run: bool,
}

/// By entity, by field here.
pub(super) type Mapping = BTreeMap<Entity, BTreeMap<String, Option<Choice>>>;

/// Which CRM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CrmProvider {
    Salesforce,
    Hubspot,
}

impl CrmProvider {
    pub(super) fn provider(self) -> Provider {
        match self {
            Self::Salesforce => Provider::Salesforce,
            Self::Hubspot => Provider::Hubspot,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From here to the CRM.
    Push,
    Pull,
    Bidirectional,
}

impl Direction {
    pub(super) fn pulls(self) -> bool {
        self != Self::Push
    }

    pub(super) fn pushes(self) -> bool {
        self != Self::Pull
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Whoever changed the field last.
    #[default]
    LastWriteWins,
    /// One side always.
    SourceWins,
    /// A person: neither side is changed until then.
    ManualReview,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    Bullwark,
    Crm,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Deletions {
    /// It stays, and is not made anew on the other side.
    #[default]
    Keep,
    /// It is deleted, or archived, too.
    Mirror,
}

impl Payload {
    /// Each once, parents before children.
    pub(super) fn entities(&self) -> Vec<Entity> {
        let mut entities = self.entity_types.clone();
        entities.sort_unstable();
        entities.dedup();
        entities
    }

    pub(super) fn source(&self) -> Side {
        self.source.unwrap_or(match self.sync_direction {
            Direction::Push => Side::Bullwark,
            Direction::Pull | Direction::Bidirectional => Side::Crm,
        })
    }

    /// Whether one run may delete so many of so many.
    pub(super) fn may_delete(&self, deleting: u64, linked: u64) -> bool {
        let few = match self.brake_percent {
            None => BRAKE_FROM,
            Some(_) => 0,
        };
        deleting <= few || deleting * 100 <= self.brake_percent() * linked
    }

    pub(super) fn brake_percent(&self) -> u64 {
        u64::from(self.brake_percent.unwrap_or(BRAKE_PERCENT).min(100))
    }

    pub(super) fn overlap(&self) -> chrono::TimeDelta {
        let seconds = self.overlap_seconds.unwrap_or(OVERLAP_SECONDS);
        chrono::TimeDelta::seconds(i64::from(seconds.min(86_400)))
    }
}
