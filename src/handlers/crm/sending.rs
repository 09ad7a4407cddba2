//! What a run is about to send, written down before it is sent. Pure.
//!
//! A worker may die, and an answer may be lost, between writing there and noting it. Who goes on
//! finds records there that are as they should be, and could not tell a record that this run has
//! made from one that was always there, nor one that it has changed from one that needed no change.
//! This tells, so that each row is counted once and as it was meant.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::plan::{Meant, Plan};

/// The rows of a part that is sent, or was.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sending {
    /// The last of them, by id.
    to: Uuid,
    /// Those without a link that were found there. The others without one are made there.
    matched: BTreeSet<Uuid>,
    /// Those that were there and are changed.
    changed: BTreeSet<Uuid>,
    /// Of rows with fields that the strategy decides, how many.
    decided: BTreeMap<Uuid, u64>,
}

impl Sending {
    /// Whether a row is one of them: it may have been sent.
    pub(super) fn has(&self, id: Uuid) -> bool {
        id <= self.to
    }

    pub(super) fn has_matched(&self, id: Uuid) -> bool {
        self.matched.contains(&id)
    }

    pub(super) fn has_changed(&self, id: Uuid) -> bool {
        self.changed.contains(&id)
    }

    /// What was decided of a row, before anything of it was sent.
    pub(super) fn decided(&self, id: Uuid) -> u64 {
        self.decided.get(&id).copied().unwrap_or_default()
    }

    /// Adds the rows up to one. What was meant first stays: a row that was sent looks otherwise.
    pub(super) fn add<'a>(&mut self, to: Uuid, plans: impl Iterator<Item = &'a Plan>) {
        for plan in plans
            .filter(|plan| !self.has(plan.local))
            .collect::<Vec<_>>()
        {
            let id = plan.local;
            if plan.meant == Meant::Match {
                self.matched.insert(id);
            }
            if plan.meant != Meant::New && !plan.sent.is_empty() {
                self.changed.insert(id);
            }
            if plan.decided > 0 {
                self.decided.insert(id, plan.decided);
            }
        }
        self.to = self.to.max(to);
    }

    /// Nothing, if all of them are noted now.
    pub(super) fn behind(self, noted: Uuid) -> Option<Self> {
        (noted < self.to).then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(id: u128, meant: Meant, is_sent: bool, decided: u64) -> Plan {
        let sent = is_sent.then(|| ("city".to_owned(), json!("Bonn")));
        Plan {
            local: Uuid::from_u128(id),
            remote_id: None,
            meant,
            was_tried: false,
            remote_modified_at: None,
            agreed: Default::default(),
            sent: sent.into_iter().collect(),
            disputes: Default::default(),
            had_dispute: false,
            decided,
        }
    }

    #[test]
    fn a_row_stays_what_it_was_meant_to_be_when_it_was_first_sent() {
        let id = Uuid::from_u128;
        let mut sending = Sending::default();
        let plans = [
            plan(1, Meant::New, true, 0),
            plan(2, Meant::Match, true, 1),
            plan(3, Meant::Match, false, 0),
            plan(4, Meant::Change, true, 0),
        ];
        sending.add(id(5), plans.iter());
        // The next attempt finds three of them done, and goes further.
        let again = [
            plan(1, Meant::Match, false, 0),
            plan(2, Meant::Match, false, 0),
            plan(4, Meant::Change, false, 0),
            plan(6, Meant::Change, true, 2),
        ];
        sending.add(id(6), again.iter());
        assert!(sending.has(id(5)) && sending.has(id(6)) && !sending.has(id(7)));
        let matched: Vec<bool> = (1..=6).map(|n| sending.has_matched(id(n))).collect();
        assert_eq!(matched, [false, true, true, false, false, false]);
        let changed: Vec<bool> = (1..=6).map(|n| sending.has_changed(id(n))).collect();
        assert_eq!(changed, [false, true, false, true, false, true]);
        assert_eq!((sending.decided(id(2)), sending.decided(id(6))), (1, 2));
        assert!(sending.clone().behind(id(5)).is_some());
        assert_eq!(sending.behind(id(6)), None);
    }
}
