//! Jobs that came and were gone before anybody looked, until an event says how they ended.
//!
//! Only a memory of this process: what it forgets is a job of which nothing is left in Redis
//! either.

use std::collections::HashMap;

use crate::job::QueueName;

/// Jobs that are remembered; then the memory begins anew.
const CAME_MAX: usize = 10_000;

/// When jobs were added, and their names.
#[derive(Debug, Default)]
pub(super) struct Came(HashMap<(QueueName, String), (i64, String)>);

impl Came {
    /// What is remembered of a job.
    pub(super) fn of(&self, queue: &QueueName, wire_id: &str) -> Option<(i64, String)> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&(queue.clone(), wire_id.to_owned())).cloned()
    }

    /// Remembers those of the vanished jobs whose beginning is known, and forgets the others that
    /// were looked at. Not before they were: a batch that is refused is looked at again.
    pub(super) fn note(
        &mut self,
        queue: &QueueName,
        vanished: &[String],
        mut added: HashMap<String, (i64, String)>,
    ) {
        if !self.0.is_empty() {
            for wire_id in added.keys() {
                self.0.remove(&(queue.clone(), wire_id.clone()));
            }
        }
        if self.0.len() + vanished.len() > CAME_MAX {
            self.0.clear();
        }
        for wire_id in vanished {
            if let Some(beginning) = added.remove(wire_id) {
                self.0.insert((queue.clone(), wire_id.clone()), beginning);
            }
        }
    }
}
