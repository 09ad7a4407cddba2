//! How many jobs the workspace of a caller may create in an hour.
//!
//! The record counts, for all servers together and over restarts of everything; Redis has no part
//! in it. A server takes allowance from the record in one statement for all requests that wait for
//! it at that moment, and for large limits a little in advance, so that a busy workspace costs a
//! statement now and then. While the record is away nothing is accepted anyway.
//!
//! Promises: in no hour are more jobs accepted than the limit. What is refused, or was there
//! before, is given back. Slack: what a server took in advance and did not use is missing for an
//! hour if it dies, at most a thousandth of the limit; so is what was taken for a request whose
//! client left, or whose outcome nobody knows. A limit that was lowered holds everywhere after five
//! seconds.

mod grant;
mod taken;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::auth::Remembered;
use super::problem::Problem;
use crate::record::creations::{self, Limit};
use crate::record::{Record, RecordError};
pub(super) use grant::{Grant, RATE_LIMIT, RATE_LIMIT_POLICY, Standing};
use taken::Taken;

/// The part of a limit that is taken in advance, and the most of that.
const ADVANCE_OF: u64 = 1000;
const ADVANCE_MAX: u64 = 1000;
/// How long it may lie unused before it is given back.
const UNUSED_MAX: Duration = Duration::from_secs(30);
/// How long a workspace that has used up its limit is refused without asking again: another server
/// may have given something back, or the limit been raised.
const SPENT_FOR: Duration = Duration::from_secs(5);

/// The allowances of all workspaces that have a limit.
#[derive(Debug)]
pub(super) struct Allowances {
    /// For workspaces of which nothing is said.
    default: Option<u32>,
    limits: Remembered<Uuid, Limit>,
    pools: Mutex<HashMap<Uuid, Arc<Pool>>>,
}

/// What this server has of a workspace's allowance.
#[derive(Debug, Default)]
struct Pool {
    /// What requests wait for.
    wanted: AtomicU64,
    kept: tokio::sync::Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    quota: u32,
    left: Taken,
    /// Since when there has been some left without a break. Not renewed by what comes to it: a
    /// caller who takes much and creates nothing could else hoard one hour's allowance for another.
    taken: Option<Instant>,
    /// Of the quota, by all servers, when it was looked at last.
    used: u64,
    restored_at: Option<Instant>,
    spent_until: Option<Instant>,
}

impl Allowances {
    pub(super) fn new(default: Option<u32>) -> Self {
        Self {
            default,
            limits: Remembered::default(),
            pools: Mutex::default(),
        }
    }

    /// Takes what is left of `wanted`, or nothing if that is less than `needed`.
    pub(super) async fn take(
        &self,
        record: &Record,
        workspace_id: Uuid,
        wanted: u64,
        needed: u64,
    ) -> Result<Grant, RecordError> {
        let Some(quota) = self.quota(record, workspace_id).await? else {
            return Ok(Grant {
                pool: None,
                granted: wanted,
                taken: Taken::default(),
                standing: None,
                retry_in: None,
            });
        };
        let pool = self.pool(workspace_id);
        let waiting = Waiting::begun(&pool, wanted);
        let mut kept = pool.kept.lock().await;
        drop(waiting);
        if kept.quota != quota {
            // What is left of the limit before is not worth a statement.
            *kept = Kept {
                quota,
                ..Kept::default()
            };
        }
        let is_spent = kept.spent_until.is_some_and(|until| Instant::now() < until);
        let mut retry_in = kept
            .spent_until
            .and_then(seconds_until)
            .filter(|_| is_spent);
        let left = kept.left.jobs();
        if left < wanted && !is_spent {
            let others = pool.wanted.load(Ordering::Relaxed);
            let advance = (u64::from(quota) / ADVANCE_OF).min(ADVANCE_MAX);
            let lacking = (wanted - left) + others.max(advance);
            let needed = needed.saturating_sub(left);
            let taken = creations::take(record, workspace_id, quota, lacking, needed).await?;
            kept.note(taken, Instant::now());
            retry_in = taken
                .retry_in
                .map(|seconds| u64::from(seconds.unsigned_abs()));
        }
        let granted = match kept.left.jobs() {
            left if left >= needed => left.min(wanted),
            _ => 0,
        };
        let taken = kept.left.draw(granted);
        let standing = Some(kept.standing());
        drop(kept);
        Ok(Grant {
            pool: Some(pool),
            granted,
            taken,
            standing,
            retry_in,
        })
    }

    /// Takes allowance for jobs that are created together or not at all. A request whose key was
    /// used before creates nothing, and is let through to be told so.
    pub(super) async fn whole(
        &self,
        record: &Record,
        workspace_id: Uuid,
        jobs: u64,
        key: Option<&str>,
    ) -> Result<Grant, Problem> {
        let grant = self.take(record, workspace_id, jobs, jobs).await?;
        if grant.granted >= jobs {
            return Ok(grant);
        }
        if let Some(key) = key {
            let used = creations::used_keys(record, workspace_id, &[key]).await?;
            if !used.is_empty() {
                return Ok(grant);
            }
        }
        Err(grant.refusal(jobs))
    }

    /// Takes allowance for each of these, in their order, as far as it goes. Gives which are let
    /// through: also those whose keys were used before, which create nothing.
    pub(super) async fn each(
        &self,
        record: &Record,
        workspace_id: Uuid,
        keys: &[Option<&str>],
    ) -> Result<(Grant, Vec<bool>), RecordError> {
        let grant = self
            .take(record, workspace_id, keys.len() as u64, 1)
            .await?;
        if grant.granted >= keys.len() as u64 {
            return Ok((grant, vec![true; keys.len()]));
        }
        let given: Vec<&str> = keys.iter().flatten().copied().collect();
        let used = match given.is_empty() {
            true => HashSet::new(),
            false => creations::used_keys(record, workspace_id, &given).await?,
        };
        let mut left = grant.granted;
        let is_through = |key: &Option<&str>| {
            if key.is_some_and(|key| used.contains(key)) {
                return true;
            }
            let is_left = left > 0;
            left -= u64::from(is_left);
            is_left
        };
        let through = keys.iter().map(is_through).collect();
        Ok((grant, through))
    }

    /// Where a workspace stands; none: it has no limit. Takes nothing.
    pub(super) async fn look(
        &self,
        record: &Record,
        workspace_id: Uuid,
    ) -> Result<Option<Standing>, RecordError> {
        let Some(quota) = self.quota(record, workspace_id).await? else {
            return Ok(None);
        };
        let pool = self.pool(workspace_id);
        let taken = creations::take(record, workspace_id, quota, 0, 0).await?;
        let mut kept = pool.kept.lock().await;
        kept.quota = quota;
        kept.note(taken, Instant::now());
        Ok(Some(kept.standing()))
    }

    /// This server asks again what the limit of a workspace is.
    pub(super) fn forget(&self, workspace_id: Uuid) {
        self.limits.forget_one(&workspace_id);
    }

    async fn quota(&self, record: &Record, id: Uuid) -> Result<Option<u32>, RecordError> {
        let lookup = async {
            let row = creations::limit(record, id).await?;
            Ok(row.map(|row| row.limit()))
        };
        // A workspace that was just removed has nothing to say; its key ends in a moment.
        let limit = self.limits.answer(id, lookup).await?;
        Ok(match limit.unwrap_or(Limit::Unsaid) {
            Limit::Unsaid => self.default,
            Limit::None => None,
            Limit::PerHour(jobs) => Some(jobs),
        })
    }

    fn pool(&self, workspace_id: Uuid) -> Arc<Pool> {
        Arc::clone(self.lock().entry(workspace_id).or_default())
    }

    /// Gives back what has lain unused for a while, or all of it; and forgets workspaces of which
    /// nothing is kept, so that only the busy ones take memory.
    pub(super) async fn give_back(&self, record: &Record, all: bool) -> Result<(), RecordError> {
        let pools: Vec<(Uuid, Arc<Pool>)> = self
            .lock()
            .iter()
            .map(|(id, pool)| (*id, Arc::clone(pool)))
            .collect();
        for (id, pool) in pools {
            let mut kept = pool.kept.lock().await;
            let is_old = kept.taken.is_none_or(|taken| taken.elapsed() > UNUSED_MAX);
            if !is_old && !all {
                continue;
            }
            // If the answer is lost it may have been given back: better too little than too much.
            let unused = std::mem::take(&mut kept.left);
            drop(kept);
            for (minute, jobs) in unused {
                creations::give_back(record, id, minute, jobs).await?;
            }
            let mut known = self.lock();
            // This loop has one, and the map: nobody else can get one while it is locked.
            if Arc::strong_count(&pool) == 2 {
                known.remove(&id);
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Pool>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Has so much more.
    fn keep(&mut self, more: Taken, now: Instant) {
        if self.left.jobs() == 0 {
            self.taken = Some(now);
        }
        self.left.add(more);
    }

    fn note(&mut self, taken: creations::Taken, now: Instant) {
        let minute = taken.minute.unwrap_or_default();
        self.keep(Taken::of(minute, taken.granted.unsigned_abs()), now);
        self.used = taken.used.unsigned_abs();
        let after = |seconds: i32| now + Duration::from_secs(u64::from(seconds.unsigned_abs()));
        self.restored_at = taken.restored_in.map(after);
        let is_spent = self.used >= u64::from(self.quota) && self.left.jobs() == 0;
        self.spent_until = is_spent.then(|| {
            let retry = self.restored_at.unwrap_or(now + SPENT_FOR);
            retry.min(now + SPENT_FOR)
        });
    }

    fn standing(&self) -> Standing {
        Standing {
            quota: self.quota,
            remaining: u64::from(self.quota).saturating_sub(self.used) + self.left.jobs(),
            restored_in: self.restored_at.and_then(seconds_until),
        }
    }
}

/// Counts what a request waits for while it lives.
struct Waiting<'a> {
    pool: &'a Pool,
    wanted: u64,
}

impl<'a> Waiting<'a> {
    fn begun(pool: &'a Pool, wanted: u64) -> Self {
        pool.wanted.fetch_add(wanted, Ordering::Relaxed);
        Self { pool, wanted }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.pool.wanted.fetch_sub(self.wanted, Ordering::Relaxed);
    }
}

/// Whole ones, so that who waits for them has waited long enough; none: it was before now.
fn seconds_until(then: Instant) -> Option<u64> {
    let left = then.checked_duration_since(Instant::now())?;
    Some(left.as_secs_f64().ceil() as u64)
}
