//! How far a `cleanup_data` job is, and what it comes to.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::job::Progress;
use crate::job::retention::Retention;
use crate::record::cleanup::{Jobs, Rows};

/// Raised when a checkpoint of an older program could be misread.
const VERSION: u32 = 1;

/// What is looked through, in this order: the lines of a job before the job, so that a dry run
/// counts what a real one removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    Logs,
    Jobs,
    Exports,
    Deliveries,
}

const STAGES: u64 = 4;

impl Stage {
    fn next(self) -> Option<Self> {
        match self {
            Self::Logs => Some(Self::Jobs),
            Self::Jobs => Some(Self::Exports),
            Self::Exports => Some(Self::Deliveries),
            Self::Deliveries => None,
        }
    }
}

/// What was removed, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub completed_jobs: u64,
    pub cancelled_jobs: u64,
    pub dead_letters: u64,
    /// Of jobs that stay, and of those that went afterwards.
    pub job_logs: u64,
    pub exports: u64,
    pub export_bytes: u64,
    pub webhook_deliveries: u64,
}

/// What a page came to.
pub(super) enum Part {
    Logs(Rows),
    Jobs(Jobs),
    Exports(Rows),
    Deliveries(Rows),
}

/// The checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    pub(super) retention: Retention,
    pub(super) at: DateTime<Utc>,
    pub(super) is_dry: bool,
    /// None: it is done.
    pub(super) stage: Option<Stage>,
    pub(super) after: Uuid,
    counts: Counts,
    needed: u64,
}

impl State {
    pub(super) fn new(retention: Retention, at: DateTime<Utc>, is_dry: bool) -> Self {
        Self {
            version: VERSION,
            retention,
            at,
            is_dry,
            stage: Some(Stage::Logs),
            after: Uuid::nil(),
            counts: Counts::default(),
            needed: 0,
        }
    }

    pub(super) fn read(checkpoint: &serde_json::Value) -> Option<Self> {
        let state = Self::deserialize(checkpoint).ok()?;
        (state.version == VERSION).then_some(state)
    }

    pub(super) fn write(&self) -> serde_json::Value {
        serde_json::json!(self)
    }

    /// Counts a page and goes on behind it; what it removed, by name.
    pub(super) fn add(&mut self, part: Part) -> Vec<(&'static str, u64)> {
        let counts = &mut self.counts;
        let (removed, next) = match part {
            Part::Logs(rows) => {
                counts.job_logs += rows.count;
                (vec![("job_logs", rows.count)], rows.next)
            }
            Part::Jobs(jobs) => {
                counts.completed_jobs += jobs.completed;
                counts.cancelled_jobs += jobs.cancelled;
                counts.dead_letters += jobs.dead;
                self.needed += jobs.needed;
                let removed = vec![
                    ("completed_jobs", jobs.completed),
                    ("cancelled_jobs", jobs.cancelled),
                    ("dead_letters", jobs.dead),
                ];
                (removed, jobs.next)
            }
            Part::Exports(rows) => {
                counts.exports += rows.count;
                counts.export_bytes += rows.bytes;
                (vec![("exports", rows.count)], rows.next)
            }
            Part::Deliveries(rows) => {
                counts.webhook_deliveries += rows.count;
                (vec![("webhook_deliveries", rows.count)], rows.next)
            }
        };
        match next {
            Some(after) => self.after = after,
            None => {
                self.stage = self.stage.and_then(Stage::next);
                self.after = Uuid::nil();
            }
        }
        removed
    }

    fn jobs(&self) -> u64 {
        let counts = &self.counts;
        counts.completed_jobs + counts.cancelled_jobs + counts.dead_letters
    }

    pub(super) fn message(&self) -> String {
        let counts = &self.counts;
        let verb = if self.is_dry { "would go" } else { "gone" };
        format!(
            "{verb}: {} jobs, {} log lines, {} files, {} deliveries",
            self.jobs(),
            counts.job_logs,
            counts.exports,
            counts.webhook_deliveries
        )
    }

    /// How many there are is not known before; how many kinds are.
    pub(super) fn progress(&self) -> Progress {
        let done = self.stage.map_or(STAGES, |stage| stage as u64);
        Progress::new(STAGES, done, 0, self.message())
    }

    pub(super) fn summary(self) -> Summary {
        Summary {
            dry_run: self.is_dry,
            retention: self.retention,
            counted_from: self.at,
            removed: self.counts,
            kept_for_open_parents: self.needed,
        }
    }
}

/// The result of the job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Nothing was removed: `removed` is what would go.
    pub dry_run: bool,
    pub retention: Retention,
    /// Ages are counted back from here.
    pub counted_from: DateTime<Utc>,
    pub removed: Counts,
    /// Old enough, but a parent that is not over needs what they came to.
    pub kept_for_open_parents: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_goes_through_all_kinds_and_counts_each_page_once() {
        let retention = Retention {
            exports: Some(1),
            ..Retention::default()
        };
        let mut state = State::new(retention, DateTime::UNIX_EPOCH, false);
        let page = |count, next| Rows {
            count,
            bytes: 10 * count,
            next,
        };
        let here = Uuid::from_u128(7);
        assert_eq!(
            state.add(Part::Logs(page(2, Some(here)))),
            [("job_logs", 2)]
        );
        assert_eq!((state.stage, state.after), (Some(Stage::Logs), here));
        assert_eq!(State::read(&state.write()), Some(state.clone()));
        state.add(Part::Logs(page(1, None)));
        state.add(Part::Jobs(Jobs {
            completed: 3,
            needed: 1,
            ..Jobs::default()
        }));
        state.add(Part::Exports(page(4, None)));
        assert_eq!(
            (state.stage, state.after),
            (Some(Stage::Deliveries), Uuid::nil())
        );
        assert_eq!(state.progress().percentage, 75.0);
        state.add(Part::Deliveries(page(5, None)));
        assert_eq!((state.stage, state.progress().percentage), (None, 100.0));
        let summary = state.summary();
        let removed = summary.removed;
        assert_eq!((removed.job_logs, removed.completed_jobs), (3, 3));
        assert_eq!((removed.exports, removed.export_bytes), (4, 40));
        assert_eq!(
            (removed.webhook_deliveries, summary.kept_for_open_parents),
            (5, 1)
        );
    }
}
