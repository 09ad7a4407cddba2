//! What a batch of events says, job by job.
//!
//! Most events are those of our own workers, who wrote them into the record before: of their jobs
//! only what could be somebody else's doing is kept, and asked about once per batch.

use std::collections::HashMap;

use uuid::Uuid;

use super::decide::{End, Hints};
use crate::broker::event::Entry;
use crate::record::mirror::Question;

/// What events say about one job. Borrows the entries; only those that matter are read.
#[derive(Debug, Default)]
pub(super) struct Facts<'a> {
    added: Option<&'a Entry>,
    ended: Option<&'a Entry>,
    removed: bool,
    retried: bool,
    returned: bool,
    promoted: bool,
    running: bool,
    progress: Option<&'a Entry>,
}

/// The jobs of a batch.
#[derive(Debug, Default)]
pub(super) struct Touched<'a> {
    /// By their id on the wire.
    pub(super) foreign: HashMap<&'a str, Facts<'a>>,
    pub(super) own: HashMap<Uuid, Facts<'a>>,
}

/// Sorts events by job. Entries without a job, or with an id that is no text, are passed over.
pub(super) fn sort(entries: &[Entry]) -> Touched<'_> {
    let mut touched = Touched::default();
    for entry in entries {
        let Some(wire_id) = entry
            .bytes("jobId")
            .and_then(|id| std::str::from_utf8(id).ok())
        else {
            continue;
        };
        let facts = match own_id(wire_id) {
            Some(id) => touched.own.entry(id).or_default(),
            // No row can have such an id, and a question with it would be refused.
            None if wire_id.is_empty() || wire_id.contains('\0') => continue,
            None => touched.foreign.entry(wire_id).or_default(),
        };
        facts.add(entry);
    }
    touched
}

/// The id of a job of ours. Cheap: this is asked for every event.
fn own_id(wire_id: &str) -> Option<Uuid> {
    let is_ours = wire_id.len() == 36 && wire_id.as_bytes()[14] == b'7';
    is_ours.then(|| wire_id.parse().ok()).flatten()
}

impl<'a> Facts<'a> {
    fn add(&mut self, entry: &'a Entry) {
        let prev = || entry.bytes("prev").unwrap_or_default();
        match entry.name() {
            b"added" => self.added = Some(entry),
            b"active" => self.running = true,
            b"completed" | b"failed" => {
                self.ended = Some(entry);
                self.running = false;
            }
            b"removed" => self.removed = true,
            b"progress" => self.progress = Some(entry),
            b"delayed" => {
                // The first delay of a new job is not the end of an attempt.
                self.returned |= self.running || self.added.is_none();
                self.running = false;
            }
            b"waiting-children" => {
                self.returned |= self.running;
                self.running = false;
            }
            b"waiting" => {
                match prev() {
                    b"failed" | b"completed" => {
                        self.retried = true;
                        // How it ended before is of no interest any more.
                        self.ended = None;
                    }
                    b"active" => {
                        self.returned = true;
                        self.promoted = false;
                    }
                    b"delayed" => self.promoted = true,
                    _ => {}
                }
                self.running = false;
            }
            _ => {}
        }
    }

    /// When it was added, and its name, if these events say so.
    pub(super) fn added(&self) -> Option<(i64, String)> {
        let entry = self.added?;
        let at_ms = i64::try_from(entry.id.ms).unwrap_or(i64::MAX);
        Some((at_ms, entry.text("name")?.into_owned()))
    }

    /// A job that is over may be new under the same id, run again, or have been taken for removed.
    pub(super) fn may_change_what_is_over(&self, is_taken_for_removed: bool) -> bool {
        let tells_its_end = is_taken_for_removed && self.ended.is_some();
        self.added.is_some() || self.retried || tells_its_end
    }

    /// What to ask the record about a job of ours; nothing in the usual case of a new one.
    pub(super) fn question(&self) -> Option<Question> {
        if self.retried {
            Some(Question::Retried)
        } else if self.ended.is_some() || self.removed || self.returned {
            Some(Question::Ended)
        } else if self.running {
            Some(Question::Running)
        } else if self.promoted {
            Some(Question::Promoted)
        } else {
            self.progress.map(|_| Question::Progressed)
        }
    }

    pub(super) fn hints(&self) -> Hints {
        let text = |entry: &Entry, field| entry.text(field).map(|text| text.into_owned());
        let at_ms = |entry: &Entry| i64::try_from(entry.id.ms).unwrap_or(i64::MAX);
        Hints {
            ended: self.ended.map(|entry| match entry.name() {
                b"completed" => End::Completed {
                    returnvalue: text(entry, "returnvalue").unwrap_or_else(|| "null".to_owned()),
                    at_ms: at_ms(entry),
                },
                _ => End::Failed {
                    reason: text(entry, "failedReason").unwrap_or_default(),
                    at_ms: at_ms(entry),
                },
            }),
            is_removed: self.removed,
            is_retried: self.retried,
            is_promoted: self.promoted,
            progress: self.progress.and_then(|entry| text(entry, "data")),
        }
    }
}
