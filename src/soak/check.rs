//! The checker: reads the ledger from its beginning, then the record, and finds what is wrong.
//!
//! What it remembers per job is a fixed 24 bytes in one array by number (ten million jobs: 240 MB),
//! however many lines there are: who was told which id, how often it ran, and the last run. The
//! rest are the faults, a few dozen bytes each.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::BufRead;

use uuid::Uuid;

use super::excuses::Excuses;
use super::fault::RESUMED;
use super::line::{Ended, Line};
use super::plan::{ORDER_FROM, Plan};
use super::violations::{Law, Violations};
use crate::record::soak::SoakJob;

/// A client was told.
const ACCEPTED: u8 = 1;
/// A run ended well.
const WELL: u8 = 2;
/// The last run has ended.
const OVER: u8 = 4;
/// The last run has ended by failing.
const FAILED: u8 = 8;
/// The record has it.
const RECORDED: u8 = 16;

/// What is known of one job.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// A hash of its id.
    id: u64,
    /// Milliseconds since the first line with a time.
    last_ms: u32,
    last_pid: u32,
    last_attempt: u16,
    starts: u8,
    effects: u8,
    flags: u8,
}

/// What the ledger and the record say, in numbers.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub(super) struct Tally {
    pub(super) lines: u64,
    pub(super) accepted: u64,
    pub(super) starts: u64,
    /// Runs that a fault caused to be repeated, by the newest fault that explains each.
    pub(super) repeats: BTreeMap<String, u64>,
    /// Of these, runs that began while the earlier one may still have been running.
    pub(super) overlaps: u64,
    /// Starts with a number that was used before: Redis had forgotten it, or the process was
    /// frozen between its claim and the handler.
    pub(super) old_numbers: u64,
    /// Runs that were told that they have no say any more.
    pub(super) fenced: u64,
    /// Effects without a key, and how many of them were repeated.
    pub(super) letters: u64,
    pub(super) letters_repeated: u64,
    pub(super) completed: u64,
    pub(super) dead: u64,
    /// Jobs that were given up because their workers vanished again and again.
    pub(super) crash_loops: u64,
    /// Jobs without which something is wrong: told of, and not in the record or not over.
    pub(super) lost: u64,
    /// How often each fault was done.
    pub(super) faults: BTreeMap<String, u64>,
}

/// A check under way.
pub(super) struct Check {
    plan: Plan,
    jobs: Vec<Seen>,
    zero_ms: Option<i64>,
    excuses: Excuses,
    dead: HashSet<u32>,
    /// The numbers in whose order the jobs of the look at the order were started.
    pub(super) order: Vec<u64>,
    pub(super) tally: Tally,
    pub(super) violations: Violations,
}

impl Check {
    pub(super) fn new(plan: Plan) -> Self {
        Self {
            plan,
            jobs: Vec::new(),
            zero_ms: None,
            excuses: Excuses::default(),
            dead: HashSet::new(),
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
            Line::Accepted { seq, .. } | Line::End { seq, .. } | Line::Effect { seq, .. }
                if seq >= ORDER_FROM => {}
            Line::Start { seq, .. } if seq >= ORDER_FROM => self.order.push(seq),
            Line::Accepted { seq, id } => self.accepted(seq, id),
            Line::Start {
                seq,
                id,
                attempt,
                pid,
                at_ms,
            } => self.started(seq, id, attempt, pid, at_ms),
            Line::End {
                seq,
                attempt,
                pid,
                ended,
                ..
            } => self.ended(seq, attempt, pid, ended),
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

    fn seen(&mut self, seq: u64) -> &mut Seen {
        let at = seq as usize;
        if self.jobs.len() <= at {
            self.jobs.resize(at + 1, Seen::default());
        }
        &mut self.jobs[at]
    }

    fn accepted(&mut self, seq: u64, id: Uuid) {
        let hash = hash(id);
        let seen = self.seen(seq);
        let (known, was_told) = (seen.id, seen.flags & ACCEPTED != 0);
        seen.id = hash;
        seen.flags |= ACCEPTED;
        self.tally.accepted += u64::from(!was_told);
        if known != 0 && known != hash {
            let text = format!("job {seq}: {id} is the second id that was seen for it");
            self.violations.add(Law::NoPhantom, text);
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
        let Ok(seq) = u64::try_from(job.seq) else {
            self.violations
                .add(Law::NoPhantom, format!("{name} is none of ours"));
            return;
        };
        let payload = self.plan.payload(seq);
        let hash = hash(job.id);
        let seen = self.seen(seq);
        let was = *seen;
        seen.flags |= RECORDED;
        let mut wrong = |law, what: String| self.violations.add(law, format!("{name}: {what}"));
        if was.flags & ACCEPTED == 0 {
            wrong(Law::NoPhantom, "in the record, told to nobody".to_owned());
        }
        if was.flags & RECORDED != 0 {
            wrong(Law::NoPhantom, "twice in the record".to_owned());
        }
        if was.id != hash {
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
        for (seq, seen) in self.jobs.iter().enumerate() {
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

/// Never 0, which stands for no id.
fn hash(id: Uuid) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish().max(1)
}
