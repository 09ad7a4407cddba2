//! A record that went back in time gets back what only Redis knows, before anything is claimed.

use std::time::{Duration, Instant};

use bullwark::broker::{BrokerError, Finish, Keep, NewJob as WireJob};
use bullwark::job::QueueName;
use bullwark::reconcile;
use bullwark::record::workspaces;
use bullwark::record::{Record, RecordOptions};
use bullwark::stores::Kill;

use crate::reconcile::deliver;
use crate::stage::{Stage, claim_options, ids, job, some_jobs};
use crate::support::{connect, own_stores};

async fn readmit(stage: &Stage) {
    while !reconcile::readmit(&stage.record, &stage.broker)
        .await
        .unwrap()
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn beat(stage: &Stage) {
    reconcile::beat(&stage.record, &stage.broker).await.unwrap();
}

/// As if the record were restored from a backup of this moment: later beats are gone.
async fn go_back_one_beat(stage: &Stage) {
    let sql = "UPDATE bullwark.beats SET beat = beat - 1";
    stage.execute(sql.into()).await;
}

#[tokio::test]
async fn what_only_redis_knows_is_written_back_and_marked_before_anything_is_claimed() {
    let stage = Stage::new().await;
    readmit(&stage).await;
    let workspace = workspaces::ensure_default(&stage.record).await.unwrap();
    let mut jobs = some_jobs(4);
    jobs[0].workspace_id = Some(workspace);
    let all = ids(&jobs);
    stage.insert(&jobs).await;
    deliver(&stage, &jobs).await;
    let queue = QueueName::default();
    let foreign = WireJob {
        id: "17".into(),
        name: "mail".into(),
        data: "{}".into(),
        opts: "{}".into(),
        timestamp_ms: 1_700_000_000_000,
        ..WireJob::default()
    };
    stage.broker.add(&queue, &[foreign]).await.unwrap();
    let claimed = stage.claim("bullwark:w:1").await.jobs;
    assert_eq!(claimed.len(), 5);
    for (id, keep) in [(all[1], Keep::All), (all[2], Keep::All)] {
        let finish = Finish {
            id: id.to_string(),
            token: "bullwark:w:1".into(),
            returnvalue: r#"{"n":7}"#.into(),
            keep,
        };
        stage.broker.finish(&queue, &[finish]).await.unwrap();
    }
    beat(&stage).await;
    beat(&stage).await;

    // The backup knows 1 as open, and neither 0 nor 2; 3 is in both.
    go_back_one_beat(&stage).await;
    let lost = format!("DELETE FROM jobs WHERE id IN ('{}', '{}')", all[0], all[2]);
    stage.execute(lost).await;
    beat(&stage).await;
    let refused = stage.broker.served();
    assert_eq!(refused, None, "nobody claims before it is recovered");
    readmit(&stage).await;

    assert_eq!(stage.status(all[1]).await, "completed");
    assert_eq!(stage.status(all[2]).await, "completed");
    assert_eq!(stage.row(all[2]).await.result.unwrap()["n"], 7);
    assert_eq!(stage.status(all[0]).await, "pending");
    assert_eq!(stage.row(all[0]).await.workspace_id, Some(workspace));
    assert_eq!(stage.count("jobs WHERE redis_id = '17'").await, 1);
    let marked = "job_logs WHERE message LIKE 'recovered:%' AND log_level = 'warn'";
    assert_eq!(stage.count(marked).await, 4);
    let alert = "bullwark.alerts WHERE kind = 'record_lost_its_tail'
      AND details->>'jobs' = '3' AND details->>'outcomes' = '1'";
    assert_eq!(stage.count(alert).await, 1);

    // It is over: the next look finds nothing, and raises nothing.
    beat(&stage).await;
    readmit(&stage).await;
    assert_eq!(stage.count("bullwark.alerts").await, 1);
    assert_eq!(stage.count(marked).await, 4);
    let verdict = reconcile::verify(&stage.record, &stage.broker)
        .await
        .unwrap();
    assert!(verdict.agree, "{:?}", verdict.differences);
}

#[tokio::test]
async fn every_process_notices_when_its_record_is_new_or_another_has_noticed() {
    let stage = Stage::new().await;
    readmit(&stage).await;
    beat(&stage).await;
    beat(&stage).await;
    readmit(&stage).await; // the connections, too, are looked at by now
    go_back_one_beat(&stage).await;
    // A process that serves the memory, and has not looked at the record since.
    assert_eq!(stage.record.unchecked(), None);
    assert!(stage.broker.served().is_some());
    // Another one connects anew.
    let record = Record::connect(&RecordOptions::new(stage.database_url())).unwrap();
    record.look().await.unwrap();
    assert!(record.unchecked().is_some());
    let other = stage.another_broker().await;
    while !reconcile::readmit(&record, &other).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(record.unchecked(), None);
    let jobs = [job()];
    stage.insert(&jobs).await;
    let refused = stage
        .broker
        .claim(&QueueName::default(), &claim_options("t"))
        .await;
    assert!(matches!(refused, Err(BrokerError::OtherMemory { .. })));
    assert_eq!(stage.count("bullwark.alerts").await, 1);
}

/// A record that gets slow makes the pools grow. If it then goes away, claims must not wait for a
/// comparison that nobody can do.
#[tokio::test]
async fn more_connections_to_the_same_record_are_no_reason_to_compare_again() {
    let mut stores = own_stores().await;
    let record = Record::connect(&RecordOptions::new(&stores.database_url)).unwrap();
    record.migrate().await.unwrap();
    let change = record.unchecked().expect("the first connection");
    record.set_checked(change);
    let looks = futures_util::future::join_all((0..10).map(|_| record.look())).await;
    assert!(looks.iter().all(Result::is_ok));
    let mut beside = connect(&stores, "bullwark").await;
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bullwark'";
    let connections: i64 = sqlx::query_scalar(count)
        .fetch_one(&mut beside)
        .await
        .unwrap();
    assert!(connections > 1, "{connections}");
    assert_eq!(record.unchecked(), None);

    stores.kill_postgres(Kill::Immediately).await;
    assert!(record.look().await.is_err());
    assert_eq!(record.unchecked(), None, "nobody answers");
    stores.start_postgres().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while record.look().await.is_err() {
        assert!(Instant::now() < deadline, "it does not answer again");
    }
    assert!(record.unchecked().is_some(), "it may be another one");
    record.close().await;
    stores.stop().await.unwrap();
}

#[tokio::test]
async fn a_new_redis_or_an_idle_record_is_no_loss() {
    let stage = Stage::new().await;
    readmit(&stage).await;
    for _ in 0..3 {
        beat(&stage).await;
    }
    stage.flush_prefix().await;
    readmit(&stage).await;
    beat(&stage).await;
    readmit(&stage).await;
    assert!(stage.broker.served().is_some());
    assert_eq!(stage.count("bullwark.alerts").await, 0);
}
