//! What an `enrich_account` is asked for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::providers::{CompanySource, Field};

/// Below this, a provider does not seem to mean the same company.
const MIN_CONFIDENCE: f32 = 0.5;

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
    provider: Option<CompanySource>,
    /// Or several: the next one is asked for what those before did not know.
    #[serde(default)]
    #[schemars(length(min = 1, max = 3))]
    providers: Option<Vec<CompanySource>>,
    /// Also replaces what imports and other jobs wrote. What people wrote stays in any case.
    #[serde(default)]
    pub(super) overwrite: bool,
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
    pub(super) dry_run: bool,
}

impl Payload {
    /// Each field once.
    pub(super) fn fields(&self) -> Vec<Field> {
        let wished = self.enrich_fields.as_deref();
        once(
            wished
                .filter(|fields| !fields.is_empty())
                .unwrap_or(&Field::ALL),
        )
    }

    /// Whom to ask, in this order, each once.
    pub(super) fn sources(&self) -> Result<Vec<CompanySource>, String> {
        match (self.provider, &self.providers) {
            (Some(one), None) => Ok(vec![one]),
            (None, Some(several)) if !several.is_empty() => Ok(once(several)),
            (Some(_), Some(_)) => {
                Err("has `provider` and `providers`: give one of them".to_owned())
            }
            (None, _) => Err(
                "names no provider: give `provider` or `providers`, of clearbit, zoominfo, apollo"
                    .to_owned(),
            ),
        }
    }

    pub(super) fn min_confidence(&self) -> f32 {
        self.min_confidence.unwrap_or(MIN_CONFIDENCE)
    }

    pub(super) fn max_age_days(&self) -> Option<i32> {
        self.max_age_days.map(|days| days.clamp(1, 365))
    }
}

fn once<T: Copy + PartialEq>(all: &[T]) -> Vec<T> {
    let mut kept: Vec<T> = Vec::new();
    for one in all {
        if !kept.contains(one) {
            kept.push(*one);
        }
    }
    kept
}
