//! How an attempt ends, and what that makes of the job.
//!
//! One pure function, [`Ending::settle`], maps every way a handler can end to the row that the
//! record gets and the step that Redis is told. Lua and SQL only carry it out.

use std::time::Duration;

use super::backoff::{self, Backoff};
use super::request::DELAY_MAX_MS;
use super::status::{Event, Status};

/// What the record keeps of an error text, in characters. Longer texts are cut.
pub const ERROR_MESSAGE_MAX: usize = 8 * 1024;

/// The longest that one answer may close a queue.
const LIMIT_MAX: Duration = Duration::from_secs(3600);
/// The longest that a handler may put a job off. Longer delays are cut.
const DELAY_MAX: Duration = Duration::from_millis(DELAY_MAX_MS);

/// The error of a handler: what went wrong, and what that means for the job.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum JobError {
    /// Try again after the job's backoff. The attempt counts.
    #[error("{0}")]
    Retry(String),
    /// Try again after exactly this time (a provider's `Retry-After`). The attempt counts.
    #[error("{1}")]
    RetryAfter(Duration, String),
    /// Run later without spending an attempt (a quota is used up).
    #[error("{1}")]
    Snooze(Duration, String),
    /// No retry can help: straight to the dead letter queue.
    #[error("{0}")]
    Permanent(String),
    /// What a worker in another language reports, with its own stack trace.
    #[error("{}", .0.message)]
    Reported(Box<Report>),
    /// Whoever ran the job has moved it in Redis itself (delayed it, put it back, made it wait for
    /// children): the attempt is over, its failure is not counted, and Redis needs no word of it.
    #[error("the job was moved while it ran")]
    Moved,
    /// A rate limit was met: back to the front of the queue, no attempt spent. With a time, no
    /// worker of Bullwark starts anything of the queue so long; without, as long as a limiter that
    /// is set there says, else for a second.
    #[error("bullmq:rateLimitExceeded")]
    RateLimited(Option<Duration>),
    /// The job belongs to another worker or is over: nothing may be written any more.
    #[error("the lease of this attempt is lost")]
    LeaseLost,
}

/// The failure of an attempt as a foreign worker describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    pub message: String,
    pub stack: Option<String>,
    pub retry: RetryWish,
}

/// What the one who failed wants to happen next. Nobody gets more retries than the job has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryWish {
    /// After the job's own backoff.
    Backoff,
    After(Duration),
    Never,
}

impl JobError {
    pub fn retry(error: impl std::fmt::Display) -> Self {
        Self::Retry(error.to_string())
    }

    pub fn permanent(error: impl std::fmt::Display) -> Self {
        Self::Permanent(error.to_string())
    }
}

/// Every way an attempt can end.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// The handler returned this JSON text.
    Value(String),
    Error(JobError),
    Panic(String),
    /// The time of its type ran out.
    Timeout(Duration),
    /// The worker shuts down before the handler was done.
    Interrupted,
}

/// What the decision needs to know about the job.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryRule {
    /// Failures counted before this attempt.
    pub attempts: u32,
    /// Retries allowed.
    pub max_attempts: u32,
    pub retry_delay_seconds: i32,
    pub backoff: Option<Backoff>,
}

/// What an ending makes of the job.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub event: Event,
    /// The result as JSON text, only when completed.
    pub result: Option<String>,
    /// Why the attempt did not complete.
    pub error: Option<String>,
    /// How long until the job may run again; only when it will.
    pub delay: Duration,
    /// `jobs.attempts` after this.
    pub attempts: u32,
    /// Where it failed, when the handler says so.
    pub stack: Option<String>,
    pub telling: Telling,
}

/// What Redis needs to hear of an outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Telling {
    /// What the event says.
    #[default]
    Event,
    /// Nothing: the job was moved there already.
    Nothing,
    /// It goes back, and the queue starts nothing for this time; none: whatever limit is set there.
    Limit(Option<Duration>),
}

impl Outcome {
    /// The status that the job gets: it was running, so this can not be refused.
    pub fn status(&self) -> Status {
        Status::Processing
            .next(self.event)
            .unwrap_or(Status::DeadLetter)
    }

    /// What Redis must be told of a job that is over by the record.
    pub fn recorded(status: Status, result: Option<String>, error: Option<String>) -> Self {
        let event = match status {
            Status::Completed => Event::Succeeded,
            Status::Cancelled => Event::Cancelled,
            Status::DeadLetter | Status::Failed | Status::Pending | Status::Processing => {
                Event::Discarded
            }
        };
        Self {
            event,
            result,
            error,
            delay: Duration::ZERO,
            attempts: 0,
            stack: None,
            telling: Telling::Event,
        }
    }
}

impl Ending {
    /// Decides. `random` is in `0.0..1.0` and made by the caller. `None` means that this worker
    /// has no say any more: the lease is lost, and whoever holds it now decides.
    pub fn settle(self, rule: &RetryRule, random: f64) -> Option<Outcome> {
        let (error, wished) = match self {
            Self::Value(result) => {
                return Some(Outcome {
                    event: Event::Succeeded,
                    result: Some(result),
                    error: None,
                    delay: Duration::ZERO,
                    attempts: rule.attempts,
                    stack: None,
                    telling: Telling::Event,
                });
            }
            Self::Error(JobError::LeaseLost) => return None,
            Self::Error(JobError::Moved) => {
                let why = JobError::Moved.to_string();
                let mut moved = without_retry(Event::Released, why, Duration::ZERO, rule);
                moved.telling = Telling::Nothing;
                return Some(moved);
            }
            Self::Error(JobError::RateLimited(pause)) => {
                let why = "rate limit met".to_owned();
                let mut limited = without_retry(Event::Released, why, Duration::ZERO, rule);
                // A time that is over already says no more than none.
                let pause = pause.filter(|pause| !pause.is_zero());
                limited.telling = Telling::Limit(pause.map(|pause| pause.min(LIMIT_MAX)));
                return Some(limited);
            }
            Self::Error(JobError::Reported(report)) => {
                let Report {
                    message,
                    stack,
                    retry,
                } = *report;
                let plain = match retry {
                    RetryWish::Backoff => JobError::Retry(message),
                    RetryWish::After(delay) => JobError::RetryAfter(delay, message),
                    RetryWish::Never => JobError::Permanent(message),
                };
                let mut outcome = Self::Error(plain).settle(rule, random)?;
                outcome.stack = stack.map(cut);
                return Some(outcome);
            }
            Self::Error(JobError::Permanent(why)) => {
                return Some(without_retry(Event::Discarded, why, Duration::ZERO, rule));
            }
            Self::Error(JobError::Snooze(delay, why)) => {
                return Some(without_retry(Event::Snoozed, why, delay, rule));
            }
            Self::Interrupted => {
                let why = "interrupted by a shutdown".to_owned();
                return Some(without_retry(Event::Released, why, Duration::ZERO, rule));
            }
            Self::Error(JobError::Retry(why)) => (why, None),
            Self::Error(JobError::RetryAfter(delay, why)) => (why, Some(delay)),
            Self::Panic(why) => (format!("panic: {why}"), None),
            Self::Timeout(limit) => (format!("timeout after {} s", limit.as_secs_f64()), None),
        };

        let retries_left = rule.attempts < rule.max_attempts;
        let delay = match (retries_left, wished, &rule.backoff) {
            (false, _, _) => Duration::ZERO,
            (true, Some(delay), _) => delay,
            (true, None, Some(backoff)) => backoff.delay(rule.attempts, random),
            (true, None, None) => {
                backoff::specified_delay(rule.retry_delay_seconds, rule.attempts, random)
            }
        };
        Some(Outcome {
            event: Event::Errored { retries_left },
            result: None,
            error: Some(cut(error)),
            delay: delay.min(DELAY_MAX),
            attempts: rule.attempts + u32::from(retries_left),
            stack: None,
            telling: Telling::Event,
        })
    }
}

fn without_retry(event: Event, why: String, delay: Duration, rule: &RetryRule) -> Outcome {
    let error = Some(cut(why));
    Outcome {
        event,
        result: None,
        error,
        delay: delay.min(DELAY_MAX),
        attempts: rule.attempts,
        stack: None,
        telling: Telling::Event,
    }
}

/// Cuts a long text, and replaces the one character that PostgreSQL's text can not hold.
fn cut(text: String) -> String {
    text.chars()
        .take(ERROR_MESSAGE_MAX)
        .map(|c| if c == '\0' { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(attempts: u32) -> RetryRule {
        RetryRule {
            attempts,
            max_attempts: 5,
            retry_delay_seconds: 60,
            backoff: None,
        }
    }

    #[test]
    fn a_job_goes_to_the_dead_letter_queue_when_it_fails_more_than_max_attempts_times() {
        let mut attempts = 0;
        for run in 1..=6 {
            let outcome = Ending::Error(JobError::retry("boom"))
                .settle(&rule(attempts), 0.0)
                .unwrap();
            attempts = outcome.attempts;
            if run <= 5 {
                assert_eq!(outcome.status(), Status::Failed);
                assert_eq!(outcome.delay.as_secs(), (60 << (run - 1)).min(3600));
            } else {
                assert_eq!(outcome.status(), Status::DeadLetter);
            }
            assert!(attempts <= 5);
        }
    }

    #[test]
    fn a_snooze_and_a_shutdown_spend_no_attempt() {
        let snooze = JobError::Snooze(Duration::from_secs(7), "quota".into());
        let snoozed = Ending::Error(snooze).settle(&rule(2), 0.0).unwrap();
        assert_eq!((snoozed.status(), snoozed.attempts), (Status::Pending, 2));
        assert_eq!(snoozed.delay.as_secs(), 7);
        let interrupted = Ending::Interrupted.settle(&rule(2), 0.0).unwrap();
        assert_eq!(
            (interrupted.status(), interrupted.attempts),
            (Status::Pending, 2)
        );
    }

    #[test]
    fn a_provider_may_name_the_delay_but_not_more_attempts() {
        let error = JobError::RetryAfter(Duration::from_secs(3), "429".into());
        let outcome = Ending::Error(error.clone()).settle(&rule(0), 0.9).unwrap();
        assert_eq!(outcome.delay.as_secs(), 3);
        assert_eq!(
            Ending::Error(error).settle(&rule(5), 0.9).unwrap().status(),
            Status::DeadLetter
        );
    }

    #[test]
    fn a_rate_limit_without_a_time_to_come_names_none() {
        let settle = |pause| {
            let ending = Ending::Error(JobError::RateLimited(pause));
            let limited = ending.settle(&rule(2), 0.0).unwrap();
            assert_eq!((limited.status(), limited.attempts), (Status::Pending, 2));
            limited.telling
        };
        assert_eq!(settle(None), Telling::Limit(None));
        assert_eq!(settle(Some(Duration::ZERO)), Telling::Limit(None));
        let soon = Duration::from_millis(5);
        assert_eq!(settle(Some(soon)), Telling::Limit(Some(soon)));
        let day = Duration::from_secs(86_400);
        assert_eq!(settle(Some(day)), Telling::Limit(Some(LIMIT_MAX)));
    }

    #[test]
    fn a_worker_without_its_lease_decides_nothing() {
        assert_eq!(
            Ending::Error(JobError::LeaseLost).settle(&rule(0), 0.0),
            None
        );
    }

    #[test]
    fn an_error_text_is_cut_and_made_storable() {
        let outcome = Ending::Panic("\0".repeat(10_000))
            .settle(&rule(0), 0.0)
            .unwrap();
        let error = outcome.error.unwrap();
        assert_eq!(error.chars().count(), ERROR_MESSAGE_MAX);
        assert!(!error.contains('\0'));
    }
}
