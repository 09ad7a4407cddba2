//! Looking without touching: states, counts, lists, and scans for `verify` and `reconcile`.

use super::batch::batches;
use super::connection::ScriptCall;
use super::keys::{every_meta, queue_of_meta};
use super::script::ScriptId;
use super::{Broker, BrokerError, Repeat};
use crate::job::QueueName;

/// Ids per page of [`Broker::list`] at most.
pub const LIST_MAX: usize = 1000;
/// Queues that [`Broker::queues`] finds at most.
pub const QUEUES_MAX: usize = 10_000;
/// Steps of a scan within one call: 10 million keys.
const SCAN_STEPS_MAX: usize = 10_000;

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BrokerState {
    Wait,
    /// In the list that `BullMQ` 5 uses while a queue is paused.
    Paused,
    Prioritized,
    Delayed,
    Active,
    WaitingChildren,
    Completed,
    Failed,
    /// It has a hash, but is in no state: nobody will ever run it.
    Orphan,
}

impl BrokerState {
    /// Those that name their jobs, in the order of a job's life, backwards first: a job that moves
    /// on while all of them are walked through is found further down, so that few slip through.
    pub const LISTED: [Self; 8] = [
        Self::Active,
        Self::Wait,
        Self::Paused,
        Self::Prioritized,
        Self::Delayed,
        Self::WaitingChildren,
        Self::Completed,
        Self::Failed,
    ];

    pub(super) fn parse(doing: &'static str, text: &str) -> Result<Self, BrokerError> {
        match text {
            "wait" => Ok(Self::Wait),
            "paused" => Ok(Self::Paused),
            "prioritized" => Ok(Self::Prioritized),
            "delayed" => Ok(Self::Delayed),
            "active" => Ok(Self::Active),
            "waiting-children" => Ok(Self::WaitingChildren),
            "completed" => Ok(Self::Completed),
            "failed" => Ok(Self::Failed),
            "orphan" => Ok(Self::Orphan),
            _ => Err(BrokerError::corrupt(
                doing,
                format!("unknown state `{text}`"),
            )),
        }
    }
}

/// How many jobs are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub wait: u64,
    /// Jobs in the list that `BullMQ` 5 uses while a queue is paused.
    pub paused: u64,
    pub active: u64,
    pub prioritized: u64,
    pub delayed: u64,
    pub waiting_children: u64,
    pub completed: u64,
    pub failed: u64,
    pub is_paused: bool,
}

/// A page of a state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdPage {
    pub ids: Vec<String>,
    /// Where the next page begins; none: this was the last. Jobs that move in the meantime may
    /// be missed or come twice.
    pub next: Option<usize>,
}

/// A page of a scan. A page may be empty although there is a next one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyPage {
    /// The part of each key after `prefix:queue:`.
    pub keys: Vec<String>,
    /// What to pass for the next page; none: this was the last. A key may come twice. It is good
    /// for one server: after a failover it is refused as unavailable, then begin again.
    pub next: Option<u64>,
}

impl Broker {
    /// Where each job is; none: Redis knows no such job.
    pub async fn states(
        &self,
        queue: &QueueName,
        ids: &[String],
    ) -> Result<Vec<Option<BrokerState>>, BrokerError> {
        let keys = self.keys(queue);
        let mut answers = Vec::with_capacity(ids.len());
        for batch in batches(ids, String::len) {
            let mut call = ScriptCall::new(
                ScriptId::States,
                keys.states().each_ref().map(String::as_str),
            );
            call.arg(keys.job_prefix());
            for id in batch {
                call.arg(id);
            }
            let states: Vec<String> = self.connections.run(&call, Repeat::Safe).await?;
            for state in states {
                answers.push(match state.as_str() {
                    "absent" => None,
                    other => Some(BrokerState::parse("states", other)?),
                });
            }
        }
        Ok(answers)
    }

    /// When a job was finished, by its hash; none: it is not there, or not finished.
    pub async fn finished_ms(
        &self,
        queue: &QueueName,
        id: &str,
    ) -> Result<Option<i64>, BrokerError> {
        let mut cmd = redis::cmd("HGET");
        cmd.arg(format!("{}{id}", self.keys(queue).job_prefix()))
            .arg("finishedOn");
        self.connections.command("finished_ms", &cmd).await
    }

    /// How many jobs are in each state, at one moment.
    pub async fn counts(&self, queue: &QueueName) -> Result<Counts, BrokerError> {
        let keys = self.keys(queue);
        let call = ScriptCall::new(
            ScriptId::Counts,
            [
                &keys.wait(),
                &keys.paused(),
                &keys.active(),
                &keys.prioritized(),
                &keys.delayed(),
                &keys.waiting_children(),
                &keys.completed(),
                &keys.failed(),
                &keys.meta(),
            ],
        );
        let counts: Vec<u64> = self.connections.run(&call, Repeat::Safe).await?;
        let [
            wait,
            paused,
            active,
            prioritized,
            delayed,
            waiting_children,
            completed,
            failed,
            is_paused,
        ] = counts[..]
        else {
            return Err(BrokerError::corrupt("counts", format!("answer {counts:?}")));
        };
        Ok(Counts {
            wait,
            paused,
            active,
            prioritized,
            delayed,
            waiting_children,
            completed,
            failed,
            is_paused: is_paused == 1,
        })
    }

    /// Ids of a state in its own order, at most [`LIST_MAX`] of them. Orphans are in no list.
    pub async fn list(
        &self,
        queue: &QueueName,
        state: BrokerState,
        offset: usize,
        limit: usize,
    ) -> Result<IdPage, BrokerError> {
        let keys = self.keys(queue);
        let limit = limit.clamp(1, LIST_MAX);
        let (command, key) = match state {
            BrokerState::Wait => ("LRANGE", keys.wait()),
            BrokerState::Paused => ("LRANGE", keys.paused()),
            BrokerState::Active => ("LRANGE", keys.active()),
            BrokerState::Prioritized => ("ZRANGE", keys.prioritized()),
            BrokerState::Delayed => ("ZRANGE", keys.delayed()),
            BrokerState::WaitingChildren => ("ZRANGE", keys.waiting_children()),
            BrokerState::Completed => ("ZRANGE", keys.completed()),
            BrokerState::Failed => ("ZRANGE", keys.failed()),
            BrokerState::Orphan => return Ok(IdPage::default()),
        };
        let mut cmd = redis::cmd(command);
        cmd.arg(key).arg(offset).arg(offset + limit - 1);
        let ids: Vec<String> = self.connections.command("list", &cmd).await?;
        let next = (ids.len() == limit).then_some(offset + limit);
        Ok(IdPage { ids, next })
    }

    /// The ids that were finished last, newest first; at most [`LIST_MAX`]. Empty for a state that
    /// is not final.
    pub async fn newest_finished(
        &self,
        queue: &QueueName,
        state: BrokerState,
    ) -> Result<Vec<String>, BrokerError> {
        let key = match state {
            BrokerState::Completed => self.keys(queue).completed(),
            BrokerState::Failed => self.keys(queue).failed(),
            _ => return Ok(Vec::new()),
        };
        let mut cmd = redis::cmd("ZREVRANGE");
        cmd.arg(key).arg(0).arg(LIST_MAX - 1);
        self.connections.command("newest_finished", &cmd).await
    }

    /// Ids of jobs that somebody holds a lock of. Begin with cursor 0.
    pub async fn locks(&self, queue: &QueueName, cursor: u64) -> Result<KeyPage, BrokerError> {
        let mut page = self.scan("locks", queue, "*:lock", cursor).await?;
        for key in &mut page.keys {
            key.truncate(key.len() - ":lock".len());
        }
        Ok(page)
    }

    /// All keys of a queue, its own and those of jobs. Begin with cursor 0.
    pub async fn scan_keys(&self, queue: &QueueName, cursor: u64) -> Result<KeyPage, BrokerError> {
        self.scan("scan_keys", queue, "*", cursor).await
    }

    /// The queues of this prefix, sorted; at most [`QUEUES_MAX`]. Walks over all keys of the
    /// database, so it is for start-up and for people, not for a loop.
    pub async fn queues(&self) -> Result<Vec<QueueName>, BrokerError> {
        let mut found = std::collections::BTreeSet::new();
        let mut cursor = 0;
        for _ in 0..SCAN_STEPS_MAX {
            let (next, keys) = self
                .scan_step("queues", &every_meta(self.prefix()), cursor)
                .await?;
            found.extend(
                keys.iter()
                    .filter_map(|key| queue_of_meta(self.prefix(), key)),
            );
            let Some(next) = next.filter(|_| found.len() < QUEUES_MAX) else {
                break;
            };
            cursor = next;
        }
        Ok(found.into_iter().take(QUEUES_MAX).collect())
    }

    async fn scan(
        &self,
        doing: &'static str,
        queue: &QueueName,
        suffix: &str,
        cursor: u64,
    ) -> Result<KeyPage, BrokerError> {
        let keys = self.keys(queue);
        let (next, found) = self.scan_step(doing, &keys.pattern(suffix), cursor).await?;
        let base = keys.job_prefix().len();
        Ok(KeyPage {
            keys: found
                .into_iter()
                .map(|key| key[base..].to_owned())
                .collect(),
            next,
        })
    }
}
