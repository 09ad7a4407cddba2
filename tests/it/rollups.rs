//! Sums of what ended: each ending is counted once, by whoever and whenever it is summed up.

use bullwark::control;
use bullwark::job::NewJob;
use bullwark::record::access::By;
use bullwark::record::rollups::{self, Ended, Rollup};
use bullwark::record::settle::{SettledAttempt, complete_in, settle_many};
use bullwark::record::start::mark_running;
use chrono::TimeDelta;
use uuid::Uuid;

use crate::stage::{
    Stage, completed, discarded, failed, ids, running, settled, snoozed, some_jobs,
};

/// Jobs of a workspace of their own.
async fn jobs_of(stage: &Stage, count: usize) -> (Uuid, Vec<Uuid>) {
    let workspace = crate::record_enqueue::workspace(stage).await;
    let mut jobs = some_jobs(count);
    for job in &mut jobs {
        job.workspace_id = Some(workspace);
    }
    stage.insert(&jobs).await;
    (workspace, ids(&jobs))
}

async fn rollups(stage: &Stage, workspace: Uuid) -> Vec<Rollup> {
    let lately = rollups::lately(
        &mut stage.record.view().await.unwrap(),
        workspace,
        TimeDelta::hours(48),
    )
    .await;
    lately.unwrap().rollups
}

async fn sum(stage: &Stage, workspace: Uuid) -> Ended {
    let mut sum = Ended::default();
    for rollup in rollups(stage, workspace).await {
        sum.add(&rollup.ended);
    }
    sum.run_ms = sum.run_ms.round(); // fractions depend on the order of the sums
    sum
}

fn counts(ended: &Ended) -> [i64; 4] {
    [ended.completed, ended.failed, ended.dead, ended.cancelled]
}

async fn roll(stage: &Stage) {
    while rollups::roll_minutes(&stage.record).await.unwrap() {}
    while rollups::roll_hours(&stage.record).await.unwrap() {}
}

/// As if it had begun so long before it ended.
fn long(seconds: i64, attempt: SettledAttempt) -> SettledAttempt {
    SettledAttempt {
        started_at: attempt.started_at - TimeDelta::seconds(seconds),
        ..attempt
    }
}

#[tokio::test]
async fn every_kind_of_ending_is_counted_once() {
    let stage = Stage::new().await;
    let (workspace, all) = jobs_of(&stage, 7).await;
    // In one batch, and alone.
    let batch = [
        long(10, settled(all[0], 1, "a", completed())),
        settled(all[1], 1, "a", failed("x")),
        settled(all[2], 1, "a", discarded("x")),
        settled(all[3], 1, "a", snoozed(std::time::Duration::from_secs(60))),
    ];
    settle_many(&stage.record, &batch).await.unwrap();
    let again = [settled(all[4], 1, "a", completed())];
    settle_many(&stage.record, &again).await.unwrap();
    // Those that are told twice, or that have no say, do not count.
    settle_many(&stage.record, &batch).await.unwrap();
    mark_running(&stage.record, "a", &[running(all[5], 1)])
        .await
        .unwrap();
    let mut tx = stage.record.begin().await.unwrap();
    let done = settled(all[5], 1, "a", completed());
    assert!(complete_in(&mut tx, &done).await.unwrap());
    assert!(!complete_in(&mut tx, &done).await.unwrap());
    tx.commit().await.unwrap();
    control::cancel(&stage.record, &stage.broker, &all[6..], &By::OPERATOR, "x")
        .await
        .unwrap();

    let fresh = sum(&stage, workspace).await;
    assert_eq!(counts(&fresh), [3, 1, 1, 1]);
    let runs: i64 = fresh.runs.counts().iter().sum();
    let waits: i64 = fresh.waits.counts().iter().sum();
    assert_eq!((runs, waits), (5, 5), "of attempts that ended");
    assert!((10_000.0..15_000.0).contains(&fresh.run_ms), "{fresh:?}");
    let longest = fresh.runs.quantiles().unwrap().p99;
    assert!((9_000.0..12_000.0).contains(&longest), "{longest}");

    roll(&stage).await;
    assert_eq!(stage.count("bullwark.ended_attempts").await, 0);
    assert_eq!(sum(&stage, workspace).await, fresh, "summed up by minute");
    roll(&stage).await;
    assert_eq!(sum(&stage, workspace).await, fresh, "twice is once");
    let other = crate::record_enqueue::workspace(&stage).await;
    assert_eq!(rollups(&stage, other).await, []);
}

#[tokio::test]
async fn minutes_become_hours_and_hours_are_forgotten_after_months() {
    let stage = Stage::new().await;
    let (workspace, all) = jobs_of(&stage, 2).await;
    for id in &all {
        let done = [settled(*id, 1, "a", completed())];
        settle_many(&stage.record, &done).await.unwrap();
        roll(&stage).await;
        let older = "UPDATE bullwark.rollups SET at = at - interval '3 hours'".to_owned();
        stage.execute(older).await;
    }
    // One minute is three hours old, the other six.
    let before = sum(&stage, workspace).await;
    roll(&stage).await;
    let hours = "SELECT count(*) FROM bullwark.rollups
                 WHERE step = 'hour' AND at = date_trunc('hour', at)";
    assert_eq!(stage.scalar::<i64>(hours.to_owned()).await, 2);
    assert_eq!(stage.count("bullwark.rollups").await, 2);
    assert_eq!(sum(&stage, workspace).await, before);
    assert!(!rollups::prune(&stage.record).await.unwrap());
    assert_eq!(stage.count("bullwark.rollups").await, 2);
    let older = "UPDATE bullwark.rollups SET at = at - interval '90 days'".to_owned();
    stage.execute(older).await;
    rollups::prune(&stage.record).await.unwrap();
    assert_eq!(stage.count("bullwark.rollups").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sums_up_at_once_counts_nothing_twice() {
    let stage = Stage::new().await;
    let (workspace, all) = jobs_of(&stage, 200).await;
    let half = all.len() / 2;
    let settle = async |ids: &[Uuid]| {
        for id in ids {
            let done = [settled(*id, 1, "a", completed())];
            settle_many(&stage.record, &done).await.unwrap();
        }
    };
    let roll = async || {
        for _ in 0..20 {
            rollups::roll_minutes(&stage.record).await.unwrap();
            let seen = sum(&stage, workspace).await.completed;
            assert!(seen <= all.len() as i64, "{seen}");
        }
    };
    tokio::join!(settle(&all[..half]), settle(&all[half..]), roll(), roll());
    assert_eq!(sum(&stage, workspace).await.completed, 200);
    roll().await;
    assert_eq!(sum(&stage, workspace).await.completed, 200);
}

#[tokio::test]
async fn queues_and_types_have_sums_of_their_own() {
    let stage = Stage::new().await;
    let workspace = crate::record_enqueue::workspace(&stage).await;
    let mut jobs = some_jobs(3);
    for (job, queue) in jobs.iter_mut().zip(["default", "mails", "mails"]) {
        *job = NewJob {
            workspace_id: Some(workspace),
            queue: queue.parse().unwrap(),
            ..job.clone()
        };
    }
    stage.insert(&jobs).await;
    let done = ids(&jobs).into_iter();
    let done: Vec<_> = done.map(|id| settled(id, 1, "a", completed())).collect();
    settle_many(&stage.record, &done).await.unwrap();
    for _ in 0..2 {
        let mut sums: Vec<(String, i64)> = rollups(&stage, workspace)
            .await
            .into_iter()
            .map(|rollup| (rollup.job_queue, rollup.ended.completed))
            .collect();
        sums.sort();
        assert_eq!(sums, [("default".to_owned(), 1), ("mails".to_owned(), 2)]);
        roll(&stage).await;
    }
}
