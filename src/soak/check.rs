//! The checker: reads the ledger from its beginning, then the record, and finds what is wrong.
//!
//! What it remembers per job is a fixed 24 bytes, see `seen` (ten million jobs: 240 MB), however
//! many lines there are: who was told which id, how often it ran, and the last run. The rest are
//! the faults, a few dozen bytes each.

use std::collections::HashSet;
use std::io::BufRead;

use uuid::Uuid;

use super::excuses::Excuses;
use super::fault::RESUMED;
use super::limits::Limits;
use super::line::{Ended, Line};
use super::plan::Plan;
use super::seen::{ACCEPTED, AllSeen, FAILED, OVER, RECORDED, Seen, WELL, hash};
use super::sides::{NEIGHBOUR, tick};
use super::space::{FAMILY, Space, is_parent};
use super::tally::Tally;
use super::violations::{Law, Violations};
use crate::record::soak::SoakJob;

/// How long the schedule may rest without a fault, while jobs begin: it is looked after every five
/// seconds.
const TICK_GAP_MAX_MS: i64 = 15_000;
/// Between two starts: what is beyond says that the machine stood still, not the schedule.
const WORK_GAP_MS: i64 = 1_000;

/// A check under way.
pub(super) struct Check {
    plan: Plan,
    jobs: AllSeen,
    limits: Limits,
    last_tick_ms: Option<i64>,
    last_start_ms: i64,
    /// Since the last iteration, without the time in which nothing began.
    worked_ms: i64,
    zero_ms: Option<i64>,
    excuses: Excuses,
    dead: HashSet<u32>,
    nobody: Seen,
    /// The numbers in whose order the jobs of the look at the order were started.
    pub(super) order: Vec<u64>,
    pub(super) tally: Tally,
    pub(super) violations: Violations,
}

impl Check {
    pub(super) fn new(plan: Plan) -> Self {
        Self {
            plan,
            jobs: AllSeen::default(),
            limits: Limits::default(),
            last_tick_ms: None,
            last_start_ms: 0,
            worked_ms: 0,
            zero_ms: None,
            excuses: Excuses::default(),
            dead: HashSet::new(),
            nobody: Seen::default(),
            order: Vec::new(),
            tally: Tally::default(),
            violations: Violations::default(),
        }
    }

    /// Reads the whole ledger. A line that can't be read is an error: the witness is damaged.
    pub(super) fn read_ledger(&mut self, mut ledger: impl BufRead) -> anyhow::Result<()> {
        let mut text = String::new();
        while ledger.read_line(&mut text)? > 0 {
            let line: Line = text.trim_end().parse().map_err(anyhow::Error::msg)?;
            self.take(line);
            text.clear();
        }
        Ok(())
    }

    pub(super) fn take(&mut self, line: Line) {
        self.tally.lines += 1;
        match line {
            Line::Start { seq, .. } if Space::of(seq) == Some(Space::Order) => {
                self.order.push(seq);
            }
            Line::Accepted { seq, .. } | Line::End { seq, .. } | Line::Effect { seq, .. }
                if Space::of(seq) == Some(Space::Order) => {}
            Line::Accepted { seq, .. } | Line::Start { seq, .. } if self.jobs.at(seq).is_none() => {
                let text = format!("job {seq}: no job has such a number");
                self.violations.add(Law::NoPhantom, text);
            }
            Line::Accepted { seq, id } => self.accepted(seq, id),
            Line::Start {
                seq,
                id,
                attempt,
                pid,
                at_ms,
            } => {
                self.look_at_the_side(seq, pid, at_ms);
                self.started(seq, id, attempt, pid, at_ms);
            }
            Line::End {
                seq,
                attempt,
                pid,
                ended,
                ..
            } => {
                self.limits.ended(seq, pid);
                self.ended(seq, attempt, pid, ended);
            }
            Line::Effect { seq, .. } => {
                let seen = self.seen(seq);
                seen.effects = seen.effects.saturating_add(1);
                let again = seen.effects > 1;
                self.tally.letters += 1;
                self.tally.letters_repeated += u64::from(again);
            }
            Line::Fault {
                name,
                begins: true,
                pid,
                at_ms,
            } => {
                *self.tally.faults.entry(name.clone()).or_default() += 1;
                if name == "kill" {
                    self.dead.insert(pid);
                }
                self.excuses.begins(&name, pid, at_ms);
                if name == RESUMED {
                    self.excuses.ends(&name, at_ms);
                }
            }
            Line::Fault { name, at_ms, .. } => self.excuses.ends(&name, at_ms),
        }
    }

    /// Of a number that no job has: nothing that is kept.
    fn seen(&mut self, seq: u64) -> &mut Seen {
        match self.jobs.at(seq) {
            Some(seen) => seen,
            None => &mut self.nobody,
        }
    }

    fn accepted(&mut self, seq: u64, id: Uuid) {
        let seen = self.seen(seq);
        let (known, was_told) = (seen.id, seen.flags & ACCEPTED != 0);
        seen.flags |= ACCEPTED;
        if !id.is_nil() {
            seen.id = hash(id);
        }
        let is_other = !id.is_nil() && known != 0 && known != hash(id);
        match Space::of(seq) {
            _ if was_told => {}
            Some(Space::Main) | None => self.tally.accepted += 1,
            Some(space) => *self.tally.sides.entry(space.name()).or_default() += 1,
        }
        if is_other {
            let text = format!("job {seq}: {id} is the second id that was seen for it");
            self.violations.add(Law::NoPhantom, text);
        }
    }

    /// What holds for the start of a job of this part of the load only.
    fn look_at_the_side(&mut self, seq: u64, pid: u32, at_ms: i64) {
        self.worked_ms += (at_ms - self.last_start_ms).clamp(0, WORK_GAP_MS);
        self.last_start_ms = self.last_start_ms.max(at_ms);
        match Space::of(seq) {
            Some(Space::Flows) if is_parent(seq) => {
                for child in seq + 1..seq + FAMILY {
                    if self.seen(child).flags & WELL == 0 {
                        let text = format!("job {seq} began before its child {child} was done");
                        self.violations.add(Law::Flows, text);
                    }
                }
            }
            Some(Space::Gated) => {
                let run = (seq, pid, at_ms);
                let violations = &mut self.violations;
                self.limits.began(run, &self.excuses, violations);
                self.tally.most_at_once = self.limits.most_at_once;
            }
            Some(Space::Metered) => {
                let violations = &mut self.violations;
                self.limits.metered(at_ms, &self.excuses, violations);
                self.tally.most_starts = self.limits.most_starts;
            }
            Some(Space::Ticks) => {
                let is_first = self.seen(seq).starts == 0;
                let name = Space::Ticks.name();
                *self.tally.sides.entry(name).or_default() += u64::from(is_first);
                let last_ms = self.last_tick_ms.replace(at_ms).unwrap_or(at_ms);
                let worked_ms = std::mem::take(&mut self.worked_ms);
                if worked_ms > TICK_GAP_MAX_MS && !self.excuses.any(last_ms, at_ms) {
                    let text = format!("no iteration began from {last_ms} to {at_ms}");
                    self.violations.add(Law::Schedule, text);
                }
            }
            _ => {}
        }
    }

    fn started(&mut self, seq: u64, id: Uuid, attempt: i32, pid: u32, at_ms: i64) {
        let zero_ms = *self.zero_ms.get_or_insert(at_ms);
        let hash = hash(id);
        let number = u16::try_from(attempt).unwrap_or(u16::MAX);
        let seen = self.seen(seq);
        let before = *seen;
        if seen.id == 0 {
            seen.id = hash;
        }
        seen.last_ms = u32::try_from(at_ms - zero_ms).unwrap_or(0);
        seen.last_pid = pid;
        seen.last_attempt = number;
        seen.starts = seen.starts.saturating_add(1);
        seen.flags &= !(OVER | FAILED);
        self.tally.starts += 1;
        if before.id != 0 && before.id != hash {
            let text = format!("job {seq} ran as {id}, which is not the id that was given for it");
            self.violations.add(Law::NoPhantom, text);
        }
        if before.starts == 0 {
            return;
        }
        let from_ms = zero_ms + i64::from(before.last_ms);
        if number <= before.last_attempt {
            if self.excuses.for_old_number(pid, from_ms, at_ms).is_none() {
                let last = before.last_attempt;
                let text =
                    format!("job {seq} ({id}): attempt {attempt} began after attempt {last}");
                self.violations.add(Law::NoZombie, text);
            }
            self.tally.old_numbers += 1;
        }
        if before.flags & FAILED != 0 {
            return; // a retry needs no reason
        }
        let (last_pid, last) = (before.last_pid, before.last_attempt);
        match self.excuses.for_repeat(last_pid, from_ms, at_ms) {
            Some(fault) => {
                *self.tally.repeats.entry(fault.name.clone()).or_default() += 1;
                let may_run = before.flags & OVER == 0
                    && !self.dead.contains(&last_pid)
                    && !self.excuses.is_of_earlier_part(from_ms);
                self.tally.overlaps += u64::from(may_run);
            }
            None => {
                let how = match before.flags & OVER {
                    0 => "still ran",
                    _ => "had ended",
                };
                let text = format!(
                    "job {seq} ({id}): attempt {attempt} at process {pid} began at {at_ms}, though \
                     attempt {last} at process {last_pid} {how} and no fault met it"
                );
                self.violations.add(Law::NoRepeat, text);
            }
        }
    }

    fn ended(&mut self, seq: u64, attempt: i32, pid: u32, ended: Ended) {
        let seen = self.seen(seq);
        if ended == Ended::Well {
            seen.flags |= WELL;
        }
        // The end of an earlier run says nothing about the last one.
        if seen.last_pid == pid && i32::from(seen.last_attempt) == attempt {
            seen.flags |= OVER;
            if ended == Ended::Failed {
                seen.flags |= FAILED;
            }
        }
        self.tally.fenced += u64::from(ended == Ended::Fenced);
    }

    /// Takes one job of the record, after the whole ledger.
    pub(super) fn take_job(&mut self, job: &SoakJob) {
        let name = format!("job {} ({})", job.seq, job.id);
        let numbered = u64::try_from(job.seq).ok();
        let numbered = match numbered {
            Some(seq) if Space::of(seq) == Some(Space::Ticks) => {
                job.redis_id.as_deref().and_then(tick)
            }
            seq => seq.filter(|seq| self.jobs.at(*seq).is_some()),
        };
        let Some(seq) = numbered else {
            let text = format!("{name} is none of ours");
            self.violations.add(Law::NoPhantom, text);
            return;
        };
        let payload = self.plan.payload(seq);
        let is_tick = Space::of(seq) == Some(Space::Ticks);
        // Redis forgot it, and its schedule made the same iteration again.
        if is_tick && job.status == "cancelled" && job.attempt == 0 {
            return;
        }
        let is_neighbour = Space::of(seq) == Some(Space::Neighbour);
        let hash = hash(job.id);
        let seen = self.seen(seq);
        let was = *seen;
        seen.flags |= RECORDED;
        let mut wrong = |law, what: String| self.violations.add(law, format!("{name}: {what}"));
        if was.flags & ACCEPTED == 0 && !is_tick {
            wrong(Law::NoPhantom, "in the record, told to nobody".to_owned());
        }
        if (job.workspace_id == Some(NEIGHBOUR)) != is_neighbour {
            wrong(Law::Isolation, "in the wrong workspace".to_owned());
        }
        if was.flags & RECORDED != 0 {
            wrong(Law::NoPhantom, "twice in the record".to_owned());
        }
        // An iteration that nobody began is known by its row only.
        if was.id != hash && !(is_tick && was.starts == 0) {
            wrong(Law::NoPhantom, "another id than the one told".to_owned());
        }
        if job.is_early {
            wrong(Law::Order, "began before it was due".to_owned());
        }
        let status = job.status.as_str();
        let error = job.error_message.as_deref().unwrap_or_default();
        match status {
            "completed" => self.tally.completed += 1,
            "dead_letter" if error.starts_with("crash loop") => self.tally.crash_loops += 1,
            "dead_letter" => self.tally.dead += 1,
            "cancelled" if is_tick => return, // the schedule had ended
            _ => self.tally.lost += 1,
        }
        if !matches!(status, "completed" | "dead_letter" | "cancelled") {
            wrong(Law::NoLoss, format!("still {status}"));
        } else if status != payload.kind.ends() && !error.starts_with("crash loop") {
            let right = payload.kind.ends();
            wrong(
                Law::NoLoss,
                format!("{status} in place of {right}: {error}"),
            );
        }
        if was.starts == 0 && was.flags & ACCEPTED != 0 && !error.starts_with("crash loop") {
            wrong(Law::NoLoss, format!("{status}, and never ran"));
        } else if status == "completed" && was.flags & WELL == 0 {
            let what = "completed, though no run of it ended well";
            wrong(Law::NoPhantom, what.to_owned());
        }
        if job.attempts > job.attempt {
            let (failures, starts) = (job.attempts, job.attempt);
            wrong(
                Law::History,
                format!("{failures} failures of {starts} starts"),
            );
        }
    }

    /// After the last job of the record: what it lacks.
    pub(super) fn end(&mut self) {
        for (seq, seen) in self.jobs.iter() {
            if seen.flags & RECORDED != 0 {
                continue;
            }
            if seen.flags & ACCEPTED != 0 {
                self.tally.lost += 1;
                let text = format!("job {seq} was acknowledged and is not in the record");
                self.violations.add(Law::NoLoss, text);
            } else if seen.starts > 0 {
                let text = format!("job {seq} ran and is not in the record");
                self.violations.add(Law::NoPhantom, text);
            }
        }
    }

    /// The faults, for the report of a violation.
    pub(super) fn history(&self) -> Vec<String> {
        let struck = self.excuses.struck.iter();
        struck
            .map(|fault| {
                let to = fault.to_ms.map_or("…".to_owned(), |to| to.to_string());
                format!("{}..{to} {} {}", fault.from_ms, fault.name, fault.pid)
            })
            .collect()
    }
}
