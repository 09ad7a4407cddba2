//! A queue as a whole: make it known, `pause` and `resume` it.

use super::connection::ScriptCall;
use super::script::ScriptId;
use super::{Broker, BrokerError, Repeat, VERSION};
use crate::job::QueueName;

/// `BullMQ`'s default length of the event stream.
const EVENTS_MAX: u32 = 10_000;
/// Ids of an old `paused` list that one call of `resume.lua` merges.
const MERGE_MAX: usize = 1000;
/// Calls of `resume.lua` at most; what is left then, claims drain.
const MERGE_CALLS_MAX: usize = 1000;

impl Broker {
    /// Makes a queue known to dashboards. What is set already stays.
    pub async fn ensure_queue(&self, queue: &QueueName) -> Result<(), BrokerError> {
        let meta = self.keys(queue).meta();
        let mut pipeline = redis::pipe();
        pipeline
            .hset_nx(&meta, "opts.maxLenEvents", EVENTS_MAX)
            .ignore();
        pipeline
            .hset_nx(&meta, "version", format!("bullwark:{VERSION}"))
            .ignore();
        self.connections.pipeline("ensure_queue", &pipeline).await
    }

    /// No job of this queue starts until it is resumed; false: it was paused already.
    pub async fn pause(&self, queue: &QueueName) -> Result<bool, BrokerError> {
        let keys = self.keys(queue);
        let call = ScriptCall::new(
            ScriptId::Pause,
            [&keys.meta(), &keys.marker(), &keys.events()],
        );
        let was_running: i64 = self.connections.run(&call, Repeat::Safe).await?;
        Ok(was_running == 1)
    }

    /// Jobs of this queue start again; false: it was not paused.
    pub async fn resume(&self, queue: &QueueName) -> Result<bool, BrokerError> {
        let keys = self.keys(queue);
        let mut call = ScriptCall::new(
            ScriptId::Resume,
            [
                &keys.meta(),
                &keys.wait(),
                &keys.paused(),
                &keys.prioritized(),
                &keys.delayed(),
                &keys.marker(),
                &keys.active(),
                &keys.events(),
            ],
        );
        call.arg(MERGE_MAX);
        let mut was_paused = false;
        for _ in 0..MERGE_CALLS_MAX {
            let (resumed, left): (i64, u64) = self.connections.run(&call, Repeat::Safe).await?;
            was_paused |= resumed == 1;
            if left == 0 {
                break;
            }
        }
        Ok(was_paused)
    }
}
