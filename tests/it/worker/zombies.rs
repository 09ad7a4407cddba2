//! Attempts that another one has replaced, and that try every way to write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bullwark::job::{JobError, Progress};
use bullwark::record::logs::LogLevel;
use bullwark::worker::{CallError, IfUnknown, JobContext};
use serde_json::{Value, json};

use super::coded::{coded, effect};
use super::rig::{Rig, eventually};

/// Every write; what each answered, and whether any of the work was done.
async fn write_everything(ctx: &JobContext) -> (Vec<Option<JobError>>, bool) {
    let did = AtomicBool::new(false);
    let work = || did.store(true, Ordering::SeqCst);
    ctx.log(LogLevel::Info, "too late", None);
    ctx.progress(Progress::new(2, 1, 0, "too late"));
    let answers = vec![
        ctx.begin_checkpoint().await.err(),
        ctx.step("late", async || {
            work();
            Ok(())
        })
        .await
        .err(),
        ctx.step_in_tx("late", async |tx| {
            work();
            effect(tx, "late").await
        })
        .await
        .err(),
        ctx.once("late", &1, IfUnknown::Repeat, async |_| {
            work();
            Ok::<_, CallError>(())
        })
        .await
        .err(),
        ctx.transaction(async |tx| {
            work();
            effect(tx, "late").await
        })
        .await
        .err(),
    ];
    (answers, did.load(Ordering::SeqCst))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_attempt_can_use_none_of_the_ways_to_write() {
    let rig = Rig::new().await.with_upkeep();
    let (probe, answers) = (rig.probe.clone(), Arc::new(std::sync::Mutex::new(None)));
    let answered = answers.clone();
    rig.codes.set("a", move |ctx| {
        let (probe, answered) = (probe.clone(), answered.clone());
        async move {
            if ctx.attempt() > 1 {
                probe.open("again");
                probe.passed("new").await;
                return Ok(json!("new"));
            }
            probe.open("running");
            probe.passed("late").await;
            *answered.lock().unwrap() = Some(write_everything(&ctx).await);
            Ok(Value::Null)
        }
    });
    let id = rig.enqueue(coded("a")).await;
    let worker = rig.work(|options| options.lease = Duration::from_secs(1));
    rig.probe.passed("running").await;
    rig.until(id, "processing").await;
    // Another worker holds the job now, as after a pause that was longer than the lease.
    rig.sql("UPDATE jobs SET attempt = 2, worker_id = 'another'")
        .await;
    rig.probe.open("late");
    let look = async || answers.lock().unwrap().take();
    let (answers, did) = eventually("the answers", look).await;
    assert_eq!(answers, vec![Some(JobError::LeaseLost); 5]);
    assert!(!did, "no work was begun");
    // Nobody else is there, so it is rescued and runs again.
    rig.probe.passed("again").await;
    rig.probe.open("new");
    let job = rig.until(id, "completed").await;
    assert_eq!(job.result, Some(json!("new")));
    worker.stop().await;
    assert_eq!(rig.effects("late").await, 0);
    let written = "SELECT (SELECT count(*) FROM job_steps WHERE job_id = $1)
        + (SELECT count(*) FROM job_effects WHERE job_id = $1)
        + (SELECT count(*) FROM job_logs WHERE job_id = $1 AND message = 'too late')
        + (SELECT count(*) FROM jobs WHERE id = $1 AND progress->>'message' = 'too late')";
    assert_eq!(rig.count(written, id).await, 0);
    rig.agree().await;
    rig.close().await;
}
