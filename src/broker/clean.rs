//! Many jobs are deleted at once: `clean` those of a state that are old, `drain` what waits.

use std::time::Duration;

use super::claim::millis;
use super::connection::ScriptCall;
use super::keys::Keys;
use super::script::ScriptId;
use super::{Broker, BrokerError, BrokerState, Repeat};
use crate::job::QueueName;

/// Jobs that one script call looks at.
const LOOK_MAX: usize = 1000;
/// Script calls at most: ten million jobs are looked at.
const CALLS_MAX: usize = 10_000;

/// The bounds of one walk through a state.
struct Sweep {
    state: BrokerState,
    /// None: of any age.
    grace: Option<Duration>,
    delete_max: usize,
    announces: bool,
}

impl Broker {
    /// Deletes jobs of a state that are older than `grace`, oldest first, at most `max`, and
    /// answers their ids. What tells the age: when it finished, else when it last began, else when
    /// it was added.
    ///
    /// Active jobs with a lock stay, and so does the current iteration of a schedule. Nothing is
    /// deleted in `waiting-children`, nor of orphans. In bounded parts: after an error, some may be
    /// gone, and their ids are not answered. Done again, it goes on.
    pub async fn clean(
        &self,
        queue: &QueueName,
        state: BrokerState,
        grace: Duration,
        max: usize,
    ) -> Result<Vec<String>, BrokerError> {
        let sweep = Sweep {
            state,
            grace: Some(grace),
            delete_max: max,
            announces: true,
        };
        self.sweep(queue, &sweep).await
    }

    /// Deletes all jobs that wait, and those that are delayed if asked. The current iteration of
    /// each schedule stays. Answers how many.
    ///
    /// Not at one moment: what is added meanwhile may go, too. Done again, it goes on.
    pub async fn drain(&self, queue: &QueueName, with_delayed: bool) -> Result<u64, BrokerError> {
        let mut removed = 0;
        let waiting = [
            BrokerState::Wait,
            BrokerState::Paused,
            BrokerState::Prioritized,
        ];
        let delayed = with_delayed.then_some(BrokerState::Delayed);
        for state in waiting.into_iter().chain(delayed) {
            let sweep = Sweep {
                state,
                grace: None,
                delete_max: usize::MAX,
                announces: false,
            };
            removed += self.sweep(queue, &sweep).await?.len() as u64;
        }
        Ok(removed)
    }

    async fn sweep(&self, queue: &QueueName, sweep: &Sweep) -> Result<Vec<String>, BrokerError> {
        let keys = self.keys(queue);
        let Some((state, from)) = place(sweep.state, &keys).filter(|_| sweep.delete_max > 0) else {
            return Ok(Vec::new());
        };
        let (mut deleted, mut skip) = (Vec::new(), 0_i64);
        for _ in 0..CALLS_MAX {
            let mut call = ScriptCall::new(
                ScriptId::Clean,
                [
                    &from,
                    &keys.marker(),
                    &keys.active(),
                    &keys.meta(),
                    &keys.events(),
                    &keys.stalled(),
                ],
            );
            call.arg(keys.job_prefix())
                .number_or_empty(self.test_now_ms)
                .arg(state);
            match sweep.grace {
                Some(grace) if !grace.is_zero() => call.arg(millis(grace)),
                Some(_) => call.arg(0),
                None => call.arg(""),
            };
            call.arg(skip)
                .arg(LOOK_MAX)
                .arg((sweep.delete_max - deleted.len()).min(LOOK_MAX))
                .flag(sweep.announces);
            let (next, ids): (i64, Vec<String>) = self.connections.run(&call, Repeat::Safe).await?;
            deleted.extend(ids);
            if next < 0 || deleted.len() >= sweep.delete_max {
                break;
            }
            skip = next;
        }
        Ok(deleted)
    }
}

/// What the script calls a state, and its key; none for states that are not swept.
fn place(state: BrokerState, keys: &Keys) -> Option<(&'static str, String)> {
    match state {
        BrokerState::Wait => Some(("wait", keys.wait())),
        BrokerState::Paused => Some(("paused", keys.paused())),
        BrokerState::Active => Some(("active", keys.active())),
        BrokerState::Prioritized => Some(("prioritized", keys.prioritized())),
        BrokerState::Delayed => Some(("delayed", keys.delayed())),
        BrokerState::Completed => Some(("completed", keys.completed())),
        BrokerState::Failed => Some(("failed", keys.failed())),
        BrokerState::WaitingChildren | BrokerState::Orphan => None,
    }
}
