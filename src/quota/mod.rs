//! Quotas: how much of services outside may be used, by all workers together.
//!
//! ```text
//! let limits = Limits::of([Window::Sliding { max: 600, per_ms: 60_000 }]).reserve(10);
//! let key = QuotaKey::new("clearbit", workspace_id)?;
//! let ask = Ask::new(&key, &limits).host("company.clearbit.com");
//! let permit = ctx.permit(ask).await?;          // else the job snoozes until there is quota
//! let answer = call().await;                    // one call
//! if let Some(wait) = permit.answered(&learn(status, headers, now)).await {
//!     return Err(wait.into());                  // refused: everybody waits
//! }
//! ```
//!
//! It promises that no call is granted above a limit, whatever dies: what is spent is counted in
//! Redis by its own clock, one script per call; units of long windows are set aside in the record
//! before Redis gives them away; a Redis without memory takes short windows for full. When Redis or
//! the record is away, nobody knows what is left, and nobody calls.
//!
//! Where the process may die: after `take`, the cost is spent and the lease of the place runs out;
//! the same after the call and before its end was told, and then nothing was learned. Between a
//! block of units in the record and Redis, the block is lost, which makes the limit smaller, never
//! larger.
//!
//! Jobs that must wait are told moments at which they may come back, as many at a time as the
//! limits allow, so that nothing storms in when a window opens.

mod ask;
mod forward;
mod known;
mod learn;
mod permit;
mod structured;
mod take;
mod view;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, QuotaTicket};
use crate::record::Record;
use crate::tasks::Tasks;

pub use crate::job::quota::{InvalidLimits, Limits, QuotaKey, Window as QuotaWindow};
pub use ask::{Ask, LEASE, LEASE_MAX, QuotaError, Urgency, Wait, Why};
pub use forward::bring_forward;
pub use learn::{CLOSED_MAX, Learned, TOLD_MAX, Told, learn};
pub use permit::Permit;
pub use view::{QuotaView, WindowView};

use known::Looks;
#[cfg(feature = "server")]
pub(crate) use known::shortest;
use permit::{Call, KEEP_EVERY};

/// Permits that were dropped and wait for their places to be freed.
const DROPPED_MAX: usize = 1024;
/// How long a job waits when nobody knows what is left: this, and up to as much again.
const UNKNOWN_WAIT: Duration = Duration::from_secs(2);
/// Names that metrics tell apart; further ones count as `other`.
const LABELS_MAX: usize = 50;

/// Quotas of services outside. A cheap handle.
#[derive(Debug, Clone)]
pub struct Quotas {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    broker: Broker,
    record: Record,
    looks: Looks,
    dropped: mpsc::Sender<Call>,
    /// When what was learned of a key was last kept.
    kept: Mutex<HashMap<String, Instant>>,
}

impl Quotas {
    /// Frees places of permits that are dropped until `stop`.
    pub fn start(record: Record, broker: Broker, tasks: &Tasks, stop: CancellationToken) -> Self {
        let (dropped, mut calls) = mpsc::channel::<Call>(DROPPED_MAX);
        let quotas = Self {
            inner: Arc::new(Inner {
                broker,
                record,
                looks: Looks::default(),
                dropped,
                kept: Mutex::default(),
            }),
        };
        let freeing = quotas.clone();
        tasks.spawn("quota permits", async move {
            loop {
                let call = tokio::select! {
                    call = calls.recv() => call,
                    () = stop.cancelled() => None,
                };
                let Some(call) = call else { break };
                freeing.end(&call, None, &Learned::fine()).await;
            }
        });
        quotas
    }

    /// Takes what a call costs, if every window has it; else when to come back.
    pub async fn take(&self, ask: &Ask<'_>) -> Result<Result<Permit, Wait>, QuotaError> {
        let service = ask.key.service();
        let taken = self.try_take(ask).await;
        let wait = match taken {
            Ok(Ok(call)) => {
                metrics::counter!("bullwark_quota_calls_total", "service" => label(service))
                    .increment(1);
                if let Some(host) = ask.host {
                    breaker_seen(host, false);
                }
                let quotas = self.clone();
                return Ok(Ok(Permit {
                    quotas,
                    call: Some(call),
                }));
            }
            Ok(Err(wait)) => wait,
            Err(QuotaError::Broker(error)) if error.is_unavailable() => unknown(service, &error),
            Err(QuotaError::Record(error)) if error.is_unavailable() => unknown(service, &error),
            Err(error) => return Err(error),
        };
        if let (Why::Breaker, Some(host)) = (wait.why, ask.host) {
            breaker_seen(host, true);
        }
        metrics::counter!(
            "bullwark_quota_waits_total", "service" => label(service), "why" => wait.why.as_str()
        )
        .increment(1);
        Ok(Err(wait))
    }

    /// A job that was told to come back does not need the quota of this key after all: another one
    /// that waits comes in its place. Without a turn, and done again, nothing happens.
    pub async fn pass_turn(&self, key: &QuotaKey, ticket: QuotaTicket<'_>) {
        let (broker, key) = (&self.inner.broker, key.to_string());
        if let Err(error) = broker.pass_quota_turn(&key, ticket).await {
            // One call less than the limit allows.
            tracing::debug!(key, job.id = %ticket.job_id, %error, "the turn was not passed on");
        }
    }

    /// Whether it is time to keep what was learned of a key.
    fn may_keep(&self, key: &str) -> bool {
        let mut kept = self
            .inner
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= DROPPED_MAX && !kept.contains_key(key) {
            kept.retain(|_, at| at.elapsed() < KEEP_EVERY);
        }
        let now = Instant::now();
        match kept.get(key) {
            Some(at) if at.elapsed() < KEEP_EVERY => false,
            _ => {
                kept.insert(key.to_owned(), now);
                true
            }
        }
    }
}

fn unknown(service: &str, why: &dyn std::fmt::Display) -> Wait {
    Wait {
        time: UNKNOWN_WAIT + UNKNOWN_WAIT.mul_f64(rand::random()),
        why: Why::Unknown,
        service: service.to_owned(),
        detail: why.to_string(),
    }
}

/// Shows whether a host's breaker is open.
fn breaker_seen(host: &str, is_open: bool) {
    metrics::gauge!("bullwark_breaker_open", "host" => label(host)).set(f64::from(is_open));
}

/// The name, if there are not too many of them.
fn label(name: &str) -> String {
    static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if !seen.contains(name) {
        if seen.len() >= LABELS_MAX {
            return "other".to_owned();
        }
        seen.insert(name.to_owned());
    }
    name.to_owned()
}
