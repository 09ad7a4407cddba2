//! A queue as a whole: make it known, `pause` and `resume` it.

use std::collections::BTreeSet;

use super::connection::ScriptCall;
use super::script::ScriptId;
use super::{Broker, BrokerError, Repeat, VERSION};
use crate::job::QueueName;

/// `BullMQ`'s default length of the event stream.
const EVENTS_MAX: u32 = 10_000;
/// Ids that one call of `pause.lua` or `resume.lua` moves to the other list.
const MERGE_MAX: usize = 1000;
/// Calls of these at most; what is left then, claims drain.
const MERGE_CALLS_MAX: usize = 1000;
/// Field of `meta` that tells all scripts to put jobs where `BullMQ` 5 looks for them.
const V5_PEERS: &str = "bullwark.v5Peers";

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
        if self.options.bullmq_v5_peers {
            pipeline.hset_nx(&meta, V5_PEERS, 1).ignore();
        }
        self.connections.pipeline("ensure_queue", &pipeline).await
    }

    /// Marks a queue that clients of version 5 share, if the settings say so. A command per call,
    /// not per process: an emptied Redis forgets the mark.
    pub(super) async fn note_v5_peers(&self, queue: &QueueName) -> Result<(), BrokerError> {
        self.note_v5_peers_of([self.queue_key(queue).as_str()])
            .await
    }

    /// The same for any queues, given as `prefix:queue`.
    pub(super) async fn note_v5_peers_of<'a>(
        &self,
        queue_keys: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), BrokerError> {
        if !self.options.bullmq_v5_peers {
            return Ok(());
        }
        let mut pipeline = redis::pipe();
        for queue_key in BTreeSet::from_iter(queue_keys) {
            let meta = format!("{queue_key}:meta");
            pipeline.hset_nx(meta, V5_PEERS, 1).ignore();
        }
        self.connections.pipeline("note_v5_peers", &pipeline).await
    }

    /// No client of version 5 shares this queue any more; false: it was not marked so. To be
    /// called when no broker is set to have such peers, and best while the queue runs: jobs in
    /// `paused` are taken when it is resumed.
    pub async fn forget_v5_peers(&self, queue: &QueueName) -> Result<bool, BrokerError> {
        let mut cmd = redis::cmd("HDEL");
        cmd.arg(self.keys(queue).meta()).arg(V5_PEERS);
        let deleted: u64 = self.connections.command("forget_v5_peers", &cmd).await?;
        Ok(deleted > 0)
    }

    /// No job of this queue starts until it is resumed; false: it was paused already.
    pub async fn pause(&self, queue: &QueueName) -> Result<bool, BrokerError> {
        self.note_v5_peers(queue).await?;
        let keys = self.keys(queue);
        let mut call = ScriptCall::new(
            ScriptId::Pause,
            [
                &keys.meta(),
                &keys.marker(),
                &keys.events(),
                &keys.wait(),
                &keys.paused(),
            ],
        );
        call.arg(MERGE_MAX);
        let mut was_running = false;
        for _ in 0..MERGE_CALLS_MAX {
            let (paused, left): (i64, u64) = self.connections.run(&call, Repeat::Safe).await?;
            was_running |= paused == 1;
            if left == 0 {
                break;
            }
        }
        Ok(was_running)
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
