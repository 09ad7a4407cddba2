//! Which fault may be the reason for a job to run again.

use super::fault::{Fault, RESUMED, excuses, takes_memory};

/// How long after its end a fault may still be the reason for starts that come late or too early:
/// the limiter of Redis is empty, a process works off what it was told before.
const LATE_MS: i64 = 5_000;

/// How long a healed fault may still be the reason: leases that lapse, connections that are made
/// anew, a record that catches up.
const AFTERMATH_MS: i64 = 20_000;

/// A fault that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Struck {
    pub(super) name: String,
    /// The process that it met; 0: everything.
    pub(super) pid: u32,
    pub(super) from_ms: i64,
    /// None: it goes on.
    pub(super) to_ms: Option<i64>,
}

/// The faults so far, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Excuses {
    pub(super) struck: Vec<Struck>,
}

impl Excuses {
    pub(super) fn begins(&mut self, name: &str, pid: u32, at_ms: i64) {
        self.struck.push(Struck {
            name: name.to_owned(),
            pid,
            from_ms: at_ms,
            to_ms: None,
        });
    }

    pub(super) fn ends(&mut self, name: &str, at_ms: i64) {
        let open = self.struck.iter_mut().rev();
        let mut open = open.filter(|struck| struck.name == name && struck.to_ms.is_none());
        if let Some(struck) = open.next() {
            struck.to_ms = Some(at_ms);
        }
    }

    /// The newest fault that explains that a job which ran at `pid` since `from_ms` ran again at
    /// `at_ms`; one that met just this process goes before one that met everything.
    pub(super) fn for_repeat(&self, pid: u32, from_ms: i64, at_ms: i64) -> Option<&Struck> {
        let newest = |met: u32| {
            self.between(from_ms, at_ms)
                .find(|struck| excuses(&struck.name) && struck.pid == met)
        };
        newest(pid).or_else(|| newest(0))
    }

    /// Whether every process of that time has ended: the run went on with others.
    pub(super) fn is_of_earlier_part(&self, from_ms: i64) -> bool {
        let resumed = self.struck.iter().rfind(|struck| struck.name == RESUMED);
        resumed.is_some_and(|struck| from_ms < struck.from_ms)
    }

    /// The newest fault by which a start at `pid` may have a number that was used: Redis has
    /// forgotten it, or the process was frozen between its claim and the handler's first line. That
    /// is excused only if the handler began before the freeze ended: one that begins later has
    /// asked for its lease.
    pub(super) fn for_old_number(&self, pid: u32, from_ms: i64, at_ms: i64) -> Option<&Struck> {
        self.between(from_ms, at_ms)
            .find(|struck| takes_memory(&struck.name) || froze(struck, pid, at_ms))
    }

    /// Whether a run at `pid` since `from_ms` may have lost its job by now.
    pub(super) fn may_let_go(&self, pid: u32, from_ms: i64, at_ms: i64) -> bool {
        self.between(from_ms, at_ms).any(|struck| {
            struck.name != Fault::KillServe.name() && (struck.pid == 0 || struck.pid == pid)
        })
    }

    /// Whether Redis may have forgotten how many jobs had started, or starts may have been seen
    /// much later than they were allowed.
    pub(super) fn may_reset_limits(&self, from_ms: i64, at_ms: i64) -> bool {
        let harmless = [Fault::Kill, Fault::KillServe, Fault::Rolling].map(Fault::name);
        self.struck.iter().rev().any(|struck| {
            let over = struck.to_ms.map_or(i64::MAX, |to| to + LATE_MS);
            !harmless.contains(&struck.name.as_str()) && struck.from_ms <= at_ms && over >= from_ms
        })
    }

    /// Whether anything happened then.
    pub(super) fn any(&self, from_ms: i64, at_ms: i64) -> bool {
        self.between(from_ms, at_ms).next().is_some()
    }

    fn between(&self, from_ms: i64, at_ms: i64) -> impl Iterator<Item = &Struck> {
        self.struck.iter().rev().filter(move |struck| {
            let over = struck.to_ms.map_or(i64::MAX, |to| to + AFTERMATH_MS);
            struck.from_ms <= at_ms && over >= from_ms
        })
    }
}

fn froze(struck: &Struck, pid: u32, at_ms: i64) -> bool {
    let is_over = struck.to_ms.is_some_and(|to| to < at_ms);
    struck.name == Fault::Stop.name() && struck.pid == pid && !is_over
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_excuses_its_process_and_its_time_only() {
        let mut excuses = Excuses::default();
        excuses.begins("kill", 7, 1_000);
        excuses.ends("kill", 1_100);
        assert!(excuses.for_repeat(7, 900, 2_000).is_some());
        assert!(excuses.for_repeat(8, 900, 2_000).is_none(), "another's");
        assert!(excuses.for_repeat(7, 900, 950).is_none(), "before it");
        let later = 1_100 + AFTERMATH_MS + 1;
        assert!(excuses.for_repeat(7, later, later + 1).is_none());
        assert!(excuses.for_old_number(7, 900, 2_000).is_none());

        excuses.begins("rolling", 0, 50_000);
        excuses.begins("kill-serve", 0, 50_000);
        assert!(
            excuses.for_repeat(7, 50_000, 50_001).is_none(),
            "these make no job run again"
        );
        excuses.begins("flush", 0, 60_000);
        excuses.ends("flush", 60_100);
        assert!(excuses.for_repeat(9, 60_000, 60_001).is_some());
        assert!(excuses.for_old_number(7, 60_000, 60_001).is_some());
        excuses.begins("kill", 9, 59_000);
        let reason = excuses.for_repeat(9, 59_500, 60_500).unwrap();
        assert_eq!(reason.name, "kill", "the nearer reason");
        assert!(!excuses.is_of_earlier_part(60_000));
        excuses.begins("stop", 5, 200_000);
        assert!(excuses.for_old_number(5, 200_000, 200_001).is_some());
        assert!(
            excuses.for_old_number(6, 300_000, 300_001).is_none(),
            "another's"
        );
        excuses.ends("stop", 210_000);
        assert!(excuses.for_old_number(5, 205_000, 210_000).is_some());
        assert!(
            excuses.for_old_number(5, 205_000, 210_001).is_none(),
            "after it thawed"
        );
        excuses.begins(RESUMED, 0, 70_000);
        assert!(excuses.is_of_earlier_part(60_000) && !excuses.is_of_earlier_part(70_000));
    }
    #[test]
    fn a_limit_is_excused_by_what_may_have_broken_it() {
        let mut excuses = Excuses::default();
        for name in ["kill-serve", "kill", "rolling"] {
            let pid = if name == "kill" { 7 } else { 0 };
            excuses.begins(name, pid, 1_000);
            excuses.ends(name, 1_100);
            assert!(!excuses.may_reset_limits(500, 1_500), "{name}");
            assert_eq!(excuses.may_let_go(7, 500, 1_500), name != "kill-serve");
            assert_eq!(excuses.may_let_go(8, 500, 1_500), name == "rolling");
        }
        excuses.begins("flush", 0, 100_000);
        excuses.ends("flush", 100_100);
        assert!(excuses.may_reset_limits(100_100 + LATE_MS, 110_000));
        assert!(!excuses.may_reset_limits(100_101 + LATE_MS, 110_000));
        assert!(excuses.may_let_go(8, 99_000, 101_000) && !excuses.may_let_go(8, 90_000, 99_000));
    }
}
