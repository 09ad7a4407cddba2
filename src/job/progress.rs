//! How far a running job is: `jobs.progress` in the record.

use serde::{Deserialize, Serialize};

/// The specification's progress object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Units of work in all; 0 while nobody knows.
    pub total: u64,
    /// Units done, failed ones included.
    pub processed: u64,
    /// Units that failed on their own without failing the job.
    pub failed: u64,
    /// 0 to 100.
    pub percentage: f64,
    /// One line for a person.
    pub message: String,
}

impl Progress {
    /// Progress with its percentage worked out, one digit after the point.
    pub fn new(total: u64, processed: u64, failed: u64, message: impl Into<String>) -> Self {
        let share = if total == 0 {
            0.0
        } else {
            processed as f64 / total as f64 * 100.0
        };
        let percentage = (share.clamp(0.0, 100.0) * 10.0).round() / 10.0;
        Self {
            total,
            processed,
            failed,
            percentage,
            message: message.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentage_stays_between_nothing_and_all() {
        assert_eq!(Progress::new(1000, 250, 5, "").percentage, 25.0);
        assert_eq!(Progress::new(0, 250, 0, "").percentage, 0.0);
        assert_eq!(Progress::new(10, 11, 0, "").percentage, 100.0);
        assert_eq!(Progress::new(3, 1, 0, "").percentage, 33.3);
    }
}
