//! A checker that can't fail is worthless: bad histories, made by hand, and what must be found.

use uuid::Uuid;

use super::check::Check;
use super::line::{Ended, Line};
use super::plan::{Kind, Mix, Plan};
use super::violations::Law;
use crate::record::soak::SoakJob;

pub(super) const PLAN: Plan = Plan {
    seed: 3,
    mix: Mix::Rich,
};

pub(super) fn id(seq: u64) -> Uuid {
    Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + u128::from(seq))
}

/// The first number whose job is of this kind.
fn nth(kind: Kind) -> u64 {
    (0..1_000)
        .find(|seq| PLAN.payload(*seq).kind == kind)
        .unwrap()
}

pub(super) fn accepted(seq: u64) -> Line {
    Line::Accepted { seq, id: id(seq) }
}

pub(super) fn start(seq: u64, attempt: i32, pid: u32, at_ms: i64) -> Line {
    Line::Start {
        seq,
        id: id(seq),
        attempt,
        pid,
        at_ms,
    }
}

pub(super) fn end(seq: u64, attempt: i32, pid: u32, ended: Ended) -> Line {
    Line::End {
        seq,
        attempt,
        pid,
        ended,
        at_ms: 0,
    }
}

pub(super) fn fault(name: &str, pid: u32, at_ms: i64) -> [Line; 2] {
    [true, false].map(|begins| Line::Fault {
        name: name.to_owned(),
        begins,
        pid,
        at_ms,
    })
}

pub(super) fn row(seq: u64, status: &str) -> SoakJob {
    SoakJob {
        id: id(seq),
        redis_id: None,
        workspace_id: None,
        seq: seq.cast_signed(),
        status: status.to_owned(),
        attempts: 0,
        attempt: 1,
        error_message: None,
        is_early: false,
    }
}

/// What is found, as (law, how often).
pub(super) fn found(lines: Vec<Line>, rows: &[SoakJob]) -> Vec<(Law, u64)> {
    let check = checked(lines, rows);
    let laws = check.violations.0.iter();
    laws.map(|(law, broken)| (*law, broken.count)).collect()
}

pub(super) fn checked(lines: Vec<Line>, rows: &[SoakJob]) -> Check {
    let mut check = Check::new(PLAN);
    for line in lines {
        check.take(line);
    }
    for row in rows {
        check.take_job(row);
    }
    check.end();
    check
}

/// One job as it should be.
fn good(seq: u64) -> Vec<Line> {
    vec![
        start(seq, 1, 7, 1_000),
        accepted(seq),
        end(seq, 1, 7, Ended::Well),
    ]
}

#[test]
fn a_good_history_passes() {
    let (noop, dies, fails) = (nth(Kind::Noop), nth(Kind::Dies), nth(Kind::Fails));
    let mut lines = good(noop);
    lines.extend([
        accepted(dies),
        start(dies, 1, 7, 1_000),
        end(dies, 1, 7, Ended::Failed),
        accepted(fails),
        start(fails, 1, 7, 1_000),
        end(fails, 1, 7, Ended::Failed),
        start(fails, 2, 8, 2_000),
        end(fails, 2, 8, Ended::Well),
    ]);
    let rows = [
        row(noop, "completed"),
        row(dies, "dead_letter"),
        SoakJob {
            attempt: 2,
            attempts: 1,
            ..row(fails, "completed")
        },
    ];
    assert_eq!(found(lines, &rows), []);
}

#[test]
fn a_lost_job_is_found() {
    let seq = nth(Kind::Noop);
    assert_eq!(found(good(seq), &[]), [(Law::NoLoss, 1)]);
    // Known, and not over; or over, and without a run.
    assert_eq!(found(good(seq), &[row(seq, "pending")]), [(Law::NoLoss, 1)]);
    let never_run = found(vec![accepted(seq)], &[row(seq, "completed")]);
    assert!(never_run.contains(&(Law::NoLoss, 1)), "{never_run:?}");
    // Given up, though nothing was wrong with it.
    let dead = found(good(seq), &[row(seq, "dead_letter")]);
    assert_eq!(dead, [(Law::NoLoss, 1)]);
}

#[test]
fn a_phantom_is_found() {
    let seq = nth(Kind::Noop);
    // In the record and told to nobody.
    let untold = vec![start(seq, 1, 7, 1_000), end(seq, 1, 7, Ended::Well)];
    assert_eq!(
        found(untold.clone(), &[row(seq, "completed")]),
        [(Law::NoPhantom, 1)]
    );
    // It ran, and nobody knows it.
    assert_eq!(found(untold, &[]), [(Law::NoPhantom, 1)]);
    // The same request made two jobs.
    let twin = SoakJob {
        id: id(seq + 1_000_000),
        ..row(seq, "completed")
    };
    let rows = [row(seq, "completed"), twin];
    assert_eq!(found(good(seq), &rows), [(Law::NoPhantom, 2)]);
    // Two answers to the same request.
    let mut lines = good(seq);
    lines.push(Line::Accepted {
        seq,
        id: id(seq + 1),
    });
    let two = found(lines, &[row(seq, "completed")]);
    assert_eq!(two, [(Law::NoPhantom, 2)]);
    // Completed, though its only run failed.
    let lines = vec![
        accepted(seq),
        start(seq, 1, 7, 1_000),
        end(seq, 1, 7, Ended::Failed),
    ];
    assert_eq!(
        found(lines, &[row(seq, "completed")]),
        [(Law::NoPhantom, 1)]
    );
}

#[test]
fn a_run_that_is_repeated_without_a_fault_is_found() {
    let seq = nth(Kind::Noop);
    let rows = [row(seq, "completed")];
    let again = |between: Vec<Line>| {
        let mut lines = good(seq);
        lines.extend(between);
        lines.extend([start(seq, 2, 8, 5_000), end(seq, 2, 8, Ended::Well)]);
        found(lines, &rows)
    };
    assert_eq!(again(vec![]), [(Law::NoRepeat, 1)]);
    assert_eq!(again(fault("kill", 7, 1_100).to_vec()), []);
    assert_eq!(again(fault("flush", 0, 1_100).to_vec()), []);
    // The fault of another process, and one that makes nothing run again.
    let another = again(fault("kill", 9, 1_100).to_vec());
    assert_eq!(another, [(Law::NoRepeat, 1)]);
    let rolling = again(fault("rolling", 0, 1_100).to_vec());
    assert_eq!(rolling, [(Law::NoRepeat, 1)]);
}

#[test]
fn an_overlap_without_a_fault_is_found_and_one_with_a_fault_is_counted() {
    let seq = nth(Kind::Sleep);
    let rows = [row(seq, "completed")];
    let overlap = |between: Vec<Line>| {
        let mut lines = vec![accepted(seq), start(seq, 1, 7, 1_000)];
        lines.extend(between);
        lines.extend([
            start(seq, 2, 8, 2_000),
            end(seq, 1, 7, Ended::Fenced),
            end(seq, 2, 8, Ended::Well),
        ]);
        checked(lines, &rows)
    };
    let check = overlap(vec![]);
    assert_eq!(check.violations.count(Law::NoRepeat), 1);
    let check = overlap(fault("stop", 7, 1_500).to_vec());
    assert!(check.violations.is_empty());
    assert_eq!((check.tally.overlaps, check.tally.fenced), (1, 1));
    assert_eq!(check.tally.repeats["stop"], 1);
    // A dead process runs nothing: its job overlaps with none.
    let check = overlap(fault("kill", 7, 1_500).to_vec());
    assert_eq!(check.tally.overlaps, 0);
}

#[test]
fn a_start_with_a_number_that_was_used_is_found() {
    let seq = nth(Kind::Noop);
    let rows = [row(seq, "completed")];
    let again = |name| {
        let mut lines = good(seq);
        lines.extend(fault(name, 7, 1_100));
        lines.extend([start(seq, 1, 8, 5_000), end(seq, 1, 8, Ended::Well)]);
        found(lines, &rows)
    };
    assert_eq!(again("kill"), [(Law::NoZombie, 1)]);
    // It was frozen between its claim and its handler's first line; and another one was; and it
    // began after it had thawed, when it could ask for its lease.
    let frozen = |pid, thawed_ms| {
        let mut lines = good(seq);
        lines.extend(fault("kill", 7, 1_050));
        let [stopped, _] = fault("stop", pid, 1_100);
        let [_, thawed] = fault("stop", pid, thawed_ms);
        lines.extend([
            stopped,
            thawed,
            start(seq, 1, 8, 5_000),
            end(seq, 1, 8, Ended::Well),
        ]);
        found(lines, &rows)
    };
    assert_eq!(frozen(8, 5_000), []);
    assert_eq!(frozen(9, 5_000), [(Law::NoZombie, 1)]);
    assert_eq!(frozen(8, 4_999), [(Law::NoZombie, 1)]);
    // Redis had forgotten the number.
    let mut lines = good(seq);
    lines.extend(fault("flush", 0, 1_100));
    lines.extend([start(seq, 1, 8, 5_000), end(seq, 1, 8, Ended::Well)]);
    assert_eq!(found(lines, &rows), []);
}

#[test]
fn an_early_start_and_an_impossible_history_are_found() {
    let seq = nth(Kind::Delayed);
    let early = SoakJob {
        is_early: true,
        ..row(seq, "completed")
    };
    assert_eq!(found(good(seq), &[early]), [(Law::Order, 1)]);
    let impossible = SoakJob {
        attempts: 2,
        attempt: 1,
        ..row(seq, "completed")
    };
    assert_eq!(found(good(seq), &[impossible]), [(Law::History, 1)]);
}

#[test]
fn a_damaged_ledger_is_an_error() {
    let mut check = Check::new(PLAN);
    assert!(check.read_ledger("A 1\n".as_bytes()).is_err());
    let text = format!("{}\n{}\n", accepted(1), start(1, 1, 7, 1_000));
    check.read_ledger(text.as_bytes()).unwrap();
    assert_eq!((check.tally.lines, check.tally.accepted), (2, 1));
}
