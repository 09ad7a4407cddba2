//! Bullwark's own small keys of a prefix: which memory of Redis this is, and who does a duty.
//!
//! They lie under `bullwark:PREFIX:`, outside `BullMQ`'s names, so that its tools do not take them
//! for queues.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redis::InfoDict;

use super::claim::millis;
use super::{Broker, BrokerError};

const DOING: &str = "epoch";
/// The key of the name of this memory of Redis.
pub(super) const EPOCH: &str = "epoch";
/// The key of what the record says of its own life.
const MARK: &str = "record";

/// The memory of Redis that was compared with the record, if any was yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Served(Arc<RwLock<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    compared: Option<Arc<str>>,
    /// Somebody compares here. Where nobody does, nothing is ever served, and any memory is taken.
    is_awaited: bool,
}

impl Served {
    pub(super) fn get(&self) -> Option<Arc<str>> {
        self.read().compared.clone()
    }

    /// Whether this memory has yet to be compared.
    pub(super) fn awaits(&self, epoch: Option<&str>) -> bool {
        let memory = self.read();
        match &memory.compared {
            Some(compared) => Some(&**compared) != epoch,
            None => memory.is_awaited,
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Memory> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, epoch: Option<Arc<str>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Memory {
            compared: epoch,
            is_awaited: true,
        };
    }
}

/// The part of an epoch that names the server; empty if it does not say who it is.
pub(super) fn server_of(epoch: &str) -> &str {
    match epoch.rsplit_once('@') {
        Some((_, server)) if server != NAMELESS => server,
        _ => "",
    }
}

/// Not every server that speaks Redis's protocol names itself.
const NAMELESS: &str = "unknown";

impl Broker {
    /// The memory of Redis that may be worked with: it was compared with the record.
    pub fn served(&self) -> Option<Arc<str>> {
        self.served.get()
    }

    /// From here on `add` and `claim` of this broker and its clones refuse every memory but this.
    /// Before the first call they take any.
    pub fn serve(&self, epoch: &str) {
        self.served.set(Some(epoch.into()));
    }

    /// Whoever claims must have the memory compared again.
    pub fn stop_serving(&self) {
        self.served.set(None);
    }

    /// A clone that works with whatever memory there is: for repairs.
    pub fn for_repair(&self) -> Self {
        Self {
            served: Served::default(),
            ..self.clone()
        }
    }

    /// Empties this Redis, all databases of it: for measurements and tests on private servers.
    #[doc(hidden)]
    pub async fn lose_memory(&self) -> Result<(), BrokerError> {
        self.connections
            .command("lose_memory", &redis::cmd("FLUSHALL"))
            .await
    }

    /// The memory of Redis that answers: another text whenever it may have forgotten something.
    ///
    /// A key tells it, so an emptied Redis gets another epoch. Redis may also come back with the
    /// key but without its newest writes: from a snapshot, or as a replica that lagged. Then the
    /// server has another replication id, which every start and every promotion changes, and which
    /// the epoch names as well. A restart that lost nothing is taken for one that did: the safe
    /// side.
    ///
    /// When two processes notice a new memory at once, one of their names stays.
    pub async fn epoch(&self) -> Result<String, BrokerError> {
        let key = self.own_key(EPOCH);
        let mut look = redis::pipe();
        look.cmd("INFO").arg("replication").cmd("GET").arg(&key);
        let (info, known): (InfoDict, Option<String>) =
            self.connections.pipeline(DOING, &look).await?;
        let server: Option<String> = info.get("master_replid");
        let server = server.unwrap_or_else(|| NAMELESS.to_owned());
        let server = format!("@{server}");
        if let Some(known) = known.as_ref().filter(|known| known.ends_with(&server)) {
            return Ok(known.clone());
        }
        let fresh = format!("{}{server}", uuid::Uuid::new_v4().simple());
        let mut name = redis::pipe();
        let set = name.cmd("SET").arg(&key).arg(fresh);
        if known.is_none() {
            set.arg("NX");
        }
        name.ignore().cmd("GET").arg(&key);
        let (epoch,): (Option<String>,) = self.connections.pipeline(DOING, &name).await?;
        epoch.ok_or_else(|| BrokerError::corrupt(DOING, "the key vanished"))
    }

    /// Takes the name away from this memory of Redis: everybody must have it compared again.
    pub async fn forget_epoch(&self) -> Result<(), BrokerError> {
        let mut cmd = redis::cmd("DEL");
        cmd.arg(self.own_key(EPOCH));
        self.connections.command("forget_epoch", &cmd).await
    }

    /// What was last said of the record's own life with [`Broker::set_record_mark`].
    pub async fn record_mark(&self) -> Result<Option<String>, BrokerError> {
        let mut cmd = redis::cmd("GET");
        cmd.arg(self.own_key(MARK));
        self.connections.command("record_mark", &cmd).await
    }

    /// Remembers how far the record has come.
    pub async fn set_record_mark(&self, mark: &str) -> Result<(), BrokerError> {
        let mut cmd = redis::cmd("SET");
        cmd.arg(self.own_key(MARK)).arg(mark);
        self.connections.command("set_record_mark", &cmd).await
    }

    /// Takes or keeps a duty for `time`; false: somebody else has it.
    ///
    /// It keeps processes from doing the same work twice, and no more: two may believe to have it
    /// for a moment, so what they do must be harmless when done twice.
    pub async fn take_duty(
        &self,
        duty: &str,
        token: &str,
        time: Duration,
    ) -> Result<bool, BrokerError> {
        let key = self.own_key(duty);
        let mut take = redis::pipe();
        take.cmd("SET")
            .arg(&key)
            .arg(token)
            .arg("NX")
            .arg("PX")
            .arg(millis(time))
            .ignore();
        take.cmd("GET").arg(&key);
        let (owner,): (Option<String>,) = self.connections.pipeline("take_duty", &take).await?;
        if owner.as_deref() != Some(token) {
            return Ok(false);
        }
        let mut keep = redis::cmd("PEXPIRE");
        keep.arg(&key).arg(millis(time));
        self.connections.command("take_duty", &keep).await
    }

    /// Gives a duty back, if it is still this token's.
    pub async fn leave_duty(&self, duty: &str, token: &str) -> Result<(), BrokerError> {
        let key = self.own_key(duty);
        let owner: Option<String> = self
            .connections
            .command("leave_duty", redis::cmd("GET").arg(&key))
            .await?;
        if owner.as_deref() == Some(token) {
            let _: i64 = self
                .connections
                .command("leave_duty", redis::cmd("DEL").arg(&key))
                .await?;
        }
        Ok(())
    }

    pub(super) fn own_key(&self, name: &str) -> String {
        format!("bullwark:{}:{name}", self.prefix())
    }
}
