//! Which job the nth one is: it follows from the seed and the number, so that neither the generator
//! nor the checker has to remember any.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::random::mix;
use super::space::{FAMILY, Space, is_parent};

/// The job type of the soak.
pub(crate) const TYPE: &str = "soak";
/// The queue of the load.
pub(super) const QUEUE: &str = "soak";
/// The queue in which nothing but the order of starts is looked at.
pub(super) const ORDER_QUEUE: &str = "soak-order";

/// Retries of a job that reaches for a store: an outage must not use them up.
const PATIENT: u32 = 1000;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Noop,
    /// Takes some milliseconds, or seconds.
    Sleep,
    /// Fails in its first attempts, then completes.
    Fails,
    /// Fails for good: a dead letter.
    Dies,
    /// May not start for a while.
    Delayed,
    /// Goes before others.
    Urgent,
    /// Writes a row in the same transaction as its checkpoint: once and no more. Takes some time
    /// after it.
    Row,
    /// Writes a line outside, without a key: once, and again for each run that a fault repeated.
    /// Takes some time after it.
    Letter,
}

impl Kind {
    /// The status that a job of this kind ends with.
    pub(super) fn ends(self) -> &'static str {
        match self {
            Self::Dies => "dead_letter",
            _ => "completed",
        }
    }
}

/// What a job is told.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Payload {
    pub(super) seq: u64,
    pub(super) kind: Kind,
    /// How long it takes.
    pub(super) ms: u64,
    /// How many attempts fail.
    pub(super) fails: u32,
}

/// How much of each kind there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mix {
    /// Much that fails, waits or has an effect: the faults meet something.
    #[default]
    Rich,
    /// Mostly short jobs, of every other kind some: for many millions of them.
    Brisk,
}

impl Mix {
    /// Shares in percent, and one of how many of those that take time takes seconds.
    fn shares(self) -> ([(Kind, u64); 8], u64) {
        use Kind::{Delayed, Dies, Fails, Letter, Noop, Row, Sleep, Urgent};
        let (percent, slow) = match self {
            Self::Rich => ([40, 18, 8, 4, 6, 6, 10, 8], 20),
            Self::Brisk => ([71, 10, 3, 1, 2, 6, 4, 3], 200),
        };
        let kinds = [Noop, Sleep, Fails, Dies, Delayed, Urgent, Row, Letter];
        (std::array::from_fn(|at| (kinds[at], percent[at])), slow)
    }

    fn kind(self, mut percent: u64) -> Kind {
        for (kind, share) in self.shares().0 {
            if percent < share {
                return kind;
            }
            percent -= share;
        }
        Kind::Noop
    }
}

/// The jobs of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) mix: Mix,
}

impl Plan {
    pub(super) fn payload(self, seq: u64) -> Payload {
        let bits = mix(self.seed ^ mix(seq));
        let kind = match Space::of(seq) {
            Some(Space::Main | Space::Neighbour) => self.mix.kind(bits % 100),
            Some(Space::Gated) => Kind::Sleep,
            Some(Space::Flows) if !is_parent(seq) => {
                [Kind::Noop, Kind::Sleep, Kind::Fails][bits as usize % 3]
            }
            _ => Kind::Noop,
        };
        let takes_time = matches!(kind, Kind::Sleep | Kind::Row | Kind::Letter);
        // Most are short. Some are long enough to be met by nearly every fault.
        let is_slow = (bits >> 8).is_multiple_of(self.mix.shares().1);
        let ms = match (takes_time, is_slow && Space::of(seq) != Some(Space::Gated)) {
            (true, true) => 200 + (bits >> 16) % 2_800,
            (true, false) => 1 + (bits >> 16) % 50,
            _ => 0,
        };
        let fails = match kind {
            Kind::Fails => 1 + (bits >> 24) as u32 % 3,
            _ => 0,
        };
        Payload {
            seq,
            kind,
            ms,
            fails,
        }
    }

    /// The key that makes it safe to send the job again. The neighbour's are those of the main
    /// part: keys of one workspace mean nothing in another.
    pub(super) fn key(self, seq: u64) -> String {
        let seq = match Space::of(seq) {
            Some(Space::Neighbour) => Space::nth(seq),
            _ => seq,
        };
        format!("soak-{}-{seq}", self.seed)
    }

    /// The body of the request for this job.
    pub(super) fn request(self, seq: u64) -> Value {
        let payload = self.payload(seq);
        let bits = mix(seq ^ 7);
        let mut request = json!({
            "jobType": TYPE,
            "queue": Space::of(seq).map_or(QUEUE, Space::queue),
            "payload": payload,
            "idempotencyKey": self.key(seq),
            "maxAttempts": PATIENT,
            "backoff": { "type": "fixed", "delay_ms": 100 + bits % 400, "jitter": 0.5 },
        });
        match payload.kind {
            Kind::Delayed => request["delayMs"] = json!(500 + bits % 4_500),
            Kind::Urgent => request["priority"] = json!(1 + bits % 10),
            _ => {}
        }
        request
    }

    /// The body of the request for a parent and its children. Only the parent has a key, which
    /// stands for the whole flow.
    pub(super) fn flow(self, parent: u64) -> Value {
        let child = |seq| {
            let mut job = self.request(seq);
            job["idempotencyKey"] = Value::Null;
            json!({ "job": job })
        };
        let children: Vec<Value> = (parent + 1..parent + FAMILY).map(child).collect();
        json!({ "job": self.request(parent), "children": children })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_the_same_whenever_it_is_sent() {
        for mix in [Mix::Rich, Mix::Brisk] {
            let plan = Plan { seed: 7, mix };
            for seq in 0..500 {
                assert_eq!(plan.request(seq), plan.request(seq));
            }
            let kinds: std::collections::HashSet<Kind> =
                (0..1_000).map(|seq| plan.payload(seq).kind).collect();
            assert_eq!(kinds.len(), 8, "each kind comes");
            let shares = mix.shares().0.map(|(_, percent)| percent);
            assert_eq!(shares.iter().sum::<u64>(), 100);
        }
    }

    #[test]
    fn a_volume_is_made_of_short_jobs() {
        let slow = |mix| {
            let plan = Plan { seed: 7, mix };
            let jobs = (0..20_000).map(|seq| plan.payload(seq).ms);
            jobs.filter(|ms| *ms >= 200).count()
        };
        assert!(slow(Mix::Rich) > 200 && slow(Mix::Brisk) > 0);
        assert!(slow(Mix::Brisk) * 10 < slow(Mix::Rich));
    }
}
