//! A running job is moved by its own processor: `move_to_delayed`, `move_to_wait` and
//! `move_to_waiting_children`.
//!
//! Unlike the methods of `settle`, which tell Redis what the record knows already, these need the
//! lock: without it another attempt may have begun.
//!
//! A call whose reply was lost is sent again and answers [`Settled::NotActive`]: whoever held the
//! lock when it called may take that for `Done`.

use super::connection::ScriptCall;
use super::keys::check_job_id;
use super::script::ScriptId;
use super::{Broker, BrokerError, Repeat, Settled};
use crate::job::QueueName;

/// What became of a job that is to wait for its children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildrenAwaited {
    /// It left `active`; the last child brings it back.
    Waits,
    /// No child is pending: it runs on.
    NothingPending,
    /// A child has failed that this job must not outlive: it runs on, and can't complete.
    ChildFailed,
    /// It is not this attempt's any more, or was moved before. Nothing was changed.
    Refused(Settled),
}

impl Broker {
    /// The job runs again so many ms from now; below 0 counts as 0. With `skip_attempt` no attempt
    /// is spent.
    pub async fn move_to_delayed(
        &self,
        queue: &QueueName,
        id: &str,
        token: &str,
        delay_ms: i64,
        skip_attempt: bool,
    ) -> Result<Settled, BrokerError> {
        check_job_id(id)?;
        let keys = self.keys(queue);
        let mut call = ScriptCall::new(
            ScriptId::Retry,
            [
                &keys.active(),
                &keys.stalled(),
                &keys.wait(),
                &keys.prioritized(),
                &keys.delayed(),
                &keys.pc(),
                &keys.marker(),
                &keys.meta(),
                &keys.events(),
            ],
        );
        call.arg(keys.job_prefix())
            .number_or_empty(self.test_now_ms)
            .flag(true)
            .arg(id)
            .arg(token)
            .arg(delay_ms.max(0))
            .flag(!skip_attempt)
            .flag(false)
            .arg("")
            .arg("");
        let refused: Vec<i64> = self.connections.run(&call, Repeat::Safe).await?;
        single(&refused)
    }

    /// The job goes back to the front of the queue; no attempt is spent. With it comes how many
    /// ms the window of the queue's rate limit still lasts, 0 if none is open.
    pub async fn move_to_wait(
        &self,
        queue: &QueueName,
        id: &str,
        token: &str,
    ) -> Result<(Settled, u64), BrokerError> {
        check_job_id(id)?;
        let keys = self.keys(queue);
        let mut call = ScriptCall::new(
            ScriptId::Release,
            [
                &keys.active(),
                &keys.stalled(),
                &keys.wait(),
                &keys.prioritized(),
                &keys.marker(),
                &keys.meta(),
                &keys.events(),
                &keys.limiter(),
            ],
        );
        call.arg(keys.job_prefix()).flag(true).arg(id).arg(token);
        let (rate_wait_ms, refused): (u64, Vec<i64>) =
            self.connections.run(&call, Repeat::Safe).await?;
        Ok((single(&refused)?, rate_wait_ms))
    }

    /// The job waits until its children are over: those that are pending, or that one alone, given
    /// as the full key of its hash.
    pub async fn move_to_waiting_children(
        &self,
        queue: &QueueName,
        id: &str,
        token: &str,
        child_key: Option<&str>,
    ) -> Result<ChildrenAwaited, BrokerError> {
        check_job_id(id)?;
        let keys = self.keys(queue);
        let mut call = ScriptCall::new(
            ScriptId::MoveToWaitingChildren,
            [
                &keys.active(),
                &keys.stalled(),
                &keys.waiting_children(),
                &keys.marker(),
                &keys.meta(),
                &keys.events(),
            ],
        );
        call.arg(keys.job_prefix())
            .number_or_empty(self.test_now_ms)
            .arg(id)
            .arg(token)
            .arg(child_key.unwrap_or_default());
        match self.connections.run(&call, Repeat::Safe).await? {
            0 => Ok(ChildrenAwaited::Waits),
            1 => Ok(ChildrenAwaited::NothingPending),
            -9 => Ok(ChildrenAwaited::ChildFailed),
            code => Settled::from_code(code)
                .map(ChildrenAwaited::Refused)
                .ok_or_else(|| nonsense(&[code])),
        }
    }
}

/// The answer for a batch of one.
fn single(refused: &[i64]) -> Result<Settled, BrokerError> {
    match *refused {
        [] => Ok(Settled::Done),
        [1, code] => Settled::from_code(code).ok_or_else(|| nonsense(refused)),
        _ => Err(nonsense(refused)),
    }
}

fn nonsense(answer: &[i64]) -> BrokerError {
    BrokerError::corrupt("move a running job", format!("answer {answer:?}"))
}
