//! The chunks of an import into the record: two at a time, committed in the order of the file.
//!
//! What a chunk costs is mostly the work of its server process, which uses one core. So the next
//! chunk is written meanwhile, over a connection of its own, where neither makes a difference to
//! the other: they share no key and no name, and all of its records are new. It is noted and
//! committed behind the one before it. A checkpoint is what it always was: everything before it is
//! in the record, nothing behind it is.
//!
//! | a chunk that is ahead of its turn | does |
//! |---|---|
//! | finds a record that exists, or fails | rolls back, and is written in its turn |
//! | is written, and its turn does not come | the same |
//! | is behind one that fails for good | is dropped, and nothing of it is in the record |
//!
//! As for the second, the one before may wait for a third transaction, and that for the one ahead.
//! No server sees that circle, since a part of it is here.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use serde_json::json;
use tokio::sync::watch;

use super::choices::{number_format, on_existing};
use super::chunks::{self, Start, Work};
use super::import::Import;
use super::reader::ReadError;
use super::summary::Checkpoint;
use super::validate::Validator;
use crate::handlers::ending::record_error;
use crate::job::JobError;
use crate::record::import_chunk::{self, ChunkOptions};
use crate::record::imports;
use crate::record::logs::LogLevel;
use crate::worker;

/// Chunks that are written at a time.
const AT_ONCE: usize = 2;
/// How long a chunk that is written holds its locks for its turn to come.
const AHEAD_LIMIT: Duration = Duration::from_secs(2);
/// Times that a chunk is tried again before the attempt gives up.
const RETRIES: u32 = 5;
/// The wait before the first of them; it doubles.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Writes chunk after chunk, from where `from` stands to the end of the file.
pub(super) async fn write_chunks(
    import: &Import<'_>,
    from: Checkpoint,
) -> Result<Checkpoint, JobError> {
    let (payload, prepared) = (import.payload, import.prepared);
    let options = ChunkOptions {
        import_id: import.ctx.job_id(),
        workspace_id: import.ctx.workspace_id(),
        on_existing: on_existing(payload, prepared),
        create_missing: payload.options.create_missing,
        batch_size: payload.options.batch_size as usize,
        dry_run: payload.options.dry_run,
    };
    let mut chunks = chunks::read_chunks(
        prepared,
        Validator::new(
            payload.entity_type,
            &prepared.mapping,
            number_format(payload, &prepared.dialect),
            payload.options.default_country.as_deref(),
        ),
        payload.entity_type,
        options.batch_size,
        Start {
            position: from.position,
            warnings: from.warnings,
        },
    );
    let committed = watch::Sender::new(0);
    let mut in_flight = FuturesOrdered::new();
    let (mut number, mut keys_before) = (0, None);
    let mut at = from;
    // Why no more chunks are begun. Those that are under way come to their end first.
    let mut unread = None;
    let is_cancelled = || import.ctx.cancelled().is_cancelled();
    loop {
        tokio::select! {
            biased;
            Some(done) = in_flight.next() => at = done?,
            work = chunks.recv(), if unread.is_none() && in_flight.len() < AT_ONCE => match work {
                _ if is_cancelled() => unread = Some(Ok(())),
                None => unread = Some(Ok(())),
                Some(Err(error)) => unread = Some(Err(unreadable(error))),
                Some(Ok(mut work)) => {
                    let keys = std::mem::take(&mut work.keys);
                    // Of those before, only the last one may be under way still.
                    let is_apart = keys_before.is_some_and(|before| !keys.may_meet(&before));
                    keys_before = Some(keys);
                    let turn = Turn { number, committed: &committed };
                    number += 1;
                    in_flight.push_back(write_chunk(import, &options, work, turn, is_apart));
                }
            },
            else => break,
        }
    }
    drop(in_flight);
    if let Some(Err(error)) = unread {
        return Err(error);
    }
    if at.position.row < prepared.census.rows {
        if is_cancelled() {
            return Err(import.interrupted(&at).await);
        }
        // The thread that reads ended without an error and without the end of the file.
        let why = "reading the file stopped half-way";
        return Err(JobError::Retry(why.to_owned()));
    }
    at.is_read = true;
    Ok(at)
}

/// The disk may be well again later; what is wrong with the text stays.
fn unreadable(error: ReadError) -> JobError {
    match error {
        ReadError::Io(_) => JobError::retry(error),
        ReadError::OpenQuote { .. }
        | ReadError::RecordTooLong { .. }
        | ReadError::FieldTooLong { .. }
        | ReadError::TooManyColumns { .. } => JobError::permanent(error),
    }
}

/// The place of a chunk in the order of commits.
#[derive(Clone, Copy)]
struct Turn<'a> {
    number: u64,
    /// How many chunks are committed.
    committed: &'a watch::Sender<u64>,
}

impl Turn<'_> {
    fn has_come(self) -> bool {
        *self.committed.borrow() >= self.number
    }

    async fn come(self) {
        // The sender is alive as long as this borrows it.
        let mut committed = self.committed.subscribe();
        let _ = committed.wait_for(|count| *count >= self.number).await;
    }

    fn pass_on(self) {
        self.committed.send_replace(self.number + 1);
    }
}

/// Writes a chunk, ahead of its turn if it may be, and commits it in its turn.
async fn write_chunk(
    import: &Import<'_>,
    options: &ChunkOptions,
    work: Work,
    turn: Turn<'_>,
    is_apart: bool,
) -> Result<Checkpoint, JobError> {
    let chunk = InFlight {
        checkpoint: Checkpoint::new(import.prepared, work.next, work.warnings, false),
        import,
        options,
        work: &work,
    };
    let mut is_written = false;
    if is_apart && !turn.has_come() {
        is_written = match chunk.write_ahead(turn).await {
            Err(JobError::LeaseLost) => return Err(JobError::LeaseLost),
            // Whatever it is, in its turn the chunk meets it again, and can say so.
            Err(_) => false,
            Ok(is_written) => is_written,
        };
    }
    if !is_written {
        turn.come().await;
        chunk.write().await?;
    }
    turn.pass_on();
    import.log_rejected(&work.chunk.rejected);
    Ok(chunk.checkpoint)
}

/// A chunk that is being written.
struct InFlight<'a> {
    import: &'a Import<'a>,
    options: &'a ChunkOptions,
    work: &'a Work,
    /// The place behind it.
    checkpoint: Checkpoint,
}

impl InFlight<'_> {
    /// Commits the chunk; tries again when the record is away or another transaction was in the
    /// way.
    async fn write(&self) -> Result<(), JobError> {
        let ctx = self.import.ctx;
        let mut delay = RETRY_DELAY;
        for retry in 0..=RETRIES {
            match self.try_write().await {
                Err(JobError::Retry(message)) if retry < RETRIES => {
                    let metadata = json!({"row": self.work.next.row, "error": message});
                    ctx.log(LogLevel::Warn, "a chunk is tried again", Some(metadata));
                    tokio::select! {
                        () = tokio::time::sleep(delay) => delay *= 2,
                        () = ctx.cancelled().cancelled() => return Err(JobError::Retry(message)),
                    }
                }
                other => return other,
            }
        }
        Ok(())
    }

    async fn try_write(&self) -> Result<(), JobError> {
        let mut begun = self.import.ctx.begin_checkpoint().await?;
        let mut shown = Shown::new(self.import);
        let chunk = &self.work.chunk;
        import_chunk::apply(begun.tx(), self.options, chunk, |rows| shown.add(rows))
            .await
            .map_err(record_error)?;
        drop(shown);
        self.commit(begun).await
    }

    /// `false`: nothing is written, and it has to wait for its turn.
    async fn write_ahead(&self, turn: Turn<'_>) -> Result<bool, JobError> {
        let Some(mut ahead) = self.import.ctx.begin_ahead().await? else {
            return Ok(false);
        };
        let mut shown = Shown::new(self.import);
        let chunk = &self.work.chunk;
        let written =
            import_chunk::write_ahead(ahead.tx(), self.options, chunk, |rows| shown.add(rows))
                .await
                .map_err(record_error)?;
        let written = match written {
            Some(written) if self.has_turn_come(turn).await => written,
            _ => {
                ahead.roll_back().await?;
                return Ok(false);
            }
        };
        let mut begun = ahead.fence().await?;
        written
            .note(begun.tx(), self.options)
            .await
            .map_err(record_error)?;
        drop(shown);
        self.commit(begun).await?;
        Ok(true)
    }

    async fn has_turn_come(&self, turn: Turn<'_>) -> bool {
        tokio::time::timeout(AHEAD_LIMIT, turn.come()).await.is_ok()
    }

    async fn commit(&self, mut begun: worker::Checkpoint) -> Result<(), JobError> {
        let import = self.import;
        // Read back instead of added up: a chunk whose commit went through unseen is not counted
        // twice.
        let counts = imports::counts(begun.tx(), self.options.import_id).await;
        let before = import.set_counts(counts.map_err(record_error)?);
        let committed = begun
            .commit(json!(self.checkpoint), import.committed())
            .await;
        match &committed {
            // What is shown goes on from the chunk that is ahead, and not back.
            Ok(()) => import.ctx.progress(import.progress()),
            Err(_) => drop(import.set_counts(before)),
        }
        committed
    }
}

/// Rows that the progress shows already, until they are committed or taken back.
struct Shown<'a> {
    import: &'a Import<'a>,
    rows: u64,
}

impl<'a> Shown<'a> {
    fn new(import: &'a Import<'a>) -> Self {
        Self { import, rows: 0 }
    }

    fn add(&mut self, rows: usize) {
        self.rows += rows as u64;
        let uncommitted = &self.import.uncommitted;
        uncommitted.fetch_add(rows as u64, Ordering::Relaxed);
        self.import.ctx.progress(self.import.progress());
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        let uncommitted = &self.import.uncommitted;
        uncommitted.fetch_sub(self.rows, Ordering::Relaxed);
    }
}
