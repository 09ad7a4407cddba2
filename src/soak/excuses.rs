//! Which fault may be the reason for a job to run again.

use super::fault::{Fault, RESUMED, excuses, takes_memory};

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
    /// forgotten it, or the process was frozen between its claim and the handler's first line.
    pub(super) fn for_old_number(&self, pid: u32, from_ms: i64, at_ms: i64) -> Option<&Struck> {
        self.between(from_ms, at_ms)
            .find(|struck| takes_memory(&struck.name) || freezes(struck, pid))
    }

    fn between(&self, from_ms: i64, at_ms: i64) -> impl Iterator<Item = &Struck> {
        self.struck.iter().rev().filter(move |struck| {
            let over = struck.to_ms.map_or(i64::MAX, |to| to + AFTERMATH_MS);
            struck.from_ms <= at_ms && over >= from_ms
        })
    }
}

fn freezes(struck: &Struck, pid: u32) -> bool {
    struck.name == Fault::Stop.name() && struck.pid == pid
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
        excuses.begins(RESUMED, 0, 70_000);
        assert!(excuses.is_of_earlier_part(60_000) && !excuses.is_of_earlier_part(70_000));
    }
}
