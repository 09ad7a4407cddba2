//! Noticing queues that appear, without walking over all keys again and again.
//!
//! A look is a bounded part of a walk: a small database is walked whole in each look, a large one
//! in several. So that a queue with workers is noticed at once all the same, a look also reads the
//! names of connections: `BullMQ`'s workers and readers carry the queue in them.

use std::collections::BTreeSet;

use super::keys::{every_meta, queue_of_meta};
use super::{Broker, BrokerError, QUEUES_MAX};
use crate::job::QueueName;

/// Steps of a scan within one look: 20,000 keys, a few ms of the server's time.
const STEPS_MAX: usize = 20;
/// Above this many connections their names are not read: the answer grows with them.
const NAMES_MAX: u64 = 5000;
const DOING: &str = "discover queues";

/// The queues of a prefix, as far as they were noticed.
#[derive(Debug)]
pub struct QueueFinder {
    broker: Broker,
    cursor: u64,
    /// A whole walk was made: what comes later is noticed step by step.
    has_walked: bool,
    /// Noticed in the walk that is under way.
    walk: BTreeSet<QueueName>,
    known: BTreeSet<QueueName>,
}

impl Broker {
    /// A finder that knows no queue yet.
    pub fn queue_finder(&self) -> QueueFinder {
        QueueFinder {
            broker: self.clone(),
            cursor: 0,
            has_walked: false,
            walk: BTreeSet::new(),
            known: BTreeSet::new(),
        }
    }
}

impl QueueFinder {
    /// Looks once more; at most [`QUEUES_MAX`] queues are known. The first look is a whole walk, so
    /// that no queue waits for its turn. A queue that is gone is forgotten at the end of a walk.
    pub async fn look(&mut self) -> Result<&BTreeSet<QueueName>, BrokerError> {
        let mut steps = 0;
        while steps < STEPS_MAX || !self.has_walked {
            steps += 1;
            let pattern = every_meta(self.broker.prefix());
            let (next, keys) = match self.broker.scan_step(DOING, &pattern, self.cursor).await {
                Ok(step) => step,
                Err(error) => {
                    // Another server may answer: its keys are walked from the start.
                    self.cursor = 0;
                    return Err(error);
                }
            };
            let prefix = self.broker.prefix();
            self.walk
                .extend(keys.iter().filter_map(|key| queue_of_meta(prefix, key)));
            self.cursor = next.unwrap_or(0);
            if next.is_none() {
                self.has_walked = true;
                self.known = std::mem::take(&mut self.walk);
                break;
            }
        }
        self.known.extend(self.walk.iter().cloned());
        self.read_names().await?;
        while self.known.len() > QUEUES_MAX {
            self.known.pop_last();
        }
        Ok(&self.known)
    }

    async fn read_names(&mut self) -> Result<(), BrokerError> {
        let clients = self.broker.info(DOING, "clients").await?;
        if clients
            .get::<u64>("connected_clients")
            .is_none_or(|count| count > NAMES_MAX)
        {
            return Ok(());
        }
        let mut cmd = redis::cmd("CLIENT");
        cmd.arg("LIST").arg("TYPE").arg("normal");
        // Managed services may forbid it: then the walk has to do.
        let Ok(list) = self.broker.connections.command::<String>(DOING, &cmd).await else {
            return Ok(());
        };
        let prefix = self.broker.prefix();
        let names = list
            .lines()
            .filter_map(|line| queue_of_connection(prefix, line));
        self.known.extend(names);
        Ok(())
    }
}

/// The queue in the name of a connection, from its line in `CLIENT LIST`.
pub(super) fn queue_of_connection(prefix: &str, line: &str) -> Option<QueueName> {
    let name = line
        .split(' ')
        .find_map(|part| part.strip_prefix("name="))?;
    let encoded = name.strip_prefix(prefix)?.strip_prefix(':')?;
    let encoded = encoded.split(':').next()?;
    String::from_utf8(decode_base64(encoded)?)
        .ok()?
        .parse()
        .ok()
}

/// Standard alphabet; none for anything else.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for character in text.trim_end_matches('=').bytes() {
        let digit = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_s_name_tells_its_queue() {
        for (line, queue) in [
            (
                "id=3 addr=1:2 name=bull:aGlnaF9wcmlvcml0eQ== db=0",
                Some("high_priority"),
            ),
            ("id=3 name=bull:YQ==:w:worker-1 age=1", Some("a")),
            ("id=3 name=bull:YWI=:qe age=1", Some("ab")),
            ("id=3 name=other:YQ== age=1", None),
            ("id=3 name=bull age=1", None),
            ("id=3 name= age=1", None),
            ("id=3 name=bull:_!? age=1", None),
        ] {
            let expected = queue.map(|name| name.parse().unwrap());
            assert_eq!(queue_of_connection("bull", line), expected, "{line}");
        }
    }
}
