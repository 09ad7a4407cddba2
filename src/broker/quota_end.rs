//! Quotas of services outside: how a call went, and what is left.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use super::claim::millis;
use super::connection::ScriptCall;
use super::epoch::EPOCH;
use super::quota::{WindowOptions, pack, window_options};
use super::script::ScriptId;
use super::{Broker, BrokerError, Repeat};
use crate::job::quota::Limits;

/// A call that is over.
#[derive(Debug, Default)]
pub struct EndCall<'a> {
    pub key: &'a str,
    pub host: Option<&'a str>,
    pub permit: Uuid,
    pub lease: Duration,
    /// Whether the host was well; none: nobody knows.
    pub is_good: Option<bool>,
    /// Refused for the quota.
    pub is_limited: bool,
    pub closed_for: Option<Duration>,
    pub told: Vec<ToldState>,
    /// Limits that are told take the place of those known.
    pub learns: bool,
    /// The length of a window of which nothing is said.
    pub default_window: Duration,
    /// Say what the record should keep.
    pub report: bool,
}

/// What a service said of one of its windows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ToldState {
    pub name: String,
    pub limit: Option<u64>,
    pub left: Option<u64>,
    pub resets_ms: Option<u64>,
    pub per_ms: Option<u64>,
    /// It was asked for: what is left now, whatever was told before.
    pub polled: bool,
}

/// What an end made of the key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// How long the key is closed from now.
    pub closed_for: Option<Duration>,
    /// The breaker of the host has opened (true) or closed; none: it is as it was.
    pub breaker: Option<bool>,
    /// What the record should keep.
    pub fields: BTreeMap<String, String>,
}

/// What is left of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaState {
    pub now_ms: i64,
    pub closed_until_ms: Option<i64>,
    pub under_way: u64,
    pub windows: Vec<WindowState>,
    /// What the service said, as windows by its own names.
    pub told: Vec<WindowState>,
    /// The host that was called last, and until when its breaker is open: it is tried again then.
    pub host: Option<String>,
    pub breaker_until_ms: Option<i64>,
}

/// One window of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowState {
    pub id: String,
    pub max: u64,
    pub left: u64,
    /// When it is whole again.
    pub resets_at_ms: i64,
}

#[derive(Serialize)]
struct EndOptions<'a> {
    permit: String,
    lease_ms: u64,
    outcome: &'a str,
    breaker: bool,
    limited: bool,
    closed_ms: Option<u64>,
    told: &'a [ToldState],
    learns: bool,
    default_ms: u64,
    report: bool,
}

#[derive(Serialize)]
struct ReadOptions<'a> {
    windows: Vec<WindowOptions<'a>>,
    breaker_prefix: String,
}

impl Broker {
    /// Frees the place of a call and notes what the service said. An error leaves the place to the
    /// end of its lease.
    pub async fn end_quota(&self, end: &EndCall<'_>) -> Result<Ended, BrokerError> {
        let options = pack(&EndOptions {
            permit: end.permit.simple().to_string(),
            lease_ms: millis(end.lease),
            outcome: match end.is_good {
                Some(true) => "good",
                Some(false) => "bad",
                None => "none",
            },
            breaker: end.host.is_some(),
            limited: end.is_limited,
            closed_ms: end.closed_for.map(|time| time.as_millis() as u64),
            told: &end.told,
            learns: end.learns,
            default_ms: millis(end.default_window),
            report: end.report,
        })?;
        let [state, leases, ..] = self.quota_keys(end.key);
        let breaker = self.breaker_key(end.host);
        let mut call = ScriptCall::new(ScriptId::EndQuota, [&*state, &*leases, &*breaker]);
        call.arg(options).number_or_empty(self.test_now_ms);
        let (closed_ms, breaker, fields): (f64, String, Vec<String>) =
            self.connections.run(&call, Repeat::Safe).await?;
        let pairs = fields.chunks_exact(2);
        Ok(Ended {
            closed_for: (closed_ms > 0.0).then(|| Duration::from_millis(closed_ms as u64)),
            breaker: match breaker.as_str() {
                "opened" => Some(true),
                "closed" => Some(false),
                _ => None,
            },
            fields: pairs.map(|p| (p[0].clone(), p[1].clone())).collect(),
        })
    }

    /// What is left of a key; none: nothing was used lately.
    pub async fn read_quota(
        &self,
        key: &str,
        limits: &Limits,
    ) -> Result<Option<QuotaState>, BrokerError> {
        type Row = (String, f64, f64, f64);
        type Reply = Option<(i64, f64, u64, Vec<Row>, Vec<Row>, String, f64)>;
        let now_ms = self.test_now_ms.unwrap_or_else(crate::clock::now_ms);
        let options = pack(&ReadOptions {
            windows: window_options(limits, now_ms),
            breaker_prefix: self.breaker_key(None),
        })?;
        let [state, leases, ..] = self.quota_keys(key);
        let epoch = self.own_key(EPOCH);
        let mut call = ScriptCall::new(ScriptId::ReadQuota, [&*state, &*leases, &*epoch]);
        call.arg(options).number_or_empty(self.test_now_ms);
        let reply: Reply = self.connections.run(&call, Repeat::Safe).await?;
        let state = |(id, max, left, at): Row| WindowState {
            id,
            max: max as u64,
            left: left as u64,
            resets_at_ms: at as i64,
        };
        Ok(reply.map(
            |(now_ms, closed, under_way, windows, told, host, open)| QuotaState {
                now_ms,
                closed_until_ms: (closed > 0.0).then_some(closed as i64),
                under_way,
                windows: windows.into_iter().map(state).collect(),
                told: told.into_iter().map(state).collect(),
                host: Some(host).filter(|host| !host.is_empty()),
                breaker_until_ms: (open > 0.0).then_some(open as i64),
            },
        ))
    }
}
