//! Parsing and validating, beside the writing: a thread that turns the file into chunks.
//!
//! The channel holds one chunk. With the two that are being written and the one that is being
//! filled, four are in memory, whatever the size of the file.

use std::mem;

use tokio::sync::mpsc;

use super::cells::Warnings;
use super::issue::Issue;
use super::payload::EntityType;
use super::prepare::{self, Prepared};
use super::reader::{Position, ReadError, RecordReader};
use super::validate::{ValidRow, Validator};
use crate::record::import_chunk::{
    CHUNK_ROWS_MAX, Chunk, ChunkRow, Entities, Keys, RejectedRow, RowPlace,
};

/// Rows of one transaction, if the batch size does not ask for more.
///
/// The specification's batch of 100 rows is the size of an insert statement. A commit per 100 rows
/// would spend most of the time waiting for the disk, so several batches share a commit; progress
/// still moves with every batch.
pub const CHUNK_ROWS: usize = 1_000;
/// Bytes of rows after which a chunk is full, however few they are.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;
/// Chunks that wait to be written.
const CHUNKS_WAITING_MAX: usize = 1;

/// A chunk, and where the file goes on behind it.
#[derive(Debug)]
pub(super) struct Work {
    pub chunk: Chunk,
    pub keys: Keys,
    pub next: Position,
    /// Counted from the start of the file to `next`.
    pub warnings: Warnings,
}

/// Where the work starts: at the beginning, or where an earlier attempt has committed up to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub position: Position,
    pub warnings: Warnings,
}

/// Starts the thread. It ends with the file, at the first error, or when nobody listens any more.
pub(super) fn read_chunks(
    prepared: &Prepared,
    validator: Validator,
    entity: EntityType,
    batch_size: usize,
    start: Start,
) -> mpsc::Receiver<Result<Work, ReadError>> {
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
    let (text, dialect) = (prepared.text.clone(), prepared.dialect);
    // A whole number of batches, so that no statement is smaller than it need be.
    let batches = (CHUNK_ROWS / batch_size).max(1);
    let rows_max = (batches * batch_size).min(CHUNK_ROWS_MAX);
    tokio::task::spawn_blocking(move || {
        let mut filler = Filler::new(entity, validator, start.warnings);
        let mut read = || -> Result<(), ReadError> {
            let mut reader = prepare::open(&text, &dialect, start.position)?;
            while reader.advance()? {
                filler.add(&reader);
                if filler.rows() >= rows_max || filler.raw.len() >= CHUNK_BYTES {
                    let work = filler.take(reader.position());
                    if sender.blocking_send(Ok(work)).is_err() {
                        return Ok(());
                    }
                }
            }
            if filler.rows() > 0 {
                let _ = sender.blocking_send(Ok(filler.take(reader.position())));
            }
            Ok(())
        };
        if let Err(error) = read() {
            let _ = sender.blocking_send(Err(error));
        }
    });
    receiver
}

/// A chunk that is being filled.
struct Filler {
    validator: Validator,
    entities: Entities,
    rejected: Vec<RejectedRow>,
    raw: Vec<u8>,
    warnings: Warnings,
}

impl Filler {
    fn new(entity: EntityType, validator: Validator, warnings: Warnings) -> Self {
        let entities = match entity {
            EntityType::Accounts => Entities::Accounts(Vec::new()),
            EntityType::Contacts => Entities::Contacts(Vec::new()),
        };
        Self {
            validator,
            entities,
            rejected: Vec::new(),
            raw: Vec::new(),
            warnings,
        }
    }

    fn rows(&self) -> usize {
        let valid = match &self.entities {
            Entities::Accounts(rows) => rows.len(),
            Entities::Contacts(rows) => rows.len(),
        };
        valid + self.rejected.len()
    }

    fn add<R: std::io::Read>(&mut self, reader: &RecordReader<R>) {
        let from = self.raw.len();
        self.raw.extend_from_slice(reader.raw());
        let place = RowPlace {
            row_no: reader.row().cast_signed(),
            line_no: reader.line().cast_signed(),
            raw: from..self.raw.len(),
            columns: i32::try_from(reader.columns()).unwrap_or(i32::MAX),
        };
        let cells: Vec<&[u8]> = (0..reader.columns()).map(|at| reader.field(at)).collect();
        let warnings = &mut self.warnings;
        let rejected = match &mut self.entities {
            Entities::Accounts(rows) => keep(rows, place, self.validator.account(&cells, warnings)),
            Entities::Contacts(rows) => keep(rows, place, self.validator.contact(&cells, warnings)),
        };
        self.rejected.extend(rejected);
    }

    fn take(&mut self, next: Position) -> Work {
        let entities = match &mut self.entities {
            Entities::Accounts(rows) => Entities::Accounts(mem::take(rows)),
            Entities::Contacts(rows) => Entities::Contacts(mem::take(rows)),
        };
        let (rejected, raw) = (mem::take(&mut self.rejected), mem::take(&mut self.raw));
        let chunk = Chunk {
            entities,
            rejected,
            raw,
        };
        Work {
            keys: Keys::of(&chunk),
            chunk,
            next,
            warnings: self.warnings,
        }
    }
}

fn keep<T>(
    rows: &mut Vec<ChunkRow<T>>,
    place: RowPlace,
    validated: Result<ValidRow<T>, Vec<Issue>>,
) -> Option<RejectedRow> {
    match validated {
        Ok(ValidRow { entity, key }) => {
            rows.push(ChunkRow { place, key, entity });
            None
        }
        Err(issues) => reject(place, issues),
    }
}

/// The first complaint gives the code; the message has all of them.
fn reject(place: RowPlace, issues: Vec<Issue>) -> Option<RejectedRow> {
    let messages: Vec<_> = issues.iter().map(|issue| issue.message.as_str()).collect();
    let message = messages.join("; ");
    let first = issues.into_iter().next()?;
    Some(RejectedRow {
        place,
        code: first.code.as_str(),
        column: first.column,
        message,
        suggestion: first.suggestion,
    })
}
