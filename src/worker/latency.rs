//! How long jobs waited, ran, and took in all: histograms of this process.
//!
//! A job could have started at the time that stands in it: the record's, or that of the client who
//! added it. It was claimed by the clock of Redis; from there on a clock counts that only goes
//! forward. What this machine takes for the time is in none of the figures.

use std::time::Duration;

use metrics::SharedString;

use crate::broker::ClaimedJob;
use crate::job::Event;
use crate::job::wire::ClaimedOptions;

/// From when a job could have started to when it was claimed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Latency {
    due_to_claim: Duration,
    /// Its first start, which waited for nothing but its turn.
    is_wait: bool,
}

impl Latency {
    /// Of a job that was claimed at `now_ms`.
    pub(super) fn new(job: &ClaimedJob, options: &ClaimedOptions, now_ms: i64) -> Self {
        // The delay that it was added with: the hash forgets it when the job is promoted.
        let delay_ms = i64::try_from(options.delay_ms).unwrap_or(i64::MAX);
        let due_ms = job.timestamp_ms.saturating_add(delay_ms);
        let waited_ms = u64::try_from(now_ms.saturating_sub(due_ms)).unwrap_or(0);
        let is_first = job.attempts_started == 1 && job.attempts_made == 0;
        // A parent waits for its children, which says nothing of the queue.
        let is_parent = options.envelope.as_ref().is_some_and(|own| own.is_parent);
        Self {
            due_to_claim: Duration::from_millis(waited_ms),
            is_wait: is_first && !is_parent,
        }
    }

    /// The handler ran for so long.
    pub(super) fn note_run(&self, job_type: &SharedString, ran: Duration) {
        let labelled = || job_type.clone();
        if self.is_wait {
            metrics::histogram!("bullwark_wait_seconds", "job_type" => labelled())
                .record(self.due_to_claim.as_secs_f64());
        }
        metrics::histogram!("bullwark_run_seconds", "job_type" => labelled())
            .record(ran.as_secs_f64());
    }

    /// The run, of this length, ended like that. Only the last one of a job tells its whole time.
    pub(super) fn note_end(&self, job_type: &SharedString, ran: Duration, event: Event) {
        let is_last = match event {
            Event::Succeeded
            | Event::Errored {
                retries_left: false,
            }
            | Event::Discarded => true,
            Event::Claimed
            | Event::Errored { retries_left: true }
            | Event::Snoozed
            | Event::Released
            | Event::Cancelled
            | Event::Retried
            | Event::Undone { .. } => false,
        };
        if is_last {
            metrics::histogram!("bullwark_total_seconds", "job_type" => job_type.clone())
                .record((self.due_to_claim + ran).as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::wire::read_options;

    #[test]
    fn a_wait_begins_when_the_job_could_have_started() {
        let job = ClaimedJob {
            timestamp_ms: 1_000,
            attempts_started: 1,
            ..ClaimedJob::default()
        };
        let of = |job: &ClaimedJob, opts: &str, now_ms| {
            let latency = Latency::new(job, &read_options(opts), now_ms);
            (latency.due_to_claim.as_millis(), latency.is_wait)
        };
        assert_eq!(of(&job, "{}", 1_250), (250, true));
        assert_eq!(of(&job, r#"{"delay":5000}"#, 6_100), (100, true));
        // Promoted by hand, or by a clock that was set back.
        assert_eq!(of(&job, r#"{"delay":5000}"#, 2_000), (0, true));
        assert_eq!(of(&job, r#"{"delay":"soon"}"#, 1_250), (250, true));
        assert_eq!(of(&job, r#"{"delay":1e300}"#, 1_250), (0, true));
        let parent = r#"{"bullwark":{"pa":true}}"#;
        assert_eq!(of(&job, parent, 1_250), (250, false));
        let again = ClaimedJob {
            attempts_started: 2,
            attempts_made: 1,
            ..job
        };
        assert_eq!(of(&again, "{}", 61_000), (60_000, false));
    }
}
