//! The right to make one call, and what is told of how it went.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::ask::{Ask, QuotaError, Urgency, Wait, Why};
use super::known::{Look, shortest};
use super::learn::Learned;
use super::{Quotas, breaker_seen};
use crate::broker::{EndCall, Ended, ToldState};
use crate::record::quotas;

/// A key that was closed opens for its jobs at slightly different moments.
const SPREAD_MAX: Duration = Duration::from_secs(1);
/// What is learned is kept in the record no more often than this, per key and process.
pub(super) const KEEP_EVERY: Duration = Duration::from_secs(1);

/// One call may be made now. To be ended with what came back.
///
/// Dropped, its place is free again, and what it costs stays spent: the call may have been made.
#[derive(Debug)]
#[must_use = "make the call, and say how it ended"]
pub struct Permit {
    pub(super) quotas: Quotas,
    pub(super) call: Option<Call>,
}

/// What names a call that was granted.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) id: Uuid,
    pub(super) key: String,
    pub(super) service: String,
    pub(super) host: Option<String>,
    pub(super) lease: Duration,
    pub(super) learns: bool,
    pub(super) default_window: Duration,
    pub(super) granted: Instant,
}

impl Permit {
    /// How long its place is still held.
    pub fn left(&self) -> Duration {
        let left = self.call.as_ref().map(|call| {
            let spent = call.granted.elapsed();
            call.lease.saturating_sub(spent)
        });
        left.unwrap_or_default()
    }

    /// The service answered. If it refused the call for its quota, the key is closed for everybody,
    /// and the job should come back then.
    pub async fn answered(mut self, learned: &Learned) -> Option<Wait> {
        let call = self.call.take()?;
        let is_good = Some(!learned.is_failure);
        let ended = self.quotas.end(&call, is_good, learned).await;
        if !learned.is_limited {
            return None;
        }
        let closed = ended.and_then(|ended| ended.closed_for);
        let closed = closed.or(learned.closed_for).unwrap_or(SPREAD_MAX);
        let spread = (closed / 10).min(SPREAD_MAX).mul_f64(rand::random());
        Some(Wait {
            time: closed + spread,
            why: Why::Closed,
            service: call.service,
            detail: String::new(),
        })
    }

    /// No answer: the connection failed, or it took too long. Counts for the breaker.
    pub async fn failed(mut self) {
        if let Some(call) = self.call.take() {
            self.quotas.end(&call, Some(false), &Learned::fine()).await;
        }
    }

    /// The call was not made after all, or nobody knows what became of it.
    pub async fn ended(mut self) {
        if let Some(call) = self.call.take() {
            self.quotas.end(&call, None, &Learned::fine()).await;
        }
    }
}

impl Quotas {
    /// What a service said of this quota, asked for in a call that does not count for it: the word
    /// of now, also while the key has nothing left. Nothing is taken.
    pub async fn told(&self, ask: &Ask<'_>, learned: &Learned) -> Result<(), QuotaError> {
        // A call that costs nothing, so that Redis knows the key.
        let nothing = ask.clone().cost(0).urgency(Urgency::Interactive);
        if let Ok(permit) = self.take(&nothing).await? {
            drop(permit.answered(learned).await);
            return Ok(());
        }
        // Closed, or all of its calls are under way: it is known, if anything is.
        let Look::Known(known) = self.look(ask, &ask.key.to_string(), false).await? else {
            return Ok(());
        };
        let call = Call {
            id: Uuid::new_v4(),
            key: ask.key.to_string(),
            service: ask.key.service().to_owned(),
            host: None,
            lease: ask.lease,
            learns: known.limits.learns,
            default_window: shortest(&known.limits).1,
            granted: Instant::now(),
        };
        self.end(&call, None, learned).await;
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            // If too many were dropped at once, their leases end by themselves.
            let _ = self.quotas.inner.dropped.try_send(call);
        }
    }
}

impl Quotas {
    /// Tells Redis, and what must outlive it to the record. None: Redis is away; the place is free
    /// when its lease ends.
    pub(super) async fn end(
        &self,
        call: &Call,
        is_good: Option<bool>,
        learned: &Learned,
    ) -> Option<Ended> {
        let told = learned.told.iter().map(|told| ToldState {
            name: told.name.clone(),
            limit: told.limit,
            left: told.left,
            resets_ms: told.resets_in.map(|time| time.as_millis() as u64),
            per_ms: told.per.map(|time| time.as_millis() as u64),
            polled: told.is_polled,
        });
        // A service that is down and says for how long closes the key as well.
        let is_closed = learned.closed_for.is_some() || learned.is_limited;
        let end = EndCall {
            key: &call.key,
            host: call.host.as_deref(),
            permit: call.id,
            lease: call.lease,
            is_good,
            is_limited: learned.is_limited,
            closed_for: learned.closed_for,
            told: told.collect(),
            learns: call.learns,
            default_window: call.default_window,
            report: !learned.told.is_empty() && self.may_keep(&call.key),
        };
        let ended = self.inner.broker.end_quota(&end).await;
        let ended = ended
            .inspect_err(|error| tracing::warn!(%error, key = call.key, "end of a call not told"))
            .ok();
        if let (Some(opened), Some(host)) = (ended.as_ref().and_then(|e| e.breaker), &call.host) {
            breaker_seen(host, opened);
            if opened {
                tracing::warn!(host, "it fails again and again: not called for a while");
            }
        }
        let fields = ended.as_ref().map(|ended| ended.fields.clone());
        let fields = fields.unwrap_or_default();
        let closed_for = match is_closed {
            true => ended
                .as_ref()
                .map_or(learned.closed_for, |ended| ended.closed_for),
            false => None,
        };
        // Redis may be lost right after: a closed key stays closed.
        if closed_for.is_some() || !fields.is_empty() {
            let kept = quotas::keep_learned(&self.inner.record, &call.key, &fields, closed_for);
            if let Err(error) = kept.await {
                tracing::debug!(%error, key = call.key, "what was learned is in Redis only");
            }
        }
        ended
    }
}
