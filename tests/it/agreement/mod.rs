//! One state machine, three times: the pure `Status::next`, the SQL of the record and the scripts
//! of the broker must agree on what is legal and on where it leads.
//!
//! Random sequences of events are thrown at all three. A legal event is carried out as the doors do
//! it, record first. An illegal one is tried with everything in its favour (the right job, its
//! newest attempt and token) and must be refused and change nothing. After each step status,
//! failures, fence, retry history and dead letter queue are compared.
//!
//! What the record decides alone: Redis removes whatever it is told to cancel, so of an illegal
//! cancellation it must not hear, as the door `control` sees to. And the start of a first attempt
//! is written behind, so the record may still say pending while the attempt runs.

mod model;
mod play;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

use self::model::Checked;
use self::play::Play;
use crate::stage::Stage;

const EVENTS_MAX: usize = 20;

/// What may be tried next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Step {
    /// A worker asks for work. `notes_start` is false when it ends before its journal is written.
    Claim {
        notes_start: bool,
    },
    Succeed,
    /// The handler fails; the next run is due at once or in an hour.
    Err {
        in_an_hour: bool,
    },
    Discard,
    Snooze {
        in_an_hour: bool,
    },
    Release,
    /// The worker vanishes, its lease ends, another worker takes over.
    LoseLease,
    Cancel,
    RetryByHand,
    /// Delayed jobs become due.
    TimePasses,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<bool>().prop_map(|notes_start| Step::Claim { notes_start }),
        3 => any::<bool>().prop_map(|in_an_hour| Step::Err { in_an_hour }),
        1 => Just(Step::Succeed),
        1 => Just(Step::Discard),
        1 => any::<bool>().prop_map(|in_an_hour| Step::Snooze { in_an_hour }),
        1 => Just(Step::Release),
        1 => Just(Step::LoseLease),
        1 => Just(Step::Cancel),
        2 => Just(Step::RetryByHand),
        3 => Just(Step::TimePasses),
    ]
}

async fn play(stage: &Stage, number: usize, steps: &[Step]) -> Checked {
    let mut play = Play::new(stage, number).await;
    for (nth, step) in steps.iter().enumerate() {
        let taken = Box::pin(play.take(*step)).await;
        let compared = match taken {
            Ok(()) => play.compare().await,
            Err(wrong) => Err(wrong),
        };
        if let Err(wrong) = compared {
            return Err(format!("step {} ({step:?}): {wrong}", nth + 1));
        }
    }
    Ok(())
}

#[test]
fn pure_rule_record_and_scripts_agree_on_every_sequence_of_events() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stage = runtime.block_on(Stage::new());
    // A quarter of proptest's own number, so that PROPTEST_CASES=4000 asks for a thousand.
    let config = Config {
        cases: Config::default().cases / 4,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(20_26),
        ..Config::default()
    };
    let number = std::cell::Cell::new(0);
    let strategy = prop::collection::vec(step(), 1..EVENTS_MAX);
    let result = TestRunner::new(config).run(&strategy, |steps| {
        number.set(number.get() + 1);
        runtime
            .block_on(play(&stage, number.get(), &steps))
            .map_err(TestCaseError::fail)
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(why, steps)) => {
            let lines: Vec<String> = steps.iter().map(|step| format!("  {step:?}")).collect();
            panic!("{why}\nin the shortest sequence:\n{}", lines.join("\n"));
        }
        Err(other) => panic!("{other}"),
    }
}

/// Each status with each event, so that no pair depends on chance.
#[test]
fn every_pair_of_status_and_event_was_tried() {
    use Step as S;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stage = runtime.block_on(Stage::new());
    let claim = S::Claim { notes_start: true };
    let fail = S::Err { in_an_hour: false };
    let ways: [&[Step]; 9] = [
        &[],
        &[claim],
        &[claim, fail],
        &[claim, S::Err { in_an_hour: true }],
        &[claim, S::Snooze { in_an_hour: true }],
        &[claim, S::Succeed],
        &[claim, S::Discard],
        &[claim, fail, claim, fail, claim, fail],
        &[claim, S::Cancel],
    ];
    let last = [
        claim,
        S::Succeed,
        fail,
        S::Discard,
        S::Snooze { in_an_hour: false },
        S::Release,
        S::LoseLease,
        S::Cancel,
        S::RetryByHand,
        S::TimePasses,
    ];
    let mut number = 0;
    for way in ways {
        for step in last {
            number += 1;
            let steps = [way, &[step], &[S::RetryByHand, claim]].concat();
            let played = runtime.block_on(play(&stage, number, &steps));
            assert_eq!(played, Ok(()), "{steps:?}");
        }
    }
}
