//! The problems that refusals of the record and of enqueue become. None of them has the words of a
//! store.

use super::{Code, Problem};
use crate::enqueue::EnqueueError;
use crate::job::Refused;
use crate::record::RecordError;

impl From<RecordError> for Problem {
    fn from(error: RecordError) -> Self {
        Self::from(&error)
    }
}

impl From<&RecordError> for Problem {
    fn from(error: &RecordError) -> Self {
        match error {
            RecordError::Unavailable(..) => {
                // Not louder: an outage refuses every request, and the probe reports it once.
                tracing::debug!(%error, "request refused");
                let detail = "the record (PostgreSQL) does not answer right now; try again shortly";
                Self::new(Code::RecordUnavailable, detail)
            }
            RecordError::Refused { .. } => {
                tracing::warn!(%error, "request refused");
                let detail = "the record can not store these values; the server's log says why";
                Self::new(Code::RecordRefused, detail)
            }
            RecordError::Address(_) | RecordError::Schema(_) | RecordError::Corrupt(_) => {
                Self::internal(error)
            }
        }
    }
}

impl From<EnqueueError> for Problem {
    fn from(error: EnqueueError) -> Self {
        let text = error.to_string();
        match error {
            EnqueueError::Refused(refused) => refused.into(),
            EnqueueError::KeyReused { id } => {
                Self::new(Code::IdempotencyKeyReused, text).with_member("job_id", id.to_string())
            }
            EnqueueError::TooMany { .. } => Self::new(Code::TooManyJobs, text),
            EnqueueError::Record(error) => {
                let mut problem = Self::from(error.as_ref());
                if problem.code == Code::RecordUnavailable {
                    // Not "it was not stored": when the answer to a commit is lost, nobody knows.
                    problem.detail = "the record (PostgreSQL) does not answer, so the job is not \
                        confirmed; send it again, with an Idempotency-Key so that it can not be \
                        enqueued twice"
                        .to_owned();
                }
                problem
            }
            EnqueueError::Stopping => Self::new(Code::Stopping, "this server is stopping"),
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let text = refused.to_string();
        match refused {
            Refused::UnknownType { known, .. } => Self::new(Code::UnknownJobType, text)
                .with_error("/jobType", "is no known job type")
                .with_member("known_types", known),
            Refused::PayloadTooLarge { .. } => {
                Self::new(Code::PayloadTooLarge, text).with_error("/payload", "is too large")
            }
            Refused::Invalid { problems } => {
                Self::new(Code::InvalidRequest, text).with_errors(problems)
            }
        }
    }
}
