//! Who listens to what: the topics of this server, and the places of those who follow them.
//!
//! A topic is kept for a while after its last listener has left, so that one who comes back finds
//! its place. Topics and listeners are bounded, so all rings together are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::hints::Hints;
use super::life::Stood;
use super::ring::{Ring, RingMax};
use super::snapshot::Shared;
use crate::http::problem::{Code, Problem};
use crate::http::state::State;

/// How long a topic is kept that nobody listens to.
const LINGER: Duration = Duration::from_secs(30);
/// So many topics without listeners are kept at most, those that were left last.
const LINGERING_MAX: usize = 100;
/// Some seconds of a busy workspace.
const WORKSPACE_MAX: RingMax = RingMax {
    events: 512,
    bytes: 256 * 1024,
};
/// A page of long log lines, and then some.
const JOB_MAX: RingMax = RingMax {
    events: 512,
    bytes: 512 * 1024,
};

/// What one can listen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Topic {
    Workspace(Uuid),
    Job { workspace_id: Uuid, id: Uuid },
}

impl Topic {
    pub(super) fn workspace_id(self) -> Uuid {
        match self {
            Self::Workspace(workspace_id) | Self::Job { workspace_id, .. } => workspace_id,
        }
    }
}

/// A topic that somebody listens to, or did a moment ago.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) ring: Ring,
    /// The snapshot that those share who need one at the same time.
    pub(super) snapshot: Shared,
    pub(super) since: Instant,
    /// How the job stood when the first one came, and when that was read; of jobs only.
    pub(super) began: Option<(Stood, DateTime<Utc>)>,
}

/// The listeners of this server.
#[derive(Debug)]
pub(in crate::http) struct Feed {
    topics: Mutex<Topics>,
    hints: Mutex<Hints>,
    woken: Notify,
    stopping: CancellationToken,
}

#[derive(Debug, Default)]
struct Topics {
    of: HashMap<Topic, Entry>,
    /// Streams by workspace, and all.
    streams: HashMap<Uuid, usize>,
    all: usize,
    /// Since when there is a topic without a break.
    since: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    heard: Arc<Heard>,
    listeners: usize,
    left: Instant,
}

impl Feed {
    /// Streams end when `stopping` is cancelled.
    pub(in crate::http) fn new(stopping: CancellationToken) -> Self {
        Self {
            topics: Mutex::default(),
            hints: Mutex::default(),
            woken: Notify::new(),
            stopping,
        }
    }

    pub(super) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    pub(super) fn hints(&self) -> MutexGuard<'_, Hints> {
        self.hints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when somebody listens, or has left a moment ago; none: nobody does.
    pub(super) fn listened_since(&self) -> Option<Instant> {
        self.topics().since
    }

    /// Waits until somebody listens, or the server stops.
    pub(super) async fn listened(&self) {
        let mut woken = std::pin::pin!(self.woken.notified());
        loop {
            woken.as_mut().enable();
            if self.listened_since().is_some() {
                return;
            }
            tokio::select! {
                () = woken.as_mut() => woken.set(self.woken.notified()),
                () = self.stopping.cancelled() => return,
            }
        }
    }

    /// All topics, each with whether somebody listens just now.
    pub(super) fn all(&self) -> Vec<(Topic, Arc<Heard>, bool)> {
        let topics = self.topics();
        let topics = topics.of.iter();
        topics
            .map(|(topic, entry)| (*topic, entry.heard.clone(), entry.listeners > 0))
            .collect()
    }

    /// Forgets topics that nobody has come back to.
    pub(super) fn prune(&self) {
        let mut topics = self.topics();
        let mut left: Vec<Instant> = topics
            .of
            .values()
            .filter(|entry| entry.listeners == 0)
            .map(|entry| entry.left)
            .collect();
        left.sort_unstable_by(|a, b| b.cmp(a));
        let newest = left.get(LINGERING_MAX).copied();
        topics.of.retain(|_, entry| {
            let is_kept =
                entry.left.elapsed() < LINGER && newest.is_none_or(|newest| entry.left > newest);
            entry.listeners > 0 || is_kept
        });
        if topics.of.is_empty() {
            topics.since = None;
        }
    }

    /// The job of this topic is over and its ring closed: who comes from here on begins another.
    pub(super) fn retire(&self, topic: Topic, heard: &Arc<Heard>) {
        let mut topics = self.topics();
        let is_this = |entry: &Entry| Arc::ptr_eq(&entry.heard, heard);
        if topics.of.get(&topic).is_some_and(is_this) {
            topics.of.remove(&topic);
        }
    }

    /// Whoever follows a workspace has missed something, and begins anew.
    pub(super) fn reset_workspaces(&self) {
        for (topic, heard, _) in self.all() {
            if matches!(topic, Topic::Workspace(_)) {
                heard.ring.reset();
            }
        }
    }

    fn topics(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the listeners, given up when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    state: State,
    topic: Topic,
    heard: Arc<Heard>,
}

impl Place {
    /// A place among those who listen to `topic`, which begins like this if it is new.
    pub(super) fn take(
        state: &State,
        topic: Topic,
        began: Option<(Stood, DateTime<Utc>)>,
    ) -> Result<Self, Problem> {
        let feed = &state.events;
        if feed.stopping.is_cancelled() {
            return Err(Problem::new(Code::Stopping, "this server is stopping"));
        }
        let options = &state.options;
        let mut topics = feed.topics();
        let topics = &mut *topics;
        if topics.all >= options.streams_max {
            let detail = "this server has as many event streams as it takes; try again shortly";
            return Err(Problem::new(Code::Overloaded, detail));
        }
        let of_workspace = topics.streams.entry(topic.workspace_id()).or_default();
        if *of_workspace >= options.workspace_streams_max {
            let max = options.workspace_streams_max;
            let detail = format!("this workspace has {max} event streams here, which is the most");
            return Err(Problem::new(Code::TooManyStreams, detail).with_retry_after(5));
        }
        *of_workspace += 1;
        topics.all += 1;
        topics.since.get_or_insert_with(Instant::now);
        let entry = topics.of.entry(topic).or_insert_with(|| Entry {
            heard: Arc::new(Heard {
                ring: Ring::new(match topic {
                    Topic::Workspace(_) => WORKSPACE_MAX,
                    Topic::Job { .. } => JOB_MAX,
                }),
                snapshot: Shared::default(),
                since: Instant::now(),
                began,
            }),
            listeners: 0,
            left: Instant::now(),
        });
        entry.listeners += 1;
        feed.woken.notify_waiters();
        metrics::gauge!("bullwark_event_streams").set(topics.all as f64);
        Ok(Self {
            state: state.clone(),
            topic,
            heard: entry.heard.clone(),
        })
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn topic(&self) -> Topic {
        self.topic
    }

    pub(super) fn heard(&self) -> &Arc<Heard> {
        &self.heard
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut topics = self.state.events.topics();
        topics.all = topics.all.saturating_sub(1);
        metrics::gauge!("bullwark_event_streams").set(topics.all as f64);
        let workspace_id = self.topic.workspace_id();
        if let Some(count) = topics.streams.get_mut(&workspace_id) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                topics.streams.remove(&workspace_id);
            }
        }
        let entry = topics.of.get_mut(&self.topic);
        if let Some(entry) = entry.filter(|entry| Arc::ptr_eq(&entry.heard, &self.heard)) {
            entry.listeners = entry.listeners.saturating_sub(1);
            entry.left = Instant::now();
        }
    }
}
