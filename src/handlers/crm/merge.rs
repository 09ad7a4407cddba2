//! Two versions of a record and what they last agreed on: what goes where. Pure.
//!
//! Field by field: who changed it since is right; did both, the strategy says who. A field that was
//! never agreed on counts as changed by whoever has a value. Values are in the one form that
//! [`super::mapping`] makes of them, so that the same is the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::mapping::Flow;
use super::payload::Side;

/// Values by field here.
pub(super) type Values = BTreeMap<String, Value>;

/// A field that a person has to decide.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Dispute {
    /// Absent: never agreed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) agreed: Option<Value>,
    pub(super) ours: Value,
    pub(super) theirs: Value,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Merged {
    /// To be written here.
    pub(super) to_us: Values,
    /// To be written there.
    pub(super) to_them: Values,
    pub(super) disputes: BTreeMap<String, Dispute>,
    /// What is agreed on, before anything is written there.
    pub(super) agreed: Values,
    /// Fields that both had changed and that a strategy decided.
    pub(super) decided: u64,
}

/// What a field may do in this run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ways {
    pub(super) pulls: bool,
    pub(super) pushes: bool,
}

/// Merges. `flow` tells of a field which way its mapping lets it go; `winner` of a field that both
/// have changed who is right, nobody being a dispute.
pub(super) fn merge(
    ways: Ways,
    (agreed, ours, theirs): (&Values, &Values, &Values),
    flow: impl Fn(&str) -> Flow,
    mut winner: impl FnMut(&str) -> Option<Side>,
) -> Merged {
    let mut merged = Merged {
        agreed: agreed.clone(),
        ..Merged::default()
    };
    for (field, our) in ours {
        let Some(their) = theirs.get(field) else {
            continue;
        };
        let was = agreed.get(field);
        if our == their {
            merged.agreed.insert(field.clone(), our.clone());
            continue;
        }
        let flow = flow(field);
        let pulls = ways.pulls && flow != Flow::Push;
        let pushes = ways.pushes && flow != Flow::Pull;
        let right = match (was, flow) {
            // What goes one way only has nobody to disagree with.
            (_, Flow::Pull) => Some(Side::Crm),
            (_, Flow::Push) => Some(Side::Bullwark),
            (Some(was), Flow::Both) if was == our => Some(Side::Crm),
            (Some(was), Flow::Both) if was == their => Some(Side::Bullwark),
            (None, Flow::Both) if our.is_null() => Some(Side::Crm),
            (None, Flow::Both) if their.is_null() => Some(Side::Bullwark),
            (_, Flow::Both) => {
                let winner = winner(field);
                merged.decided += u64::from(winner.is_some());
                winner
            }
        };
        match right {
            Some(Side::Crm) if pulls => {
                merged.to_us.insert(field.clone(), their.clone());
                merged.agreed.insert(field.clone(), their.clone());
            }
            Some(Side::Bullwark) if pushes => {
                merged.to_them.insert(field.clone(), our.clone());
                // From here on only we have changed it: whoever sends it finds that.
                merged.agreed.insert(field.clone(), their.clone());
            }
            // This run does not write that side: nothing is agreed, and the next one looks again.
            Some(_) => {}
            None => {
                let dispute = Dispute {
                    agreed: was.cloned(),
                    ours: our.clone(),
                    theirs: their.clone(),
                };
                merged.disputes.insert(field.clone(), dispute);
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const BOTH: Ways = Ways {
        pulls: true,
        pushes: true,
    };

    fn values(value: Value) -> Values {
        serde_json::from_value(value).unwrap()
    }

    fn of(ways: Ways, sides: [Value; 3], winner: Option<Side>) -> Merged {
        let [agreed, ours, theirs] = sides.map(values);
        merge(ways, (&agreed, &ours, &theirs), |_| Flow::Both, |_| winner)
    }

    #[test]
    fn each_side_keeps_what_it_alone_has_changed() {
        let agreed = json!({ "name": "A", "city": "Bonn", "phone": "1" });
        let ours = json!({ "name": "B", "city": "Bonn", "phone": "1" });
        let theirs = json!({ "name": "A", "city": "Köln", "phone": "1" });
        let merged = of(BOTH, [agreed, ours, theirs], None);
        assert_eq!(merged.to_us, values(json!({ "city": "Köln" })));
        assert_eq!(merged.to_them, values(json!({ "name": "B" })));
        let agreed = json!({ "name": "A", "city": "Köln", "phone": "1" });
        assert_eq!(merged.agreed, values(agreed));
        assert!(merged.disputes.is_empty());
        assert_eq!(merged.decided, 0);
    }

    #[test]
    fn what_both_have_changed_is_decided_or_disputed_and_never_lost() {
        let sides = || {
            [
                json!({ "name": "A" }),
                json!({ "name": "B" }),
                json!({ "name": "C" }),
            ]
        };
        let theirs = of(BOTH, sides(), Some(Side::Crm));
        assert_eq!(theirs.to_us, values(json!({ "name": "C" })));
        assert_eq!((theirs.to_them.len(), theirs.decided), (0, 1));
        let ours = of(BOTH, sides(), Some(Side::Bullwark));
        assert_eq!(ours.to_them, values(json!({ "name": "B" })));
        assert_eq!(ours.agreed, values(json!({ "name": "C" })));
        let open = of(BOTH, sides(), None);
        assert!(open.to_us.is_empty() && open.to_them.is_empty());
        assert_eq!(open.disputes["name"].theirs, "C");
        assert_eq!(open.agreed, values(json!({ "name": "A" })));
        // A run that may not write the loser's side agrees on nothing.
        let pull = Ways {
            pulls: true,
            pushes: false,
        };
        let kept = of(pull, sides(), Some(Side::Bullwark));
        assert!(kept.to_them.is_empty() && kept.to_us.is_empty());
        assert_eq!(kept.agreed, values(json!({ "name": "A" })));
    }

    #[test]
    fn at_first_sight_what_is_empty_is_filled_and_both_changing_to_the_same_is_agreement() {
        let ours = json!({ "name": "A", "city": null, "phone": "1" });
        let theirs = json!({ "name": "A", "city": "Bonn", "phone": null });
        let merged = of(BOTH, [json!({}), ours, theirs], None);
        assert_eq!(merged.to_us, values(json!({ "city": "Bonn" })));
        assert_eq!(merged.to_them, values(json!({ "phone": "1" })));
        assert_eq!(merged.agreed["name"], "A");
        let [agreed, new] = [json!({ "name": "A" }), json!({ "name": "B" })];
        let same = of(BOTH, [agreed, new.clone(), new], None);
        assert_eq!(same.agreed["name"], "B");
        assert!(same.disputes.is_empty() && same.to_us.is_empty());
    }
}
