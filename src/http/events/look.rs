//! Rounds: jobs that are worth a look are looked up in the record, all in one query, and what
//! happened to them goes to those who listen.
//!
//! The hints come from Redis ([`tail`](super::tail)) and from the record itself: new jobs, and what
//! people did. A job that is followed alone is looked at every second, whether Redis answers or
//! not. A round is bounded, and so is what it sends: what is beyond is summed up in `changed`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::feed::{Heard, Topic};
use super::flood::Flood;
use super::hints::Waiting;
use super::kinds::LiveEvent;
use super::known::{Knowledge, Known};
use super::life::{Happened, Hint, Stood, since};
use super::watch::Watches;
use crate::http::state::State;
use crate::periodic::Next;
use crate::record::events::{self, JobState, LOOK_MAX, NEWS_MAX, NewsPlace};
use crate::record::{Record, RecordError};

/// Between two rounds.
pub(super) const ROUND: Duration = Duration::from_millis(100);
/// Jobs that are looked up in a round, beside those that are followed alone.
const LOOKS_MAX: usize = 500;
/// Progress of a job is told at most so often.
pub(super) const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// Between two looks for new jobs and for what people did.
const NEWS_EVERY: Duration = Duration::from_millis(250);
/// Looks at a job for progress that was spoken of: about a second.
const PROGRESS_LOOKS: u32 = 3;
/// How much later than its id a row may be committed.
const NEWS_SLACK: Duration = Duration::from_secs(2);

/// Looks while somebody listens.
pub(super) struct Looker {
    state: State,
    record: Record,
    known: Known,
    watches: Watches,
    floods: HashMap<Uuid, Flood>,
    places: HashMap<Uuid, NewsPlace>,
    asked: Option<Instant>,
}

type Workspaces = HashMap<Uuid, Arc<Heard>>;

impl Looker {
    pub(super) fn new(state: State) -> Self {
        Self {
            record: state.services.record.clone(),
            state,
            known: Known::default(),
            watches: Watches::default(),
            floods: HashMap::new(),
            places: HashMap::new(),
            asked: None,
        }
    }

    /// One round, or waiting until somebody listens.
    pub(super) async fn step(&mut self) -> Result<Next, RecordError> {
        self.state.events.prune();
        if self.state.events.listened_since().is_none() {
            *self = Self::new(self.state.clone());
            self.state.events.hints().clear();
            self.state.events.listened().await;
            return Ok(Next::Rest);
        }
        let mut workspaces = Workspaces::new();
        let mut jobs = Vec::new();
        for (topic, heard, _) in self.state.events.all() {
            match topic {
                Topic::Workspace(id) => drop(workspaces.insert(id, heard)),
                Topic::Job { id, .. } => jobs.push((topic, id, heard)),
            }
        }
        self.floods.retain(|id, _| workspaces.contains_key(id));
        self.places.retain(|id, _| workspaces.contains_key(id));
        self.watches.follow(jobs);
        self.read_news(&workspaces).await?;
        let taken = self.state.events.hints().take_due(LOOKS_MAX);
        if let Err(error) = self.look(&workspaces, &taken).await {
            self.state.events.hints().put_back(taken);
            return Err(error);
        }
        self.watches.tell_lines(&self.record).await?;
        self.watches.close_those_over(&self.state.events);
        if self.state.events.hints().take_missed() {
            for id in workspaces.keys() {
                self.floods.entry(*id).or_default().miss();
            }
        }
        for (id, flood) in &mut self.floods {
            if let (Some(heard), Some(changed)) = (workspaces.get(id), flood.take_due()) {
                heard.ring.publish(&LiveEvent::Changed(changed));
            }
        }
        Ok(Next::Rest)
    }

    /// Hints of new jobs and of what people did, which the record knows whatever Redis does.
    async fn read_news(&mut self, workspaces: &Workspaces) -> Result<(), RecordError> {
        if self.asked.is_some_and(|at| at.elapsed() < NEWS_EVERY) {
            return Ok(());
        }
        self.asked = Some(Instant::now());
        for (id, heard) in workspaces {
            if !self.places.contains_key(id) {
                let slack = heard.since.elapsed() + NEWS_SLACK;
                let place = events::news_from_now(&self.record, *id, slack).await?;
                self.places.insert(*id, place);
            }
        }
        let places: Vec<NewsPlace> = self.places.values().copied().collect();
        if places.is_empty() {
            return Ok(());
        }
        let (mut jobs, mut actions) = (HashMap::<Uuid, i64>::new(), HashMap::<Uuid, i64>::new());
        for news in events::news(&self.record, &places).await? {
            let Some(place) = self.places.get_mut(&news.workspace_id) else {
                continue;
            };
            let mut hint = Hint::default();
            match news.action.as_deref() {
                None => {
                    hint.added = true;
                    place.job = place.job.max(news.place);
                    *jobs.entry(news.workspace_id).or_default() += 1;
                }
                Some(action) => {
                    place.action = place.action.max(news.place);
                    match action {
                        "job.retry" | "job.undo" => hint.retried = true,
                        "job.promote" => hint.moved = true,
                        "job.cancel" | "job.delete" => hint.removed = true,
                        _ => {}
                    }
                    *actions.entry(news.workspace_id).or_default() += 1;
                }
            }
            self.state.events.hints().add(news.job_id, hint);
        }
        for (id, place) in &mut self.places {
            let is_full = |counts: &HashMap<Uuid, i64>| {
                let count = counts.get(id).copied();
                count.is_some_and(|count| count >= NEWS_MAX)
            };
            if !is_full(&jobs) && !is_full(&actions) {
                continue;
            }
            // More than can be told one by one: the others are passed over.
            let now = events::news_from_now(&self.record, *id, Duration::ZERO).await?;
            if is_full(&jobs) {
                place.job = place.job.max(now.job);
            }
            if is_full(&actions) {
                place.action = place.action.max(now.action);
            }
            self.floods.entry(*id).or_default().miss();
        }
        Ok(())
    }

    async fn look(
        &mut self,
        workspaces: &Workspaces,
        taken: &[(Uuid, Waiting)],
    ) -> Result<(), RecordError> {
        let asked: Vec<&(Uuid, Waiting)> = taken
            .iter()
            .filter(|(id, _)| self.watches.has(*id) || !self.is_elsewhere(*id, workspaces))
            .collect();
        let mut ids: HashSet<Uuid> = asked.iter().map(|(id, _)| *id).collect();
        ids.extend(self.watches.due());
        let ids: Vec<Uuid> = ids.into_iter().collect();
        let mut rows: HashMap<Uuid, JobState> = HashMap::new();
        for part in ids.chunks(LOOK_MAX) {
            let mut found = events::look_up(&self.record, part).await?;
            let progress = found.iter_mut().filter_map(|row| row.progress.as_mut());
            progress.for_each(|progress| self.state.redaction.show_to_all(progress));
            rows.extend(found.into_iter().map(|row| (row.id, row)));
        }
        for (id, waiting) in asked {
            let row = rows.get(id);
            let stood = row.and_then(Stood::of);
            let (Some(row), Some(stood)) = (row, stood) else {
                self.state.events.hints().again(*id, *waiting);
                continue;
            };
            let heard = row.workspace_id.and_then(|id| workspaces.get(&id));
            let before = self.known.of(*id).and_then(Knowledge::stood);
            let before = before.or_else(|| self.watches.stood(*id));
            let is_early = !stood.is_as_far_as(waiting.hint, before)
                || (waiting.looks < PROGRESS_LOOKS && stood.lacks_progress(waiting.hint, before));
            if is_early && (heard.is_some() || self.watches.has(*id)) {
                self.state.events.hints().again(*id, *waiting);
            }
            match heard {
                Some(heard) => self.tell(heard, row, stood, waiting.hint),
                None => self.known.note_elsewhere(*id, row.workspace_id),
            }
        }
        for row in rows.values() {
            self.watches.tell(row);
        }
        Ok(())
    }

    /// It is known to be of a workspace that nobody listens to.
    fn is_elsewhere(&self, id: Uuid, workspaces: &Workspaces) -> bool {
        match self.known.of(id) {
            Some(Knowledge::Elsewhere(workspace)) => {
                !workspace.is_some_and(|id| workspaces.contains_key(&id))
            }
            Some(Knowledge::Told { .. }) | None => false,
        }
    }

    /// Tells those who listen to the job's workspace.
    fn tell(&mut self, heard: &Heard, row: &JobState, stood: Stood, hint: Hint) {
        let before = self.known.of(row.id).and_then(Knowledge::stood);
        let is_known = before.is_some();
        let happened = since(before, &stood, hint);
        let mut progress_at = self.known.of(row.id).and_then(Knowledge::progress_at);
        if happened.contains(&Happened::Progress) {
            let last = progress_at.filter(|at| at.elapsed() < PROGRESS_EVERY);
            if let (Some(last), [Happened::Progress]) = (last, happened.as_slice()) {
                let due = last + PROGRESS_EVERY;
                self.state.events.hints().put_off(row.id, hint, due);
                return;
            }
            progress_at = Some(Instant::now());
        }
        // A job of which nothing was told may still be told of at first sight.
        if is_known || !happened.is_empty() {
            self.known.note(row.id, stood, progress_at);
        }
        let workspace_id = row.workspace_id.unwrap_or_default();
        let flood = self.floods.entry(workspace_id).or_default();
        for kind in flood.pass(happened) {
            heard.ring.publish(&LiveEvent::of_job(kind, row));
        }
    }
}
