//! Who works on a queue, told by the names of connections.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::discover::queue_of_connection;
use super::{Broker, BrokerError};
use crate::job::QueueName;

/// Workers that are answered at most.
pub const WORKERS_MAX: usize = 10_000;

/// The connection of a worker that waits for jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueWorker {
    /// Its `name` option, if it has one.
    pub name: Option<String>,
    /// The server's id of the connection.
    pub connection_id: u64,
    /// Host and port as the server sees them.
    pub address: String,
    pub age_seconds: u64,
    pub idle_seconds: u64,
}

impl Broker {
    /// The workers of a queue, ours and those of any `BullMQ` client that names its connections;
    /// at most [`WORKERS_MAX`]. The server's answer grows with its connections.
    pub async fn workers(&self, queue: &QueueName) -> Result<Vec<QueueWorker>, BrokerError> {
        let mut cmd = redis::cmd("CLIENT");
        cmd.arg("LIST");
        let list: String = self.connections.command("workers", &cmd).await?;
        let own_name = connection_name(self.prefix(), queue);
        let workers = list.lines().filter_map(|line| worker(line, &own_name));
        Ok(workers.take(WORKERS_MAX).collect())
    }

    /// The workers of all queues of this prefix; at most [`WORKERS_MAX`]. One look at the server,
    /// however many queues there are. A worker of several queues of ours is shown at the first.
    pub async fn all_workers(&self) -> Result<BTreeMap<QueueName, Vec<QueueWorker>>, BrokerError> {
        let mut cmd = redis::cmd("CLIENT");
        cmd.arg("LIST");
        let list: String = self.connections.command("all_workers", &cmd).await?;
        let mut queues: BTreeMap<QueueName, Vec<QueueWorker>> = BTreeMap::new();
        let workers = list.lines().filter_map(|line| {
            let queue = queue_of_connection(self.prefix(), line)?;
            let worker = worker(line, &connection_name(self.prefix(), &queue))?;
            Some((queue, worker))
        });
        for (queue, worker) in workers.take(WORKERS_MAX) {
            queues.entry(queue).or_default().push(worker);
        }
        Ok(queues)
    }
}

/// What a worker without a name calls its connection; one with a name appends `:w:name`.
fn connection_name(prefix: &str, queue: &QueueName) -> String {
    format!("{prefix}:{}", STANDARD.encode(queue.as_str()))
}

fn worker(line: &str, own_name: &str) -> Option<QueueWorker> {
    let fields: HashMap<&str, &str> = line
        .split(' ')
        .filter_map(|field| field.split_once('='))
        .collect();
    let name = match fields.get("name")?.strip_prefix(own_name)? {
        "" => None,
        rest => Some(rest.strip_prefix(":w:")?.to_owned()),
    };
    let number = |field: &str| fields.get(field).and_then(|text| text.parse().ok());
    Some(QueueWorker {
        name,
        connection_id: number("id").unwrap_or_default(),
        address: (*fields.get("addr").unwrap_or(&"")).to_owned(),
        age_seconds: number("age").unwrap_or_default(),
        idle_seconds: number("idle").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_told_by_their_names() {
        let own_name = connection_name("bull", &"mails".parse().unwrap());
        assert_eq!(own_name, "bull:bWFpbHM=");
        let found = |name: &str| {
            let line = format!("id=7 addr=127.0.0.1:5 laddr=x fd=8 name={name} age=9 idle=1 cmd=x");
            worker(&line, &own_name)
        };
        let expected = QueueWorker {
            name: None,
            connection_id: 7,
            address: "127.0.0.1:5".to_owned(),
            age_seconds: 9,
            idle_seconds: 1,
        };
        assert_eq!(found("bull:bWFpbHM="), Some(expected.clone()));
        let named = QueueWorker {
            name: Some("a:w:b".to_owned()),
            ..expected
        };
        assert_eq!(found("bull:bWFpbHM=:w:a:w:b"), Some(named));
        for other in ["", "bull:bWFpbHM=:qe", "bull:bWFpbHM", "x:bull:bWFpbHM="] {
            assert_eq!(found(other), None, "{other}");
        }
    }
}
