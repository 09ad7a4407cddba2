//! The counts of workspaces that somebody looks at, told when they changed.
//!
//! They are counted in the record, once for all who listen, and the less often the longer it
//! takes: a long backlog does not keep the record busy.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::feed::{Heard, Topic};
use super::kinds::{Counts, LiveEvent};
use super::snapshot::counts;
use crate::http::state::State;
use crate::periodic::Next;
use crate::record::RecordError;

/// Between two looks at who is due.
pub(super) const ROUND: Duration = Duration::from_secs(1);
/// Between two counts of a workspace in which something happens.
const BUSY_EVERY: Duration = Duration::from_secs(2);
/// Between two counts of one in which nothing seems to happen.
const CALM_EVERY: Duration = Duration::from_secs(15);
/// Counting takes at most this part of the time.
const SHARE: u32 = 20;

/// Counts while somebody listens.
pub(super) struct Counter {
    state: State,
    told: HashMap<Uuid, Told>,
}

struct Told {
    at: Instant,
    took: Duration,
    counts: Option<Counts>,
    /// The end of the ring after it was told.
    end: u64,
}

impl Counter {
    pub(super) fn new(state: State) -> Self {
        Self {
            state,
            told: HashMap::new(),
        }
    }

    pub(super) async fn step(&mut self) -> Result<Next, RecordError> {
        if self.state.events.listened_since().is_none() {
            self.told.clear();
            self.state.events.listened().await;
            return Ok(Next::Rest);
        }
        let all = self.state.events.all();
        let listened = |id: &Uuid| {
            let topic = Topic::Workspace(*id);
            all.iter().any(|(known, ..)| *known == topic)
        };
        self.told.retain(|id, _| listened(id));
        for (topic, heard, has_listeners) in &all {
            if let (Topic::Workspace(id), true) = (topic, has_listeners) {
                self.tell(*id, heard).await?;
            }
        }
        Ok(Next::Rest)
    }

    async fn tell(&mut self, workspace_id: Uuid, heard: &Heard) -> Result<(), RecordError> {
        let began = Instant::now();
        let told = self.told.entry(workspace_id).or_insert_with(|| Told {
            at: began, // the snapshot has them
            took: Duration::ZERO,
            counts: None,
            end: heard.ring.end(),
        });
        let every = match heard.ring.end() == told.end {
            true => CALM_EVERY,
            false => BUSY_EVERY,
        };
        if told.at.elapsed() < every.max(told.took * SHARE) {
            return Ok(());
        }
        let Ok(mut view) = self.state.view_of(workspace_id).await else {
            return Ok(()); // pages come first, and the record may be away
        };
        let began = Instant::now();
        let counted = counts(&mut view, workspace_id).await?;
        drop(view);
        told.took = began.elapsed();
        told.at = Instant::now();
        if told.counts.as_ref() != Some(&counted) {
            heard.ring.publish(&LiveEvent::Stats(counted.clone()));
            told.counts = Some(counted);
        }
        told.end = heard.ring.end();
        Ok(())
    }
}
