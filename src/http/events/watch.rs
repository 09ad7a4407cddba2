//! Jobs that are followed alone, with their log lines, up to their end.
//!
//! They are looked at every second whatever the hints say, so nothing of them is missed while
//! Redis is away or speaks too fast.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::feed::{Feed, Heard, Topic};
use super::kinds::{EndEvent, LiveEvent, LogEvent, WhyEnd};
use super::life::{Happened, Hint, Stood, since};
use super::look::PROGRESS_EVERY;
use crate::record::events::{JobState, LINES_MAX, Line, lines_from};
use crate::record::{Record, RecordError};

const LOOK_EVERY: Duration = Duration::from_secs(1);
const LINES_EVERY: Duration = Duration::from_millis(500);
/// How much later a line may come than one that is newer; and how much later than the end of its
/// job.
const LINES_LATE: Duration = Duration::from_secs(1);
/// Lines that are remembered as told.
const TOLD_MAX: usize = 4 * LINES_MAX as usize;

/// The jobs that are followed.
#[derive(Debug, Default)]
pub(super) struct Watches {
    of: HashMap<Uuid, Watch>,
    read_lines: Option<Instant>,
}

#[derive(Debug)]
struct Watch {
    topic: Topic,
    heard: Arc<Heard>,
    stood: Stood,
    attempt: i32,
    looked: Option<Instant>,
    /// When to look again for progress that came too soon after other progress.
    again: Option<Instant>,
    progress_at: Option<Instant>,
    over: Option<Instant>,
    lines: Lines,
}

/// Up to where the log was told.
#[derive(Debug)]
struct Lines {
    from: DateTime<Utc>,
    told: VecDeque<Uuid>,
    /// All that was there was told, and when that was asked.
    drained: Option<Instant>,
}

impl Watches {
    /// Follows these, and no others.
    pub(super) fn follow(&mut self, jobs: Vec<(Topic, Uuid, Arc<Heard>)>) {
        let mut of = std::mem::take(&mut self.of);
        for (topic, id, heard) in jobs {
            let known = of
                .remove(&id)
                .filter(|watch| Arc::ptr_eq(&watch.heard, &heard));
            let watch = known.or_else(|| Watch::begin(topic, heard));
            self.of.extend(watch.map(|watch| (id, watch)));
        }
    }

    pub(super) fn has(&self, id: Uuid) -> bool {
        self.of.contains_key(&id)
    }

    pub(super) fn stood(&self, id: Uuid) -> Option<&Stood> {
        self.of.get(&id).map(|watch| &watch.stood)
    }

    /// Those that were not looked at for a while.
    pub(super) fn due(&self) -> impl Iterator<Item = Uuid> {
        let now = Instant::now();
        let due = self.of.iter().filter(move |(_, watch)| {
            let is_fresh = watch.looked.is_some_and(|at| now < at + LOOK_EVERY);
            !is_fresh || watch.again.is_some_and(|at| at <= now)
        });
        due.map(|(id, _)| *id)
    }

    /// Tells what happened to a job, if it is followed.
    pub(super) fn tell(&mut self, row: &JobState) {
        if let (Some(watch), Some(stood)) = (self.of.get_mut(&row.id), Stood::of(row)) {
            watch.tell(row, stood);
        }
    }

    /// Tells new lines of all logs, which one query reads.
    pub(super) async fn tell_lines(&mut self, record: &Record) -> Result<(), RecordError> {
        let is_early = self.read_lines.is_some_and(|at| at.elapsed() < LINES_EVERY);
        if self.of.is_empty() || is_early {
            return Ok(());
        }
        let asked = Instant::now();
        self.read_lines = Some(asked);
        let places: Vec<_> = self.of.iter().map(|(id, w)| (*id, w.lines.from)).collect();
        let mut lines: HashMap<Uuid, Vec<Line>> = HashMap::new();
        for line in lines_from(record, &places).await? {
            lines.entry(line.job_id).or_default().push(line);
        }
        for (id, watch) in &mut self.of {
            let page = lines.remove(id).unwrap_or_default();
            for line in watch.lines.take_new(page, asked) {
                let (job_id, log) = (*id, &line);
                let event = LiveEvent::Log(LogEvent { job_id, log });
                watch.heard.ring.publish(&event);
            }
        }
        Ok(())
    }

    /// Ends the topics of jobs that are over and wholly told.
    pub(super) fn close_those_over(&mut self, feed: &Feed) {
        self.of.retain(|_, watch| {
            let wait_until = watch.over.map(|at| at + LINES_LATE);
            let is_told = wait_until
                .is_some_and(|until| watch.lines.drained.is_some_and(|asked| asked >= until));
            if is_told {
                let reason = WhyEnd::JobOver;
                let end = LiveEvent::End(EndEvent { reason });
                watch.heard.ring.close(&end, end_id(watch.attempt));
                feed.retire(watch.topic, &watch.heard);
            }
            !is_told
        });
    }
}

/// The id of the end of a job's stream: who comes back with it has nothing to wait for, on whatever
/// server, until the job is run again.
pub(super) fn end_id(attempt: i32) -> String {
    format!("over-{attempt}")
}

impl Watch {
    fn begin(topic: Topic, heard: Arc<Heard>) -> Option<Self> {
        let (stood, read_at) = heard.began.clone()?;
        Some(Self {
            topic,
            attempt: stood.attempt(),
            over: stood.is_over().then(Instant::now),
            stood,
            looked: None,
            again: None,
            progress_at: None,
            lines: Lines {
                from: read_at - late(),
                told: VecDeque::new(),
                drained: None,
            },
            heard,
        })
    }

    fn tell(&mut self, row: &JobState, stood: Stood) {
        (self.looked, self.again) = (Some(Instant::now()), None);
        let happened = since(Some(&self.stood), &stood, Hint::default());
        if happened.contains(&Happened::Progress) {
            let last = self.progress_at.filter(|at| at.elapsed() < PROGRESS_EVERY);
            if let (Some(last), [Happened::Progress]) = (last, happened.as_slice()) {
                self.again = Some(last + PROGRESS_EVERY);
                return;
            }
            self.progress_at = self.looked;
        }
        match stood.is_over() {
            true => drop(self.over.get_or_insert_with(Instant::now)),
            false => self.over = None,
        }
        self.attempt = row.attempt;
        self.stood = stood;
        for kind in happened {
            self.heard.ring.publish(&LiveEvent::of_job(kind, row));
        }
    }
}

fn late() -> TimeDelta {
    TimeDelta::from_std(LINES_LATE).unwrap_or_default()
}

impl Lines {
    /// The lines of a page that were not told yet. The next page begins a while before its end,
    /// because lines are committed late; after a full one, at its end.
    fn take_new(&mut self, mut page: Vec<Line>, asked: Instant) -> Vec<Line> {
        let is_full = page.len() as i64 >= LINES_MAX;
        let last = page.last().map(|line| line.created_at);
        page.retain(|line| !self.told.contains(&line.id));
        self.drained = (!is_full).then_some(asked);
        self.from = match last {
            Some(last) if is_full && page.is_empty() => last + TimeDelta::microseconds(1),
            Some(last) if is_full => last,
            Some(last) => self.from.max(last - late()),
            None => self.from,
        };
        self.told.extend(page.iter().map(|line| line.id));
        while self.told.len() > TOLD_MAX {
            self.told.pop_front();
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: i64) -> Line {
        Line {
            job_id: Uuid::nil(),
            id: Uuid::from_u128(n as u128),
            log_level: "info".to_owned(),
            message: n.to_string(),
            metadata: None,
            created_at: DateTime::from_timestamp_micros(n).unwrap(),
        }
    }

    /// What is read of a log from a moment on.
    fn page(log: &[i64], from: DateTime<Utc>) -> Vec<Line> {
        let mut lines: Vec<Line> = log.iter().map(|n| line(*n)).collect();
        lines.retain(|line| line.created_at >= from);
        lines.sort_by_key(|line| line.created_at);
        lines.truncate(LINES_MAX as usize);
        lines
    }

    #[test]
    fn each_line_is_told_once_however_many_come_and_in_whatever_order() {
        let mut lines = Lines {
            from: DateTime::UNIX_EPOCH,
            told: VecDeque::new(),
            drained: None,
        };
        let mut log: Vec<i64> = (1..=350).map(|n| n * 10).collect();
        let mut told = Vec::new();
        for round in 0..10 {
            let page = page(&log, lines.from);
            told.extend(
                lines
                    .take_new(page, Instant::now())
                    .iter()
                    .map(|l| l.id.as_u128()),
            );
            if round == 6 {
                assert!(lines.drained.is_some());
                log.push(3333); // committed late
            }
        }
        assert_eq!(told.len(), 351);
        assert_eq!(told.last(), Some(&3333));
        told.sort_unstable();
        told.dedup();
        assert_eq!(told.len(), 351, "none twice");
    }
}
