//! What an export leaves behind: the checkpoint on the way, the summary at the end.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::record::exports::columns::CUSTOM_NAME_MAX;
use crate::storage::Sending;

/// Raised when a checkpoint of an older program could be misread.
const CHECKPOINT_VERSION: u32 = 1;

/// Custom fields that have no columns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lacking {
    /// There were more than a file has columns for.
    pub custom: bool,
    /// There were some with names that no column can have.
    pub unnamable: bool,
}

/// Where a later attempt goes on, and what the file was to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    version: u32,
    /// Names of the columns: found once, so that all rows have the same.
    pub columns: Vec<String>,
    #[serde(default)]
    pub lacking: Lacking,
    /// Rows that matched when the export began.
    pub total: u64,
    /// The newest row at that time; none: there was none.
    pub until: Option<Uuid>,
    /// Rows up to this one are in the file.
    pub after: Uuid,
    pub rows: u64,
    /// The attempt whose file it is.
    pub attempt: i32,
    /// Of the file, as far as it is vouched for.
    pub bytes: u64,
    pub sha256: String,
    /// Texts that did not fit into a cell.
    pub cut: u64,
    /// The file is whole; only its name and the summary may be missing.
    pub is_whole: bool,
    /// The whole file is on its way to the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sending: Option<Sending>,
}

impl Checkpoint {
    pub(super) fn new(
        columns: Vec<String>,
        lacking: Lacking,
        total: u64,
        until: Option<Uuid>,
    ) -> Self {
        Self {
            version: CHECKPOINT_VERSION,
            columns,
            lacking,
            total,
            until,
            after: Uuid::nil(),
            rows: 0,
            attempt: 0,
            bytes: 0,
            sha256: String::new(),
            cut: 0,
            is_whole: false,
            sending: None,
        }
    }

    /// The same export before its first row.
    pub(super) fn anew(self) -> Self {
        Self::new(self.columns, self.lacking, self.total, self.until)
    }

    /// What an earlier attempt saved; none if this program can not read it.
    pub(super) fn read(value: &serde_json::Value) -> Option<Self> {
        let checkpoint: Self = serde_json::from_value(value.clone()).ok()?;
        (checkpoint.version == CHECKPOINT_VERSION).then_some(checkpoint)
    }
}

/// The result of an export job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub export_id: Uuid,
    pub status: &'static str,
    /// `Exported 980 accounts`
    pub message: String,
    pub entity_type: &'static str,
    pub format: &'static str,
    pub rows: u64,
    pub bytes: u64,
    pub sha256: String,
    pub columns: Vec<String>,
    pub file_name: String,
    /// Below the data directory, or in the bucket.
    pub file: String,
    /// Where it is downloaded.
    pub download: String,
    pub expires_at: DateTime<Utc>,
    /// Seconds of the attempt that finished.
    pub seconds: f64,
    /// Rows per second of the attempt that finished.
    pub rows_per_second: f64,
    pub warnings: Vec<String>,
}

/// What a summary is made of.
pub(super) struct Ending {
    pub(super) export_id: Uuid,
    pub(super) entity_type: &'static str,
    pub(super) format: &'static str,
    pub(super) file_name: String,
    pub(super) expires_at: DateTime<Utc>,
    pub(super) elapsed: Duration,
    /// Where the file is in the bucket.
    pub(super) object_key: Option<String>,
    /// Rows that this attempt has written.
    pub(super) rows: u64,
}

impl Summary {
    pub(super) fn new(end: Checkpoint, ending: Ending) -> Self {
        let mut warnings = Vec::new();
        if end.lacking.unnamable {
            warnings.push(format!(
                "custom fields have no columns if their names are empty or have more than \
                 {CUSTOM_NAME_MAX} bytes"
            ));
        }
        if end.lacking.custom {
            let max = super::survey::CUSTOM_COLUMNS_MAX;
            warnings.push(format!(
                "there are more than {max} custom fields; only the first {max} have columns"
            ));
        }
        if end.cut > 0 {
            warnings.push(format!(
                "{} texts are longer than a cell can be, and were cut",
                end.cut
            ));
        }
        let seconds = ending.elapsed.as_secs_f64();
        let (id, format) = (ending.export_id, ending.format);
        Self {
            export_id: id,
            status: "completed",
            message: format!("Exported {} {}", end.rows, ending.entity_type),
            entity_type: ending.entity_type,
            format,
            rows: end.rows,
            bytes: end.bytes,
            sha256: end.sha256,
            columns: end.columns,
            file_name: ending.file_name,
            file: (ending.object_key).unwrap_or_else(|| format!("exports/{id}.{format}")),
            download: format!("/api/exports/{id}/file"),
            expires_at: ending.expires_at,
            seconds,
            rows_per_second: if seconds > 0.0 {
                ending.rows as f64 / seconds
            } else {
                0.0
            },
            warnings,
        }
    }
}
