//! A handler's writes and the end of its job in one commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bullwark::control;
use bullwark::job::JobError;
use bullwark::record::access::By;
use serde_json::{Value, json};

use super::coded::{coded, effect};
use super::rig::{Rig, eventually};
use crate::stage::spawn;
use crate::support::proxy::Lose;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_completes_the_job_together_with_its_writes() {
    let rig = Rig::new().await;
    let probe = rig.probe.clone();
    rig.codes.set("a", move |ctx| {
        let probe = probe.clone();
        async move {
            ctx.transaction(async |tx| {
                effect(tx, "a").await?;
                probe.open("written");
                probe.passed("go").await;
                Ok(json!({ "sent": 7 }))
            })
            .await
        }
    });
    let id = rig.enqueue(coded("a")).await;
    let worker = rig.work(|_| {});
    rig.probe.passed("written").await;
    assert_eq!(
        rig.effects("a").await,
        0,
        "nobody sees it before the commit"
    );
    assert!(rig.job(id).await.completed_at.is_none());
    rig.probe.open("go");
    let job = rig.until(id, "completed").await;
    assert_eq!((job.result, job.attempts), (Some(json!({ "sent": 7 })), 0));
    assert!(job.completed_at >= job.started_at);
    assert_eq!(rig.effects("a").await, 1);
    rig.until_redis(id, "Completed").await;
    assert_eq!(
        rig.hash("default", id, "returnvalue").await.as_deref(),
        Some(r#"{"sent":7}"#)
    );
    worker.stop().await;
    assert!(rig.failures(id).await.is_empty());
    assert!(rig.logs(id).await.is_empty());
    rig.agree().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_fails_or_panics_leaves_nothing() {
    let rig = Rig::new().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    rig.codes.set("a", move |ctx| {
        let run = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            ctx.transaction(async |tx| {
                effect(tx, "a").await?;
                match run {
                    0 => Err(JobError::retry("not today")),
                    1 => panic!("at the disco"),
                    2 => {
                        // A statement that fails spoils the transaction, whoever ignores it.
                        let broken = sqlx::query("SELECT 1 / 0").execute(tx.connection()).await;
                        assert!(broken.is_err());
                        Ok(Value::Null)
                    }
                    3 => Ok(json!("x".repeat(2 * 1024 * 1024))),
                    _ => Ok(Value::Null),
                }
            })
            .await
        }
    });
    let id = rig.enqueue(coded("a")).await;
    let worker = rig.work(|_| {});
    let job = rig.until(id, "dead_letter").await;
    assert!(job.error_message.unwrap().contains("2097154 bytes"));
    let failures = rig.failures(id).await;
    let said: Vec<_> = failures
        .iter()
        .map(|f| f.error_message.as_deref())
        .collect();
    assert_eq!(said[..2], [Some("not today"), Some("panic: at the disco")]);
    assert!(
        said[2].unwrap().contains("transaction is aborted"),
        "{said:?}"
    );
    assert_eq!(rig.effects("a").await, 0);
    control::retry(&rig.app.record, &rig.app.broker, &[id], &By::OPERATOR)
        .await
        .unwrap();
    rig.until(id, "completed").await;
    assert_eq!(rig.effects("a").await, 1);
    assert_eq!(runs.load(Ordering::SeqCst), 5);
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

/// The commit went through, and nobody heard of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_without_an_answer_is_neither_repeated_nor_reported_as_failed() {
    let (rig, proxy) = Rig::behind_proxy().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let (counted, losing) = (runs.clone(), proxy.clone());
    rig.codes.set("a", move |ctx| {
        counted.fetch_add(1, Ordering::SeqCst);
        let losing = losing.clone();
        async move {
            ctx.transaction(async |tx| {
                effect(tx, "a").await?;
                losing.lose(Lose::Answer);
                Ok(json!("kept"))
            })
            .await
        }
    });
    let id = rig.enqueue(coded("a")).await;
    let worker = rig.work(|_| {});
    let job = rig.until(id, "completed").await;
    assert_eq!((job.result, job.attempts), (Some(json!("kept")), 0));
    rig.until_redis(id, "Completed").await;
    assert_eq!(proxy.lost(), 1);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(rig.effects("a").await, 1);
    worker.stop().await;
    assert!(rig.failures(id).await.is_empty());
    assert!(rig.logs(id).await.is_empty(), "the handler was told of it");
    rig.agree().await;
    rig.close().await;
}

/// The commit was sent, and never arrived.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_never_arrived_is_a_failure_that_wrote_nothing() {
    let (rig, proxy) = Rig::behind_proxy().await;
    let losing = proxy.clone();
    rig.codes.set("a", move |ctx| {
        let losing = losing.clone();
        async move {
            let attempt = ctx.attempt();
            ctx.transaction(async |tx| {
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
    assert_eq!(proxy.lost(), 1);
    assert_eq!(rig.effects("a").await, 1);
    let failures = rig.failures(id).await;
    assert_eq!(failures.len(), 1);
    let why = failures[0].error_message.as_deref().unwrap();
    assert!(why.starts_with("nothing was committed: "), "{why}");
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_handler_does_after_its_transaction_does_not_count() {
    let rig = Rig::new().await;
    for (name, after) in [
        ("fails", Err(JobError::permanent("after all"))),
        ("says otherwise", Ok(json!("otherwise"))),
        ("panics", Ok(json!("panic"))),
        ("writes again", Ok(json!("write"))),
    ] {
        rig.codes.set(name, move |ctx| {
            let after = after.clone();
            async move {
                let committed = ctx
                    .transaction(async |tx| effect(tx, name).await.map(|()| json!("first")))
                    .await?;
                match after {
                    Ok(value) if value == "panic" => panic!("too late"),
                    Ok(value) if value == "write" => {
                        let again = ctx.transaction(async |tx| effect(tx, name).await).await;
                        assert_eq!(again, Err(JobError::LeaseLost));
                        let step = ctx.step("late", async || Ok(1)).await;
                        assert_eq!(step, Err(JobError::LeaseLost));
                        Ok(committed)
                    }
                    after => after,
                }
            }
        });
    }
    let worker = rig.work(|_| {});
    for (name, said) in [
        ("fails", Some("failed: after all")),
        ("says otherwise", Some("returned another result")),
        ("panics", Some("panicked: too late")),
        ("writes again", None),
    ] {
        let id = rig.enqueue(coded(name)).await;
        let job = rig.until(id, "completed").await;
        assert_eq!(
            (job.result, job.error_message),
            (Some(json!("first")), None)
        );
        rig.until_redis(id, "Completed").await;
        let value = rig.hash("default", id, "returnvalue").await;
        assert_eq!(value.as_deref(), Some("\"first\""), "{name}");
        assert_eq!(rig.effects(name).await, 1);
        assert!(rig.failures(id).await.is_empty());
        let Some(said) = said else {
            assert!(rig.logs(id).await.is_empty());
            continue;
        };
        let line = async || rig.logs(id).await.pop();
        let line = eventually("the line about it", line).await;
        let start = "after its transaction had completed the job, the handler";
        assert_eq!(line.message, format!("{start} {said}"));
    }
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_during_a_transaction_finds_the_job_over() {
    let rig = Rig::new().await;
    let probe = rig.probe.clone();
    rig.codes.set("a", move |ctx| {
        let probe = probe.clone();
        async move {
            ctx.transaction(async |tx| {
                effect(tx, "a").await?;
                probe.open("written");
                probe.passed("go").await;
                Ok(Value::Null)
            })
            .await
        }
    });
    let id = rig.enqueue(coded("a")).await;
    let worker = rig.work(|_| {});
    rig.probe.passed("written").await;
    let (record, broker) = (rig.app.record.clone(), rig.app.broker.clone());
    let cancelling =
        spawn(
            async move { control::cancel(&record, &broker, &[id], &By::OPERATOR, "changed").await },
        );
    let waits = async || {
        let waiting = rig
            .count(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
                   AND datname = current_database() AND $1::uuid IS NOT NULL",
                id,
            )
            .await;
        (waiting > 0).then_some(())
    };
    eventually("the cancel to wait for the job", waits).await;
    rig.probe.open("go");
    assert!(cancelling.await.unwrap().unwrap().is_empty());
    rig.until(id, "completed").await;
    rig.until_redis(id, "Completed").await;
    assert_eq!(rig.effects("a").await, 1);
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}
