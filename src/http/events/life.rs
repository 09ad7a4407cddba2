//! What happened to a job, told from how it stood and how it stands now. Pure.
//!
//! Hints, from Redis or elsewhere, say that a job is worth a look. What is told of it is worked out
//! from rows of the record alone, so nothing is told that the record does not say: a job of which
//! Redis speaks too early is looked at again.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use chrono::{DateTime, Utc};

use crate::job::Status;
use crate::record::events::JobState;

/// What happened to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Happened {
    Accepted,
    Started,
    Progress,
    /// It waits (again) without a failure: put off, given back, or due at another time.
    Waiting,
    Failed,
    Completed,
    DeadLetter,
    Cancelled,
    Retried,
    Deleted,
}

impl Happened {
    /// The name of the event.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Started => "started",
            Self::Progress => "progress",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Completed => "completed",
            Self::DeadLetter => "dead_letter",
            Self::Cancelled => "cancelled",
            Self::Retried => "retried",
            Self::Deleted => "deleted",
        }
    }

    /// The moment of it, as far as the row tells.
    pub(super) fn at(self, job: &JobState) -> DateTime<Utc> {
        let moment = match self {
            Self::Accepted => Some(job.created_at),
            Self::Started => job.started_at,
            Self::Completed | Self::Cancelled => job.completed_at,
            Self::Failed | Self::DeadLetter => job.failed_at,
            Self::Progress | Self::Waiting | Self::Retried | Self::Deleted => None,
        };
        moment.unwrap_or(job.read_at)
    }
}

/// What somebody said of a job. It decides where to look, and whether to look again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Hint {
    pub(super) added: bool,
    pub(super) started: bool,
    /// For good.
    pub(super) ended: bool,
    /// It waits, for whatever reason.
    pub(super) waits: bool,
    pub(super) removed: bool,
    pub(super) retried: bool,
    pub(super) progressed: bool,
    /// Somebody gave it another time.
    pub(super) moved: bool,
}

impl Hint {
    pub(super) fn merge(&mut self, other: Self) {
        self.added |= other.added;
        self.started |= other.started;
        self.ended |= other.ended;
        self.waits |= other.waits;
        self.removed |= other.removed;
        self.retried |= other.retried;
        self.progressed |= other.progressed;
        self.moved |= other.moved;
    }
}

/// How a job stood when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stood {
    status: Status,
    attempt: i32,
    attempts: i32,
    started_at: Option<DateTime<Utc>>,
    /// When it may start (again), while it waits.
    due_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
    progress: Option<u64>,
    is_deleted: bool,
}

impl Stood {
    /// None: a status that this program does not know.
    pub(super) fn of(job: &JobState) -> Option<Self> {
        let status = job.status.parse().ok()?;
        Some(Self {
            status,
            attempt: job.attempt,
            attempts: job.attempts,
            started_at: job.started_at,
            due_at: match status {
                Status::Pending => job.scheduled_for,
                Status::Failed => job.next_retry_at,
                Status::Processing | Status::Completed | Status::DeadLetter | Status::Cancelled => {
                    None
                }
            },
            ended_at: match status {
                Status::Completed | Status::Cancelled => job.completed_at,
                Status::Failed | Status::DeadLetter => job.failed_at,
                Status::Pending | Status::Processing => None,
            },
            progress: job.progress.as_ref().and_then(fingerprint),
            is_deleted: job.is_deleted,
        })
    }

    /// The number of the newest start.
    pub(super) fn attempt(&self) -> i32 {
        self.attempt
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_deleted || self.status.is_final()
    }

    /// Whether the record is as far as the hint says.
    pub(super) fn is_as_far_as(&self, hint: Hint, before: Option<&Self>) -> bool {
        if self.is_deleted {
            return true;
        }
        let is_as_before = before.is_none_or(|before| before == self);
        if hint.retried && !hint.ended && self.is_over() && is_as_before {
            return false;
        }
        if self.is_over() {
            return true;
        }
        let has_begun = self.status == Status::Processing
            || before.map_or(self.attempt > 0, |before| self.attempt > before.attempt);
        !(hint.ended || hint.removed)
            && (has_begun || !hint.started)
            && (self.status != Status::Processing || !hint.waits)
    }

    /// Whether progress that was spoken of is not there. Of a foreign worker the record learns it
    /// later; else it was seen before it was spoken of.
    pub(super) fn lacks_progress(&self, hint: Hint, before: Option<&Self>) -> bool {
        let is_old = before.is_some_and(|before| before.progress == self.progress);
        hint.progressed && is_old && self.status == Status::Processing
    }
}

/// None for the empty object, which every job begins with.
fn fingerprint(progress: &serde_json::Value) -> Option<u64> {
    let is_empty = progress.as_object().is_some_and(serde_json::Map::is_empty);
    (!is_empty && !progress.is_null()).then(|| {
        let mut hasher = DefaultHasher::new();
        progress.to_string().hash(&mut hasher);
        hasher.finish()
    })
}

/// What happened since, in its order. Without a `before`, what the hint says and the row confirms.
///
/// Two things of a kind that nobody looked between are told once: a job that failed and runs again
/// has `failed` and `started`, however often it did.
pub(super) fn since(before: Option<&Stood>, now: &Stood, hint: Hint) -> Vec<Happened> {
    match before {
        Some(before) => between(before, now),
        None => at_first_sight(now, hint),
    }
}

fn between(before: &Stood, now: &Stood) -> Vec<Happened> {
    if now.is_deleted {
        let is_news = !before.is_deleted;
        return is_news.then_some(Happened::Deleted).into_iter().collect();
    }
    let mut happened = Vec::new();
    let has_ended_anew = now.status != before.status || now.ended_at != before.ended_at;
    let was_retried = before.status.is_final() && has_ended_anew;
    if was_retried {
        happened.push(Happened::Retried);
    }
    let is_newer = now.attempt > before.attempt && now.started_at.is_some();
    let has_begun = (is_newer && now.started_at != before.started_at)
        || (now.status == Status::Processing && before.status != Status::Processing);
    let counted = if was_retried { 0 } else { before.attempts };
    let failed_between =
        now.attempts > counted && !matches!(now.status, Status::Failed | Status::DeadLetter);
    if failed_between {
        if before.status != Status::Processing {
            happened.push(Happened::Started);
        }
        happened.push(Happened::Failed);
    }
    if has_begun && !(failed_between && now.status == Status::Pending) {
        happened.push(Happened::Started);
    }
    if now.status == Status::Processing && now.progress.is_some() && now.progress != before.progress
    {
        happened.push(Happened::Progress);
    }
    match now.status {
        Status::Processing => {}
        Status::Pending => {
            let is_moved = before.status != Status::Pending || now.due_at != before.due_at;
            if !was_retried && (is_moved || has_begun) {
                happened.push(Happened::Waiting);
            }
        }
        Status::Failed | Status::Completed | Status::DeadLetter | Status::Cancelled => {
            if has_ended_anew {
                happened.extend(outcome(now.status));
            } else if now.due_at != before.due_at {
                happened.push(Happened::Waiting);
            }
        }
    }
    happened
}

fn at_first_sight(now: &Stood, hint: Hint) -> Vec<Happened> {
    if now.is_deleted {
        return vec![Happened::Deleted];
    }
    let mut happened = Vec::new();
    // One that was put back into Redis, or is run again, has been started before.
    let is_new = now.attempt == 0 || (now.attempt == 1 && now.status != Status::Pending);
    if hint.retried {
        let is_true = !now.status.is_final() || hint.started || hint.ended;
        happened.extend(is_true.then_some(Happened::Retried));
    } else if hint.added && is_new {
        happened.push(Happened::Accepted);
    }
    let has_begun = now.started_at.is_some() || now.status == Status::Processing;
    if hint.started && has_begun {
        happened.push(Happened::Started);
    }
    let is_told = match now.status {
        Status::Pending => {
            if (hint.waits || hint.moved) && happened.is_empty() {
                happened.push(Happened::Waiting);
            }
            false
        }
        Status::Processing => {
            if hint.progressed && now.progress.is_some() {
                happened.push(Happened::Progress);
            }
            false
        }
        Status::Failed if hint.moved => {
            happened.push(Happened::Waiting);
            false
        }
        Status::Failed => hint.waits || hint.added,
        Status::Completed | Status::DeadLetter => hint.ended || hint.added,
        // Redis is cleaned of jobs that ended long ago, too.
        Status::Cancelled => hint.removed || hint.added,
    };
    if is_told {
        happened.extend(outcome(now.status));
    }
    happened
}

fn outcome(status: Status) -> Option<Happened> {
    match status {
        Status::Failed => Some(Happened::Failed),
        Status::Completed => Some(Happened::Completed),
        Status::DeadLetter => Some(Happened::DeadLetter),
        Status::Cancelled => Some(Happened::Cancelled),
        Status::Pending | Status::Processing => None,
    }
}

#[cfg(test)]
mod tests;
