//! One attempt of an export under way: begins it, writes its rows, ends it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use serde_json::json;
use uuid::Uuid;

use super::checkpoint::Checkpoint;
use super::disk::{disk_error, off_runtime, on_disk};
use super::keep::Saves;
use super::part_file::{self, PartFile};
use super::plan::Plan;
use super::sheet::Sheet;
use super::survey::insist;
use super::text::TextWriter;
use super::{FILE_BYTES_MAX, SLICE};
use crate::handlers::deliver_export;
use crate::handlers::ending::record_error;
use crate::handlers::spool::Spool;
use crate::job::{JobError, Progress};
use crate::record::exports::columns::Field;
use crate::record::exports::read::{Page, Selection};
use crate::record::exports::{self, KEPT_BYTES_MAX, NewExport, Whole};
use crate::record::file_deliveries::NewDelivery;
use crate::record::logs::LogLevel;
use crate::storage::Sending;
use crate::uploads::private_dir;
use crate::worker::{Checkpoint as Begun, JobContext};

/// Pages between two checkpoints. Each waits for the disk twice.
const CHECKPOINT_PAGES: u64 = 10;
/// Rows of the first page, which tells how large rows are.
const FIRST_LIMIT: i64 = 100;

/// One attempt under way.
pub(super) struct Export<'a> {
    ctx: &'a JobContext,
    plan: &'a Plan,
    selection: Selection,
    fields: Vec<Field>,
    begun: Instant,
    /// Rows that an earlier attempt wrote: before there are more, nothing is gained.
    begun_at: u64,
    /// Rows of the next page.
    limit: i64,
}

impl<'a> Export<'a> {
    pub(super) fn new(
        ctx: &'a JobContext,
        plan: &'a Plan,
        selection: Selection,
        at: &Checkpoint,
    ) -> Result<Self, JobError> {
        let columns = at.columns.iter();
        let fields: Option<Vec<Field>> = columns.map(|name| plan.entity.field(name)).collect();
        let why = || JobError::Permanent("the checkpoint names unknown columns".to_owned());
        Ok(Self {
            ctx,
            plan,
            selection,
            fields: fields.ok_or_else(why)?,
            begun: Instant::now(),
            begun_at: at.rows,
            limit: i64::from(plan.options.page_size).min(FIRST_LIMIT),
        })
    }

    /// Writes down that the run begins, or goes on; answers what the file is called.
    pub(super) async fn start(
        &self,
        at: &Checkpoint,
        is_resumed: bool,
    ) -> Result<String, JobError> {
        let (entity, format) = (self.plan.entity.as_str(), self.plan.format.as_str());
        let new = NewExport {
            id: self.ctx.job_id(),
            workspace_id: self.ctx.workspace_id(),
            entity_type: entity,
            format,
            file_name: self.plan.file_name.as_deref(),
        };
        let mut begun = self.ctx.begin_checkpoint().await?;
        let file_name = exports::start(begun.tx(), &new)
            .await
            .map_err(record_error)?;
        check_kept(self.ctx, &mut begun, 0).await?;
        begun.commit_without_gain(json!(at), progress(at)).await?;
        let message = match is_resumed {
            false => format!("{} rows to export", at.total),
            true => format!("goes on behind row {} of {}", at.rows, at.total),
        };
        let metadata = json!({"rows": at.total, "columns": at.columns.len(), "format": format});
        self.ctx.log(LogLevel::Info, &message, Some(metadata));
        Ok(file_name)
    }

    /// Writes page after page behind what is in the file.
    pub(super) async fn write_text(
        &mut self,
        mut at: Checkpoint,
        data_dir: &Path,
    ) -> Result<Checkpoint, JobError> {
        let (id, attempt) = (self.ctx.job_id(), self.ctx.attempt());
        let path = part_file::part_path(data_dir, id, attempt);
        let writer = TextWriter::new(self.plan.format, &self.plan.options, &self.fields);
        let writer = Arc::new(writer);
        let earlier = part_file::part_path(data_dir, id, at.attempt);
        let (from, part) = (earlier.clone(), path.clone());
        let (bytes, sum) = (at.bytes, at.sha256.clone());
        let resumed = match bytes {
            0 => None,
            _ => on_disk(move || PartFile::resume(&from, part, bytes, &sum)).await?,
        };
        let mut file = match resumed {
            Some(file) => {
                // Once the copy is vouched for, nobody needs the other one.
                at.attempt = attempt;
                let file = self.save(&mut at, file).await?;
                on_disk(move || std::fs::remove_file(earlier)).await?;
                file
            }
            None => {
                if at.rows > 0 {
                    let message = "the part file is not here; the export begins anew";
                    self.ctx.log(LogLevel::Warn, message, None);
                }
                at = at.anew();
                let head = writer.head().map_err(JobError::permanent)?;
                on_disk(move || {
                    let mut file = PartFile::create(path)?;
                    file.append(&head)?;
                    Ok(file)
                })
                .await?
            }
        };
        at.attempt = attempt;
        let mut pages = 0;
        while let Some(until) = at.until {
            let is_long = at.rows > self.begun_at && self.begun.elapsed() > SLICE;
            if is_long || self.ctx.cancelled().is_cancelled() {
                file = self.save(&mut at, file).await?;
                drop(file);
                return Err(self.interrupted(&at));
            }
            let Some(mut page) = self.page(at.after, until).await? else {
                continue;
            };
            let (rows, before) = (std::mem::take(&mut page.rows), at.rows);
            at.rows += rows.len() as u64;
            let writer = writer.clone();
            let appended = off_runtime(move || {
                let text = writer.rows(&rows, before).map_err(JobError::permanent)?;
                check_bytes(file.bytes() + text.len() as u64)?;
                file.append(&text).map_err(|error| disk_error(&error))?;
                Ok(file)
            });
            file = appended.await?;
            self.ctx.progress(progress(&at));
            let Some(next) = page.next else { break };
            at.after = next;
            pages += 1;
            if pages % CHECKPOINT_PAGES == 0 {
                file = self.save(&mut at, file).await?;
            }
        }
        let tail = writer.tail();
        file = on_disk(move || file.append(tail).map(|()| file)).await?;
        at.is_whole = true;
        self.save(&mut at, file).await?;
        Ok(at)
    }

    /// Writes all rows into a workbook.
    pub(super) async fn write_sheet(
        &mut self,
        at: Checkpoint,
        data_dir: &Path,
    ) -> Result<Checkpoint, JobError> {
        let mut at = at.anew();
        at.attempt = self.ctx.attempt();
        let path = part_file::part_path(data_dir, self.ctx.job_id(), at.attempt);
        let dir = super::dir(data_dir);
        let spool = part_file::spool_path(data_dir, self.ctx.job_id(), at.attempt);
        let (name, fields) = (self.plan.entity.as_str(), self.fields.clone());
        let begun = off_runtime(move || {
            private_dir(&dir).map_err(|error| disk_error(&error))?;
            let spool = Spool::create(spool)?;
            let sheet = Sheet::create(&spool.path, name, &fields)?;
            Ok((spool, sheet))
        });
        let (_spool, mut sheet) = begun.await?;
        while let Some(until) = at.until {
            if self.ctx.cancelled().is_cancelled() {
                // The fence says whether somebody cancelled the job.
                self.ctx.begin_checkpoint().await?;
                return Err(JobError::Retry(format!(
                    "interrupted behind row {} of {}: a workbook begins anew",
                    at.rows, at.total
                )));
            }
            let Some(mut page) = self.page(at.after, until).await? else {
                continue;
            };
            let rows = std::mem::take(&mut page.rows);
            at.rows += rows.len() as u64;
            let added = off_runtime(move || {
                sheet.add(&rows)?;
                check_bytes(sheet.bytes)?;
                Ok(sheet)
            });
            sheet = added.await?;
            self.ctx.progress(progress(&at));
            let Some(next) = page.next else { break };
            at.after = next;
        }
        at.cut = sheet.cut;
        let saved = off_runtime(move || {
            let failed = |error: std::io::Error| disk_error(&error);
            let file = PartFile::create(path.clone()).map_err(failed)?;
            sheet.save(file.file())?;
            file.sync().map_err(failed)?;
            part_file::measure(&path).map_err(failed)
        });
        let Some((bytes, sha256)) = saved.await? else {
            return Err(JobError::Retry("the workbook is gone".to_owned()));
        };
        (at.bytes, at.sha256, at.is_whole) = (bytes, sha256, true);
        self.commit(&at).await?;
        Ok(at)
    }

    /// The next page; none: the attempt was told to stop, and there is little time for that.
    async fn page(&mut self, after: Uuid, until: Uuid) -> Result<Option<Page>, JobError> {
        let (record, limit) = (self.ctx.record(), self.limit);
        let (selection, fields) = (&self.selection, &self.fields);
        let page = insist(self.ctx, || {
            selection
                .page(record, fields, (after, until), limit)
                .boxed()
        });
        let page = tokio::select! {
            page = page => page?,
            () = self.ctx.cancelled().cancelled() => return Ok(None),
        };
        self.limit = page.next_limit(i64::from(self.plan.options.page_size));
        Ok(Some(page))
    }

    /// Waits until what is written is on disk, and vouches for it.
    async fn save(&self, at: &mut Checkpoint, file: PartFile) -> Result<PartFile, JobError> {
        let file = on_disk(move || file.sync().map(|()| file)).await?;
        (at.bytes, at.sha256) = (file.bytes(), file.sha256());
        self.commit(at).await?;
        Ok(file)
    }

    async fn commit(&self, at: &Checkpoint) -> Result<(), JobError> {
        let mut begun = self.ctx.begin_checkpoint().await?;
        let (rows, bytes) = (at.rows.cast_signed(), at.bytes.cast_signed());
        exports::advance(begun.tx(), self.ctx.job_id(), rows, bytes)
            .await
            .map_err(record_error)?;
        check_kept(self.ctx, &mut begun, at.bytes).await?;
        match at.is_whole || at.rows > self.begun_at {
            true => begun.commit(json!(at), progress(at)).await,
            false => begun.commit_without_gain(json!(at), progress(at)).await,
        }
    }

    /// A shutdown or a time limit only interrupts: the next attempt goes on, and if this one got
    /// further than those before, it spends no retry.
    fn interrupted(&self, at: &Checkpoint) -> JobError {
        let message = format!("interrupted behind row {} of {}", at.rows, at.total);
        match at.rows > self.begun_at {
            true => JobError::Snooze(Duration::from_secs(1), message),
            false => JobError::Retry(message),
        }
    }

    /// The last commit: the file is there, and those who are to hear of it will. Answers until
    /// when.
    pub(super) async fn finish(
        &self,
        at: &Checkpoint,
        object_key: Option<&str>,
        told: &[NewDelivery],
    ) -> Result<DateTime<Utc>, JobError> {
        let mut begun = self.ctx.begin_checkpoint().await?;
        let whole = Whole {
            rows: at.rows.cast_signed(),
            bytes: at.bytes.cast_signed(),
            sha256: &at.sha256,
            object_key,
        };
        let expires_at = exports::finish(begun.tx(), self.ctx.job_id(), &whole)
            .await
            .map_err(record_error)?;
        deliver_export::plan(self.ctx, begun.tx(), told).await?;
        let message = format!("Exported {} rows", at.rows);
        let progress = Progress::new(at.rows, at.rows, 0, message);
        begun.commit(json!(at), progress).await?;
        Ok(expires_at)
    }
}

/// How far the whole file of an export has come on its way to the bucket.
pub(super) struct Keeping<'a, 'b> {
    pub(super) export: &'b Export<'a>,
    pub(super) at: &'b mut Checkpoint,
}

impl Saves for Keeping<'_, '_> {
    async fn save(&mut self, sending: Option<Sending>) -> Result<(), JobError> {
        self.at.sending = sending;
        let begun = self.export.ctx.begin_checkpoint().await?;
        begun.commit(json!(self.at), progress(self.at)).await
    }
}

/// Refuses to write more than a workspace may keep. Exports that run at the same time may go above
/// it by what they write between two checkpoints.
pub(in crate::handlers) async fn check_kept(
    ctx: &JobContext,
    begun: &mut Begun,
    bytes: u64,
) -> Result<(), JobError> {
    let Some(workspace_id) = ctx.workspace_id() else {
        return Ok(());
    };
    let kept = exports::kept_beside(begun.tx(), workspace_id, ctx.job_id()).await;
    let kept = kept
        .map_err(record_error)?
        .saturating_add(bytes.cast_signed());
    if kept < KEPT_BYTES_MAX {
        return Ok(());
    }
    Err(JobError::Permanent(format!(
        "the files of this workspace's exports have {kept} bytes and may have {KEPT_BYTES_MAX}: \
         delete jobs of exports that nobody needs, and run this one again"
    )))
}

/// The total was counted when the export began; rows that were deleted since are not there.
fn progress(at: &Checkpoint) -> Progress {
    let (total, rows) = (at.total.max(at.rows), at.rows);
    Progress::new(total, rows, 0, format!("Exporting row {rows}/{total}"))
}

/// Refuses a file that is too large, for good.
fn check_bytes(bytes: u64) -> Result<(), JobError> {
    if bytes <= FILE_BYTES_MAX {
        return Ok(());
    }
    Err(JobError::Permanent(format!(
        "the file would have more than {FILE_BYTES_MAX} bytes; use filters or fewer fields"
    )))
}
