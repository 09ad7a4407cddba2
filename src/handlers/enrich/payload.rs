//! What jobs that enrich one record are asked for.

/// Makes the payload of a job that enriches one record: it differs in what names the record, and in
/// the fields that such a record has. (A flattened struct would be shorter, but then a mistake has
/// no place, and an unknown name is none.)
macro_rules! payload {
    ($id:ident, $alias:literal, $field:ty $(, $verify_email:ident)?) => {
        /// An enrichment that is wished for.
        #[derive(Debug, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct Payload {
            #[serde(alias = $alias)]
            $id: uuid::Uuid,
            /// Which fields; without it, all of them.
            #[serde(default, alias = "enrichFields")]
            #[schemars(length(min = 1, max = 20))]
            enrich_fields: Option<Vec<$field>>,
            /// Whom to ask.
            #[serde(default)]
            provider: Option<crate::handlers::providers::DataSource>,
            /// Or several: the next one is asked for what those before did not know.
            #[serde(default)]
            #[schemars(length(min = 1, max = 3))]
            providers: Option<Vec<crate::handlers::providers::DataSource>>,
            /// Also replaces what imports, other jobs and synchronizations wrote. What people wrote
            /// here stays in any case.
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
            /// Calls nobody and writes nothing; tells who would be asked, and what the answers
            /// that are kept would change.
            #[serde(default, alias = "dryRun")]
            dry_run: bool,
            $(
                /// Whether an address that was never verified is, by a job of its own, when the
                /// person is known. True if nothing is said.
                #[serde(default, alias = "verifyEmail")]
                $verify_email: Option<bool>,
            )?
        }

        impl Payload {
            fn wish(&self) -> Result<crate::handlers::enrich::Wish<$field>, String> {
                let asked = crate::handlers::enrich::Asked {
                    fields: self.enrich_fields.as_deref(),
                    provider: self.provider,
                    providers: self.providers.as_deref(),
                    overwrite: self.overwrite,
                    min_confidence: self.min_confidence,
                    max_age_days: self.max_age_days,
                    dry_run: self.dry_run,
                    verify_email: false $(|| self.$verify_email.unwrap_or(true))?,
                };
                asked.checked()
            }
        }
    };
}
pub(in crate::handlers) use payload;
