//! The bounds that keep one kind of request, or one caller, from starving the others.
//!
//! Of each there is so much, and a workspace may have a share of it (`gate`). Whoever finds no room
//! waits a little and is told to come back: 503 where the server has too much to do, 429 where the
//! caller or its workspace has. Nothing is queued without a bound.

mod gate;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use super::problem::{Code, Problem};
use crate::record::access::Actor;
pub(super) use gate::Turn;
use gate::{Full, Gate};

/// Bytes of bodies that are held in memory at once, in KiB. Four of the largest fit into a share.
const BODIES_MAX_KIB: u32 = 256 * 1024;
const BODIES_SHARE_KIB: u32 = BODIES_MAX_KIB / 2;
/// Bytes of large answers that nobody has read yet, in KiB.
const ANSWERS_MAX_KIB: u32 = 128 * 1024;
const ANSWERS_SHARE_KIB: u32 = ANSWERS_MAX_KIB / 2;
/// Requests that read the record at once: fewer than it has connections, so that pages never keep
/// upkeep and handlers waiting.
const READS_MAX: u32 = 6;
const READS_SHARE: u32 = READS_MAX / 2;
/// Uploads that arrive at once.
const UPLOADS_MAX: u32 = 32;
const UPLOADS_SHARE: u32 = UPLOADS_MAX / 4;
/// Files that are looked at at once, each by a thread of its own.
const LOOKS_MAX: u32 = 2;
const LOOKS_SHARE: u32 = LOOKS_MAX / 2;
/// Links that are looked up at once, each by a short statement.
const LINKS_MAX: u32 = 3;
const LINKS_SHARE: u32 = 2;
/// How long a request waits for its turn.
const TURN_MAX: Duration = Duration::from_secs(5);
/// When a caller with too many requests may come back, in seconds.
const CALLER_RETRY_SECONDS: u64 = 1;
/// Whose share it is that is taken for those whom nobody knows.
const STRANGERS: Uuid = Uuid::nil();

/// Turns and room.
#[derive(Debug)]
pub(super) struct Bounds {
    bodies: Gate,
    answers: Gate,
    reads: Gate,
    uploads: Gate,
    looks: Gate,
    links: Gate,
    callers: InFlight,
    turn_max: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self::with_patience(TURN_MAX)
    }
}

impl Bounds {
    pub(super) fn with_patience(turn_max: Duration) -> Self {
        Self {
            bodies: Gate::new(BODIES_MAX_KIB, BODIES_SHARE_KIB),
            answers: Gate::new(ANSWERS_MAX_KIB, ANSWERS_SHARE_KIB),
            reads: Gate::new(READS_MAX, READS_SHARE),
            uploads: Gate::new(UPLOADS_MAX, UPLOADS_SHARE),
            looks: Gate::new(LOOKS_MAX, LOOKS_SHARE),
            links: Gate::new(LINKS_MAX, LINKS_SHARE),
            callers: InFlight::default(),
            turn_max,
        }
    }

    /// Room for so many bytes of a body; held while the request lives.
    pub(super) async fn room(&self, of: Uuid, bytes: usize) -> Result<Turn, Problem> {
        self.turn(&self.bodies, of, kib(bytes as u64)).await
    }

    /// Room for an answer of so many bytes; held until it is read.
    pub(super) async fn answer_room(&self, of: Option<Uuid>, bytes: u64) -> Result<Turn, Problem> {
        let of = of.unwrap_or(STRANGERS);
        self.turn(&self.answers, of, kib(bytes)).await
    }

    /// The same, if there is room at this moment.
    pub(super) async fn answer_room_at_once(&self, of: Option<Uuid>, bytes: u64) -> Option<Turn> {
        let of = of.unwrap_or(STRANGERS);
        let turn = self.answers.turn(of, kib(bytes), Duration::ZERO).await;
        turn.ok()
    }

    /// A turn to look a link up, for those whom nobody knows.
    pub(super) async fn link_turn(&self) -> Result<Turn, Problem> {
        self.turn(&self.links, STRANGERS, 1).await
    }

    /// A turn to read the record.
    pub(super) async fn read_turn(&self, of: Uuid) -> Result<Turn, Problem> {
        self.turn(&self.reads, of, 1).await
    }

    /// A turn to look at a file.
    pub(super) async fn look_turn(&self, of: Uuid) -> Result<Turn, Problem> {
        self.turn(&self.looks, of, 1).await
    }

    /// A turn to upload.
    pub(super) async fn upload_turn(&self, of: Uuid) -> Result<Turn, Problem> {
        self.turn(&self.uploads, of, 1).await
    }

    async fn turn(&self, gate: &Gate, of: Uuid, permits: u32) -> Result<Turn, Problem> {
        let turn = gate.turn(of, permits, self.turn_max).await;
        turn.map_err(|full| match full {
            Full::All => {
                let detail = "the server has too many requests of this kind; try again shortly";
                Problem::new(Code::Overloaded, detail)
            }
            Full::Share => {
                let detail = "the workspace has too many requests of this kind under way; \
                    try again when some are answered";
                let problem = Problem::new(Code::TooManyRequests, detail);
                problem.with_retry_after(CALLER_RETRY_SECONDS)
            }
        })
    }

    /// Counts a request of a caller, which may have so many at once, while `place` lives.
    pub(super) fn enter(
        &self,
        place: &Place,
        caller: (Actor, Uuid),
        max: usize,
    ) -> Result<(), Problem> {
        let Some(entered) = self.callers.enter(caller, max) else {
            let detail = format!("you have {max} requests under way; wait until one is answered");
            let problem = Problem::new(Code::TooManyRequests, detail);
            return Err(problem.with_retry_after(CALLER_RETRY_SECONDS));
        };
        // A second caller of one request can not be; its count would end here.
        place.0.set(entered).ok();
        Ok(())
    }
}

fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

/// Where a request is counted, once it is known whose it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Place(Arc<OnceLock<Entered>>);

impl Place {
    /// The workspace of the caller, if that is known.
    pub(super) fn workspace_id(&self) -> Option<Uuid> {
        self.0.get().map(|entered| entered.caller.1)
    }
}

/// How many requests each caller has under way. As large as the number of connections at most.
#[derive(Debug, Clone, Default)]
struct InFlight(Arc<Mutex<HashMap<(Actor, Uuid), usize>>>);

#[derive(Debug)]
struct Entered {
    caller: (Actor, Uuid),
    all: InFlight,
}

impl InFlight {
    fn enter(&self, caller: (Actor, Uuid), max: usize) -> Option<Entered> {
        let mut all = self.lock();
        let count = all.entry(caller).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Entered {
            caller,
            all: self.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Actor, Uuid), usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.all.lock().entry(self.caller) {
            match entry.get() {
                0 | 1 => drop(entry.remove()),
                _ => *entry.get_mut() -= 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_so_many_requests_at_once_and_no_other_pays_for_it() {
        let all = InFlight::default();
        let [one, other] = [1, 2].map(|n| (Actor::ApiKey(Uuid::from_u128(n)), Uuid::nil()));
        let first = all.enter(one, 2).unwrap();
        let second = all.enter(one, 2).unwrap();
        assert!(all.enter(one, 2).is_none());
        let others = all.enter(other, 2).unwrap();
        drop(first);
        let third = all.enter(one, 2).unwrap();
        drop((second, third, others));
        assert!(
            all.lock().is_empty(),
            "nothing is kept of callers that left"
        );
    }

    #[tokio::test]
    async fn who_finds_no_room_is_told_so_in_time() {
        let bounds = Bounds::with_patience(Duration::from_millis(50));
        let [one, other, third] = [1, 2, 3].map(Uuid::from_u128);
        let code = |refused: Result<Turn, Problem>| refused.unwrap_err().document()["code"].clone();
        let share = bounds.room(one, usize::MAX).await.unwrap();
        assert_eq!(code(bounds.room(one, 1).await), "too_many_requests");
        let _rest = bounds.room(other, usize::MAX).await.unwrap();
        assert_eq!(code(bounds.room(third, 1).await), "overloaded");
        drop(share);
        assert!(bounds.room(one, 1).await.is_ok());
    }
}
