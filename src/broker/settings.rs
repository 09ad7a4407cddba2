//! The settings of a queue, which all its workers follow: global concurrency and rate limit.

use std::collections::HashMap;
use std::time::Duration;

use super::claim::millis;
use super::turns::FAIR;
use super::{Broker, BrokerError};
use crate::job::{QueueChange, QueueName, QueueSettings};

/// What the `meta` hash of a queue says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueMeta {
    pub is_paused: bool,
    /// Jobs of the queue that may be active at a time, of all workers together.
    pub concurrency: Option<u64>,
    /// Jobs of the queue that may start per `rate_duration_ms`, of all workers together.
    pub rate_max: Option<u64>,
    pub rate_duration_ms: Option<u64>,
    /// About how many events are kept.
    pub events_max: Option<u64>,
    /// The library that made the queue known, and its version.
    pub version: Option<String>,
    /// Workers of `BullMQ` 5 share the queue: see [`BrokerOptions`](super::BrokerOptions).
    pub has_v5_peers: bool,
    /// Workspaces take turns.
    pub is_fair: bool,
}

impl QueueMeta {
    /// What holds for the queue; not which library made it known.
    pub fn settings(&self) -> QueueSettings {
        QueueSettings {
            is_paused: self.is_paused,
            concurrency: self.concurrency,
            rate_max: self.rate_max,
            rate_duration_ms: self.rate_duration_ms,
            events_max: self.events_max,
            has_v5_peers: self.has_v5_peers,
            is_fair: self.is_fair,
        }
    }
}

impl Broker {
    /// Makes all settings of a queue what they are here. Not atomic: repeat it after a failure.
    pub async fn apply_settings(
        &self,
        queue: &QueueName,
        settings: &QueueSettings,
    ) -> Result<(), BrokerError> {
        let meta = self.keys(queue).meta();
        let mut pipeline = redis::pipe();
        let mut put = |field: &str, value: Option<u64>| {
            match value {
                Some(value) => pipeline.hset(&meta, field, value),
                None => pipeline.hdel(&meta, field),
            }
            .ignore();
        };
        put("concurrency", settings.concurrency);
        put("max", settings.rate_max);
        put("duration", settings.rate_duration_ms);
        put("bullwark.v5Peers", settings.has_v5_peers.then_some(1));
        put(FAIR, settings.is_fair.then_some(1));
        if let Some(events_max) = settings.events_max {
            put("opts.maxLenEvents", Some(events_max));
        }
        let _: () = self
            .connections
            .pipeline("apply_settings", &pipeline)
            .await?;
        match settings.is_paused {
            true => self.pause(queue).await.map(drop),
            false => self.resume(queue).await.map(drop),
        }
    }

    /// Changes some settings of a queue. Done again, it changes nothing.
    pub async fn change_settings(
        &self,
        queue: &QueueName,
        change: &QueueChange,
    ) -> Result<(), BrokerError> {
        if let Some(concurrency) = change.concurrency {
            self.set_concurrency(queue, concurrency).await?;
        }
        if let Some(limit) = change.rate_limit {
            let limit = limit.map(|(max, ms)| (max, Duration::from_millis(ms)));
            self.set_rate_limit(queue, limit).await?;
        }
        if let Some(is_fair) = change.is_fair {
            self.set_fair(queue, is_fair).await?;
        }
        match change.is_paused {
            Some(true) => self.pause(queue).await.map(drop),
            Some(false) => self.resume(queue).await.map(drop),
            None => Ok(()),
        }
    }

    /// The settings of a queue; those of a queue that does not exist are empty.
    pub async fn queue_meta(&self, queue: &QueueName) -> Result<QueueMeta, BrokerError> {
        let mut cmd = redis::cmd("HGETALL");
        cmd.arg(self.keys(queue).meta());
        let mut meta: HashMap<String, String> =
            self.connections.command("queue_meta", &cmd).await?;
        let number = |name: &str| meta.get(name).and_then(|text| text.parse().ok());
        Ok(QueueMeta {
            is_paused: meta.contains_key("paused"),
            concurrency: number("concurrency"),
            rate_max: number("max"),
            rate_duration_ms: number("duration"),
            events_max: number("opts.maxLenEvents"),
            has_v5_peers: meta.contains_key("bullwark.v5Peers"),
            is_fair: meta.contains_key(FAIR),
            version: meta.remove("version"),
        })
    }

    /// At most so many jobs of the queue are active at a time, of all workers together; none: as
    /// many as the workers like. Jobs that are active already run on.
    pub async fn set_concurrency(
        &self,
        queue: &QueueName,
        concurrency: Option<u64>,
    ) -> Result<(), BrokerError> {
        let meta = self.keys(queue).meta();
        let mut cmd = redis::cmd("HDEL");
        cmd.arg(&meta).arg("concurrency");
        if let Some(concurrency) = concurrency {
            cmd = redis::cmd("HSET");
            cmd.arg(&meta).arg("concurrency").arg(concurrency);
        }
        self.connections.command("set_concurrency", &cmd).await
    }

    /// At most so many jobs of the queue start per duration, of all workers together; none: as
    /// many as the workers like. The window that is open counts on.
    pub async fn set_rate_limit(
        &self,
        queue: &QueueName,
        limit: Option<(u64, Duration)>,
    ) -> Result<(), BrokerError> {
        let meta = self.keys(queue).meta();
        let mut cmd = redis::cmd("HDEL");
        cmd.arg(&meta).arg("max").arg("duration");
        if let Some((max, duration)) = limit {
            cmd = redis::cmd("HSET");
            cmd.arg(&meta)
                .arg("max")
                .arg(max)
                .arg("duration")
                .arg(millis(duration));
        }
        self.connections.command("set_rate_limit", &cmd).await
    }

    /// Ends the window of the rate limit now; false: none was open.
    pub async fn remove_rate_limit_key(&self, queue: &QueueName) -> Result<bool, BrokerError> {
        let mut cmd = redis::cmd("DEL");
        cmd.arg(self.keys(queue).limiter());
        let deleted: u64 = self
            .connections
            .command("remove_rate_limit_key", &cmd)
            .await?;
        Ok(deleted > 0)
    }

    /// How long no job starts because of the rate limit: of `max`, else of the queue's own. None:
    /// jobs may start, or there is no limit at all and no window is open.
    pub async fn rate_limit_ttl(
        &self,
        queue: &QueueName,
        max: Option<u64>,
    ) -> Result<Option<Duration>, BrokerError> {
        let keys = self.keys(queue);
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("HGET").arg(keys.meta()).arg("max");
        pipeline.cmd("GET").arg(keys.limiter());
        pipeline.cmd("PTTL").arg(keys.limiter());
        let (queue_max, used, ttl_ms): (Option<u64>, Option<u64>, i64) = self
            .connections
            .pipeline("rate_limit_ttl", &pipeline)
            .await?;
        // Without any limit, the contract answers what is left of the window.
        let is_full = max
            .or(queue_max)
            .is_none_or(|max| used.unwrap_or_default() >= max);
        let left = u64::try_from(ttl_ms).ok().filter(|ms| *ms > 0);
        Ok(left.filter(|_| is_full).map(Duration::from_millis))
    }

    /// Whether the queue is paused.
    pub async fn is_paused(&self, queue: &QueueName) -> Result<bool, BrokerError> {
        let mut cmd = redis::cmd("HEXISTS");
        cmd.arg(self.keys(queue).meta()).arg("paused");
        self.connections.command("is_paused", &cmd).await
    }

    /// Whether as many jobs are active as the queue's concurrency allows.
    pub async fn is_maxed(&self, queue: &QueueName) -> Result<bool, BrokerError> {
        let keys = self.keys(queue);
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("HGET").arg(keys.meta()).arg("concurrency");
        pipeline.cmd("LLEN").arg(keys.active());
        let (concurrency, active): (Option<u64>, u64) =
            self.connections.pipeline("is_maxed", &pipeline).await?;
        Ok(concurrency.is_some_and(|max| active >= max))
    }
}
