//! `enrich_records`: all records that match, enriched by jobs of a hundred records each.
//!
//! `POST /api/enrichments` finds the records and makes the whole tree in one commit: this job, and
//! an `enrich_page` for each page. When all pages are over, in whatever way, this job runs: it adds
//! up what became of each record, and that is its result. Until then the same sums can be read. Run
//! again, it adds up again: also what pages have done since that were run again by hand.

mod page;
mod payload;

use crate::job::JobError;
use crate::record::enrichment_items;
use crate::worker::{Handler, JobContext};
pub use page::EnrichPageHandler;
pub use payload::{EnrichPage, EnrichRecords, How, PAGE_RECORDS, RECORDS_MAX};

/// Adds up what became of the records.
#[derive(Debug, Clone)]
pub struct EnrichRecordsHandler;

impl Handler for EnrichRecordsHandler {
    const TYPE: &'static str = "enrich_records";
    type Payload = EnrichRecords;
    type Output = enrichment_items::Sums;

    async fn run(
        &self,
        ctx: JobContext,
        payload: EnrichRecords,
    ) -> Result<enrichment_items::Sums, JobError> {
        let Some(matched) = payload.matched else {
            let why = "`POST /api/enrichments` begins it, with the pages of its records";
            return Err(JobError::Permanent(why.to_owned()));
        };
        let run_id = ctx.job_id();
        ctx.transaction(async |tx| {
            let sums = enrichment_items::sums(tx.connection(), run_id, matched).await;
            sums.map_err(JobError::retry)
        })
        .await
    }
}
