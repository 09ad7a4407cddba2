//! What came of one recipient, and how the job goes on.

use crate::job::JobError;
use crate::record::file_deliveries::Delivery;

/// A recipient whose server puts it off so often is given up. A job fails once more than this
/// before it is given up itself, so that the others of it have an end.
const TRIES_MAX: i32 = 5;

/// What came of one.
pub(super) struct Fate {
    pub(super) state: &'static str,
    pub(super) provider_id: Option<String>,
    pub(super) message: Option<String>,
    pub(super) next: Next,
}

/// How the job goes on.
pub(super) enum Next {
    /// With the next one.
    Go,
    /// With the next one, and later with this one again.
    Later(JobError),
    /// Not now.
    Stop(JobError),
}

impl Fate {
    pub(super) fn of(state: &'static str, message: impl Into<Option<String>>) -> Self {
        Self {
            state,
            provider_id: None,
            message: message.into(),
            next: Next::Go,
        }
    }

    /// Nobody can be told now, by what tells this one.
    pub(super) fn stop(error: JobError) -> Self {
        Self {
            next: Next::Stop(error),
            ..Self::of("planned", None)
        }
    }

    /// The server of this one puts it off.
    pub(super) fn put_off(one: &Delivery, why: String) -> Self {
        match one.tries + 1 {
            tries if tries >= TRIES_MAX => {
                Self::of("failed", format!("it was put off {tries} times: {why}"))
            }
            _ => Self {
                next: Next::Later(JobError::Retry(why.clone())),
                ..Self::of("planned", why)
            },
        }
    }
}
