//! `export_data` and `export_csv`: accounts or contacts become a file.
//!
//! ```text
//! payload ─► plan ─► survey                     once: mistakes, rows, columns
//!                      │
//! record ─► page ─► text ─► part file ─► checkpoint      again and again
//!                    │                          │
//!                  sheet (a workbook)         keep: its name, or an object of the bucket
//! ```
//!
//! Promises: a file has the rows of one workspace, each that was there when the export began once,
//! as it was when its page was read, whatever crashes; memory does not grow with the rows; what
//! has the name of a whole file is one. Refuses: columns and conditions that are on no list, files
//! that are too large, and more files than a workspace may keep. A caller's words never become
//! part of a statement.

pub(super) mod attempt;
mod checkpoint;
pub(super) mod disk;
pub(super) mod keep;
pub(super) mod part_file;
pub mod payload;
pub mod plan;
pub(super) mod run;
mod sheet;
mod survey;
mod sweep;
mod text;
pub(super) mod turns;

use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use crate::job::JobError;
use crate::storage::Storage;
use crate::worker::{Handler, JobContext};
pub use checkpoint::Summary;
pub use payload::{ExportCsv, ExportData, Filters};
pub use plan::Plan;
pub use sweep::{SweepError, Swept, sweep};

/// Below the data directory, and in the bucket.
const DIR: &str = "exports";
/// The largest file, and about the most that is spooled for one.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// How long an attempt may take. A workbook has to be written in one.
const TIMEOUT: Duration = Duration::from_secs(2 * 3600);
/// After this long an attempt that writes text makes room for others and goes on later, well
/// before its time limit.
const SLICE: Duration = Duration::from_secs(90 * 60);

/// The handler of `export_data` jobs.
#[derive(Debug, Clone)]
pub struct ExportDataHandler {
    /// Files are in `exports/` there.
    pub storage: Storage,
    /// Where people outside reach this installation, for links that are sent to them.
    pub public_url: Option<String>,
}

impl Handler for ExportDataHandler {
    const TYPE: &'static str = "export_data";
    type Payload = ExportData;
    type Output = Summary;

    fn timeout(&self) -> Duration {
        TIMEOUT
    }

    async fn run(&self, ctx: JobContext, payload: ExportData) -> Result<Summary, JobError> {
        let to = (&self.storage, self.public_url.as_deref());
        run::run(&ctx, &payload, to).await
    }
}

/// The handler of `export_csv` jobs.
#[derive(Debug, Clone)]
pub struct ExportCsvHandler {
    /// Files are in `exports/` there.
    pub storage: Storage,
    /// Where people outside reach this installation, for links that are sent to them.
    pub public_url: Option<String>,
}

impl Handler for ExportCsvHandler {
    const TYPE: &'static str = "export_csv";
    type Payload = ExportCsv;
    type Output = Summary;

    fn timeout(&self) -> Duration {
        TIMEOUT
    }

    async fn run(&self, ctx: JobContext, payload: ExportCsv) -> Result<Summary, JobError> {
        let to = (&self.storage, self.public_url.as_deref());
        run::run(&ctx, &payload.into(), to).await
    }
}

fn dir(data_dir: &Path) -> PathBuf {
    data_dir.join(DIR)
}

/// Where the whole file of an export is.
pub fn file_path(data_dir: &Path, id: Uuid, format: &str) -> PathBuf {
    dir(data_dir).join(format!("{id}.{format}"))
}

/// Where the whole file of an attempt is in the bucket: those that lost their lease and do not know
/// it yet write where nobody reads.
fn object_key(id: Uuid, attempt: i32, format: &str) -> String {
    format!("{DIR}/{id}.{attempt}.{format}")
}
