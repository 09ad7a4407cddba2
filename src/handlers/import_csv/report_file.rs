//! Writes the error report of a run to where files are kept, from the rows that the record keeps.
//!
//! Safe to repeat: the same rows give the same bytes, and a reader sees the old file or the new
//! one.

use std::io;

use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use super::prepare::Prepared;
use super::report::{ReportWriter, Verdict};
use crate::job::JobError;
use crate::record::Record;
use crate::record::imports::{self, RejectedRow};
use crate::storage::Storage;
use crate::uploads::report_key;

/// Writes `reports/<id>.csv` into the storage and returns that name; nothing when no row
/// was rejected.
pub(super) async fn write(
    record: &Record,
    id: Uuid,
    prepared: &Prepared,
    storage: &Storage,
    bom: bool,
) -> Result<Option<String>, JobError> {
    let mut page = list(record, id, 0).await?;
    if page.is_empty() {
        return Ok(None);
    }
    let (name, data_dir) = (report_key(id), storage.data_dir());
    let temporary = data_dir.join(format!("reports/.{id}.tmp"));
    tokio::fs::create_dir_all(data_dir.join("reports"))
        .await
        .map_err(disk)?;
    let mut file = tokio::fs::File::create(&temporary).await.map_err(disk)?;
    let mut report = ReportWriter::new(
        Vec::new(),
        &prepared.dialect,
        &prepared.header,
        prepared.header_columns,
        prepared.census.columns,
        bom,
    )
    .map_err(disk)?;
    while let Some(last) = page.last().map(|row| row.row_no) {
        for row in &page {
            add(&mut report, row).map_err(disk)?;
        }
        file.write_all(&std::mem::take(report.sink()))
            .await
            .map_err(disk)?;
        page = list(record, id, last).await?;
    }
    file.flush().await.map_err(disk)?;
    file.sync_all().await.map_err(disk)?;
    drop(file);
    let Some(objects) = storage.objects() else {
        tokio::fs::rename(&temporary, data_dir.join(&name))
            .await
            .map_err(disk)?;
        return Ok(Some(name));
    };
    let bytes = tokio::fs::metadata(&temporary).await.map_err(disk)?.len();
    let sent = objects.send_whole(&name, (&temporary, bytes)).await;
    sent.map_err(|error| disk(error.into()))?;
    tokio::fs::remove_file(&temporary).await.map_err(disk)?;
    Ok(Some(name))
}

fn add(report: &mut ReportWriter<Vec<u8>>, row: &RejectedRow) -> io::Result<()> {
    fn text(value: &Option<String>) -> &str {
        value.as_deref().unwrap_or_default()
    }
    let verdict = Verdict {
        row: row.row_no.unsigned_abs(),
        status: &row.outcome,
        code: text(&row.code),
        column: text(&row.column_name),
        message: text(&row.message),
        suggestion: text(&row.suggestion),
    };
    report.row(
        &row.raw,
        usize::try_from(row.raw_columns).unwrap_or(0),
        verdict,
    )
}

async fn list(record: &Record, id: Uuid, after: i64) -> Result<Vec<RejectedRow>, JobError> {
    imports::list_rejected(record, id, after)
        .await
        .map_err(JobError::retry)
}

fn disk(error: io::Error) -> JobError {
    JobError::Retry(format!("write the error report: {error}"))
}
