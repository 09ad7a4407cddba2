//! Quotas of services outside, shared by all workers: what a call takes.
//!
//! One round trip per call. What is spent lies under `bullwark:PREFIX:quota:KEY`, breakers of hosts
//! under `bullwark:PREFIX:breaker:HOST`; all of it ends by itself when nobody uses it. What must
//! outlive Redis, the record knows: a key without state says that it is cold, and is told.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::FromRedisValue;
use serde::Serialize;
use uuid::Uuid;

use super::claim::millis;
use super::connection::ScriptCall;
use super::epoch::{EPOCH, server_of};
use super::quota_turn::QuotaTicket;
use super::script::ScriptId;
use super::{Broker, BrokerError, Repeat};
use crate::job::quota::{Limits, Window, days_around};

/// State is kept for so long after its longest window.
const KEPT_AFTER: Duration = Duration::from_secs(3600);
const TAKE: &str = "take_quota";

/// One call that wants to be made.
#[derive(Debug)]
pub struct TakeQuota<'a> {
    /// `{service}:{workspace}[:{user}]`.
    pub key: &'a str,
    /// The host whose breaker is looked at; none: there is none.
    pub host: Option<&'a str>,
    /// Names the call.
    pub permit: Uuid,
    pub limits: &'a Limits,
    pub cost: u32,
    pub is_interactive: bool,
    /// After this time its place is free, whatever became of it.
    pub lease: Duration,
    /// The job that makes the call: told to come back, it finds its turn kept for a moment.
    pub ticket: Option<QuotaTicket<'a>>,
    /// In `0.0..1.0`, made by the caller.
    pub random: f64,
    /// SQL counts calls of this key, too.
    pub is_joined: bool,
    pub seed: Option<&'a QuotaSeed>,
    pub credits: &'a [QuotaCredit],
    /// Windows of which the record has no more units to set aside; for `sql` how long, in ms.
    pub refused: &'a BTreeMap<String, u64>,
}

/// What the record knows of a key.
#[derive(Debug, Clone, Default, Serialize)]
pub struct QuotaSeed {
    /// Since when nothing can have been spent.
    pub idle_ms: u64,
    pub closed_ms: u64,
    /// What was reported of the service's own words.
    pub fields: BTreeMap<String, String>,
    /// By window: `period units` of each period.
    pub spent: BTreeMap<String, String>,
}

/// Units that the record has set aside for a period of a window.
#[derive(Debug, Clone, Serialize)]
pub struct QuotaCredit {
    pub id: String,
    pub period: i64,
    pub units: u32,
}

/// What came of taking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TakenQuota {
    Granted,
    /// When to come back, what stands against it, and which window that is.
    Denied {
        wait: Duration,
        why: String,
        which: String,
    },
    /// The service named a limit below the cost: it fits at no time.
    TooExpensive {
        which: String,
        max: u64,
    },
    /// Nothing is known of the key: come with a seed.
    Cold,
    /// The record is to set units aside for this period; `sql`: of what SQL counts.
    NeedsCredit {
        now_ms: i64,
        id: String,
        period: i64,
        max: u64,
    },
}

#[derive(Serialize)]
struct TakeOptions<'a> {
    permit: String,
    cost: u32,
    lease_ms: u64,
    ttl_ms: u64,
    windows: Vec<WindowOptions<'a>>,
    concurrency: Option<u32>,
    reserve: f64,
    interactive: bool,
    ticket: Option<String>,
    jobs: &'a str,
    breaker: bool,
    random: f64,
    joined: bool,
    seed: Option<&'a QuotaSeed>,
    credits: &'a [QuotaCredit],
    refused: &'a BTreeMap<String, u64>,
    host: Option<&'a str>,
    epoch: Option<&'a str>,
    server: &'a str,
}

#[derive(Serialize)]
pub(super) struct WindowOptions<'a> {
    id: String,
    kind: &'a str,
    max: u32,
    per_ms: u64,
    refill: u32,
    days: Vec<i64>,
    pinned: bool,
    durable: bool,
}

impl Broker {
    /// Takes units for one call if every window has them.
    ///
    /// From another memory of Redis than the one that is served nothing is taken. With credits it
    /// is not sent again when the reply was lost: they stay set aside in the record, unused.
    pub async fn take_quota(&self, take: &TakeQuota<'_>) -> Result<TakenQuota, BrokerError> {
        let served = self.served();
        let now_ms = self.test_now_ms.unwrap_or_else(crate::clock::now_ms);
        let longest = take.limits.windows.iter().map(Window::per_ms).max();
        let options = pack(&TakeOptions {
            permit: take.permit.simple().to_string(),
            cost: take.cost,
            lease_ms: millis(take.lease),
            ttl_ms: longest.unwrap_or(0) * 2 + millis(KEPT_AFTER),
            windows: window_options(take.limits, now_ms),
            concurrency: take.limits.concurrency,
            reserve: f64::from(take.limits.reserve_percent) / 100.0,
            interactive: take.is_interactive,
            ticket: take.ticket.map(|ticket| ticket.to_string()),
            jobs: self.prefix(),
            breaker: take.host.is_some(),
            random: take.random,
            joined: take.is_joined,
            seed: take.seed,
            credits: take.credits,
            refused: take.refused,
            host: take.host,
            epoch: served.as_deref(),
            server: served.as_deref().map_or("", server_of),
        })?;
        let [state, leases, lines, tickets, costs] = self.quota_keys(take.key);
        let breaker = self.breaker_key(take.host);
        let epoch = self.own_key(EPOCH);
        let keys = [
            &*state, &*leases, &*lines, &*tickets, &*costs, &*breaker, &*epoch,
        ];
        let mut call = ScriptCall::new(ScriptId::TakeQuota, keys);
        call.arg(options).number_or_empty(self.test_now_ms);
        let repeat = match take.credits.is_empty() {
            true => Repeat::Safe,
            false => Repeat::OnlyIfNotRun,
        };
        let reply: Vec<redis::Value> = self.connections.run(&call, repeat).await?;
        read_taken(&reply)
    }

    /// Whether keys may vanish while the memory stays the same.
    pub fn allows_eviction(&self) -> bool {
        self.options.allow_eviction
    }

    /// State, leases, lines, tickets and their costs, of a key.
    pub(super) fn quota_keys(&self, key: &str) -> [String; 5] {
        ["", ":leases", ":lines", ":tickets", ":costs"]
            .map(|part| self.own_key(&format!("quota:{key}{part}")))
    }

    pub(super) fn breaker_key(&self, host: Option<&str>) -> String {
        self.own_key(&format!("breaker:{}", host.unwrap_or_default()))
    }
}

pub(super) fn pack(options: &impl Serialize) -> Result<Vec<u8>, BrokerError> {
    rmp_serde::to_vec_named(options).map_err(|error| BrokerError::corrupt(TAKE, error.to_string()))
}

pub(super) fn window_options(limits: &Limits, now_ms: i64) -> Vec<WindowOptions<'static>> {
    let each = limits.windows.iter().map(|window| WindowOptions {
        id: window.id(),
        kind: match window {
            Window::Bucket { .. } => "bucket",
            Window::Fixed { .. } => "fixed",
            Window::Sliding { .. } => "sliding",
            Window::Daily { .. } => "daily",
        },
        max: window.max(),
        per_ms: window.per_ms(),
        refill: match window {
            Window::Bucket { refill, .. } => *refill,
            Window::Fixed { .. } | Window::Sliding { .. } | Window::Daily { .. } => 0,
        },
        days: match window {
            Window::Daily { zone, .. } => days_around(zone, now_ms),
            Window::Bucket { .. } | Window::Fixed { .. } | Window::Sliding { .. } => Vec::new(),
        },
        pinned: !limits.learns,
        durable: window.is_durable(),
    });
    each.collect()
}

fn read_taken(reply: &[redis::Value]) -> Result<TakenQuota, BrokerError> {
    let number = |at: usize| -> Option<i64> {
        match reply.get(at)? {
            redis::Value::Int(number) => Some(*number),
            other => String::from_redis_value_ref(other).ok()?.parse().ok(),
        }
    };
    let text = |at: usize| -> Option<String> { String::from_redis_value_ref(reply.get(at)?).ok() };
    let read = || match (number(0)?, number(1)?) {
        (0, _) => Some(Ok(TakenQuota::Granted)),
        (1, now_ms) => Some(Ok(TakenQuota::Denied {
            wait: Duration::from_millis((number(2)? - now_ms).max(1) as u64),
            why: text(3)?,
            which: text(4)?,
        })),
        (2, _) => Some(Ok(TakenQuota::Cold)),
        (3, now_ms) => Some(Ok(TakenQuota::NeedsCredit {
            now_ms,
            id: text(2)?,
            period: number(3)?,
            max: u64::try_from(number(4)?).ok()?,
        })),
        (4, _) => Some(Err(BrokerError::OtherMemory { doing: TAKE })),
        (5, _) => Some(Ok(TakenQuota::TooExpensive {
            which: text(2)?,
            max: u64::try_from(number(3)?).ok()?,
        })),
        _ => None,
    };
    read().unwrap_or_else(|| Err(BrokerError::corrupt(TAKE, "an unknown answer")))
}
