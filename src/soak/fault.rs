//! The faults: their names, whom they meet, and what they may excuse.

use super::random::Random;

/// Something that goes wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Fault {
    /// `kill -9` of a worker.
    Kill,
    /// `kill -9` of the server.
    KillServe,
    /// A worker is frozen for longer than its lease.
    Stop,
    /// SIGTERM to each worker in turn, and a new one in its place.
    Rolling,
    /// FLUSHALL.
    Flush,
    /// `kill -9` of Redis, and a start with its append-only file.
    RedisRestart,
    /// `kill -9` of Redis, and a start without data.
    RedisEmpty,
    /// `kill -9` of Redis, and a start with an older snapshot.
    RedisRollback,
    /// `kill -9` of the postmaster, and a start.
    PgRestart,
    /// `pg_terminate_backend` again and again.
    PgTerminate,
    /// A slow network to both stores.
    Slow,
    /// All connections break.
    Cut,
    /// Connections that stay open and are dead.
    HalfOpen,
    /// Requests arrive, answers do not.
    AnswersLost,
    /// No connection can be made.
    Refused,
}

use Fault::{
    AnswersLost, Cut, Flush, HalfOpen, Kill, KillServe, PgRestart, PgTerminate, RedisEmpty,
    RedisRestart, RedisRollback, Refused, Rolling, Slow, Stop,
};

/// All faults, with the names that the command line and the ledger use.
pub(super) const FAULTS: [(Fault, &str); 15] = [
    (Kill, "kill"),
    (KillServe, "kill-serve"),
    (Stop, "stop"),
    (Rolling, "rolling"),
    (Flush, "flush"),
    (RedisRestart, "redis-restart"),
    (RedisEmpty, "redis-empty"),
    (RedisRollback, "redis-rollback"),
    (PgRestart, "pg-restart"),
    (PgTerminate, "pg-terminate"),
    (Slow, "slow"),
    (Cut, "cut"),
    (HalfOpen, "half-open"),
    (AnswersLost, "answers-lost"),
    (Refused, "refused"),
];

/// Names of groups.
const PROXY: [Fault; 5] = [Slow, Cut, HalfOpen, AnswersLost, Refused];

/// A fault of the ledger's own: the whole run was ended and goes on.
pub(super) const RESUMED: &str = "resumed";

impl Fault {
    pub(super) fn name(self) -> &'static str {
        FAULTS
            .iter()
            .find(|(fault, _)| *fault == self)
            .map_or("", |(_, name)| name)
    }
}

/// Whether a fault may be the reason for a job to run again. A worker that is told to end gives its
/// jobs back or finishes them, and a server runs none: they excuse nothing.
pub(super) fn excuses(name: &str) -> bool {
    ![Rolling.name(), KillServe.name()].contains(&name)
}

/// Whether Redis may have forgotten something.
pub(super) fn takes_memory(name: &str) -> bool {
    [Flush, RedisRestart, RedisEmpty, RedisRollback]
        .iter()
        .any(|fault| fault.name() == name)
}

/// Reads `kill,stop,proxy`; `all` and `none` are names, too.
pub(super) fn parse(text: &str) -> anyhow::Result<Vec<Fault>> {
    let mut faults = Vec::new();
    for name in text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        match name {
            "all" => faults.extend(FAULTS.iter().map(|(fault, _)| *fault)),
            "none" => {}
            "proxy" => faults.extend(PROXY),
            name => {
                let found = FAULTS.iter().find(|(_, known)| *known == name);
                let (fault, _) = found.ok_or_else(|| {
                    let known: Vec<&str> = FAULTS.iter().map(|(_, name)| *name).collect();
                    let known = known.join(", ");
                    anyhow::anyhow!("unknown fault `{name}`: {known}, proxy, all, none")
                })?;
                faults.push(*fault);
            }
        }
    }
    faults.sort_unstable();
    faults.dedup();
    Ok(faults)
}

/// The order of faults: each once in a random order, then each once again.
#[derive(Debug)]
pub(super) struct Schedule {
    faults: Vec<Fault>,
    left: Vec<Fault>,
    random: Random,
}

impl Schedule {
    pub(super) fn new(faults: Vec<Fault>, seed: u64) -> Self {
        Self {
            faults,
            left: Vec::new(),
            random: Random::new(seed, 2),
        }
    }

    pub(super) fn next(&mut self) -> Option<Fault> {
        if self.left.is_empty() {
            self.left.clone_from(&self.faults);
        }
        if self.left.is_empty() {
            return None;
        }
        let at = self.random.below(self.left.len() as u64) as usize;
        Some(self.left.swap_remove(at))
    }

    pub(super) fn random(&mut self) -> &mut Random {
        &mut self.random
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_groups_expand_and_unknown_ones_are_refused() {
        assert_eq!(parse("kill, flush,kill").unwrap(), [Kill, Flush]);
        assert_eq!(parse("proxy").unwrap(), PROXY);
        assert_eq!(parse("all").unwrap().len(), FAULTS.len());
        assert_eq!(parse("none").unwrap(), []);
        assert!(parse("kil").unwrap_err().to_string().contains("kill-serve"));
    }

    #[test]
    fn every_fault_comes_in_each_round_in_an_order_of_the_seed() {
        let rounds = |seed| {
            let mut schedule = Schedule::new(parse("all").unwrap(), seed);
            let mut round =
                || -> Vec<Fault> { (0..FAULTS.len()).filter_map(|_| schedule.next()).collect() };
            [round(), round()]
        };
        let [one, two] = rounds(1);
        assert_ne!(one, two);
        assert_eq!(rounds(1), [one.clone(), two]);
        let mut sorted = one;
        sorted.sort_unstable();
        assert_eq!(sorted, parse("all").unwrap());
        assert_eq!(Schedule::new(Vec::new(), 1).next(), None);
    }
}
