//! Jobs go out to a worker: `claim`.

use std::time::Duration;

use serde::Serialize;

use super::batch::BATCH_MAX;
use super::connection::ScriptCall;
use super::epoch::{EPOCH, server_of};
use super::script::ScriptId;
use super::{Broker, BrokerError, Repeat};
use crate::job::QueueName;

/// Due jobs that one claim promotes at most; `BullMQ`'s bound.
const PROMOTE_MAX: u32 = 1000;
/// What `claim.lua` answers beside no jobs.
const HELD: i64 = 1;
const OTHER_MEMORY: i64 = 2;

/// Who claims, how much, and for how long.
#[derive(Debug, Clone, Default)]
pub struct ClaimOptions {
    /// Proof of the lease; may be shared by all jobs of a claim, never by two attempts of a job.
    pub token: String,
    /// Jobs at most; no more than [`BATCH_MAX`] are given at once.
    pub max: usize,
    pub lease: Duration,
    /// Shown on dashboards as the job's `processedBy`.
    pub worker_name: Option<String>,
    /// How many jobs of the queue may start in a window, all workers together. One that is set on
    /// the queue itself goes before.
    pub limit: Option<RateLimit>,
    /// Also read every field of the jobs' hashes.
    pub whole: bool,
    /// A limiter that was closed by hand ([`Broker::rate_limit`]) holds without any limit, too.
    /// `BullMQ`'s workers do not look at it then.
    pub heeds_limiter: bool,
}

/// A rate limit: so many starts in each window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    pub max: u32,
    pub window: Duration,
}

/// The answer to a claim.
#[derive(Debug, Clone, Default)]
pub struct Claimed {
    pub jobs: Vec<ClaimedJob>,
    /// When the next delayed job is due.
    pub next_due_ms: Option<i64>,
    /// The server's clock at the claim.
    pub now_ms: i64,
    /// How long the queue's rate limit allows no further job.
    pub wait_ms: Option<i64>,
    /// The queue is paused or at its global concurrency.
    pub is_held: bool,
}

/// A job that is ours until its lease ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClaimedJob {
    pub id: String,
    pub name: String,
    /// JSON text, as it was added.
    pub data: String,
    /// JSON text, as it was added.
    pub opts: String,
    pub timestamp_ms: i64,
    pub delay_ms: i64,
    pub priority: u32,
    /// How often it was started, this time included.
    pub attempts_started: u32,
    /// Its hash said so, be it 0. Every job of the record is added with this count, and a client's
    /// retry may take it away: a job without it may have run before, however new it looks.
    pub is_counted: bool,
    pub attempts_made: u32,
    pub stalled_count: u32,
    /// It must fail with this reason without being run.
    pub deferred_failure: Option<String>,
    pub parent_key: Option<String>,
    /// JSON text.
    pub parent: Option<String>,
    /// The schedule that it is an iteration of.
    pub repeat_job_key: Option<String>,
    pub dedup_id: Option<String>,
    /// JSON array of texts, of the failures before.
    pub stacktrace: Option<String>,
    /// It was started before and not put back by hand since.
    pub was_started: bool,
    /// Every field of its hash, when asked for.
    pub hash: Vec<(String, String)>,
}

#[derive(Serialize)]
struct Options<'a> {
    token: &'a str,
    max: usize,
    lease_ms: u64,
    promote_max: u32,
    worker_name: Option<&'a str>,
    limit: Option<Limit>,
    whole: bool,
    heeds_limiter: bool,
    epoch: Option<&'a str>,
    server: &'a str,
}

#[derive(Serialize)]
struct Limit {
    max: u32,
    window_ms: u64,
}

/// Bytes, because a foreign client may have stored what is no text: that must not cost the
/// other jobs of the claim.
type Row = Vec<Option<Vec<u8>>>;

impl Broker {
    /// Takes the next jobs of a queue: due ones are promoted first.
    ///
    /// From another memory of Redis than the one that is served nothing is taken.
    ///
    /// If the reply is lost, the jobs stay active without an owner until `rescue` finds them; the
    /// call is not sent again, because it would take further jobs.
    pub async fn claim(
        &self,
        queue: &QueueName,
        options: &ClaimOptions,
    ) -> Result<Claimed, BrokerError> {
        let keys = self.keys(queue);
        let served = self.served();
        let packed = rmp_serde::to_vec_named(&Options {
            token: &options.token,
            max: options.max.min(BATCH_MAX),
            lease_ms: millis(options.lease),
            promote_max: PROMOTE_MAX,
            worker_name: options.worker_name.as_deref(),
            limit: options.limit.map(|limit| Limit {
                max: limit.max,
                window_ms: millis(limit.window),
            }),
            whole: options.whole,
            heeds_limiter: options.heeds_limiter,
            epoch: served.as_deref(),
            server: served.as_deref().map_or("", server_of),
        })
        .map_err(|error| BrokerError::corrupt("claim", error.to_string()))?;
        let mut call = ScriptCall::new(
            ScriptId::Claim,
            [
                &keys.wait(),
                &keys.active(),
                &keys.prioritized(),
                &keys.delayed(),
                &keys.paused(),
                &keys.pc(),
                &keys.marker(),
                &keys.meta(),
                &keys.events(),
                &keys.limiter(),
                &self.own_key(EPOCH),
            ],
        );
        call.arg(keys.job_prefix())
            .arg(packed)
            .number_or_empty(self.test_now_ms);
        let reply: Reply = self.connections.run(&call, Repeat::OnlyIfNotRun).await?;
        let (now_ms, next_due_ms, wait_ms, held, ids, rows, hashes) = reply;
        if held == OTHER_MEMORY {
            return Err(BrokerError::OtherMemory { doing: "claim" });
        }
        if ids.len() != rows.len() || (options.whole && hashes.len() != rows.len()) {
            return Err(BrokerError::corrupt(
                "claim",
                "ids and rows differ in number",
            ));
        }
        Ok(Claimed {
            jobs: ids
                .into_iter()
                .zip(rows)
                .zip(hashes.into_iter().map(Some).chain(std::iter::repeat(None)))
                .map(|((id, row), hash)| job_of(id, row, hash.unwrap_or_default()))
                .collect(),
            next_due_ms: (next_due_ms > 0).then_some(next_due_ms),
            now_ms,
            wait_ms: (wait_ms > 0).then_some(wait_ms),
            is_held: held == HELD,
        })
    }
}

type Hash = Vec<(Vec<u8>, Vec<u8>)>;
type Reply = (i64, i64, i64, i64, Vec<Vec<u8>>, Vec<Row>, Vec<Hash>);

/// Redis takes whole milliseconds above zero.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}

/// The fields in the order of `JOB_FIELDS` in `claim.lua`.
fn job_of(id: Vec<u8>, row: Row, hash: Hash) -> ClaimedJob {
    let mut fields = row.into_iter().map(|field| field.map(text));
    let mut next = || fields.next().flatten();
    let (name, data, opts) = (next(), next(), next());
    let (timestamp, delay, priority, starts) = (next(), next(), next(), next());
    ClaimedJob {
        id: text(id),
        name: name.unwrap_or_default(),
        data: data.unwrap_or_else(|| "{}".to_owned()),
        opts: opts.unwrap_or_else(|| "{}".to_owned()),
        timestamp_ms: number(timestamp),
        delay_ms: number(delay),
        priority: number(priority),
        is_counted: starts.is_some(),
        attempts_started: number::<u32>(starts).saturating_add(1),
        attempts_made: number(next()),
        stalled_count: number(next()),
        deferred_failure: next(),
        parent_key: next(),
        parent: next(),
        repeat_job_key: next(),
        dedup_id: next(),
        stacktrace: next(),
        was_started: next().is_some(),
        hash: hash.into_iter().map(|(k, v)| (text(k), text(v))).collect(),
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn number<T: Default + std::str::FromStr>(field: Option<String>) -> T {
    field.and_then(|text| text.parse().ok()).unwrap_or_default()
}
