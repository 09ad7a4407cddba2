//! Bad histories of flows, limits, schedules and workspaces, and what must be found.

use super::check_tests::{accepted, checked, end, fault, found, id, row, start};
use super::line::{Ended, Line};
use super::plan::Kind;
use super::sides::{AT_ONCE, NEIGHBOUR, STARTS};
use super::space::Space;
use super::violations::Law;
use crate::record::soak::SoakJob;

/// A job with one run of this time, and its row.
fn done(seq: u64, pid: u32, (from_ms, runs_on): (i64, bool)) -> Vec<Line> {
    let mut lines = vec![accepted(seq), start(seq, 1, pid, from_ms)];
    if !runs_on {
        lines.push(end(seq, 1, pid, Ended::Well));
    }
    lines
}

fn rows(numbers: std::ops::Range<u64>) -> Vec<SoakJob> {
    numbers.map(|seq| row(seq, "completed")).collect()
}

#[test]
fn a_parent_that_begins_before_a_child_is_done_is_found() {
    let parent = Space::Flows.from() + 4;
    let children = parent + 1..parent + 4;
    let family = |order: &[u64]| {
        let lines = order.iter().flat_map(|seq| done(*seq, 7, (1_000, false)));
        found(lines.collect(), &rows(parent..children.end))
    };
    assert_eq!(family(&[parent + 2, parent + 1, parent + 3, parent]), []);
    let early = family(&[parent + 1, parent + 2, parent, parent + 3]);
    assert_eq!(early, [(Law::Flows, 1)]);
    // A child that failed is not done.
    let mut lines = vec![accepted(parent + 1), start(parent + 1, 1, 7, 1_000)];
    lines.push(end(parent + 1, 1, 7, Ended::Failed));
    for seq in [parent + 2, parent + 3, parent] {
        lines.extend(done(seq, 7, (1_000, false)));
    }
    lines.extend([
        start(parent + 1, 2, 7, 2_000),
        end(parent + 1, 2, 7, Ended::Well),
    ]);
    let retried = SoakJob {
        attempt: 2,
        ..row(parent + 1, "completed")
    };
    let mut rows = rows(parent..children.end);
    rows[1] = retried;
    assert_eq!(found(lines, &rows), [(Law::Flows, 1)]);
}

#[test]
fn a_flow_whose_ids_are_not_told_again_is_no_phantom() {
    let parent = Space::Flows.from();
    let mut lines = vec![accepted(parent)];
    for seq in parent + 1..parent + 4 {
        let id = uuid::Uuid::nil();
        lines.extend([Line::Accepted { seq, id }, start(seq, 1, 7, 1_000)]);
        lines.push(end(seq, 1, 7, Ended::Well));
    }
    lines.extend([start(parent, 1, 7, 2_000), end(parent, 1, 7, Ended::Well)]);
    let check = checked(lines.clone(), &rows(parent..parent + 4));
    assert!(check.violations.is_empty(), "{:?}", check.violations);
    assert_eq!(check.tally.sides["flows"], 4);
    let lost = found(lines, &rows(parent..parent + 3));
    assert_eq!(lost, [(Law::NoLoss, 1)], "told of, even without its id");
}

#[test]
fn more_at_once_than_the_queue_allows_are_found_unless_a_fault_met_one() {
    let first = Space::Gated.from();
    let all = first..first + AT_ONCE + 1;
    let crowd = |between: Vec<Line>, last_pid| {
        let mut lines = Vec::new();
        for seq in first..first + AT_ONCE {
            lines.extend(done(seq, 7, (1_000, true)));
        }
        lines.extend(between);
        lines.extend(done(all.end - 1, last_pid, (2_000, true)));
        lines.extend((first..all.end - 1).map(|seq| end(seq, 1, 7, Ended::Well)));
        lines.push(end(all.end - 1, 1, last_pid, Ended::Well));
        checked(lines, &rows(all.clone()))
    };
    let check = crowd(vec![], 7);
    assert_eq!(check.violations.count(Law::Limits), 1);
    assert_eq!(check.tally.most_at_once, AT_ONCE + 1);
    let check = crowd(vec![end(first, 1, 7, Ended::Well)], 8);
    assert!(check.violations.is_empty(), "one had ended");
    assert_eq!(check.tally.most_at_once, AT_ONCE);
    assert!(
        crowd(fault("kill", 7, 1_500).to_vec(), 8)
            .violations
            .is_empty()
    );
    assert!(
        crowd(fault("flush", 0, 1_500).to_vec(), 8)
            .violations
            .is_empty()
    );
    for harmless in [fault("kill", 9, 1_500), fault("kill-serve", 0, 1_500)] {
        let check = crowd(harmless.to_vec(), 8);
        assert_eq!(check.violations.count(Law::Limits), 1);
    }
}

#[test]
fn more_starts_than_the_queue_allows_are_found_unless_redis_forgot() {
    let first = Space::Metered.from();
    let burst = |jobs: u64, every_ms: i64, fault: &[Line]| {
        let mut lines = fault.to_vec();
        for (nth, seq) in (first..first + jobs).enumerate() {
            lines.extend(done(seq, 7, (10_000 + nth as i64 * every_ms, false)));
        }
        checked(lines, &rows(first..first + jobs))
    };
    // The end of a window and the beginning of the next.
    let check = burst(2 * STARTS, 1, &[]);
    assert!(check.violations.is_empty());
    assert_eq!(check.tally.most_starts, 2 * STARTS);
    assert_eq!(
        burst(2 * STARTS + 1, 1, &[]).violations.count(Law::Limits),
        1
    );
    assert!(
        burst(2 * STARTS + 1, 1, &fault("flush", 0, 9_000))
            .violations
            .is_empty()
    );
    for harmless in [fault("flush", 0, 1_000), fault("kill", 7, 9_000)] {
        let check = burst(2 * STARTS + 1, 1, &harmless);
        assert_eq!(check.violations.count(Law::Limits), 1);
    }
    // Never many at once, and too many all the same.
    let slow = burst(20 * STARTS, 15, &[]).violations.count(Law::Limits);
    assert!(slow > 0);
    assert_eq!(burst(20 * STARTS, 20, &[]).violations.count(Law::Limits), 0);
}

fn tick_row(second: u64, status: &str) -> SoakJob {
    SoakJob {
        redis_id: Some(format!("repeat:tick:{}", second * 1_000)),
        seq: Space::Ticks.from().cast_signed(),
        ..row(Space::Ticks.from() + second, status)
    }
}

fn tick_run(second: u64) -> [Line; 2] {
    let seq = Space::Ticks.from() + second;
    let at_ms = (second * 1_000).cast_signed();
    [start(seq, 1, 7, at_ms), end(seq, 1, 7, Ended::Well)]
}

#[test]
fn two_jobs_of_one_iteration_are_found_and_one_that_is_missed_is_not() {
    let lines = |seconds: &[u64]| {
        seconds
            .iter()
            .flat_map(|s| tick_run(*s))
            .collect::<Vec<_>>()
    };
    let rows = [tick_row(50, "completed"), tick_row(52, "completed")];
    assert_eq!(found(lines(&[50, 52]), &rows), []);
    // The next one, which nobody began, went with the schedule.
    let more = [&rows[..], &[tick_row(53, "cancelled")]].concat();
    assert_eq!(found(lines(&[50, 52]), &more), []);
    // One that Redis forgot was made again.
    let forgotten = SoakJob {
        id: id(1),
        attempt: 0,
        ..tick_row(52, "cancelled")
    };
    let made_again = [&[forgotten], &rows[..]].concat();
    assert_eq!(found(lines(&[50, 52]), &made_again), []);
    // Run again; a second job; one that never ran; one that ran and is in no record.
    assert_eq!(
        found(lines(&[50, 52, 50]), &rows),
        [(Law::NoZombie, 1), (Law::NoRepeat, 1)]
    );
    let second = SoakJob {
        id: id(1),
        ..tick_row(52, "completed")
    };
    let twice = found(lines(&[50, 52]), &[&rows[..], &[second]].concat());
    assert_eq!(
        twice,
        [(Law::NoPhantom, 2)],
        "twice in the record, and another id"
    );
    assert_eq!(found(lines(&[50]), &rows), [(Law::NoPhantom, 1)]);
    assert_eq!(found(lines(&[50, 52, 53]), &rows), [(Law::NoPhantom, 1)]);
    let stays = [&rows[..], &[tick_row(53, "pending")]].concat();
    assert_eq!(found(lines(&[50, 52]), &stays), [(Law::NoLoss, 1)]);
}

#[test]
fn a_schedule_that_rests_without_a_fault_is_found() {
    let others = Space::Gated.from()..Space::Gated.from() + 30;
    let ticks = [tick_row(50, "completed"), tick_row(80, "completed")];
    let rows = [rows(others.clone()), ticks.to_vec()].concat();
    let gap = |between: &[Line], every_ms: i64| {
        let mut lines = [&tick_run(50)[..], between].concat();
        for (nth, seq) in others.clone().enumerate() {
            lines.extend(done(seq, 7, (50_000 + nth as i64 * every_ms, false)));
        }
        lines.extend(tick_run(80));
        found(lines, &rows)
    };
    assert_eq!(gap(&[], 1_000), [(Law::Schedule, 1)]);
    assert_eq!(gap(&fault("flush", 0, 60_000), 1_000), []);
    assert_eq!(gap(&[], 100), [], "nothing began: the machine stood still");
}

#[test]
fn a_job_in_the_wrong_workspace_and_one_without_a_right_number_are_found() {
    let (ours, theirs) = (0, Space::Neighbour.from());
    let lines = [ours, theirs]
        .map(|seq| done(seq, 7, (1_000, false)))
        .concat();
    let placed = |ours_in, theirs_in| {
        let place = |seq, workspace_id| SoakJob {
            workspace_id,
            ..row(seq, "completed")
        };
        found(
            lines.clone(),
            &[place(ours, ours_in), place(theirs, theirs_in)],
        )
    };
    let right = placed(None, Some(NEIGHBOUR));
    assert_eq!(
        right,
        [],
        "{:?}",
        super::check_tests::PLAN.payload(ours).kind
    );
    assert_eq!(
        placed(Some(NEIGHBOUR), Some(NEIGHBOUR)),
        [(Law::Isolation, 1)]
    );
    assert_eq!(placed(None, None), [(Law::Isolation, 1)]);
    let nobody = 1 << 60;
    let lines = vec![start(nobody, 1, 7, 1_000)];
    assert_eq!(
        found(lines, &[row(nobody, "completed")]),
        [(Law::NoPhantom, 2)]
    );
    assert_eq!(
        super::check_tests::PLAN.payload(Space::Gated.from()).kind,
        Kind::Sleep
    );
}
