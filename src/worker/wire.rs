//! A claimed job as Redis has it, kept with the run: for `BullMQ`'s jobs their options decide what
//! becomes of them, and a forwarded job is delivered with all of it.

use super::options::Manners;
use crate::broker::ClaimedJob;
use crate::job::wire::ClaimedOptions;
use crate::job::{ForeignOptions, RetryRule};
use crate::settle::Manner;

/// The job, and what its options say.
#[derive(Debug)]
pub struct Wire {
    pub job: ClaimedJob,
    pub(super) options: ForeignOptions,
    /// Bullwark added it, and its record has the rules.
    pub(super) is_own: bool,
    /// Redis has to agree before it completes: children of its own may be open there, or have
    /// failed. Every other job of the record completes whether Redis is there or not.
    pub(super) may_have_children: bool,
}

impl Wire {
    pub(super) fn new(job: ClaimedJob, claimed: &ClaimedOptions) -> Self {
        Self {
            options: ForeignOptions::read(&job.opts),
            is_own: claimed.envelope.is_some(),
            may_have_children: claimed.envelope.as_ref().is_none_or(|own| own.is_parent),
            job,
        }
    }

    /// The rule for the ending of an attempt of a foreign job: its options name its delays. Redis
    /// counts its failures, unless it was not told of one that the record has. `max_attempts` are
    /// the retries that the record allows.
    pub(super) fn retry_rule(&self, recorded: u32, max_attempts: u32) -> RetryRule {
        RetryRule {
            attempts: self.job.attempts_made.max(recorded).min(max_attempts),
            max_attempts,
            retry_delay_seconds: 0,
            backoff: Some(
                self.options
                    .backoff
                    .clone()
                    .unwrap_or(crate::job::Backoff::None),
            ),
        }
    }

    /// How Redis is told of the end; none: in Bullwark's own way.
    pub(super) fn manner(&self, manners: Option<&Manners>) -> Option<Box<Manner>> {
        if self.is_own && manners.is_none() {
            return None;
        }
        let manner = Manner::of(
            &self.options,
            manners.and_then(|m| m.keep_completed),
            manners.and_then(|m| m.keep_failed),
            self.job.stacktrace.clone(),
        );
        Some(Box::new(manner))
    }
}
