//! The scenes: each looks at one side of the protocol, with as many faults as it can afford.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use stateright::{Checker, Model};

use super::protocol::{Happened, Kind, Mutant, Protocol};
use Happened as H;

pub(crate) fn scene(jobs: &[Kind], faults: u8) -> Protocol {
    Protocol {
        jobs: jobs.to_vec(),
        faults,
        may_fail: false,
        has_foreign_worker: false,
        trims: false,
        mutant: Mutant::default(),
        seen: Arc::new(AtomicU32::new(0)),
    }
}

/// Goes every way. Every property holds, and each of `expected` happened.
fn check(name: &str, scene: Protocol, expected: &[Happened]) {
    let started = Instant::now();
    let checker = scene.checker().threads(2).spawn_bfs().join();
    println!(
        "{name}: {} states, up to {} steps, {:.1} s",
        checker.unique_state_count(),
        checker.max_depth(),
        started.elapsed().as_secs_f64()
    );
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        let (last, steps) = (*path.last_state(), path.into_actions());
        panic!("{name}: not so: {property}\n{steps:#?}\n{last:#?}");
    }
    for what in expected {
        let has_seen = checker.model().has_seen(*what);
        assert!(has_seen, "{name}: {what:?} never happened");
    }
}

#[test]
fn an_own_job_survives_any_two_faults() {
    let expected = [
        H::EnqueuerDied,
        H::LostReply,
        H::WorkerDied,
        H::Paused,
        H::CompareDied,
        H::Flushed,
        H::FailedOver,
        H::RolledBack,
        H::Rescued,
        H::AskedAndOver,
        H::Fenced,
        H::SettledTwice,
        H::TakenOver,
        H::Compared,
        H::EndedByCompare,
        H::Readded,
    ];
    check("one own job, 2 faults", scene(&[Kind::Own], 2), &expected);
}

#[test]
fn an_effect_in_a_transaction_survives_any_two_faults_and_a_failure() {
    let scene = Protocol {
        may_fail: true,
        ..scene(&[Kind::Transactional], 2)
    };
    let expected = [H::WorkerDied, H::Paused, H::Fenced, H::SettledTwice];
    check(
        "one transactional job that may fail, 2 faults",
        scene,
        &expected,
    );
}

#[test]
fn a_clients_job_is_adopted_and_survives_any_two_faults() {
    let scene = Protocol {
        has_foreign_worker: true,
        ..scene(&[Kind::Foreign], 2)
    };
    let expected = [H::ForeignDied, H::AdoptedTwice, H::Mirrored, H::RolledBack];
    check(
        "one foreign job, foreign worker, 2 faults",
        scene,
        &expected,
    );
}

#[test]
fn a_foreign_worker_may_run_an_own_job() {
    let scene = Protocol {
        has_foreign_worker: true,
        ..scene(&[Kind::Transactional], 2)
    };
    let expected = [H::ForeignDied, H::Mirrored, H::Fenced, H::RolledBack];
    check("one own job, foreign worker, 2 faults", scene, &expected);
}

#[test]
fn two_jobs_survive_any_fault() {
    let scene = scene(&[Kind::Transactional, Kind::Foreign], 1);
    check("an own and a foreign job, 1 fault", scene, &[H::Compared]);
}

/// Whatever is added late, by whom, is gone from Redis by then.
#[test]
fn a_job_that_redis_trims_when_it_is_over_survives_any_fault() {
    let scene = Protocol {
        trims: true,
        ..scene(&[Kind::Own], 1)
    };
    let expected = [H::LostReply, H::Readded, H::AskedAndOver];
    check("one own job, trimmed, 1 fault", scene, &expected);
}

#[test]
fn without_faults_nothing_is_repaired_and_trimmed_jobs_stay_gone() {
    let scene = Protocol {
        trims: true,
        may_fail: true,
        ..scene(&[Kind::Transactional, Kind::Own], 0)
    };
    check("two own jobs, trimmed, no fault", scene, &[H::Readded]);
}

/// Then every way ends, and as nobody waits for ever, it ends with every job over in both stores.
#[test]
fn no_way_goes_round() {
    for kind in [Kind::Own, Kind::Foreign] {
        let scene = Protocol {
            may_fail: true,
            has_foreign_worker: true,
            ..scene(&[kind], 1)
        };
        let mut is_done = HashMap::new();
        let mut way: Vec<_> = scene.init_states().into_iter().map(|s| (s, None)).collect();
        while let Some((state, next)) = way.last_mut() {
            let next = next.get_or_insert_with(|| {
                is_done.insert(*state, false);
                scene.next_states(state)
            });
            let Some(after) = next.pop() else {
                is_done.insert(*state, true);
                way.pop();
                continue;
            };
            match is_done.get(&after) {
                Some(true) => {}
                Some(false) => panic!("a way comes back to {after:#?}"),
                None => way.push((after, None)),
            }
        }
        println!("{kind:?}: no way goes round, {} states", is_done.len());
    }
}
