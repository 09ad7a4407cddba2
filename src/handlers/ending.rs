//! How handlers that keep a row of their own in the record read what happened to them.

use crate::job::JobError;
use crate::record::RecordError;

/// What an attempt's end says of the row that tells people of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Another attempt goes on with it, or the work itself has said how it ended.
    Open,
    /// Whoever took the lease writes from here on; only a cancelled job has nobody left to say so.
    LeaseLost,
    /// It will not go on.
    Failed,
}

impl Verdict {
    pub(super) fn of<T>(ended: &Result<T, JobError>) -> Self {
        match ended {
            Err(JobError::LeaseLost) => Self::LeaseLost,
            Err(JobError::Permanent(_)) => Self::Failed,
            Ok(_)
            | Err(
                JobError::Retry(_)
                | JobError::RetryAfter(..)
                | JobError::Snooze(..)
                | JobError::Reported(_)
                | JobError::Moved
                | JobError::RateLimited(_),
            ) => Self::Open,
        }
    }
}

/// What an error of the record means for the job. A refusal is of the work's own rows here: rows
/// that came from outside are handled one by one before.
pub(super) fn record_error(error: RecordError) -> JobError {
    match error {
        RecordError::Refused { .. } => JobError::Permanent(error.to_string()),
        RecordError::Unavailable(..)
        | RecordError::Address(_)
        | RecordError::Schema(_)
        | RecordError::Corrupt(_) => JobError::Retry(error.to_string()),
    }
}
