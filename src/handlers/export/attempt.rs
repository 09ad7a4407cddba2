//! One attempt of an export under way: begins it, writes its rows, ends it.

use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use serde_json::json;
use uuid::Uuid;

use super::checkpoint::Checkpoint;
use super::part_file::{self, PartFile};
use super::plan::Plan;
use super::run::on_disk;
use super::sheet::Sheet;
use super::survey::{insist, record_error};
use super::text::TextWriter;
use crate::handlers::spool::Spool;
use crate::job::{JobError, Progress};
use crate::record::exports::columns::Field;
use crate::record::exports::read::{Page, Selection};
use crate::record::exports::{self, NewExport, Whole};
use crate::record::logs::LogLevel;
use crate::uploads::private_dir;
use crate::worker::JobContext;

/// Pages between two checkpoints. Each waits for the disk twice.
const CHECKPOINT_PAGES: u64 = 10;
/// The largest file.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;

/// One attempt under way.
pub(super) struct Export<'a> {
    ctx: &'a JobContext,
    plan: &'a Plan,
    selection: Selection,
    fields: Vec<Field>,
}

impl<'a> Export<'a> {
    pub(super) fn new(
        ctx: &'a JobContext,
        plan: &'a Plan,
        selection: Selection,
        at: &Checkpoint,
    ) -> Result<Self, JobError> {
        let field = |name: &String| match name.strip_prefix("custom.") {
            // Found in the rows, so it may be longer than a payload may say.
            Some(custom) => Some(Field::Custom(custom.to_owned())),
            None => plan.entity.field(name),
        };
        let fields: Option<Vec<Field>> = at.columns.iter().map(field).collect();
        let why = || JobError::Permanent("the checkpoint names unknown columns".to_owned());
        Ok(Self {
            ctx,
            plan,
            selection,
            fields: fields.ok_or_else(why)?,
        })
    }

    /// Writes down that the run begins, or goes on; answers what the file is called.
    pub(super) async fn start(
        &self,
        at: &Checkpoint,
        is_resumed: bool,
    ) -> Result<String, JobError> {
        let (entity, format) = (self.plan.entity.as_str(), self.plan.format.as_str());
        let day = crate::clock::now().format("%Y-%m-%d");
        let file_name = match &self.plan.file_name {
            Some(name) => name.clone(),
            None => format!("{entity}-{day}.{format}"),
        };
        let new = NewExport {
            id: self.ctx.job_id(),
            workspace_id: self.ctx.workspace_id(),
            entity_type: entity,
            format,
            file_name: &file_name,
        };
        let mut begun = self.ctx.begin_checkpoint().await?;
        let file_name = exports::start(begun.tx(), &new)
            .await
            .map_err(record_error)?;
        begun.commit(json!(at), progress(at)).await?;
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
        let (mut pages, begun_at) = (0, at.rows);
        while let Some(until) = at.until {
            if self.ctx.cancelled().is_cancelled() {
                file = self.save(&mut at, file).await?;
                drop(file);
                return Err(interrupted(&at, begun_at));
            }
            let page = self.page(at.after, until).await?;
            let text = writer.rows(&page.rows, at.rows);
            let text = text.map_err(JobError::permanent)?;
            if file.bytes() + text.len() as u64 > FILE_BYTES_MAX {
                return Err(JobError::Permanent(format!(
                    "the file would have more than {FILE_BYTES_MAX} bytes; use filters or fewer \
                     fields"
                )));
            }
            file = on_disk(move || file.append(&text).map(|()| file)).await?;
            self.step(&mut at, &page);
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
        on_disk(move || private_dir(&dir)).await?;
        let spool = Spool::create(path.with_extension("spool"))?;
        let (dir, fields) = (spool.path.clone(), self.fields.clone());
        let name = self.plan.entity.as_str();
        let mut sheet = on_disk(move || Sheet::create(&dir, name, &fields)).await?;
        while let Some(until) = at.until {
            if self.ctx.cancelled().is_cancelled() {
                // The fence says whether somebody cancelled the job.
                self.ctx.begin_checkpoint().await?;
                return Err(interrupted(&at, at.rows));
            }
            let mut page = self.page(at.after, until).await?;
            let rows = std::mem::take(&mut page.rows);
            at.rows += rows.len() as u64;
            sheet = on_disk(move || sheet.add(&rows).map(|()| sheet)).await?;
            self.ctx.progress(progress(&at));
            let Some(next) = page.next else { break };
            at.after = next;
        }
        at.cut = sheet.cut;
        let saved = on_disk(move || {
            let file = PartFile::create(path.clone())?;
            sheet.save(file.file())?;
            file.sync()?;
            part_file::measure(&path)
        });
        let Some((bytes, sha256)) = saved.await? else {
            return Err(JobError::Retry("the workbook is gone".to_owned()));
        };
        (at.bytes, at.sha256, at.is_whole) = (bytes, sha256, true);
        self.commit(&at).await?;
        Ok(at)
    }

    async fn page(&self, after: Uuid, until: Uuid) -> Result<Page, JobError> {
        let (record, size) = (self.ctx.record(), i64::from(self.plan.options.page_size));
        let (selection, fields) = (&self.selection, &self.fields);
        insist(self.ctx, || {
            selection.page(record, fields, (after, until), size).boxed()
        })
        .await
    }

    fn step(&self, at: &mut Checkpoint, page: &Page) {
        at.rows += page.rows.len() as u64;
        self.ctx.progress(progress(at));
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
        begun.commit(json!(at), progress(at)).await
    }

    /// The last commit: the file is there. Answers until when.
    pub(super) async fn finish(&self, at: &Checkpoint) -> Result<DateTime<Utc>, JobError> {
        let mut begun = self.ctx.begin_checkpoint().await?;
        let whole = Whole {
            rows: at.rows.cast_signed(),
            bytes: at.bytes.cast_signed(),
            sha256: &at.sha256,
        };
        let expires_at = exports::finish(begun.tx(), self.ctx.job_id(), &whole)
            .await
            .map_err(record_error)?;
        let message = format!("Exported {} rows", at.rows);
        let progress = Progress::new(at.rows, at.rows, 0, message);
        begun.commit(json!(at), progress).await?;
        Ok(expires_at)
    }
}

/// The total was counted when the export began; rows that were deleted since are not there.
fn progress(at: &Checkpoint) -> Progress {
    let (total, rows) = (at.total.max(at.rows), at.rows);
    Progress::new(total, rows, 0, format!("Exporting row {rows}/{total}"))
}

/// A shutdown or a time limit only interrupts: the next attempt goes on, and if this one got
/// anywhere that is kept, it spends no retry.
fn interrupted(at: &Checkpoint, begun_at: u64) -> JobError {
    let message = format!("interrupted behind row {} of {}", at.rows, at.total);
    match at.rows > begun_at {
        true => JobError::Snooze(Duration::from_secs(1), message),
        false => JobError::Retry(message),
    }
}
