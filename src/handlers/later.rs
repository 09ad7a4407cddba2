//! Parts of a job that have to wait while the others go on, and how its attempt ends then.

use std::time::Duration;

use crate::job::JobError;

/// What has to wait. One that may not run yet decides, and the longest wait: a job that comes back
/// earlier would find the same.
#[derive(Debug, Default)]
pub(super) struct Later {
    error: Option<JobError>,
}

impl Later {
    /// Notes that a part has to wait. An error that concerns the whole attempt comes back.
    pub(super) fn note(&mut self, error: JobError) -> Result<(), JobError> {
        match error {
            JobError::Retry(_) | JobError::RetryAfter(..) | JobError::Snooze(..) => {}
            JobError::Permanent(_)
            | JobError::Reported(_)
            | JobError::Moved
            | JobError::RateLimited(_)
            | JobError::LeaseLost => return Err(error),
        }
        self.error = Some(match self.error.take() {
            Some(noted) => longer(noted, error),
            None => error,
        });
        Ok(())
    }

    /// How the attempt ends; none: nothing has to wait.
    pub(super) fn end(self) -> Option<JobError> {
        self.error
    }
}

/// A wait that spends no attempt goes before a failure: attempts that fail before it is over would
/// use up those that the job has.
fn longer(noted: JobError, error: JobError) -> JobError {
    let rank = |error: &JobError| match error {
        JobError::Snooze(..) => 2,
        JobError::RetryAfter(..) => 1,
        _ => 0,
    };
    let wait = |error: &JobError| match error {
        JobError::Snooze(wait, _) | JobError::RetryAfter(wait, _) => *wait,
        _ => Duration::ZERO,
    };
    let longest = wait(&noted).max(wait(&error));
    let decides = match (rank(&error), wait(&error)) > (rank(&noted), wait(&noted)) {
        true => error,
        false => noted,
    };
    match decides {
        JobError::Snooze(_, why) => JobError::Snooze(longest, why),
        JobError::RetryAfter(_, why) => JobError::RetryAfter(longest, why),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(why: &str) -> JobError {
        JobError::Retry(why.to_owned())
    }

    fn after(seconds: u64) -> JobError {
        JobError::RetryAfter(Duration::from_secs(seconds), format!("after {seconds}"))
    }

    fn snooze(seconds: u64) -> JobError {
        JobError::Snooze(Duration::from_secs(seconds), format!("snooze {seconds}"))
    }

    #[test]
    fn the_longest_wait_ends_the_attempt_and_none_is_spent_on_what_may_not_run_yet() {
        let hour = JobError::Snooze(Duration::from_secs(3600), "snooze 5".to_owned());
        for (errors, expected) in [
            (vec![], None),
            (vec![retry("a"), retry("b")], Some(retry("a"))),
            (vec![retry("a"), after(3)], Some(after(3))),
            (vec![after(9), retry("a"), after(3)], Some(after(9))),
            (vec![snooze(5), snooze(70), retry("a")], Some(snooze(70))),
            (vec![after(3600), snooze(5)], Some(hour)),
        ] {
            let mut later = Later::default();
            for error in errors.clone() {
                later.note(error).unwrap();
            }
            assert_eq!(later.end(), expected, "{errors:?}");
        }
    }

    #[test]
    fn what_concerns_the_whole_attempt_comes_back() {
        for error in [JobError::LeaseLost, JobError::permanent("no")] {
            assert_eq!(Later::default().note(error.clone()), Err(error));
        }
    }
}
