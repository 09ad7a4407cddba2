//! Named steps, which a retry skips.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bullwark::job::{JobError, Progress};
use bullwark::record::steps::STEPS_MAX;
use bullwark::worker::{NAME_MAX_BYTES, STEP_RESULT_MAX_BYTES};
use serde_json::{Value, json};

use super::coded::{coded, effect};
use super::rig::Rig;
use crate::support::proxy::Lose;

const STEPS: &str = "SELECT count(*) FROM job_steps WHERE job_id = $1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_skips_the_steps_that_are_done_and_is_given_their_results() {
    let rig = Rig::new().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    rig.codes.set("a", move |ctx| {
        let runs = counted.clone();
        async move {
            let first: usize = ctx
                .step("first", async || Ok(runs.fetch_add(1, Ordering::SeqCst)))
                .await?;
            let again: usize = ctx.step("first", async || Ok(1_000)).await?;
            assert_eq!(first, again, "the same name is the same step");
            let second = ctx.step_in_tx("second", async |tx| {
                effect(tx, "a").await?;
                match ctx.attempt() {
                    1 => Err(JobError::retry("torn")),
                    attempt => Ok(attempt),
                }
            });
            let second = second.await?;
            match ctx.attempt() {
                2 => Err(JobError::retry("once more")),
                _ => Ok(json!([first, second])),
            }
        }
    });
    let id = rig.enqueue(coded("a")).await;
    let worker = rig.work(|_| {});
    let job = rig.until(id, "completed").await;
    assert_eq!((job.result, job.attempts), (Some(json!([0, 2])), 2));
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(rig.effects("a").await, 1, "the torn step had no effect");
    assert_eq!(rig.count(STEPS, id).await, 2);
    worker.stop().await;
    rig.agree().await;
    // They go with their job.
    rig.sql("DELETE FROM jobs").await;
    assert_eq!(rig.count(STEPS, id).await, 0);
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_whose_commit_is_not_answered_is_kept_and_not_repeated() {
    let (rig, proxy) = Rig::behind_proxy().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let (counted, losing) = (runs.clone(), proxy.clone());
    rig.codes.set("a", move |ctx| {
        let (runs, losing) = (counted.clone(), losing.clone());
        async move {
            let plain = ctx.step("plain", async || {
                losing.lose(Lose::Answer);
                Ok(runs.fetch_add(1, Ordering::SeqCst))
            });
            let plain = plain.await?;
            let lost = ctx.step("lost", async || {
                losing.lose(Lose::Commit);
                Ok(runs.fetch_add(1, Ordering::SeqCst))
            });
            let lost = lost.await?;
            let inside = ctx.step_in_tx("inside", async |tx| {
                effect(tx, "a").await?;
                losing.lose(Lose::Answer);
                Ok(runs.fetch_add(1, Ordering::SeqCst))
            });
            Ok(json!([plain, lost, inside.await?]))
        }
    });
    let id = rig.enqueue(coded("a")).await;
    let worker = rig.work(|_| {});
    let job = rig.until(id, "completed").await;
    assert_eq!((job.result, job.attempts), (Some(json!([0, 1, 2])), 0));
    assert_eq!(proxy.lost(), 3);
    assert_eq!(rig.effects("a").await, 1);
    assert_eq!(rig.count(STEPS, id).await, 3);
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

/// The same goes for a checkpoint: what was committed is not done again, and what was not is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_whose_commit_is_not_answered_is_kept() {
    let (rig, proxy) = Rig::behind_proxy().await;
    let losing = proxy.clone();
    rig.codes.set("a", move |ctx| {
        let losing = losing.clone();
        async move {
            let mut told = Vec::new();
            for (n, lose) in [Lose::Answer, Lose::Commit, Lose::Answer]
                .into_iter()
                .enumerate()
            {
                let mut checkpoint = ctx.begin_checkpoint().await?;
                effect(checkpoint.tx(), &format!("{n}")).await?;
                losing.lose(lose);
                // The same place each time: it is not what the commit is known by.
                told.push(
                    checkpoint
                        .commit(json!("here"), Progress::default())
                        .await
                        .is_ok(),
                );
            }
            Ok(json!(told))
        }
    });
    let id = rig.enqueue(coded("a")).await;
    let worker = rig.work(|_| {});
    let job = rig.until(id, "completed").await;
    assert_eq!(
        (job.result, job.attempts),
        (Some(json!([true, false, true])), 0)
    );
    for (n, effects) in [("0", 1), ("1", 0), ("2", 1)] {
        assert_eq!(rig.effects(n).await, effects);
    }
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_in_a_transaction_whose_commit_never_arrived_had_no_effect() {
    let (rig, proxy) = Rig::behind_proxy().await;
    let losing = proxy.clone();
    rig.codes.set("a", move |ctx| {
        let losing = losing.clone();
        async move {
            let attempt = ctx.attempt();
            ctx.step_in_tx("inside", async |tx| {
                effect(tx, "a").await?;
                if attempt == 1 {
                    losing.lose(Lose::Commit);
                }
                Ok(json!(attempt))
            })
            .await
        }
    });
    let id = rig.enqueue(coded("a")).await;
    let worker = rig.work(|_| {});
    let job = rig.until(id, "completed").await;
    assert_eq!((job.result, job.attempts), (Some(json!(2)), 1));
    assert_eq!((proxy.lost(), rig.effects("a").await), (1, 1));
    worker.stop().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_have_limits() {
    let rig = Rig::new().await;
    rig.codes.set("a", |ctx| async move {
        let long = "x".repeat(NAME_MAX_BYTES + 1);
        for name in ["", "a\nb", "a\0b", &long] {
            let refused = ctx.step(name, async || Ok(())).await;
            assert!(
                matches!(refused, Err(JobError::Permanent(_))),
                "{refused:?}"
            );
        }
        ctx.step(&long[1..], async || Ok(())).await?;
        let large = "x".repeat(STEP_RESULT_MAX_BYTES - 2);
        ctx.step("large", async || Ok(large.clone())).await?;
        let refused = ctx.step_in_tx("larger", async |tx| {
            effect(tx, "larger").await?;
            Ok(format!("{large}x"))
        });
        assert!(matches!(refused.await, Err(JobError::Permanent(_))));
        for nth in 2..STEPS_MAX {
            ctx.step(&format!("{nth}"), async || Ok(())).await?;
        }
        ctx.step("2", async || Ok(())).await?;
        ctx.step("one too many", async || Ok(Value::Null)).await
    });
    let id = rig.enqueue(coded("a")).await;
    let worker = rig.work(|_| {});
    let job = rig.until(id, "dead_letter").await;
    let why = job.error_message.unwrap();
    assert!(
        why.contains("`one too many`: the job has 1000 others"),
        "{why}"
    );
    assert_eq!(rig.count(STEPS, id).await, STEPS_MAX);
    assert_eq!(rig.effects("larger").await, 0);
    worker.stop().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_inside_of_another_one_fails_instead_of_waiting_for_ever() {
    let rig = Rig::new().await;
    rig.codes.set("a", |ctx| async move {
        ctx.transaction(async |_tx| {
            let nested = ctx.step("nested", async || Ok(())).await;
            assert!(matches!(nested, Err(JobError::Retry(_))), "{nested:?}");
            Ok(json!("outer"))
        })
        .await
    });
    let id = rig.enqueue(coded("a")).await;
    let worker = rig.work(|_| {});
    let job = rig.until(id, "completed").await;
    assert_eq!(job.result, Some(json!("outer")));
    assert_eq!(rig.count(STEPS, id).await, 0);
    worker.stop().await;
    rig.close().await;
}
