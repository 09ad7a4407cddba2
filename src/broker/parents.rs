//! Parents and their children: what parents are told, and what they may ask.

use super::batch::batches;
use super::connection::ScriptCall;
use super::script::ScriptId;
use super::{Broker, BrokerError, Repeat};

/// A child that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedChild {
    /// `prefix:queue:id`.
    pub key: String,
    pub parent_key: String,
    /// The `parent` field of its hash: what its failure does to the parent.
    pub parent: String,
    pub ending: ChildEnding,
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChildEnding {
    /// With what it returned, JSON text.
    Completed(String),
    /// For good, with this reason.
    Failed(String),
    Removed,
}

impl EndedChild {
    fn bytes(&self) -> usize {
        let text = match &self.ending {
            ChildEnding::Completed(text) | ChildEnding::Failed(text) => text.len(),
            ChildEnding::Removed => 0,
        };
        self.key.len() + self.parent_key.len() + self.parent.len() + text
    }
}

impl Broker {
    /// Tells parents what `finish`, `fail` or `cancel` could not, because Redis had lost the child
    /// or the parent then. A parent that no longer waits for a child is left alone.
    pub async fn tell_parents(&self, children: &[EndedChild]) -> Result<(), BrokerError> {
        for batch in batches(children, EndedChild::bytes) {
            let queue_key = batch[0].parent_key.rsplit_once(':');
            let queue_key = queue_key.map_or("", |(queue_key, _)| queue_key);
            let meta = format!("{queue_key}:meta");
            let mut call = ScriptCall::new(ScriptId::TellParents, [&meta]);
            call.number_or_empty(self.test_now_ms);
            for child in batch {
                let (ending, text) = match &child.ending {
                    ChildEnding::Completed(returnvalue) => ("completed", returnvalue.as_str()),
                    ChildEnding::Failed(reason) => ("failed", reason.as_str()),
                    ChildEnding::Removed => ("removed", ""),
                };
                call.arg(&child.key).arg(&child.parent_key).arg(ending);
                call.arg(text).arg(&child.parent);
            }
            let () = self.connections.run(&call, Repeat::Safe).await?;
        }
        Ok(())
    }
}
