//! The protocol done wrong in one place each: the checker must notice, or it checks nothing.

use std::collections::HashMap;

use stateright::{Checker, HasDiscoveries, Model};

use super::properties::{
    EFFECT_ONCE, ENDS_ONCE, FENCED, NEVER_STUCK, NOT_LOST, NOT_RUN_AGAIN, ONE_ROW, RECORD_FIRST,
};
use super::protocol::{Kind, Mutant, Protocol, Step};
use super::scenes::scene;
use super::state::State;

/// Some way through the mutant breaks this property; it is printed.
pub(crate) fn assert_noticed(name: &str, property: &'static str, scene: Protocol) {
    let only = HasDiscoveries::AnyOf([property].into_iter().collect());
    let checker = scene.checker().finish_when(only).spawn_bfs().join();
    let found: HashMap<_, _> = checker.discoveries();
    let Some(path) = found.get(property) else {
        panic!(
            "{name}: nobody noticed; {} states",
            checker.unique_state_count()
        );
    };
    // The rest of the way, after it is broken, tells nothing.
    let model = checker.model();
    let condition = model.property(property).condition;
    let way = path.clone().into_vec();
    let is_kept = |(state, _): &&(State, Option<Step>)| condition(model, state);
    let steps: Vec<_> = way
        .iter()
        .take_while(is_kept)
        .map(|(_, step)| step)
        .collect();
    println!("{name}: {} steps to break: {property}", steps.len());
    println!("  {:?}", steps.into_iter().flatten().collect::<Vec<_>>());
}

pub(crate) fn own(faults: u8, mutant: Mutant) -> Protocol {
    Protocol {
        mutant,
        ..scene(&[Kind::Own], faults)
    }
}

macro_rules! mutants {
    ($($test:ident: $flag:ident, $property:expr, $kind:ident, $faults:literal;)*) => {$(
        #[test]
        fn $test() {
            let mutant = Mutant { $flag: true, ..Mutant::default() };
            let scene = Protocol { mutant, ..scene(&[Kind::$kind], $faults) };
            assert_noticed(stringify!($flag), $property, scene);
        }
    )*};
}

mutants! {
    acknowledging_before_the_commit_is_noticed: ack_before_commit, NOT_LOST, Own, 1;
    adding_late_what_is_there_is_noticed: late_add_again, NOT_RUN_AGAIN, Own, 1;
    telling_redis_first_is_noticed: redis_told_first, RECORD_FIRST, Own, 0;
    no_fence_is_noticed: no_fence, FENCED, Own, 2;
    writing_to_what_is_over_is_noticed: over_is_open, ENDS_ONCE, Own, 2;
    an_effect_outside_of_the_transaction_is_noticed: effect_outside, EFFECT_ONCE, Transactional, 1;
    claiming_from_any_memory_is_noticed: no_epoch_check, NOT_RUN_AGAIN, Own, 1;
    an_epoch_that_rolls_back_with_redis_is_noticed: epoch_in_key_alone, NOT_RUN_AGAIN, Own, 1;
    a_new_id_for_each_adoption_is_noticed: new_id_each_time, ONE_ROW, Foreign, 0;
    running_what_was_rescued_unasked_is_noticed: rescued_not_asked, NOT_RUN_AGAIN, Own, 1;
    no_rescue_is_noticed: no_rescue, NEVER_STUCK, Own, 1;
    no_sweep_is_noticed: no_sweep, NEVER_STUCK, Own, 1;
    adding_again_under_the_old_number_is_noticed: never_raised, NOT_RUN_AGAIN, Own, 1;
}

/// The grace keeps the reconciler from adding what is on its way: it would run, be trimmed, and
/// then the original add would come.
#[test]
fn no_grace_is_noticed() {
    let mutant = Mutant {
        no_grace: true,
        ..Mutant::default()
    };
    let scene = Protocol {
        trims: true,
        ..own(0, mutant)
    };
    assert_noticed("no_grace", NOT_RUN_AGAIN, scene);
}

/// Jobs of which the record knows no start go back as never started. A worker ran the first start,
/// which is written behind, when Redis lost its memory; the next claim goes straight to the
/// handler, though the job may have ended meanwhile.
#[test]
fn putting_a_job_back_as_never_started_is_noticed() {
    let mutant = Mutant {
        never_raised_above_zero: true,
        ..Mutant::default()
    };
    assert_noticed("never_raised_above_zero", NOT_RUN_AGAIN, own(1, mutant));
}

/// The reply to an add is lost, the job runs, ends and is trimmed: the same add, made again within
/// the grace, finds nothing of it.
#[test]
fn repeating_an_add_whose_reply_was_lost_is_noticed() {
    let mutant = Mutant {
        repeats_adds: true,
        ..Mutant::default()
    };
    let scene = Protocol {
        trims: true,
        ..own(1, mutant)
    };
    assert_noticed("repeats_adds", NOT_RUN_AGAIN, scene);
}

/// The same, with a memory of Redis that was lost in between, and nothing trimmed.
#[test]
fn repeating_an_add_in_another_memory_is_noticed() {
    let mutant = Mutant {
        repeats_adds: true,
        add_to_any_memory: true,
        ..Mutant::default()
    };
    assert_noticed("add_to_any_memory", NOT_RUN_AGAIN, own(2, mutant));
}

/// A retried job was claimed, and its worker had not asked the record yet when Redis lost its
/// memory. It is put back with the number that this worker is given a moment later. When that
/// start has ended, the next claim has the number after it. Taken for a client's retry, it would be
/// opened again.
#[test]
fn taking_a_job_that_was_put_back_for_a_clients_retry_is_noticed() {
    let mutant = Mutant {
        reopens: true,
        never_raised_above_zero: true,
        ..Mutant::default()
    };
    let scene = Protocol {
        may_fail: true,
        ..own(1, mutant)
    };
    assert_noticed("reopens", ENDS_ONCE, scene);
}
