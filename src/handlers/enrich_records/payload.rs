//! What enrichments of many records are asked for.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::super::enrich::{Asked, Wish};
use super::super::export::{ExportData, Filters, Plan};
use super::super::import_csv::payload::EntityType;
use super::super::providers::{ContactField, DataSource, EnrichField, Field};
use crate::job::Problem;
use crate::record::exports::read::{Selection, Windows};

/// Records of one enrichment, and of one of its pages.
pub const RECORDS_MAX: usize = 50_000;
pub const PAGE_RECORDS: usize = 100;

/// How records are enriched: as by `enrich_account` and `enrich_contact`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = EnrichmentOptions))]
pub struct How {
    /// Which fields; without it, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 20))]
    pub enrich_fields: Option<Vec<String>>,
    /// Whom to ask: `clearbit`, `zoominfo` or `apollo`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub provider: Option<DataSource>,
    /// Or several: the next one is asked for what those before did not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 3))]
    #[cfg_attr(feature = "server", schema(value_type = Option<Vec<String>>, max_items = 3))]
    pub providers: Option<Vec<DataSource>>,
    /// Also replaces what imports, other jobs and synchronizations wrote. What people wrote here
    /// stays in any case.
    pub overwrite: bool,
    /// Only values that are at least so sure, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub min_confidence: Option<f32>,
    /// Asks again if the answer that is kept is older.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 365))]
    pub max_age_days: Option<i32>,
    /// Of contacts: whether addresses that were never verified are, by jobs of their own, when the
    /// person is known. True if nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify_email: Option<bool>,
}

impl How {
    pub(super) fn wish<F: EnrichField + DeserializeOwned>(&self) -> Result<Wish<F>, Problem> {
        let problem = |pointer: String, message: String| Problem { pointer, message };
        let names = self.enrich_fields.iter().flatten().enumerate();
        let fields = names.map(|(nth, name)| {
            serde_json::from_value::<F>(json!(name)).map_err(|_| {
                let all = F::all().iter().map(|field| json!(field));
                let all: Vec<String> = all
                    .filter_map(|name| name.as_str().map(str::to_owned))
                    .collect();
                let name: String = name.chars().take(100).collect();
                let message = format!("`{name}` can not be enriched; there are {}", all.join(", "));
                problem(format!("/enrich_fields/{nth}"), message)
            })
        });
        let fields = fields.collect::<Result<Vec<F>, Problem>>()?;
        let asked = Asked {
            fields: Some(&fields),
            provider: self.provider,
            providers: self.providers.as_deref(),
            overwrite: self.overwrite,
            min_confidence: self.min_confidence,
            max_age_days: self.max_age_days,
            dry_run: false,
            verify_email: F::ARE_OF_PEOPLE && self.verify_email.unwrap_or(true),
        };
        if self.verify_email.is_some() && !F::ARE_OF_PEOPLE {
            let message = "accounts have no address of mail: leave it out".to_owned();
            return Err(problem("/verify_email".to_owned(), message));
        }
        let wish = asked.checked();
        wish.map_err(|message| problem("/provider".to_owned(), format!("the request {message}")))
    }
}

/// An enrichment of all records that match.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = NewEnrichment))]
pub struct EnrichRecords {
    /// Which records.
    pub entity_type: EntityType,
    /// Only records for which all of these hold, as of exports.
    #[serde(default, skip_serializing_if = "Filters::is_empty")]
    pub filters: Filters,
    pub how: How,
    /// Counts what would be asked, and enqueues nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// So many matched when it began. Said by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(ignore))]
    pub matched: Option<u64>,
}

impl EnrichRecords {
    /// Which records are meant, or every mistake.
    pub fn selection(&self, workspace_id: Uuid) -> Result<Selection, Vec<Problem>> {
        let export = json!({ "entity_type": self.entity_type, "filters": self.filters });
        let export: ExportData = serde_json::from_value(export).map_err(|error| {
            let (pointer, message) = ("/filters".to_owned(), error.to_string());
            vec![Problem { pointer, message }]
        })?;
        let plan = Plan::new(&export)?;
        let checked = match self.entity_type {
            EntityType::Accounts => self.how.wish::<Field>().map(|_| ()),
            EntityType::Contacts => self.how.wish::<ContactField>().map(|_| ()),
        };
        checked.map_err(|mut problem| {
            problem.pointer = format!("/how{}", problem.pointer);
            vec![problem]
        })?;
        Ok(Selection {
            workspace_id: Some(workspace_id),
            entity: plan.entity,
            conditions: plan.conditions,
            windows: Windows::default(),
        })
    }

    /// Whom it asks, in this order.
    pub fn sources(&self) -> Vec<DataSource> {
        match self.entity_type {
            EntityType::Accounts => self.how.wish::<Field>().map(|wish| wish.sources),
            EntityType::Contacts => self.how.wish::<ContactField>().map(|wish| wish.sources),
        }
        .unwrap_or_default()
    }
}

/// A page of an enrichment.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrichPage {
    pub entity_type: EntityType,
    #[schemars(length(min = 1, max = 100))]
    pub record_ids: Vec<Uuid>,
    pub how: How,
}
