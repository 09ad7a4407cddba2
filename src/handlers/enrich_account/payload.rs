//! What an `enrich_account` is asked for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::enrich::{Asked, Wish};
use super::super::providers::{DataSource, Field};

/// An enrichment that is wished for.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    #[serde(alias = "accountId")]
    pub(super) account_id: Uuid,
    /// Which fields; without it, all of them.
    #[serde(default, alias = "enrichFields")]
    #[schemars(length(min = 1, max = 20))]
    enrich_fields: Option<Vec<Field>>,
    /// Whom to ask.
    #[serde(default)]
    provider: Option<DataSource>,
    /// Or several: the next one is asked for what those before did not know.
    #[serde(default)]
    #[schemars(length(min = 1, max = 3))]
    providers: Option<Vec<DataSource>>,
    /// Also replaces what imports and other jobs wrote. What people wrote stays in any case.
    #[serde(default)]
    overwrite: bool,
    /// Only values that are at least so sure, from 0 to 1.
    #[serde(default, alias = "minConfidence")]
    #[schemars(range(min = 0, max = 1))]
    min_confidence: Option<f32>,
    /// Asks again if the answer that is kept is older.
    #[serde(default, alias = "maxAgeDays")]
    #[schemars(range(min = 1, max = 365))]
    max_age_days: Option<i32>,
    /// Calls nobody and writes nothing; tells who would be asked, and what the answers that are
    /// kept would change.
    #[serde(default, alias = "dryRun")]
    dry_run: bool,
}

impl Payload {
    pub(super) fn wish(&self) -> Result<Wish<Field>, String> {
        let asked = Asked {
            fields: self.enrich_fields.as_deref(),
            provider: self.provider,
            providers: self.providers.as_deref(),
            overwrite: self.overwrite,
            min_confidence: self.min_confidence,
            max_age_days: self.max_age_days,
            dry_run: self.dry_run,
        };
        asked.checked()
    }
}
