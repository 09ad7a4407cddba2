//! One listener: from its place in a topic's ring to the lines of its stream.
//!
//! Nothing is done for a listener that does not read: its stream is asked only when there is room
//! on its connection. It holds no connection of a store but for the moment of a snapshot. Every few
//! seconds it is checked again whether it may still listen.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::{HeaderMap, Request};
use axum::response::sse::Event;
use futures_util::{Stream, stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::feed::Place;
use super::kinds::{EndEvent, LiveEvent, Snapshot, Why, WhyEnd};
use super::ring::{After, Sent};
use super::snapshot;
use crate::http::auth::Caller;
use crate::record::access::Permission;

/// Between two checks of whether the caller may still listen.
const CHECK_EVERY: Duration = Duration::from_secs(3);
/// How long a caller may go on whose rights nobody can look up just now.
const UNCHECKED_MAX: Duration = Duration::from_secs(60);
/// Events that are taken from the ring at once.
const EVENTS_MAX: usize = 32;
/// When a client that lost its stream comes back.
const RETRY: Duration = Duration::from_secs(2);
/// Between two tries of a snapshot while the record is away.
const SNAPSHOT_PAUSE: Duration = Duration::from_secs(1);

/// A listener.
pub(super) struct Follower {
    place: Place,
    /// What it was let in with.
    headers: HeaderMap,
    next: watch::Receiver<u64>,
    /// The number of the event that is next.
    at: u64,
    /// A snapshot comes before that.
    wants_snapshot: Option<Why>,
    ready: VecDeque<Event>,
    has_ended: bool,
    check_at: Instant,
    /// When it was known last that it may listen.
    checked: Instant,
}

/// The events of a listener that was let in with these headers and saw this event last.
pub(super) fn follow(
    place: Place,
    headers: HeaderMap,
    last_event_id: Option<&str>,
) -> impl Stream<Item = Result<Event, Infallible>> + Send + 'static {
    let ring = &place.heard().ring;
    let next = ring.watch();
    let known = last_event_id.map(|id| ring.place_after(id));
    let now = Instant::now();
    let hello = Event::default().retry(RETRY).comment("bullwark");
    let follower = Follower {
        at: known.flatten().unwrap_or_else(|| ring.end()),
        wants_snapshot: match known {
            None => Some(Why::Began),
            Some(None) => Some(Why::TooLate),
            Some(Some(_)) => None,
        },
        next,
        place,
        headers,
        ready: VecDeque::from([hello]),
        has_ended: false,
        check_at: now + CHECK_EVERY,
        checked: now,
    };
    stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok(event), follower))
    })
}

impl Follower {
    async fn next(&mut self) -> Option<Event> {
        let stopping = self.place.state().events.stopping().clone();
        loop {
            // Before what is ready: it may have been for long, if nobody reads.
            let is_due = !self.has_ended && Instant::now() >= self.check_at;
            if is_due && !stopping.is_cancelled() {
                let may_listen = tokio::select! {
                    may_listen = self.may_listen() => may_listen,
                    () = stopping.cancelled() => continue,
                };
                if !may_listen {
                    self.ready.clear();
                    self.end(WhyEnd::AccessEnded);
                }
                self.check_at = Instant::now() + CHECK_EVERY;
            }
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.has_ended {
                return None;
            }
            if stopping.is_cancelled() {
                self.end(WhyEnd::Stopping);
                continue;
            }
            if let Some(why) = self.wants_snapshot {
                tokio::select! {
                    () = self.take_snapshot(why) => {}
                    () = stopping.cancelled() => {}
                }
                continue;
            }
            // Seen before the ring is read: what comes after that wakes again.
            self.next.borrow_and_update();
            match self.place.heard().ring.after(self.at, EVENTS_MAX) {
                After::Events(events) => events.iter().for_each(|event| self.take(event)),
                After::Gap => {
                    metrics::counter!("bullwark_event_gaps_total").increment(1);
                    self.wants_snapshot = Some(Why::Gap);
                }
                After::Nothing => tokio::select! {
                    _ = self.next.changed() => {}
                    () = sleep_until(self.check_at) => {}
                    () = stopping.cancelled() => {}
                },
            }
        }
    }

    fn take(&mut self, sent: &Sent) {
        let ring = &self.place.heard().ring;
        let id = sent.own_id.clone();
        let id = id.unwrap_or_else(|| ring.id_before(sent.number + 1));
        let event = Event::default().event(sent.name).id(id).data(&sent.data);
        self.ready.push_back(event);
        self.at = sent.number + 1;
        self.has_ended |= sent.is_last;
    }

    fn end(&mut self, reason: WhyEnd) {
        let event = LiveEvent::End(EndEvent { reason });
        // No id: who comes back goes on where it was.
        self.ready
            .push_back(Event::default().event(event.name()).data(event.json()));
        self.has_ended = true;
    }

    async fn take_snapshot(&mut self, why: Why) {
        let (state, topic, heard) = (self.place.state(), self.place.topic(), self.place.heard());
        match snapshot::take(state, topic, heard).await {
            Ok(taken) => {
                let event = LiveEvent::Snapshot(Snapshot {
                    reset: true,
                    reason: why,
                    present: &taken.present,
                });
                let id = heard.ring.id_before(taken.place);
                let event = Event::default()
                    .event(event.name())
                    .id(id)
                    .data(event.json());
                self.ready.push_back(event);
                self.at = taken.place;
                self.wants_snapshot = None;
            }
            // The record is away, or busy: the listener waits.
            Err(_) => {
                let pause = sleep_until(self.check_at);
                tokio::select! {
                    () = pause => {}
                    () = sleep(SNAPSHOT_PAUSE) => {}
                }
            }
        }
    }

    /// As for a request that came now.
    async fn may_listen(&mut self) -> bool {
        let mut request = Request::new(());
        *request.headers_mut() = self.headers.clone();
        let (mut parts, ()) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, self.place.state()).await;
        let caller = caller.and_then(|caller| caller.who_may(Permission::Read));
        let workspace_id = self.place.topic().workspace_id();
        match caller {
            Ok(caller) if caller.workspace_id == workspace_id => {
                self.checked = Instant::now();
                true
            }
            Ok(_) => false,
            Err(problem) => !problem.is_refusal() && self.checked.elapsed() < UNCHECKED_MAX,
        }
    }
}
