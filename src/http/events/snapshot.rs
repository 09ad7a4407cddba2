//! Snapshots: how things stand, for who begins, and for who missed something.
//!
//! When something was missed, everybody needs one at the same time. So they share: while one of
//! them reads the record, those who come wait, and the next one is for all of them. None is older
//! than the wish for it.

use std::sync::Arc;
use std::time::Instant;

use chrono::{DurationRound, TimeDelta};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::feed::{Heard, Topic};
use super::kinds::{Counts, Present};
use crate::http::problem::Problem;
use crate::http::state::State;
use crate::record::events::JobState;
use crate::record::rollups::{self, Ended};
use crate::record::stats::{self, OPEN_MAX};
use crate::record::{RecordError, View, events};

/// Jobs of a snapshot of a workspace.
const JOBS: i64 = 50;

/// The last snapshot of a topic.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<Option<Taken>>);

/// A snapshot, and the place from which events go on.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) place: u64,
    pub(super) present: Arc<Present>,
    at: Instant,
}

/// How things stand, and the place of the first event that may not be in it.
pub(super) async fn take(state: &State, topic: Topic, heard: &Heard) -> Result<Taken, Problem> {
    let wished = Instant::now();
    let mut last = heard.snapshot.0.lock().await;
    if let Some(taken) = last.as_ref().filter(|taken| taken.at >= wished) {
        return Ok(taken.clone());
    }
    // The place first: what happens while the record is read is told after it.
    let (place, at) = (heard.ring.end(), Instant::now());
    let mut view = state.view_of(topic.workspace_id()).await?;
    let present = match topic {
        Topic::Workspace(workspace_id) => Present::Workspace {
            stats: counts(&mut view, workspace_id).await?,
            jobs: {
                let mut jobs = events::recent(&mut view, workspace_id, JOBS).await?;
                jobs.iter_mut().for_each(|job| hide(state, job));
                jobs
            },
        },
        Topic::Job { workspace_id, id } => {
            let job = events::job_of(&mut view, workspace_id, id).await?;
            let logs = match job {
                Some(_) => events::newest_lines(&mut view, id).await?,
                None => Vec::new(),
            };
            let mut job = job.map(Box::new);
            if let Some(job) = &mut job {
                hide(state, job);
            }
            Present::Job { job, logs }
        }
    };
    drop(view);
    let present = Arc::new(present);
    let taken = Taken { place, present, at };
    *last = Some(taken.clone());
    Ok(taken)
}

/// A snapshot, and a ring, is for all who listen: what only admins may see is in neither.
fn hide(state: &State, job: &mut JobState) {
    if let Some(progress) = &mut job.progress {
        state.redaction.show_to_all(progress);
    }
}

/// How much there is to do in a workspace.
pub(super) async fn counts(view: &mut View, workspace_id: Uuid) -> Result<Counts, RecordError> {
    let mut counts = Counts::default();
    for open in stats::count_open(view, workspace_id).await? {
        let queue = counts.queues.entry(open.job_queue).or_default();
        match open.status.as_str() {
            "processing" => {
                queue.processing += open.jobs;
                counts.processing += open.jobs;
            }
            _ => {
                queue.depth += open.jobs;
                counts.queue_depth += open.jobs;
            }
        }
        *counts.by_status.entry(open.status).or_default() += open.jobs;
    }
    let dead = stats::count_dead(view, workspace_id).await?;
    counts.by_status.insert("dead_letter".to_owned(), dead);
    counts.is_exact = counts.queue_depth + counts.processing < OPEN_MAX && dead < OPEN_MAX;
    let lately = rollups::lately(view, workspace_id, TimeDelta::minutes(5)).await?;
    // From a whole minute on, as the figures of `GET /api/jobs/stats`.
    let five_minutes_ago = lately.now - TimeDelta::minutes(5);
    let since = five_minutes_ago.duration_trunc(TimeDelta::minutes(1));
    let since = since.unwrap_or(five_minutes_ago);
    let mut ended = Ended::default();
    for rollup in lately.rollups.iter().filter(|rollup| rollup.at >= since) {
        ended.add(&rollup.ended);
    }
    let minutes = (lately.now - since).num_milliseconds() as f64 / 60_000.0;
    let per_minute = ended.completed as f64 / minutes.max(1.0);
    counts.throughput_per_minute = (per_minute * 10.0).round() / 10.0;
    Ok(counts)
}
