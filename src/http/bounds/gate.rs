//! A gate: so many pass at once, and of one workspace no more than its share, so that one alone
//! does not keep others out.
//!
//! Who waits is let in by turns, first of its workspace and then of all: however many wait of one
//! workspace, only its share stands in the way of the others. Nothing is kept of workspaces that
//! left.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

#[derive(Debug)]
pub(super) struct Gate {
    all: Arc<Semaphore>,
    share: u32,
    shares: Shares,
}

/// Whoever has it is through the gate.
#[derive(Debug)]
pub(in crate::http) struct Turn {
    own: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
    // Last: a share is kept while anything of it is taken.
    _user: User,
}

/// What had no room in time.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The share of the workspace.
    Share,
    All,
}

/// The shares that are in use: as many as there are requests at most.
#[derive(Debug, Clone, Default)]
struct Shares(Arc<Mutex<HashMap<Uuid, Share>>>);

#[derive(Debug)]
struct Share {
    permits: Arc<Semaphore>,
    users: usize,
}

/// One who has or awaits something of a share.
#[derive(Debug)]
struct User {
    of: Uuid,
    permits: Arc<Semaphore>,
    shares: Shares,
}

impl Gate {
    pub(super) fn new(max: u32, share: u32) -> Self {
        debug_assert!(0 < share && share < max, "one workspace never has it all");
        Self {
            all: Arc::new(Semaphore::new(max as usize)),
            share,
            shares: Shares::default(),
        }
    }

    /// So many permits for a workspace, or its whole share if that is less: else it could never
    /// have them.
    pub(super) async fn turn(
        &self,
        of: Uuid,
        permits: u32,
        patience: Duration,
    ) -> Result<Turn, Full> {
        let permits = permits.clamp(1, self.share);
        let user = self.shares.user(of, self.share);
        let deadline = Instant::now() + patience;
        let own = acquired(&user.permits, permits, deadline).await;
        let own = own.ok_or(Full::Share)?;
        let all = acquired(&self.all, permits, deadline).await;
        Ok(Turn {
            own,
            all: all.ok_or(Full::All)?,
            _user: user,
        })
    }
}

async fn acquired(
    permits: &Arc<Semaphore>,
    count: u32,
    deadline: Instant,
) -> Option<OwnedSemaphorePermit> {
    // Mostly there is room: no timer for that. While anybody waits there is none.
    if let Ok(permit) = Arc::clone(permits).try_acquire_many_owned(count) {
        return Some(permit);
    }
    let acquiring = Arc::clone(permits).acquire_many_owned(count);
    timeout_at(deadline, acquiring).await.ok()?.ok()
}

impl Turn {
    /// Takes over what a turn at the same gate, of the same workspace, has.
    pub(in crate::http) fn merge(&mut self, other: Self) {
        self.own.merge(other.own);
        self.all.merge(other.all);
    }
}

impl Shares {
    fn user(&self, of: Uuid, share: u32) -> User {
        let mut shares = self.lock();
        let share = shares.entry(of).or_insert_with(|| Share {
            permits: Arc::new(Semaphore::new(share as usize)),
            users: 0,
        });
        share.users += 1;
        User {
            of,
            permits: Arc::clone(&share.permits),
            shares: self.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Share>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut shares = self.shares.lock();
        if let Some(share) = shares.get_mut(&self.of) {
            share.users -= 1;
            if share.users == 0 {
                shares.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;
    const LONG: Duration = Duration::from_secs(60);
    const ONE: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    #[tokio::test]
    async fn a_workspace_takes_its_share_and_leaves_the_rest_to_others() {
        let gate = Gate::new(4, 2);
        let first = gate.turn(ONE, 1, NOW).await.unwrap();
        let _second = gate.turn(ONE, 1, NOW).await.unwrap();
        assert_eq!(gate.turn(ONE, 1, NOW).await.unwrap_err(), Full::Share);
        // More than the share is the share.
        let _whole = gate.turn(OTHER, 100, NOW).await.unwrap();
        let third = gate.turn(Uuid::from_u128(3), 1, NOW).await;
        assert_eq!(third.unwrap_err(), Full::All);
        drop(first);
        assert!(gate.turn(ONE, 1, NOW).await.is_ok());
    }

    #[tokio::test]
    async fn those_who_wait_of_one_workspace_do_not_stand_before_another() {
        let gate = Arc::new(Gate::new(3, 2));
        let mut held = Vec::new();
        for of in [ONE, ONE, OTHER] {
            held.push(gate.turn(of, 1, NOW).await.unwrap());
        }
        let wait = |of| {
            let gate = Arc::clone(&gate);
            Box::pin(async move { gate.turn(of, 1, LONG).await.unwrap() })
        };
        // Two of the one workspace wait before one of the other.
        let (mut a, mut b, mut other) = (wait(ONE), wait(ONE), wait(OTHER));
        for waiting in [&mut a, &mut b, &mut other] {
            assert!(futures_util::poll!(waiting).is_pending());
        }
        held.remove(2);
        let _other = other.await;
        assert!(futures_util::poll!(&mut a).is_pending());
        // Of one workspace, the first comes first.
        held.remove(0);
        let _a = a.await;
        assert!(futures_util::poll!(&mut b).is_pending());
    }

    #[tokio::test]
    async fn what_is_merged_is_given_back_at_once_and_nothing_is_kept_of_who_left() {
        let gate = Gate::new(10, 4);
        let mut turn = gate.turn(ONE, 2, NOW).await.unwrap();
        turn.merge(gate.turn(ONE, 2, NOW).await.unwrap());
        assert_eq!(gate.turn(ONE, 1, NOW).await.unwrap_err(), Full::Share);
        assert_eq!(gate.shares.lock().len(), 1);
        drop(turn);
        assert_eq!(gate.all.available_permits(), 10);
        assert!(gate.shares.lock().is_empty());
        drop(gate.turn(ONE, 4, NOW).await.unwrap());
        assert!(gate.shares.lock().is_empty());
    }
}
