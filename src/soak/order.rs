//! The look at the order: a queue of its own, one worker with one slot.
//!
//! The jobs wait before the worker begins, and Redis loses its memory in between: what comes back
//! must come in the order of priority, and among equals in the order in which it was accepted.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::plan::{Kind, ORDER_QUEUE, Payload, Plan, TYPE};
use super::random::mix;
use super::space::Space;
use super::violations::{Law, Violations};

/// How many jobs; each part of a run has numbers of its own.
pub(super) const JOBS: u64 = 60;
const PART: u64 = 1_000;
const ORDER_FROM: u64 = Space::Order.from();

/// The requests of one look, in the order in which they are sent.
pub(super) fn requests(plan: Plan, part: u64) -> Vec<Value> {
    let from = ORDER_FROM + part * PART;
    (from..from + JOBS)
        .map(|seq| {
            let payload = Payload {
                seq,
                kind: Kind::Noop,
                ms: 0,
                fails: 0,
            };
            json!({
                "jobType": TYPE,
                "queue": ORDER_QUEUE,
                "payload": payload,
                "priority": priority(seq),
                "idempotencyKey": plan.key(seq),
            })
        })
        .collect()
}

fn priority(seq: u64) -> u64 {
    mix(seq) % 4
}

/// Compares the order of first starts with the right one.
pub(super) fn check(starts: &[u64], violations: &mut Violations) {
    let mut parts: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for seq in starts {
        let part = parts.entry((seq - ORDER_FROM) / PART).or_default();
        if !part.contains(seq) {
            part.push(*seq);
        }
    }
    for (part, starts) in parts {
        let mut right = starts.clone();
        right.sort_by_key(|seq| (std::cmp::Reverse(priority(*seq)), *seq));
        let wrong = starts.iter().zip(&right).find(|(is, right)| is != right);
        if let Some((is, should)) = wrong {
            let text = format!(
                "part {part}: job {is} (priority {}) began before job {should} (priority {})",
                priority(*is),
                priority(*should)
            );
            violations.add(Law::Order, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_order_passes() {
        let mut right: Vec<u64> = (ORDER_FROM..ORDER_FROM + JOBS).collect();
        right.sort_by_key(|seq| (std::cmp::Reverse(priority(*seq)), *seq));
        let found = |starts: &[u64]| {
            let mut violations = Violations::default();
            check(starts, &mut violations);
            violations.count(Law::Order)
        };
        assert_eq!(found(&right), 0);
        let mut swapped = right.clone();
        swapped.swap(3, 4);
        assert_eq!(found(&swapped), 1);
        right.reverse();
        assert_eq!(found(&right), 1);
    }
}
