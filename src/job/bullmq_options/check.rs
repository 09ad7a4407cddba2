//! What `BullMQ`'s producers refuse.

use super::JobsOptions;

/// `BullMQ`'s bound: priorities take 21 bits.
const PRIORITY_MAX: u32 = (1 << 21) - 1;

/// A rule of `BullMQ`'s producers that options break.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidOptions {
    #[error("the data has {bytes} bytes, the job allows {limit}")]
    Size { bytes: usize, limit: u64 },
    #[error("job id `{0}`: an integer is the queue's own, and `:` is allowed in three parts only")]
    JobId(String),
    #[error("priority {0} is out of range: at most {PRIORITY_MAX} is allowed")]
    Priority(u32),
    #[error("delay {0} ms is negative")]
    Delay(i64),
    #[error("more than one rule for what a failed child does to its parent: {0}")]
    Policies(String),
    #[error("a deduplication needs an id")]
    DeduplicationId,
    #[error("a job with a parent can not be deduplicated")]
    DeduplicationOfChild,
    #[error("only a schedule makes jobs with `repeat`")]
    Repeat,
    #[error("backoff jitter is {0}, it must be between 0 and 1")]
    Jitter(f64),
}

impl JobsOptions {
    /// Refuses what `BullMQ`'s producers refuse. `data` is the job's JSON text.
    pub fn check(&self, data: &str) -> Result<(), InvalidOptions> {
        if let Some(limit) = self.size_limit.filter(|limit| *limit > 0)
            && data.len() as u64 > limit
        {
            let bytes = data.len();
            return Err(InvalidOptions::Size { bytes, limit });
        }
        if let Some(id) = self.job_id.as_deref().filter(|id| !is_custom_id(id)) {
            return Err(InvalidOptions::JobId(id.to_owned()));
        }
        if let Some(priority) = self.priority.filter(|p| *p > PRIORITY_MAX) {
            return Err(InvalidOptions::Priority(priority));
        }
        if let Some(delay) = self.delay_ms.filter(|delay| *delay < 0) {
            return Err(InvalidOptions::Delay(delay));
        }
        let policies = self.policies();
        if policies.len() > 1 {
            return Err(InvalidOptions::Policies(policies.join(", ")));
        }
        if let Some(deduplication) = &self.deduplication {
            if deduplication.id.is_empty() {
                return Err(InvalidOptions::DeduplicationId);
            }
            if self.parent.is_some() {
                return Err(InvalidOptions::DeduplicationOfChild);
            }
        }
        if self.repeat.is_some() && self.repeat_job_key.is_none() {
            return Err(InvalidOptions::Repeat);
        }
        let jitter = self.backoff.as_ref().and_then(|backoff| backoff.jitter);
        match jitter.filter(|jitter| !(0.0..=1.0).contains(jitter)) {
            Some(jitter) => Err(InvalidOptions::Jitter(jitter)),
            None => Ok(()),
        }
    }

    /// Short names of what a failure of this job does to its parent; `BullMQ` allows one.
    pub fn policies(&self) -> Vec<&'static str> {
        let policies = [
            (self.fail_parent_on_failure, "fpof"),
            (self.remove_dependency_on_failure, "rdof"),
            (self.ignore_dependency_on_failure, "idof"),
            (self.continue_parent_on_failure, "cpof"),
        ];
        let set = policies.into_iter().filter(|(is_set, _)| *is_set);
        set.map(|(_, name)| name).collect()
    }
}

/// `BullMQ`'s rule for ids that producers choose. An id that prints as the number it is read as
/// could be one that a queue counts.
fn is_custom_id(id: &str) -> bool {
    let digits = id.strip_prefix('-').unwrap_or(id);
    let is_integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let prints_the_same = || {
        let number = id.parse::<f64>().unwrap_or(f64::NAN);
        number.abs() < 1e21 && format!("{number}") == id
    };
    let colons = id.matches(':').count();
    let is_old_marker = id == "0" || id.starts_with("0:");
    let is_counted = is_integer && prints_the_same() || id == "NaN";
    !(id.is_empty() || is_old_marker || is_counted) && (colons == 0 || colons == 2)
}

#[cfg(test)]
mod tests {
    use super::super::{BackoffOption, Deduplication, ParentOption};
    use super::*;

    #[test]
    fn ids_that_a_queue_could_count_or_a_key_could_contain_are_refused() {
        for id in [
            "",
            "0",
            "1",
            "-5",
            "0:1",
            "a:b",
            "a:b:c:d",
            "NaN",
            "1152921504606847000",
        ] {
            assert!(!is_custom_id(id), "{id}");
        }
        // The long ones are not read as themselves, so BullMQ takes them for texts.
        for id in [
            "a",
            "01",
            "1.0",
            "+1",
            "--1",
            "-",
            "1e3",
            "9007199254740993",
            "1152921504606846976",
            "repeat:x:5",
            "::",
        ] {
            assert!(is_custom_id(id), "{id}");
        }
    }

    #[test]
    fn each_rule_refuses_what_it_is_for() {
        let refused = |change: fn(&mut JobsOptions)| {
            let mut options = JobsOptions::default();
            change(&mut options);
            options.check("12345").err()
        };
        assert_eq!(refused(|_| {}), None);
        assert_eq!(refused(|o| o.size_limit = Some(5)), None);
        assert_eq!(
            refused(|o| o.size_limit = Some(4)),
            Some(InvalidOptions::Size { bytes: 5, limit: 4 })
        );
        assert_eq!(refused(|o| o.priority = Some(PRIORITY_MAX)), None);
        assert_eq!(
            refused(|o| o.priority = Some(PRIORITY_MAX + 1)),
            Some(InvalidOptions::Priority(PRIORITY_MAX + 1))
        );
        assert_eq!(
            refused(|o| o.delay_ms = Some(-1)),
            Some(InvalidOptions::Delay(-1))
        );
        assert_eq!(
            refused(|o| {
                o.fail_parent_on_failure = true;
                o.continue_parent_on_failure = true;
            }),
            Some(InvalidOptions::Policies("fpof, cpof".to_owned()))
        );
        assert_eq!(
            refused(|o| o.deduplication = Some(Deduplication::default())),
            Some(InvalidOptions::DeduplicationId)
        );
        assert_eq!(
            refused(|o| {
                let id = "d".to_owned();
                o.deduplication = Some(Deduplication {
                    id,
                    ..Deduplication::default()
                });
                o.parent = Some(ParentOption::default());
            }),
            Some(InvalidOptions::DeduplicationOfChild)
        );
        assert_eq!(
            refused(|o| o.repeat = Some(serde_json::Map::new())),
            Some(InvalidOptions::Repeat)
        );
        assert_eq!(
            refused(|o| {
                let jitter = Some(1.5);
                o.backoff = Some(BackoffOption {
                    jitter,
                    ..BackoffOption::default()
                });
            }),
            Some(InvalidOptions::Jitter(1.5))
        );
    }
}
