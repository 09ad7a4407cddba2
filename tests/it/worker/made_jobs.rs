//! Jobs that a job makes: there if and only if the job's transaction is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bullwark::job::{JobError, JobRequest};
use bullwark::reconcile::relay_outbox;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use serde_json::{Value, json};
use uuid::Uuid;

use super::coded::{coded, effect};
use super::rig::Rig;

/// What a job is made with; the worker gives it its workspace.
fn child(name: &str) -> JobRequest {
    let mut request = coded(name);
    request.workspace_id = None;
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_made_with_the_end_of_the_job_that_makes_them_and_run() {
    let rig = Rig::new().await;
    let tries = Arc::new(AtomicUsize::new(0));
    rig.codes.set("parent", move |ctx| {
        let tries = tries.clone();
        async move {
            ctx.transaction(async |tx| {
                let made = ctx
                    .enqueue_in(tx, vec![child("child"), child("child")])
                    .await?;
                // What the first try made goes with all that it wrote.
                match tries.fetch_add(1, Ordering::SeqCst) {
                    0 => Err(JobError::retry("not yet")),
                    _ => Ok(json!(made)),
                }
            })
            .await
        }
    });
    rig.codes.set("child", |ctx| async move {
        ctx.transaction(async |tx| {
            effect(tx, "child").await?;
            Ok(Value::Null)
        })
        .await
    });
    let id = rig.enqueue(coded("parent")).await;
    let worker = rig.work(|_| {});
    let parent = rig.until(id, "completed").await;
    let made: Vec<Uuid> = serde_json::from_value(parent.result.unwrap()).unwrap();
    assert_eq!(made.len(), 2);
    while relay_outbox(&rig.app.record, &rig.app.broker)
        .await
        .unwrap()
        > 0
    {}
    for id in made {
        let job = rig.until(id, "completed").await;
        assert_eq!(job.workspace_id, Some(DEFAULT_WORKSPACE));
    }
    assert_eq!(rig.effects("child").await, 2, "the first try made nothing");
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_makes_none_of_another_workspace_and_none_that_is_wrong() {
    let rig = Rig::new().await;
    let wrong = |request: fn() -> JobRequest| {
        move |ctx: bullwark::worker::JobContext| async move {
            ctx.transaction(async |tx| {
                effect(tx, "parent").await?;
                ctx.enqueue_in(tx, vec![child("child"), request()]).await?;
                Ok(Value::Null)
            })
            .await
        }
    };
    rig.codes.set(
        "other",
        wrong(|| {
            let mut request = child("child");
            request.workspace_id = Some(Uuid::from_u128(7));
            request
        }),
    );
    rig.codes.set(
        "unknown",
        wrong(|| JobRequest::new("no such type", json!({}))),
    );
    let worker = rig.work(|_| {});
    for (name, words) in [("other", "its own workspace"), ("unknown", "no such type")] {
        let id = rig.enqueue(coded(name)).await;
        let dead = rig.until(id, "dead_letter").await;
        let why = dead.error_message.unwrap();
        assert!(why.contains(words), "{why}");
    }
    assert_eq!(rig.effects("parent").await, 0);
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}
