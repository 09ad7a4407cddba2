//! What an import leaves behind: the checkpoint on the way, the summary at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::cells::Warnings;
use super::dialect::Dialect;
use super::prepare::Prepared;
use super::reader::Position;
use crate::record::imports::{ImportCounts, ImportStatus};

/// Raised when a checkpoint of an older program could be misread.
const CHECKPOINT_VERSION: u32 = 1;

/// Where a later attempt goes on, and how it knows that it has the same file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    version: u32,
    pub position: Position,
    pub warnings: Warnings,
    /// All rows are in; only the report and the summary may be missing.
    pub is_read: bool,
    pub sha256: String,
    pub bytes: u64,
    encoding: String,
    /// How the records were told apart. Another answer would shift every row.
    dialect: Dialect,
}

impl Checkpoint {
    pub fn new(prepared: &Prepared, position: Position, warnings: Warnings, is_read: bool) -> Self {
        Self {
            version: CHECKPOINT_VERSION,
            position,
            warnings,
            is_read,
            sha256: prepared.sha256.clone(),
            bytes: prepared.bytes,
            encoding: prepared.text.encoding.to_owned(),
            dialect: prepared.dialect,
        }
    }

    /// Whether the positions of this checkpoint are positions of this file.
    pub fn fits(&self, prepared: &Prepared) -> bool {
        *self == Self::new(prepared, self.position, self.warnings, self.is_read)
    }
}

/// The result of an `import_csv` job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub import_id: Uuid,
    pub status: ImportStatus,
    /// `Successfully imported 980 accounts, 20 skipped due to errors`
    pub message: String,
    pub entity_type: &'static str,
    pub dry_run: bool,
    /// Rows of the file.
    pub total: i64,
    /// Rows that the record now agrees with: inserted, updated and unchanged ones.
    pub imported: i64,
    pub inserted: i64,
    pub updated: i64,
    pub unchanged: i64,
    /// Rows left out because they are duplicates.
    pub skipped: i64,
    /// Rows with errors.
    pub failed: i64,
    /// Rows with a code for a duplicate, skipped or failed.
    pub duplicates: i64,
    pub by_code: BTreeMap<String, i64>,
    /// The error report below the data directory, if any row was rejected.
    pub report: Option<String>,
    pub file_name: Option<String>,
    pub sha256: String,
    pub encoding: &'static str,
    pub delimiter: &'static str,
    /// Seconds of the attempt that finished.
    pub seconds: f64,
    /// Rows per second of the attempt that finished.
    pub rows_per_second: f64,
    pub warnings: Vec<String>,
}

/// What a summary is made of.
pub struct Ending<'a> {
    pub import_id: Uuid,
    pub entity_type: &'static str,
    pub dry_run: bool,
    pub counts: &'a ImportCounts,
    pub prepared: &'a Prepared,
    pub report: Option<String>,
    pub file_name: Option<String>,
    pub elapsed: Duration,
    /// Rows that this attempt has processed.
    pub rows: u64,
    pub warnings: Vec<String>,
}

/// A run with failed rows is a partial success, not a failure.
pub fn status_of(counts: &ImportCounts) -> ImportStatus {
    let has_errors = counts.failed > 0 || code_count(counts, "DUPLICATE_IN_FILE") > 0;
    if has_errors {
        ImportStatus::CompletedWithErrors
    } else {
        ImportStatus::Completed
    }
}

impl Summary {
    pub fn new(ending: Ending<'_>) -> Self {
        let counts = ending.counts;
        let imported = counts.inserted + counts.updated + counts.unchanged;
        let seconds = ending.elapsed.as_secs_f64();
        let duplicates =
            code_count(counts, "DUPLICATE_IN_FILE") + code_count(counts, "DUPLICATE_EXISTING");
        Self {
            import_id: ending.import_id,
            status: status_of(counts),
            message: message(counts, ending.entity_type, imported, ending.dry_run),
            entity_type: ending.entity_type,
            dry_run: ending.dry_run,
            total: counts.total,
            imported,
            inserted: counts.inserted,
            updated: counts.updated,
            unchanged: counts.unchanged,
            skipped: counts.skipped,
            failed: counts.failed,
            duplicates,
            by_code: serde_json::from_value(counts.by_code.clone()).unwrap_or_default(),
            report: ending.report,
            file_name: ending.file_name,
            sha256: ending.prepared.sha256.clone(),
            encoding: ending.prepared.text.encoding,
            delimiter: ending.prepared.dialect.delimiter_name(),
            seconds,
            rows_per_second: if seconds > 0.0 {
                ending.rows as f64 / seconds
            } else {
                0.0
            },
            warnings: ending.warnings,
        }
    }
}

fn message(counts: &ImportCounts, entity_type: &str, imported: i64, dry_run: bool) -> String {
    let verb = if dry_run {
        "Dry run: would have imported"
    } else {
        "Successfully imported"
    };
    let existing = code_count(counts, "DUPLICATE_EXISTING").min(counts.skipped);
    let with_errors = counts.failed + counts.skipped - existing;
    let mut message = format!("{verb} {imported} {entity_type}");
    if existing > 0 {
        message = format!("{message}, {existing} skipped because they exist already");
    }
    if with_errors > 0 {
        message = format!("{message}, {with_errors} skipped due to errors");
    }
    message
}

fn code_count(counts: &ImportCounts, code: &str) -> i64 {
    counts
        .by_code
        .get(code)
        .and_then(serde_json::Value::as_i64)
        .unwrap_or(0)
}

/// Sentences about what was repaired on the way.
pub fn sentences(warnings: &Warnings, prepared: &Prepared) -> Vec<String> {
    let mut sentences = Vec::new();
    let mut note = |count: u64, text: &str| {
        if count > 0 {
            sentences.push(format!("{count} {text}"));
        }
    };
    note(
        prepared.text.replaced,
        "characters could not be read in the file's encoding",
    );
    note(
        warnings.spreadsheet_errors,
        "cells held a spreadsheet error (#N/A) and count as empty",
    );
    note(
        warnings.unknown_countries,
        "countries are on no list and are stored as written",
    );
    note(
        warnings.short_rows,
        "rows have fewer columns than the header",
    );
    let ignored: Vec<_> = prepared
        .mapping
        .columns
        .iter()
        .filter(|column| column.target == super::mapping::Target::Ignored)
        .filter(|column| !super::mapping::REPORT_COLUMNS.contains(&column.header.as_str()))
        .map(|column| column.header.as_str())
        .filter(|header| !header.is_empty())
        .take(20)
        .collect();
    if !ignored.is_empty() {
        sentences.push(format!(
            "columns that were not imported: {}",
            ignored.join(", ")
        ));
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(
        inserted: i64,
        skipped: i64,
        failed: i64,
        by_code: serde_json::Value,
    ) -> ImportCounts {
        ImportCounts {
            inserted,
            skipped,
            failed,
            by_code,
            ..ImportCounts::default()
        }
    }

    #[test]
    fn the_message_is_the_one_of_the_specification() {
        for (counts, expected) in [
            (
                counts(
                    980,
                    5,
                    15,
                    serde_json::json!({"DUPLICATE_IN_FILE": 5, "EMAIL_INVALID": 15}),
                ),
                "Successfully imported 980 accounts, 20 skipped due to errors",
            ),
            (
                counts(3, 0, 0, serde_json::json!({})),
                "Successfully imported 3 accounts",
            ),
            (
                counts(
                    0,
                    7,
                    1,
                    serde_json::json!({"DUPLICATE_EXISTING": 7, "EMAIL_INVALID": 1}),
                ),
                "Successfully imported 0 accounts, 7 skipped because they exist already, \
                 1 skipped due to errors",
            ),
        ] {
            assert_eq!(
                message(&counts, "accounts", counts.inserted, false),
                expected
            );
        }
    }
}
