//! The last events of one topic, kept once for all who listen.
//!
//! A listener has a place in the ring and no buffer of its own. Whoever is too slow, or comes back
//! too late, finds that its place is gone, and begins anew with a snapshot. So a reader that does
//! not read costs nothing, and holds up nobody.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::kinds::LiveEvent;

/// One event, as it is sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) number: u64,
    pub(super) name: &'static str,
    /// JSON.
    pub(super) data: String,
    /// Its id, where that is not its place.
    pub(super) own_id: Option<String>,
    /// Nothing follows.
    pub(super) is_last: bool,
}

/// How much of a topic is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct RingMax {
    pub(super) events: usize,
    pub(super) bytes: usize,
}

/// What comes after a place.
#[derive(Debug)]
pub(super) enum After {
    /// Never empty.
    Events(Vec<Arc<Sent>>),
    Nothing,
    /// Events after the place are not there any more.
    Gap,
}

/// The last events of a topic.
#[derive(Debug)]
pub(super) struct Ring {
    /// Tells this ring from those of other servers, and from later ones of the same topic.
    epoch: u64,
    max: RingMax,
    kept: Mutex<Kept>,
    /// The number of the next event, for whoever waits for it.
    next: watch::Sender<u64>,
}

#[derive(Debug)]
struct Kept {
    events: VecDeque<Arc<Sent>>,
    bytes: usize,
    next: u64,
}

impl Kept {
    /// The first place after which nothing is missing.
    fn first(&self) -> u64 {
        self.events.front().map_or(self.next, |event| event.number)
    }
}

impl Ring {
    pub(super) fn new(max: RingMax) -> Self {
        Self {
            epoch: rand::random(),
            max,
            kept: Mutex::new(Kept {
                events: VecDeque::new(),
                bytes: 0,
                next: 1,
            }),
            next: watch::Sender::new(1),
        }
    }

    /// The place after all that was published, but for the last event of all: nobody passes over
    /// that one.
    pub(super) fn end(&self) -> u64 {
        let kept = self.lock();
        let last = kept.events.back().filter(|event| event.is_last);
        last.map_or(kept.next, |last| last.number)
    }

    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }

    /// The id of whatever stands before this place, by which it is found again.
    pub(super) fn id_before(&self, place: u64) -> String {
        format!("{:016x}-{}", self.epoch, place - 1)
    }

    /// The place after the event with this id; none if it is of another ring or was never given,
    /// and if what follows it is gone.
    pub(super) fn place_after(&self, id: &str) -> Option<u64> {
        let (epoch, number) = id.split_once('-')?;
        let is_ours = epoch.len() == 16 && u64::from_str_radix(epoch, 16) == Ok(self.epoch);
        let number: u64 = number.parse().ok().filter(|_| is_ours)?;
        let place = number.checked_add(1).filter(|place| *place <= self.end())?;
        let is_gone = matches!(self.after(place, 1), After::Gap);
        (!is_gone).then_some(place)
    }

    pub(super) fn publish(&self, event: &LiveEvent<'_>) {
        self.push(event.name(), event.json(), None, false);
    }

    /// Publishes the last event, under an id that means the same on every server.
    pub(super) fn close(&self, event: &LiveEvent<'_>, id: String) {
        self.push(event.name(), event.json(), Some(id), true);
    }

    fn push(&self, name: &'static str, data: String, own_id: Option<String>, is_last: bool) {
        let mut kept = self.lock();
        let number = kept.next;
        kept.next += 1;
        kept.bytes += data.len();
        kept.events.push_back(Arc::new(Sent {
            number,
            name,
            data,
            own_id,
            is_last,
        }));
        while kept.events.len() > self.max.events
            || (kept.bytes > self.max.bytes && kept.events.len() > 1)
        {
            let gone = kept.events.pop_front();
            kept.bytes -= gone.map_or(0, |event| event.data.len());
        }
        self.next.send_replace(kept.next);
    }

    /// Nobody's place holds any more: something was missed.
    pub(super) fn reset(&self) {
        let mut kept = self.lock();
        kept.events.clear();
        kept.bytes = 0;
        kept.next += 1;
        self.next.send_replace(kept.next);
    }

    /// At most `max` events from a place on.
    pub(super) fn after(&self, place: u64, max: usize) -> After {
        let kept = self.lock();
        let first = kept.first();
        if place < first {
            return After::Gap;
        }
        let skipped = usize::try_from(place - first).unwrap_or(usize::MAX);
        let events: Vec<_> = kept
            .events
            .iter()
            .skip(skipped)
            .take(max)
            .cloned()
            .collect();
        match events.is_empty() {
            true => After::Nothing,
            false => After::Events(events),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: RingMax = RingMax {
        events: 3,
        bytes: 100,
    };

    fn names(after: After) -> Vec<String> {
        match after {
            After::Events(events) => events.iter().map(|event| event.data.clone()).collect(),
            After::Nothing => vec![],
            After::Gap => vec!["gap".to_owned()],
        }
    }

    #[test]
    fn a_place_is_good_until_what_follows_it_is_gone() {
        let ring = Ring::new(MAX);
        let begin = ring.end();
        for n in 1..=3 {
            ring.push("x", n.to_string(), None, false);
        }
        assert_eq!(names(ring.after(begin, 10)), ["1", "2", "3"]);
        assert_eq!(names(ring.after(begin, 2)), ["1", "2"]);
        let id = ring.id_before(begin + 2);
        assert_eq!(names(ring.after(ring.place_after(&id).unwrap(), 10)), ["3"]);
        ring.push("x", "4".to_owned(), None, false);
        assert_eq!(names(ring.after(begin, 10)), ["gap"]);
        assert_eq!(ring.place_after(&ring.id_before(begin)), None);
        assert_eq!(names(ring.after(begin + 1, 10)), ["2", "3", "4"]);
        assert!(names(ring.after(ring.end(), 10)).is_empty());
        ring.reset();
        assert_eq!(names(ring.after(begin + 4, 10)), ["gap"]);
        assert!(names(ring.after(ring.end(), 10)).is_empty());
    }

    #[test]
    fn nobody_passes_over_the_end() {
        let ring = Ring::new(MAX);
        let begin = ring.end();
        for n in 1..=5 {
            ring.push("x", n.to_string(), None, n == 5);
        }
        assert_eq!(names(ring.after(begin, 10)), ["gap"]);
        assert_eq!(names(ring.after(ring.end(), 10)), ["5"]);
        assert_eq!(ring.place_after(&ring.id_before(begin + 5)), None);
    }

    #[test]
    fn large_events_take_the_room_of_many_and_the_newest_stays() {
        let ring = Ring::new(MAX);
        ring.push("x", "small".to_owned(), None, false);
        let begin = ring.end();
        ring.push("x", "l".repeat(500), None, false);
        assert_eq!(names(ring.after(begin, 10)), ["l".repeat(500)]);
        ring.push("x", "small".to_owned(), None, false);
        assert_eq!(names(ring.after(begin, 10)), ["gap"]);
        assert_eq!(names(ring.after(begin + 1, 10)), ["small"]);
    }

    #[test]
    fn an_id_that_this_ring_did_not_give_is_no_place() {
        let (ring, other) = (Ring::new(MAX), Ring::new(MAX));
        ring.push("x", "1".to_owned(), None, false);
        let good = ring.id_before(2);
        assert_eq!(ring.place_after(&good), Some(2));
        assert_eq!(other.place_after(&good), None);
        let future = ring.id_before(9);
        let last = format!("{}-{}", &good[..16], u64::MAX);
        for id in [
            "",
            "-",
            "1-1",
            "zzzzzzzzzzzzzzzz-1",
            &future,
            &last,
            "over-1",
        ] {
            assert_eq!(ring.place_after(id), None, "{id}");
        }
    }
}
