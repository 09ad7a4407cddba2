//! What the record says of a key, kept for a moment.
//!
//! Before anything is given away, the record must know that a limiter is at work, so that a Redis
//! without memory is told what may have been spent; and SQL that begins to count calls of the key
//! must be seen soon. So a look is good for a few seconds only, and there is one at a time per key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::ask::QuotaError;
use crate::job::quota::{Limits, QuotaKey, Window};
use crate::record::quotas::{self, KnownQuota};
use crate::record::{Record, RecordError};

/// How long a look is good. The record reckons with it: see `bullwark.know_quota`.
const GOOD_FOR: Duration = Duration::from_secs(5);
/// After a look that failed nobody looks for so long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Keys that are kept; beyond it those that nobody used for a minute are forgotten.
const KEYS_MAX: usize = 10_000;
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// What was known at a look.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) limits: Arc<Limits>,
    pub(super) row: Arc<KnownQuota>,
    /// The memory of Redis that was served then.
    pub(super) epoch: Option<Arc<str>>,
    /// No memory has begun by it yet.
    pub(super) is_fresh: bool,
}

#[derive(Debug, Default)]
struct Slot {
    known: Option<(Instant, Known)>,
    failed: Option<(Instant, String)>,
}

/// What is kept of a key.
#[derive(Debug)]
struct Kept {
    used: Instant,
    slot: Arc<tokio::sync::Mutex<Slot>>,
    blocks: Arc<tokio::sync::Mutex<()>>,
}

/// The looks of a process.
#[derive(Debug, Default)]
pub(super) struct Looks(Mutex<HashMap<String, Kept>>);

/// A look, or why there is none now.
pub(super) enum Look {
    Known(Known),
    Away(String),
}

impl Looks {
    /// What is known of a key, no older than a few seconds; `anew`: as of now.
    pub(super) async fn look(
        &self,
        record: &Record,
        (key, text): (&QuotaKey, &str),
        usual: &Limits,
        epoch: Option<Arc<str>>,
        anew: bool,
    ) -> Result<Look, QuotaError> {
        let slot = self.slot(text);
        let mut slot = slot.lock().await;
        if let Some((at, known)) = &slot.known
            && at.elapsed() < GOOD_FOR
            && !anew
        {
            let mut seen = known.clone();
            // The limits of the asker, where nobody set others.
            if seen.row.own_limits.is_none() && *seen.limits != *usual {
                seen.limits = Arc::new(usual.clone());
            }
            return Ok(Look::Known(seen));
        }
        if let Some((at, why)) = &slot.failed
            && at.elapsed() < LOOK_AGAIN
        {
            return Ok(Look::Away(why.clone()));
        }
        let began = Instant::now();
        let whose = (text, key.workspace_id());
        let said = serde_json::to_value(usual).unwrap_or_default();
        let known = quotas::know(record, whose, epoch.as_deref(), shortest(usual), &said);
        match known.await {
            Ok(row) => {
                let known = Known {
                    limits: Arc::new(limits_of(&row, usual)),
                    row: Arc::new(row),
                    epoch,
                    is_fresh: true,
                };
                slot.failed = None;
                slot.known = Some((began, known.clone()));
                // The first to begin a memory by it is the only one.
                if let Some((_, kept)) = &mut slot.known {
                    kept.is_fresh = false;
                }
                Ok(Look::Known(known))
            }
            Err(error) if error.is_unavailable() => {
                let why = error.to_string();
                slot.failed = Some((Instant::now(), why.clone()));
                Ok(Look::Away(why))
            }
            Err(error @ RecordError::Refused { .. }) => {
                slot.failed = Some((Instant::now(), error.to_string()));
                Err(error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn slot(&self, key: &str) -> Arc<tokio::sync::Mutex<Slot>> {
        self.of(key, |kept| Arc::clone(&kept.slot))
    }

    /// Whoever asks the record for units of a key in this process waits for its turn, and asks
    /// Redis again: blocks are lost with Redis, so one is under way, not one per caller.
    pub(super) fn blocks(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        self.of(key, |kept| Arc::clone(&kept.blocks))
    }

    fn of<T>(&self, key: &str, take: impl FnOnce(&Kept) -> T) -> T {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= KEYS_MAX && !keys.contains_key(key) {
            keys.retain(|_, kept| kept.used.elapsed() < FORGET_AFTER);
            if keys.len() >= KEYS_MAX {
                keys.clear();
            }
        }
        let now = Instant::now();
        let kept = keys.entry(key.to_owned()).or_insert_with(|| Kept {
            used: now,
            slot: Arc::default(),
            blocks: Arc::default(),
        });
        kept.used = now;
        take(kept)
    }
}

/// What was set by an administrator, else what the service is known for.
pub(super) fn limits_of(row: &KnownQuota, usual: &Limits) -> Limits {
    let Some(own) = &row.own_limits else {
        return usual.clone();
    };
    match serde_json::from_value::<Limits>(own.clone()) {
        Ok(limits) if limits.check().is_ok() => limits,
        _ => {
            tracing::warn!("limits in the record can not be read; the usual ones hold");
            usual.clone()
        }
    }
}

/// The number and length of the shortest window, for the columns of the specification.
pub(crate) fn shortest(limits: &Limits) -> (u32, Duration) {
    let shortest = limits.windows.iter().min_by_key(|window| window.per_ms());
    let (max, ms) = shortest.map_or((0, 60_000), |w: &Window| (w.max(), w.per_ms()));
    (max, Duration::from_millis(ms))
}
