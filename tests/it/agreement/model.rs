//! What both stores must say after each step, and the look at whether they do.

use std::collections::BTreeMap;
use std::fmt;

use bullwark::broker::BrokerState;
use bullwark::job::Status;

use super::play::Play;

/// What both stores must say.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Model {
    pub(super) status: Status,
    pub(super) attempts: u32,
    /// The newest start.
    pub(super) attempt: i32,
    /// Starts as Redis counts them: a job that is put back by hand is one ahead.
    pub(super) starts: i32,
    /// The record has not heard of the running first attempt.
    pub(super) is_unnoted: bool,
    pub(super) is_due: bool,
    pub(super) token: String,
    pub(super) worker: String,
    pub(super) history: BTreeMap<i32, &'static str>,
}

/// What a store says, in the words of the other.
#[derive(PartialEq)]
pub(super) struct Seen {
    pub(super) status: String,
    pub(super) attempts: u32,
    pub(super) starts: i32,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            status,
            attempts,
            starts,
        } = self;
        write!(f, "{status} with {attempts} failures after {starts} starts")
    }
}

pub(super) type Checked = Result<(), String>;

pub(super) fn same<T: PartialEq + fmt::Debug>(what: &str, found: T, expected: T) -> Checked {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: found {found:?}, expected {expected:?}"))
}

impl Play<'_> {
    /// Both stores say what the model says.
    pub(super) async fn compare(&self) -> Checked {
        let model = &self.model;
        let row = self.stage.row(self.job.id).await;
        let record = Seen {
            status: row.status,
            attempts: row.attempts.unsigned_abs(),
            starts: self.stage.attempt(self.job.id).await,
        };
        let expected = match model.is_unnoted {
            true => Seen {
                status: "pending".into(),
                attempts: 0,
                starts: 0,
            },
            false => Seen {
                status: model.status.to_string(),
                attempts: model.attempts,
                starts: model.attempt,
            },
        };
        same("the record", record, expected)?;
        let history: Vec<(i32, String)> = model
            .history
            .iter()
            .map(|(attempt, outcome)| (*attempt, (*outcome).to_owned()))
            .collect();
        same(
            "the retry history",
            self.stage.history(self.job.id).await,
            history,
        )?;
        let id = self.job.id;
        let dead = format!("bullwark.dead_letters WHERE job_id = '{id}'");
        let is_dead = i64::from(model.status == Status::DeadLetter);
        same("dead letters", self.stage.count(&dead).await, is_dead)?;
        same(
            "Redis",
            self.seen_in_redis().await,
            self.expected_in_redis(),
        )
    }

    async fn seen_in_redis(&self) -> Option<Seen> {
        let state = self.stage.state_in(&self.queue, self.job.id).await?;
        let hash = self.hash().await;
        let number = |field: &str| hash.get(field).map_or(0, |n| n.parse::<i32>().unwrap());
        Some(Seen {
            status: format!("{state:?}"),
            attempts: number("atm").unsigned_abs(),
            starts: number("ats"),
        })
    }

    /// The mapping table of the two vocabularies.
    fn expected_in_redis(&self) -> Option<Seen> {
        let model = &self.model;
        let state = match (model.status, model.is_due) {
            (Status::Pending | Status::Failed, true) => BrokerState::Prioritized,
            (Status::Pending | Status::Failed, false) => BrokerState::Delayed,
            (Status::Processing, _) => BrokerState::Active,
            (Status::Completed, _) => BrokerState::Completed,
            (Status::DeadLetter, _) => BrokerState::Failed,
            (Status::Cancelled, _) => return None,
        };
        // BullMQ counts the last attempt as made, however it ended.
        let last = u32::from(model.status.is_final());
        Some(Seen {
            status: format!("{state:?}"),
            attempts: model.attempts + last,
            starts: model.starts,
        })
    }

    pub(super) async fn hash(&self) -> BTreeMap<String, String> {
        let key = format!("{}:{}:{}", self.stage.prefix, self.queue, self.wire_id);
        let mut connection = self.stage.redis().await;
        let mut command = redis::cmd("HGETALL");
        command.arg(key).query_async(&mut connection).await.unwrap()
    }

    /// Runs `refused` and checks that it changed nothing.
    pub(super) async fn untouched(&self, refused: impl Future<Output = Checked>) -> Checked {
        let row = || async { serde_json::to_value(self.stage.row(self.job.id).await).unwrap() };
        let counts = || async { self.stage.broker.counts(&self.queue).await.unwrap() };
        let before = (row().await, self.hash().await, counts().await);
        refused.await?;
        let after = (row().await, self.hash().await, counts().await);
        same("after a refusal", after, before)
    }
}
