//! What handlers tell tests, and tests handlers.

use std::collections::HashSet;
use std::sync::Mutex;

use bullwark::job::JobError;
use serde_json::Value;
use tokio::sync::watch;

use super::rig::LIMIT;

/// What was seen of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Note {
    pub(crate) name: String,
    pub(crate) attempt: i32,
    pub(crate) what: What,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    Started {
        checkpoint: Option<Value>,
    },
    /// It was told to stop.
    Told,
    /// What a write answered.
    Wrote(Result<(), JobError>),
    /// The handler is gone: returned, or was dropped.
    Gone,
}

/// What handlers tell tests, and tests handlers.
#[derive(Debug)]
pub(crate) struct Probe {
    notes: Mutex<Vec<Note>>,
    gates: Mutex<HashSet<String>>,
    changed: watch::Sender<()>,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            notes: Mutex::default(),
            gates: Mutex::default(),
            changed: watch::channel(()).0,
        }
    }
}

impl Probe {
    pub(super) fn note(&self, name: &str, attempt: i32, what: What) {
        let name = name.to_owned();
        self.notes.lock().unwrap().push(Note {
            name,
            attempt,
            what,
        });
        self.changed.send_replace(());
    }

    pub(crate) fn open(&self, gate: &str) {
        self.gates.lock().unwrap().insert(gate.to_owned());
        self.changed.send_replace(());
    }

    pub(crate) fn notes(&self) -> Vec<Note> {
        self.notes.lock().unwrap().clone()
    }

    /// The names of started jobs, in order.
    pub(crate) fn started(&self) -> Vec<String> {
        let is_start = |note: &Note| matches!(note.what, What::Started { .. });
        let notes = self.notes().into_iter().filter(is_start);
        notes.map(|note| note.name).collect()
    }

    pub(crate) fn starts_of(&self, name: &str) -> usize {
        self.started().iter().filter(|other| *other == name).count()
    }

    /// The most jobs that ran at the same moment.
    pub(crate) fn most_at_once(&self) -> usize {
        let (mut now, mut most) = (0_usize, 0);
        for note in self.notes() {
            match note.what {
                What::Started { .. } => now += 1,
                What::Gone => now -= 1,
                What::Told | What::Wrote(_) => {}
            }
            most = most.max(now);
        }
        most
    }

    async fn until<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        let found = async {
            loop {
                if let Some(found) = look(self) {
                    return found;
                }
                changed.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(LIMIT, found).await {
            Ok(found) => found,
            Err(_) => panic!("waited in vain for {what}; seen: {:#?}", self.notes()),
        }
    }

    /// Waits for a note of this job.
    pub(crate) async fn saw(&self, name: &str, is_it: impl Fn(&What) -> bool) -> Note {
        let find = |probe: &Self| {
            let notes = probe.notes();
            notes
                .into_iter()
                .find(|note| note.name == name && is_it(&note.what))
        };
        self.until(name, find).await
    }

    /// Waits until so many starts were seen.
    pub(crate) async fn starts(&self, count: usize) {
        let enough = |probe: &Self| (probe.started().len() >= count).then_some(());
        self.until(&format!("{count} starts"), enough).await;
    }

    /// Waits until this job has started so often.
    pub(crate) async fn starts_named(&self, name: &str, count: usize) {
        let enough = |probe: &Self| (probe.starts_of(name) >= count).then_some(());
        self.until(&format!("{count} starts of {name}"), enough)
            .await;
    }

    pub(crate) async fn passed(&self, gate: &str) {
        let mut changed = self.changed.subscribe();
        while !self.gates.lock().unwrap().contains(gate) {
            changed.changed().await.unwrap();
        }
    }

    pub(super) fn is_open(&self, gate: &str) -> bool {
        self.gates.lock().unwrap().contains(gate)
    }
}
