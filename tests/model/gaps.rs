//! Where the code does less than the model: each is a way to run a job whose end the record has.
//!
//! Except in the last one the record still refuses the second outcome and the second transaction;
//! only effects outside of the record happen twice. When the code closes one, its test here goes to
//! the mutants.

use super::mutants::{assert_noticed, own};
use super::properties::{ENDS_ONCE, NOT_RUN_AGAIN};
use super::protocol::{Mutant, Protocol};

/// A worker ran the first start, which is written behind, when Redis lost its memory. The rebuild
/// finds a job without a start in the record and leaves it so: its next claim is a first start, and
/// goes straight to the handler, though the job may have ended meanwhile.
#[test]
fn a_rebuild_forgets_a_first_start_that_the_record_has_not_heard_of() {
    let mutant = Mutant {
        never_raised_above_zero: true,
        ..Mutant::default()
    };
    assert_noticed("never_raised_above_zero", NOT_RUN_AGAIN, own(1, mutant));
}

/// The reply to an add is lost, the job runs, ends and is trimmed: the same add, made again within
/// the grace, finds nothing of it.
#[test]
fn an_add_is_repeated_after_its_job_was_trimmed() {
    let scene = Protocol {
        trims: true,
        ..own(1, Mutant::default())
    };
    assert_noticed("trims", NOT_RUN_AGAIN, scene);
}

/// The same, with a memory of Redis that was lost in between: a process that only enqueues names
/// no memory in its adds.
#[test]
fn an_add_is_repeated_in_another_memory() {
    let mutant = Mutant {
        add_to_any_memory: true,
        ..Mutant::default()
    };
    assert_noticed("add_to_any_memory", NOT_RUN_AGAIN, own(2, mutant));
}

/// A retried job was claimed, and its worker had not asked the record yet when Redis lost its
/// memory. It is put back with the number that this worker is given a moment later. When that start
/// has ended, the next claim has the number after it, and no start in Redis: it is taken for a
/// client's retry, and the job is opened again.
#[test]
fn a_job_put_back_under_the_number_of_a_start_is_taken_for_a_clients_retry() {
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
