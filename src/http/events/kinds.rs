//! What is sent: one variant per kind of event, as the `data` of each. Its `type` is the name of
//! the event as well.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::life::Happened;
use crate::record::events::{JobState, Line};

/// The data of an event. Clients should pass over kinds that they do not know.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum LiveEvent<'a> {
    /// A new job.
    Accepted(JobEvent<'a>),
    Started(JobEvent<'a>),
    Progress(JobEvent<'a>),
    /// It waits (again) without a failure: put off, given back, or due at another time.
    Waiting(JobEvent<'a>),
    /// An attempt failed; the next one is at `next_retry_at`.
    Failed(JobEvent<'a>),
    Completed(JobEvent<'a>),
    DeadLetter(JobEvent<'a>),
    Cancelled(JobEvent<'a>),
    /// Somebody gave it another run, or took back that it was cancelled.
    Retried(JobEvent<'a>),
    Deleted(JobEvent<'a>),
    Log(LogEvent<'a>),
    Changed(Changed),
    Stats(Counts),
    Snapshot(Snapshot<'a>),
    End(EndEvent),
}

impl<'a> LiveEvent<'a> {
    /// What happened to a job.
    pub(super) fn of_job(happened: Happened, job: &'a JobState) -> Self {
        let at = happened.at(job);
        let event = JobEvent { at, job };
        match happened {
            Happened::Accepted => Self::Accepted(event),
            Happened::Started => Self::Started(event),
            Happened::Progress => Self::Progress(event),
            Happened::Waiting => Self::Waiting(event),
            Happened::Failed => Self::Failed(event),
            Happened::Completed => Self::Completed(event),
            Happened::DeadLetter => Self::DeadLetter(event),
            Happened::Cancelled => Self::Cancelled(event),
            Happened::Retried => Self::Retried(event),
            Happened::Deleted => Self::Deleted(event),
        }
    }

    /// The name of the event.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::Started(_) => "started",
            Self::Progress(_) => "progress",
            Self::Waiting(_) => "waiting",
            Self::Failed(_) => "failed",
            Self::Completed(_) => "completed",
            Self::DeadLetter(_) => "dead_letter",
            Self::Cancelled(_) => "cancelled",
            Self::Retried(_) => "retried",
            Self::Deleted(_) => "deleted",
            Self::Log(_) => "log",
            Self::Changed(_) => "changed",
            Self::Stats(_) => "stats",
            Self::Snapshot(_) => "snapshot",
            Self::End(_) => "end",
        }
    }

    /// JSON text. What can not be written so does not exist among these types.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| {
            tracing::error!(%error, "an event that is no JSON");
            "{}".to_owned()
        })
    }
}

/// Something happened to a job.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobEvent<'a> {
    /// When it happened, or else when it was seen.
    at: DateTime<Utc>,
    /// How the job stands now, which may be further already.
    job: &'a JobState,
}

/// A job wrote a line into its log. Only its own stream has it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LogEvent<'a> {
    pub(super) job_id: Uuid,
    pub(super) log: &'a Line,
}

/// More happened than is told one by one: read again what you show.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct Changed {
    /// Jobs of which it is known.
    pub(super) jobs: u64,
    /// What happened to them, and how often.
    pub(super) happened: BTreeMap<&'static str, u64>,
    /// False: there may be more of them.
    pub(super) is_complete: bool,
}

/// Jobs of a queue.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = LiveDepth)]
pub(super) struct Depth {
    /// Waiting to run: new, delayed, or between two attempts.
    pub(super) depth: i64,
    pub(super) processing: i64,
}

/// How much there is to do in a workspace; told when it changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = LiveCounts)]
pub(super) struct Counts {
    pub(super) queue_depth: i64,
    pub(super) processing: i64,
    /// Open jobs and dead letters.
    pub(super) by_status: BTreeMap<String, i64>,
    pub(super) queues: BTreeMap<String, Depth>,
    /// False: there are more than are counted.
    pub(super) is_exact: bool,
    /// Of the last five minutes.
    pub(super) throughput_per_minute: f64,
}

/// Why a listener begins (again) with a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SnapshotReason)]
pub(super) enum Why {
    /// It named no event to go on from.
    Began,
    /// What came after the event that it named is not there any more, or never was here.
    TooLate,
    /// It read too slowly, or the server itself missed something.
    Gap,
}

/// The present state: whatever was known before is to be replaced by it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Snapshot<'a> {
    /// Always true.
    pub(super) reset: bool,
    pub(super) reason: Why,
    #[serde(flatten)]
    pub(super) present: &'a Present,
}

/// What a snapshot shows.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Present {
    Workspace {
        stats: Counts,
        /// Those that changed last, the last one first.
        jobs: Vec<JobState>,
    },
    Job {
        /// None: it was deleted.
        job: Option<Box<JobState>>,
        /// The newest lines, the oldest of them first.
        logs: Vec<Line>,
    },
}

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = EndReason)]
pub(super) enum WhyEnd {
    /// The job is over, and all of it was told.
    JobOver,
    /// The key or the token is not good any more, or the membership is gone.
    AccessEnded,
    /// The server stops. Another one goes on.
    Stopping,
}

/// The last event of a stream that the server ends.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EndEvent {
    pub(super) reason: WhyEnd,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_an_event_is_its_name() {
        for event in [
            LiveEvent::Changed(Changed::default()),
            LiveEvent::Stats(Counts::default()),
            LiveEvent::End(EndEvent {
                reason: WhyEnd::JobOver,
            }),
        ] {
            let data: serde_json::Value = serde_json::from_str(&event.json()).unwrap();
            assert_eq!(data["type"], event.name());
        }
    }
}
