//! Fair queues: those who share one take turns, by `prelude_fair.lua`.

use super::batch::batches;
use super::connection::ScriptCall;
use super::script::ScriptId;
use super::{BATCH_MAX, Broker, BrokerError, Repeat};
use crate::job::QueueName;

/// The field of a queue's `meta` that says so.
pub(super) const FAIR: &str = "bullwark.fair";

impl Broker {
    /// Whether those who share the queue take turns. Jobs that come from now on do; those that wait
    /// already do after [`mark_owners`](Self::mark_owners) and [`arrange`](Self::arrange).
    pub async fn set_fair(&self, queue: &QueueName, is_fair: bool) -> Result<(), BrokerError> {
        let mut cmd = redis::cmd(if is_fair { "HSET" } else { "HDEL" });
        cmd.arg(self.keys(queue).meta()).arg(FAIR);
        if is_fair {
            cmd.arg(1);
        }
        self.connections.command("set_fair", &cmd).await
    }

    /// Notes whose these jobs of a fair queue are, by id; what is noted stays. Those that Redis
    /// does not have are passed over. Done again, it changes nothing.
    pub async fn mark_owners(
        &self,
        queue: &QueueName,
        owners: &[(String, String)],
    ) -> Result<(), BrokerError> {
        let keys = self.keys(queue);
        for batch in batches(owners, |(id, owner)| id.len() + owner.len()) {
            let mut call = ScriptCall::new(ScriptId::MarkOwners, [&keys.meta()]);
            call.arg(keys.job_prefix());
            batch.iter().for_each(|(id, owner)| {
                call.arg(id).arg(owner);
            });
            let _: u64 = self.connections.run(&call, Repeat::Safe).await?;
        }
        Ok(())
    }

    /// Lets a part of the jobs that wait do so where they do in a queue of its kind, from the
    /// beginning or from where the part before ended; returns where to go on. In a fair queue also
    /// those that stood in front of all others.
    pub async fn arrange(
        &self,
        queue: &QueueName,
        from: Option<String>,
    ) -> Result<Option<String>, BrokerError> {
        let keys = self.keys(queue);
        let turns = self.own_key(&format!("{queue}:turns"));
        let mut call = ScriptCall::new(
            ScriptId::Arrange,
            [
                &keys.wait(),
                &keys.paused(),
                &keys.prioritized(),
                &keys.pc(),
                &keys.marker(),
                &keys.active(),
                &keys.meta(),
                &turns,
            ],
        );
        call.arg(BATCH_MAX).arg(from.as_deref().unwrap_or("begin"));
        let next: String = self.connections.run(&call, Repeat::Safe).await?;
        Ok(Some(next).filter(|next| !next.is_empty()))
    }
}
