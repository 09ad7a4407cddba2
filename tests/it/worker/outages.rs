//! Stores that die while jobs run.

use std::time::Duration;

use bullwark::job::JobRequest;
use bullwark::settle::OUTCOME_KIB_MAX;
use bullwark::stores::{Kill, Stores, StoresOptions};
use serde_json::{Value, json};

use super::probe::What;
use super::rig::{Rig, eventually, within};
use super::script::{Act, scripted, succeed, wait};
use crate::support::own_stores;

/// The record dies while jobs run: they finish, their outcomes are held and their leases kept, no
/// job is handed out twice, and after the restart everything is settled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_are_held_while_the_record_is_away() {
    let mut stores = own_stores().await;
    let rig = Rig::on_stores(&stores).await.with_upkeep();
    let worker = rig.work(|options| {
        options.slots = 10;
        options.lease = Duration::from_secs(2);
    });
    let mut ids = Vec::new();
    for n in 0..10 {
        let acts = [
            Act::Log {
                lines: 1,
                message: "before".into(),
                metadata: Value::Null,
            },
            wait("go"),
            Act::Log {
                lines: 1,
                message: "while away".into(),
                metadata: Value::Null,
            },
            succeed(json!(n)),
        ];
        ids.push(rig.enqueue(scripted(&format!("{n}"), &[&acts])).await);
    }
    rig.probe.starts(10).await;
    for id in &ids {
        rig.until(*id, "processing").await;
    }
    stores.kill_postgres(Kill::Immediately).await;
    rig.probe.open("go");
    for n in 0..10 {
        rig.probe
            .saw(&format!("{n}"), |what| *what == What::Gone)
            .await;
    }
    // Three leases long: nobody may take the jobs away meanwhile.
    let began = std::time::Instant::now();
    let mut redis = rig.redis().await;
    while began.elapsed() < Duration::from_secs(6) {
        let locks: Vec<String> = redis::cmd("KEYS")
            .arg("bull:default:*:lock")
            .query_async(&mut redis)
            .await
            .unwrap();
        assert_eq!(locks.len(), 10);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    stores.start_postgres().await.unwrap();
    for (n, id) in ids.iter().enumerate() {
        let job = rig.until(*id, "completed").await;
        assert_eq!((job.result, job.attempts), (Some(json!(n)), 0));
        assert!(rig.failures(*id).await.is_empty());
        let lines = async || {
            let lines = rig.logs(*id).await;
            let told = lines
                .iter()
                .filter(|line| line.message == "while away")
                .count();
            (told == 1).then_some(())
        };
        eventually("the lines of the outage", lines).await;
    }
    assert_eq!(rig.probe.started().len(), 10);
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
    stores.stop().await.unwrap();
}

/// What is held has a largest weight: then slots stay taken and nothing new is claimed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claiming_stops_when_too_much_is_held() {
    const JOBS: usize = 100;
    const RESULT_KIB: usize = 1000;
    const SLOTS: usize = 4;
    let mut stores = own_stores().await;
    let rig = Rig::on_stores(&stores).await.with_upkeep();
    let broker = &rig.app.broker;
    let compared = async || broker.served().map(drop);
    eventually("Redis to be compared", compared).await;
    let job = |n: usize| {
        let bytes = RESULT_KIB * 1024;
        scripted(&format!("{n}"), &[&[wait("go"), Act::Large { bytes }]])
    };
    let accepted = rig
        .app
        .enqueue
        .enqueue_many((0..JOBS).map(job).collect())
        .await;
    let accepted = accepted.unwrap().into_iter();
    let ids: Vec<_> = accepted.map(|accepted| accepted.unwrap().id).collect();
    // What came by another way than its own delivery, or before Redis was compared with the
    // record, is asked about first. On a busy machine the one or the other may be; it is not what
    // this is about.
    let mut redis = rig.redis().await;
    for id in &ids {
        rig.until_redis(*id, "Prioritized").await;
        let mut starts = redis::cmd("HSETNX");
        starts.arg(format!("bull:default:{id}")).arg("ats").arg(0);
        starts.exec_async(&mut redis).await.unwrap();
    }
    let worker = rig.work(|options| options.slots = SLOTS);
    rig.probe.starts(SLOTS).await;
    stores.kill_postgres(Kill::Immediately).await;
    rig.probe.open("go");
    let room = OUTCOME_KIB_MAX as usize / (RESULT_KIB + 1);
    rig.probe.starts(room + SLOTS).await;
    // Whoever could claim more would do so at once: every slot would be free.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(rig.probe.started().len(), room + SLOTS);
    stores.start_postgres().await.unwrap();
    for id in &ids {
        rig.until(*id, "completed").await;
    }
    assert_eq!(rig.probe.started().len(), JOBS, "nothing ran twice");
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
    stores.stop().await.unwrap();
}

/// With the record away for good, a worker that is told twice to stop ends; its outcomes are lost
/// with it, so those jobs run again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hurried_worker_gives_up_outcomes_that_nobody_takes() {
    let mut stores = own_stores().await;
    let rig = Rig::on_stores(&stores).await.with_upkeep();
    let worker = rig.work(|options| options.lease = Duration::from_secs(1));
    let id = rig
        .enqueue(scripted("a", &[&[wait("go")], &[succeed(json!("again"))]]))
        .await;
    rig.probe.starts(1).await;
    rig.until(id, "processing").await;
    stores.kill_postgres(Kill::Immediately).await;
    rig.probe.open("go");
    rig.probe.saw("a", |what| *what == What::Gone).await;
    worker.stop.cancel();
    worker.hurry.cancel();
    within("the end of the worker", worker.ended.cancelled()).await;
    stores.start_postgres().await.unwrap();
    let second = rig.work(|_| {});
    let job = rig.until(id, "completed").await;
    assert_eq!(job.result, Some(json!("again")));
    second.stop().await;
    rig.agree().await;
    rig.close().await;
    stores.stop().await.unwrap();
}

/// Redis dies while jobs run. With its append-only file the jobs are where they were; without, the
/// record knows them. Either way the outcomes are recorded and nothing that runs is run again.
async fn redis_dies(options: StoresOptions) {
    let mut stores = Stores::start(options).await.unwrap();
    let rig = Rig::on_stores(&stores).await.with_upkeep();
    let worker = rig.work(|options| options.slots = 5);
    let mut running = Vec::new();
    for n in 0..5 {
        running.push(
            rig.enqueue(scripted(&format!("r{n}"), &[&[wait("go")]]))
                .await,
        );
    }
    rig.probe.starts(5).await;
    for id in &running {
        rig.until(*id, "processing").await;
    }
    let mut waiting = Vec::new();
    for n in 0..20 {
        let mut request = scripted(&format!("w{n}"), &[&[]]);
        request.delay_ms = (n < 5).then_some(3_000);
        waiting.push(rig.enqueue(request).await);
    }
    stores.kill_redis(Kill::Immediately).await;
    // Ended while Redis is away: the record has it, Redis hears of it later or never.
    rig.probe.open("go");
    for id in &running {
        rig.until(*id, "completed").await;
    }
    let accepted = rig.enqueue(scripted("accepted", &[&[]])).await;
    stores.start_redis().await.unwrap();
    for id in waiting.iter().chain([&accepted]) {
        rig.until(*id, "completed").await;
    }
    let started = rig.probe.started();
    assert_eq!(started.len(), 26, "nothing ran twice: {started:?}");
    eventually("both stores to agree", async || {
        rig.verify().await.agree.then_some(())
    })
    .await;
    assert_eq!(
        rig.probe.started().len(),
        26,
        "nothing ran twice afterwards"
    );
    for id in &running {
        assert!(rig.failures(*id).await.is_empty());
    }
    worker.stop().await;
    rig.close().await;
    stores.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_may_die_and_come_back_with_its_file() {
    Box::pin(redis_dies(StoresOptions::temporary())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_may_die_and_come_back_empty() {
    Box::pin(redis_dies(StoresOptions::throwaway())).await;
}

/// Redis forgets everything while a job runs: the run goes on, keeps its say, and is not repeated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_redis_forgot_while_it_ran_is_settled_all_the_same() {
    let mut stores = own_stores().await;
    let rig = Rig::on_stores(&stores).await.with_upkeep();
    let worker = rig.work(|options| options.lease = Duration::from_secs(1));
    let saved = Act::Checkpoint {
        checkpoint: json!(1),
        fails: false,
    };
    let acts = [wait("go"), saved, succeed(json!("kept"))];
    let id = rig.enqueue(scripted("a", &[&acts])).await;
    rig.probe.starts(1).await;
    rig.until(id, "processing").await;
    stores.restart_redis(Kill::Immediately).await.unwrap();
    // Several renewals later it is still ours.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(rig.probe.started().len(), 1);
    rig.probe.open("go");
    let job = rig.until(id, "completed").await;
    assert_eq!((job.result, job.attempts), (Some(json!("kept")), 0));
    assert_eq!(rig.effects("a").await, 1);
    eventually("both stores to agree", async || {
        rig.verify().await.agree.then_some(())
    })
    .await;
    assert_eq!(rig.probe.started().len(), 1);
    worker.stop().await;
    rig.close().await;
    stores.stop().await.unwrap();
}

/// The record is restored from a backup while jobs go on: what was done since is known to Redis
/// alone, and nothing of it runs again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_restored_from_a_backup_gets_back_what_redis_knows() {
    let mut stores = own_stores().await;
    let rig = Rig::on_stores(&stores).await.with_upkeep();
    let _worker = rig.work(|options| options.slots = 4);
    let job = |n: usize| scripted(&format!("{n}"), &[&[succeed(json!(n))]]);
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(rig.enqueue(job(n)).await);
    }
    for id in &ids {
        rig.until(*id, "completed").await;
    }
    let beats = async |least: i64| {
        let found = async || {
            let newest = "SELECT coalesce(max(beat), 0)::bigint FROM bullwark.beats";
            rig.number(newest).await.filter(|beat| *beat >= least)
        };
        eventually("the record to go on", found).await
    };
    let before = beats(1).await;
    stores.kill_postgres(Kill::Cleanly).await;
    let backup = stores.dir().join("backup");
    copy(stores.postgres_dir(), &backup);
    stores.start_postgres().await.unwrap();

    // The first calls may meet connections to the server before.
    let accepted = async |job: &JobRequest| {
        let accept = async || rig.app.enqueue.enqueue(job.clone()).await.ok();
        eventually("the record to take jobs", accept).await.id
    };
    for n in 5..15 {
        ids.push(accepted(&job(n)).await);
    }
    for id in &ids {
        rig.until(*id, "completed").await;
    }
    let later = JobRequest {
        delay_ms: Some(3_600_000),
        ..job(15)
    };
    let later = accepted(&later).await;
    beats(before + 2).await;
    let mut redis = rig.redis().await;
    eventually("Redis to have the last job", async || {
        let key = format!("bull:default:{later}");
        let there: i64 = redis::cmd("EXISTS")
            .arg(key)
            .query_async(&mut redis)
            .await
            .unwrap();
        (there == 1).then_some(())
    })
    .await;
    stores.kill_postgres(Kill::Immediately).await;
    // The processes of the server outlive it by a moment, and write.
    eventually("the directory to be empty", async || {
        std::fs::remove_dir_all(stores.postgres_dir()).ok()
    })
    .await;
    copy(&backup, stores.postgres_dir());
    stores.start_postgres().await.unwrap();

    for id in &ids {
        rig.until(*id, "completed").await;
    }
    rig.until(later, "pending").await;
    let alerts = async || {
        let alerts = rig.number("SELECT count(*) FROM bullwark.alerts").await;
        alerts.filter(|alerts| *alerts > 0)
    };
    assert_eq!(eventually("an alert", alerts).await, 1);
    let after = accepted(&job(16)).await;
    rig.until(after, "completed").await;
    assert_eq!(rig.probe.started().len(), 16, "nothing ran twice");
    assert!(rig.verify().await.agree);
}

/// With the owner of each file, as PostgreSQL wants.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    let done = std::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status();
    assert!(done.unwrap().success());
}
