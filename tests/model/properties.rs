//! What must hold, and what must happen.

use std::cell::RefCell;

use bullwark::job::Status;
use stateright::Property;

use super::protocol::{Protocol, Step};
use super::state::{Enqueuer, State};

pub(crate) const NOT_LOST: &str = "no acknowledged job is lost";
pub(crate) const ENDS: &str = "every acknowledged job ends, in both stores";
pub(crate) const NEVER_STUCK: &str = "nobody waits for ever";
pub(crate) const ENDS_ONCE: &str = "an outcome is recorded once and stays";
pub(crate) const FENCED: &str = "an attempt without a say writes nothing";
pub(crate) const RECORD_FIRST: &str = "no own job is over in Redis while it is open in the record";
pub(crate) const NOT_RUN_AGAIN: &str = "no job that is over is claimed and run";
pub(crate) const EFFECT_ONCE: &str =
    "an effect in a transaction is there once if completed, else never";
pub(crate) const ONE_ROW: &str = "adopting twice gives one job";

pub(crate) fn properties() -> Vec<Property<Protocol>> {
    vec![
        Property::always(NOT_LOST, |_, s: &State| {
            (0..s.rows.len()).all(|job| !s.judged.acked[job] || s.rows[job].status.is_some())
        }),
        Property::always(ENDS_ONCE, |_, s: &State| {
            let stays = |(row, ended): (&super::state::Row, &Option<Status>)| {
                ended.is_none() || row.status == *ended
            };
            !s.judged.ended_twice && s.rows.iter().zip(&s.judged.ended).all(stays)
        }),
        Property::always(FENCED, |_, s: &State| !s.judged.fenced_wrote),
        Property::always(NOT_RUN_AGAIN, |_, s: &State| !s.judged.over_ran),
        Property::always(RECORD_FIRST, |m: &Protocol, s: &State| {
            (0..m.jobs.len()).filter(|job| m.is_own(*job)).all(|job| {
                let wire = s.redis.jobs[job];
                !wire.place.is_over() || wire.by_foreign || s.rows[job].is_final()
            })
        }),
        Property::always(EFFECT_ONCE, |m: &Protocol, s: &State| {
            (0..m.jobs.len())
                .filter(|job| m.is_transactional(*job))
                .all(|job| {
                    let row = &s.rows[job];
                    let is_completed = row.status == Some(Status::Completed);
                    // Completed by a foreign worker, it has none of ours.
                    row.effects == u8::from(is_completed)
                        || (m.has_foreign_worker && is_completed && row.effects == 0)
                })
        }),
        Property::always(ONE_ROW, |_, s: &State| {
            s.rows.iter().all(|row| row.copies <= 1)
        }),
        Property::always(NEVER_STUCK, |m: &Protocol, s: &State| {
            all_over(m, s) || can_go_on(m, s)
        }),
        Property::eventually(ENDS, all_over),
    ]
}

/// Every job that the record has is over in both stores, and no job is still to come.
fn all_over(m: &Protocol, s: &State) -> bool {
    (0..m.jobs.len()).all(|job| {
        let place = s.redis.jobs[job].place;
        let was_lost = s.rows[job].status.is_none() && !s.judged.acked[job];
        let is_over = s.rows[job].is_final() || (was_lost && s.enqueuers[job] == Enqueuer::Done);
        is_over && !place.waits() && place != super::state::Place::Active
    })
}

/// Somebody can take a step without the help of a fault.
fn can_go_on(m: &Protocol, s: &State) -> bool {
    thread_local!(static STEPS: RefCell<Vec<Step>> = const { RefCell::new(Vec::new()) });
    STEPS.with_borrow_mut(|steps| {
        steps.clear();
        m.steps(s, false, steps);
        steps.iter().any(|step| m.take(s, *step).is_some())
    })
}
