//! `generate_report`: what a workspace's pipeline did in some days, as a page or as CSV.
//!
//! ```text
//! payload ─► plan ─► period (fixed by the first attempt) ─► figures ─► page | lines ─► file
//! ```
//!
//! Promises: the figures are of one workspace, read as that workspace itself, at one moment; a page
//! needs nothing but itself (no script, nothing from elsewhere) and nothing in it that came from
//! outside is markup; a file that has its name is whole. It is kept, downloaded and linked to as
//! the file of an export, and goes when those go. Refuses: days that are longer ago than figures
//! are kept, and files beyond what a workspace may keep.

mod chart;
mod lines;
mod page;
pub mod payload;
mod run;
mod tables;
mod text;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::job::JobError;
use crate::job::period::{Slot, Span};
use crate::job::schedule::Zone;
use crate::record::pipeline::{CAUSES_MAX, Figures, OTHERS, TYPES_MAX};
use crate::storage::Storage;
use crate::worker::{Handler, JobContext};
pub use payload::{ENTITY, GenerateReport, Plan};
pub use run::Summary;

/// The handler of `generate_report` jobs.
#[derive(Debug, Clone)]
pub struct GenerateReportHandler {
    /// Files are in `exports/` there.
    pub storage: Storage,
    /// Where people outside reach this installation, for links that are sent to them.
    pub public_url: Option<String>,
}

impl Handler for GenerateReportHandler {
    const TYPE: &'static str = "generate_report";
    type Payload = GenerateReport;
    type Output = Summary;

    async fn run(&self, ctx: JobContext, payload: GenerateReport) -> Result<Summary, JobError> {
        let to = (&self.storage, self.public_url.as_deref());
        run::run(&ctx, &payload, to).await
    }
}

/// What a file is made of.
#[derive(Debug, Clone)]
struct Report {
    title: String,
    zone: Zone,
    span: Span,
    slots: Vec<Slot>,
    figures: Figures,
}

impl Report {
    /// A moment on the clock of the report.
    fn local(&self, at: DateTime<Utc>) -> String {
        self.zone
            .local_time(at)
            .to_rfc3339_opts(SecondsFormat::Secs, true)
    }

    /// What a reader must know so as not to be misled.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let figures = &self.figures;
        if !self.span.begins_on_the_hour() {
            notes.push(
                "The record counts by the hour of UTC: hours that begin in the period are in it."
                    .to_owned(),
            );
        }
        if figures.volumes.is_cut {
            notes.push("There is more than a report reads: volumes are too low.".to_owned());
        }
        if figures.volumes.types.contains_key(OTHERS) {
            notes.push(format!(
                "Only the first {TYPES_MAX} job types are told apart."
            ));
        }
        if figures.died.is_cut {
            notes.push("There are more dead letters than a report looks at.".to_owned());
        } else if figures.died.causes.len() as i64 == CAUSES_MAX {
            notes.push(format!(
                "Of errors, the {CAUSES_MAX} most frequent ones are told."
            ));
        }
        if figures.matches.is_cut {
            notes.push("Match rates or mails could not be read in time.".to_owned());
        }
        notes
    }
}
