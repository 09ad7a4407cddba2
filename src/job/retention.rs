//! What goes after how many days.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The fewest and the most days.
pub const DAYS: std::ops::RangeInclusive<i32> = 1..=3650;

/// After how many days something goes. What is not named is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Retention {
    /// Completed jobs with all that they hold, after their end.
    #[serde(default, alias = "completedJobs")]
    #[schemars(range(min = 1, max = 3650))]
    #[cfg_attr(feature = "server", schema(minimum = 1, maximum = 3650))]
    pub completed_jobs: Option<i32>,
    /// Cancelled jobs, after their end.
    #[serde(default, alias = "cancelledJobs")]
    #[schemars(range(min = 1, max = 3650))]
    #[cfg_attr(feature = "server", schema(minimum = 1, maximum = 3650))]
    pub cancelled_jobs: Option<i32>,
    /// Jobs in the dead letter queue, after they came there.
    #[serde(default, alias = "deadLetters")]
    #[schemars(range(min = 1, max = 3650))]
    #[cfg_attr(feature = "server", schema(minimum = 1, maximum = 3650))]
    pub dead_letters: Option<i32>,
    /// Log lines of jobs that are over.
    #[serde(default, alias = "jobLogs")]
    #[schemars(range(min = 1, max = 3650))]
    #[cfg_attr(feature = "server", schema(minimum = 1, maximum = 3650))]
    pub job_logs: Option<i32>,
    /// Files of exports, which go after seven days in any case.
    #[serde(default)]
    #[schemars(range(min = 1, max = 3650))]
    #[cfg_attr(feature = "server", schema(minimum = 1, maximum = 3650))]
    pub exports: Option<i32>,
    /// Notes of webhook deliveries that have ended, which go after 30 days in any case.
    #[serde(default, alias = "webhookDeliveries")]
    #[schemars(range(min = 1, max = 3650))]
    #[cfg_attr(feature = "server", schema(minimum = 1, maximum = 3650))]
    pub webhook_deliveries: Option<i32>,
}

impl Retention {
    /// Each with its name.
    pub fn each(&self) -> [(&'static str, Option<i32>); 6] {
        [
            ("completed_jobs", self.completed_jobs),
            ("cancelled_jobs", self.cancelled_jobs),
            ("dead_letters", self.dead_letters),
            ("job_logs", self.job_logs),
            ("exports", self.exports),
            ("webhook_deliveries", self.webhook_deliveries),
        ]
    }

    pub fn is_empty(&self) -> bool {
        self.each().iter().all(|(_, days)| days.is_none())
    }

    /// The first that has an impossible number of days.
    pub fn misfit(&self) -> Option<&'static str> {
        let is_wrong = |days: Option<i32>| days.is_some_and(|days| !DAYS.contains(&days));
        let mut each = self.each().into_iter();
        each.find(|(_, days)| is_wrong(*days)).map(|(name, _)| name)
    }

    /// What of this goes earlier than `allowed` has it, in words; empty: nothing.
    pub fn beyond(&self, allowed: &Self) -> Vec<String> {
        let pairs = self.each().into_iter().zip(allowed.each());
        let beyond = pairs.filter_map(|((name, days), (_, least))| match (days?, least) {
            (_, None) => Some(format!("`{name}` is kept")),
            (days, Some(least)) if days < least => {
                Some(format!("`{name}` is kept for {least} days, not {days}"))
            }
            _ => None,
        });
        beyond.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_goes_earlier_than_it_is_allowed_to() {
        let allowed = Retention {
            completed_jobs: Some(30),
            exports: Some(2),
            ..Retention::default()
        };
        assert_eq!(allowed.beyond(&allowed), Vec::<String>::new());
        assert_eq!(Retention::default().beyond(&allowed), Vec::<String>::new());
        let asked = Retention {
            completed_jobs: Some(29),
            dead_letters: Some(3650),
            exports: Some(3),
            ..Retention::default()
        };
        assert_eq!(
            asked.beyond(&allowed),
            [
                "`completed_jobs` is kept for 30 days, not 29",
                "`dead_letters` is kept"
            ]
        );
    }

    #[test]
    fn days_have_bounds() {
        let of = |days| Retention {
            job_logs: Some(days),
            ..Retention::default()
        };
        assert_eq!((of(1).misfit(), of(3650).misfit()), (None, None));
        assert_eq!(of(0).misfit(), Some("job_logs"));
        assert_eq!(of(3651).misfit(), Some("job_logs"));
    }
}
