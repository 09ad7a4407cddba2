//! Jobs that wait get another place: `change_delay` and `change_priority`.
//!
//! A call whose reply was lost is sent again, and answers then what a second call would.

use super::connection::ScriptCall;
use super::error::Refusal;
use super::keys::check_job_id;
use super::script::ScriptId;
use super::{Broker, BrokerError, PRIORITY_MAX, Repeat};
use crate::job::QueueName;

/// What became of a job that was to be moved by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    Done,
    /// Redis knows no such job.
    JobMissing,
    /// It is not in the state that it was to leave. Nothing was changed.
    NotInState,
}

impl Moved {
    pub(super) fn from_code(doing: &'static str, code: i64) -> Result<Self, BrokerError> {
        match code {
            0 => Ok(Self::Done),
            -1 => Ok(Self::JobMissing),
            -3 => Ok(Self::NotInState),
            _ => Err(BrokerError::corrupt(doing, format!("code {code}"))),
        }
    }
}

impl Broker {
    /// A delayed job becomes due so many ms from now, by the server's clock. Below 0 counts as 0.
    ///
    /// Done twice, the delay counts from the second call, and is announced again.
    pub async fn change_delay(
        &self,
        queue: &QueueName,
        id: &str,
        delay_ms: i64,
    ) -> Result<Moved, BrokerError> {
        check_job_id(id)?;
        let keys = self.keys(queue);
        let mut call = ScriptCall::new(
            ScriptId::ChangeDelay,
            [
                &keys.delayed(),
                &keys.marker(),
                &keys.meta(),
                &keys.events(),
            ],
        );
        call.arg(keys.job_prefix())
            .number_or_empty(self.test_now_ms)
            .arg(id)
            .arg(delay_ms.max(0));
        let code = self.connections.run(&call, Repeat::Safe).await?;
        Moved::from_code("change_delay", code)
    }

    /// A job gets another priority on the wire, 0 for none, up to [`PRIORITY_MAX`]; one that waits
    /// goes behind its new equals, or before them (`lifo`). A job in another state keeps that, and
    /// has the priority when it waits again. Done twice, it is placed twice.
    ///
    /// Answers [`Moved::Done`] or [`Moved::JobMissing`]. It searches `wait` for the job.
    pub async fn change_priority(
        &self,
        queue: &QueueName,
        id: &str,
        priority: u32,
        lifo: bool,
    ) -> Result<Moved, BrokerError> {
        check_job_id(id)?;
        if priority > PRIORITY_MAX {
            return Err(BrokerError::Refused(Refusal::Priority(priority)));
        }
        let keys = self.keys(queue);
        let mut call = ScriptCall::new(
            ScriptId::ChangePriority,
            [
                &keys.wait(),
                &keys.paused(),
                &keys.prioritized(),
                &keys.pc(),
                &keys.marker(),
                &keys.active(),
                &keys.meta(),
            ],
        );
        call.arg(keys.job_prefix()).arg(id).arg(priority).flag(lifo);
        let code = self.connections.run(&call, Repeat::Safe).await?;
        Moved::from_code("change_priority", code)
    }
}
