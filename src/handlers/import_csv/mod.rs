//! `import_csv`: rows of a delimited file or a workbook become accounts or contacts.
//!
//! ```text
//! source ─► unpack, decode, dialect ─► mapping ─► census      once, before any effect
//!                                                     │
//! reader ─► cells, normalize, validate ─► chunk ─► record      beside each other, chunk by chunk
//!                                                     │
//!                                          report, summary
//! ```
//!
//! Promises: each row of the file takes effect once, whatever crashes; memory does not grow with
//! the file; a bad row costs nothing but itself and is reported with its original bytes. Refuses:
//! files that cannot be read as a whole, before the first row of them is taken over.

pub mod cells;
mod choices;
mod chunks;
mod confidence;
pub mod content;
pub mod country;
pub mod custom;
pub mod decode;
pub mod dialect;
pub mod fields;
mod import;
pub mod issue;
pub mod link;
pub mod mapping;
pub mod normalize;
pub mod number;
pub mod payload;
pub mod phone;
mod policies;
pub mod prepare;
mod preview;
pub mod reader;
pub mod report;
mod report_file;
mod run;
mod similar;
pub mod source;
pub mod summary;
pub mod template;
#[cfg(test)]
mod torture;
pub mod unpack;
pub mod validate;
mod writing;

pub use chunks::CHUNK_ROWS;
pub use payload::ImportCsv;
pub use preview::{Preview, PreviewError, preview};
pub use source::SourceOptions;
pub use summary::Summary;

use crate::job::JobError;
use crate::worker::{Handler, JobContext};

/// The handler of `import_csv` jobs.
#[derive(Debug, Clone)]
pub struct ImportCsvHandler {
    pub source: SourceOptions,
}

impl Handler for ImportCsvHandler {
    const TYPE: &'static str = "import_csv";
    type Payload = ImportCsv;
    type Output = Summary;

    async fn run(&self, ctx: JobContext, payload: ImportCsv) -> Result<Summary, JobError> {
        run::run(&ctx, &payload, &self.source).await
    }
}
