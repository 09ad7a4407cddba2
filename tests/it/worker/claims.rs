//! What is claimed, in which order, and how much at once.

use std::time::Duration;

use bullwark::app::{App, worker_id};
use bullwark::control;
use bullwark::job::Backoff;
use bullwark::record::access::By;
use bullwark::worker::WorkerOptions;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::rig::{Rig, eventually};
use super::script::{Act, fail, scripted, wait};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_jobs_run_at_once_than_there_are_slots() {
    let rig = Rig::new().await;
    let mut ids = Vec::new();
    for n in 0..20 {
        let acts = match n {
            0..4 => vec![wait("go")],
            _ => vec![],
        };
        ids.push(rig.enqueue(scripted(&format!("{n}"), &[&acts])).await);
    }
    let worker = rig.work(|options| options.slots = 4);
    rig.probe.starts(4).await;
    // All slots are taken; what else could start would have started in the same claim.
    let mut started = rig.probe.started();
    started.sort();
    assert_eq!(started, ["0", "1", "2", "3"]);
    rig.probe.open("go");
    for id in ids {
        rig.until(id, "completed").await;
    }
    assert_eq!(rig.probe.most_at_once(), 4);
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_most_urgent_job_is_next() {
    let rig = Rig::new().await;
    let mut ids = Vec::new();
    for (name, priority) in [("a0", 0), ("b5", 5), ("c10", 10), ("d5", 5), ("e0", 0)] {
        let mut request = scripted(name, &[&[]]);
        request.priority = Some(priority);
        ids.push(rig.enqueue(request).await);
    }
    let worker = rig.work(|options| options.slots = 1);
    rig.probe.starts(5).await;
    assert_eq!(rig.probe.started(), ["c10", "b5", "d5", "a0", "e0"]);
    for id in ids {
        rig.until(id, "completed").await;
    }
    worker.stop().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delayed_job_is_not_early() {
    let rig = Rig::new().await;
    let worker = rig.work(|_| {});
    let mut request = scripted("a", &[&[]]);
    request.delay_ms = Some(1200);
    let id = rig.enqueue(request).await;
    let job = rig.until(id, "completed").await;
    // Both by the servers' clocks, which are one here.
    let due = job.scheduled_for.unwrap();
    let started = job.started_at.unwrap();
    assert!(started + Duration::from_millis(1) >= due, "{started} {due}");
    assert!(started < due + Duration::from_secs(5), "{started} {due}");
    worker.stop().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_weights_earlier_queues_go_first() {
    let rig = Rig::new().await;
    for n in 0..3 {
        for queue in ["low", "high", "middle"] {
            let mut request = scripted(&format!("{queue}{n}"), &[&[]]);
            request.queue = Some(queue.to_owned());
            rig.enqueue(request).await;
        }
    }
    let worker = rig.work(|options| {
        options.slots = 1;
        options.queues = ["high", "middle", "low"]
            .map(|q| q.parse().unwrap())
            .to_vec();
    });
    rig.probe.starts(9).await;
    let expected = [
        "high0", "high1", "high2", "middle0", "middle1", "middle2", "low0", "low1", "low2",
    ];
    assert_eq!(rig.probe.started(), expected);
    worker.stop().await;
    rig.close().await;
}

/// Somebody has put something else where a queue's list belongs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_at_fault_keeps_the_worker_from_no_other_one() {
    let rig = Rig::new().await;
    let mut redis = rig.redis().await;
    let key = format!("{}:broken:wait", rig.app.broker.prefix());
    let mut spoil = redis::cmd("SET");
    spoil.arg(key).arg("x");
    spoil.exec_async(&mut redis).await.unwrap();
    let worker = rig.work(|options| {
        options.queues = ["broken", "sound"].map(|q| q.parse().unwrap()).to_vec();
    });
    for n in 0..3 {
        let mut request = scripted(&format!("{n}"), &[&[]]);
        request.queue = Some("sound".to_owned());
        let id = rig.enqueue(request).await;
        rig.until(id, "completed").await;
    }
    worker.stop().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_weight_is_a_share_and_starves_nobody() {
    let rig = Rig::new().await;
    for n in 0..60 {
        for queue in ["often", "seldom"] {
            let mut request = scripted(&format!("{queue}{n}"), &[&[]]);
            request.queue = Some(queue.to_owned());
            rig.enqueue(request).await;
        }
    }
    let worker = rig.work(|options| {
        options.slots = 1;
        options.queues = ["often=9", "seldom=1"].map(|q| q.parse().unwrap()).to_vec();
    });
    rig.probe.starts(120).await;
    let first: Vec<String> = rig.probe.started().into_iter().take(60).collect();
    let often = first
        .iter()
        .filter(|name| name.starts_with("often"))
        .count();
    // 54 are expected; 40 would be more than six standard deviations away.
    assert!((41..60).contains(&often), "{often}");
    worker.stop().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_worker_starts_a_new_job_at_once() {
    let rig = Rig::new().await;
    let worker = rig.work(|_| {});
    let warm = rig.enqueue(scripted("warm", &[&[]])).await;
    rig.until(warm, "completed").await;
    let mut best = chrono::TimeDelta::MAX;
    for n in 0..5 {
        let id = rig.enqueue(scripted(&format!("{n}"), &[&[]])).await;
        let job = rig.until(id, "completed").await;
        best = best.min(job.started_at.unwrap() - job.created_at);
    }
    // Far below the idle worker's own look every five seconds: it is woken.
    assert!(best < chrono::TimeDelta::milliseconds(500), "{best}");
    worker.stop().await;
    rig.close().await;
}

/// A worker stands still between its claim and the handler, others run the job, and it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_lease_ran_out_before_it_began_is_not_begun() {
    let rig = Rig::new().await.with_upkeep();
    let block = Act::Block {
        gate: "thaw".into(),
    };
    let blocking = rig.enqueue(scripted("blocking", &[&[block]])).await;
    let late = rig.enqueue(scripted("late", &[&[]])).await;
    // One thread, which the first job of the claim holds: the second one can't begin.
    let stop = CancellationToken::new();
    let frozen = on_one_thread(rig.app.clone(), stop.clone());
    rig.probe.starts(1).await;
    assert_eq!(rig.probe.started(), ["blocking"]);
    rig.until_redis(late, "Active").await;
    take_lease(&rig, late).await;
    let worker = rig.work(|_| {});
    rig.until(late, "completed").await;
    rig.probe.open("thaw");
    rig.until(blocking, "completed").await;
    stop.cancel();
    tokio::task::spawn_blocking(|| frozen.join().unwrap())
        .await
        .unwrap();
    assert_eq!(rig.probe.starts_of("late"), 1);
    assert_eq!(rig.probe.starts_of("blocking"), 1);
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

/// The same, while the record is asked about a job that was started before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_lease_ran_out_while_the_record_was_asked_is_not_begun() {
    let rig = Rig::new().await.with_upkeep();
    let block = Act::Block {
        gate: "thaw".into(),
    };
    let mut blocking = scripted("blocking", &[&[block]]);
    blocking.delay_ms = Some(3_600_000);
    let blocking = rig.enqueue(blocking).await;
    let mut late = scripted("late", &[&[fail("once")], &[]]);
    late.backoff = Some(Backoff::Fixed {
        delay_ms: 1_500,
        jitter: 0.0,
    });
    let late = rig.enqueue(late).await;
    // The answer about the second run waits for this transaction.
    rig.sql(
        "CREATE FUNCTION hold_answer() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF OLD.attempt = 1 AND NEW.attempt = 2 THEN PERFORM pg_advisory_xact_lock(77); END IF;
           RETURN NEW;
         END $$;
         CREATE TRIGGER hold_answer BEFORE UPDATE ON jobs FOR EACH ROW
           EXECUTE FUNCTION hold_answer()",
    )
    .await;
    let mut closed = rig.app.record.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(77)")
        .execute(closed.connection())
        .await
        .unwrap();
    let stop = CancellationToken::new();
    let frozen = on_one_thread(rig.app.clone(), stop.clone());
    let asked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                   AND NOT granted";
    eventually("the record to be asked", async || {
        (rig.number(asked).await? > 0).then_some(())
    })
    .await;
    let (record, broker) = (&rig.app.record, &rig.app.broker);
    let promoted = control::promote(record, broker, &[blocking], &By::OPERATOR).await;
    assert_eq!(promoted.unwrap(), [blocking]);
    rig.probe.starts_named("blocking", 1).await;
    // The answer comes, and nobody reads it; meanwhile the lease ends, and another one runs it.
    closed.commit().await.unwrap();
    let number = "SELECT attempt::bigint FROM jobs WHERE id = $1";
    eventually("the answer", async || {
        (rig.count(number, late).await == 2).then_some(())
    })
    .await;
    take_lease(&rig, late).await;
    let worker = rig.work(|_| {});
    rig.until(late, "completed").await;
    rig.probe.open("thaw");
    rig.until(blocking, "completed").await;
    stop.cancel();
    tokio::task::spawn_blocking(|| frozen.join().unwrap())
        .await
        .unwrap();
    assert_eq!(
        rig.probe.starts_of("late"),
        2,
        "the failed run and one more"
    );
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

/// A worker with one thread, and a lease of a second.
fn on_one_thread(app: App, stop: CancellationToken) -> std::thread::JoinHandle<()> {
    let mut options = WorkerOptions::new(worker_id());
    options.lease = Duration::from_secs(1);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let work = app.work(options, stop, CancellationToken::new());
        runtime.block_on(work).unwrap();
    })
}

/// As time does, when nobody renews it.
async fn take_lease(rig: &Rig, id: Uuid) {
    let lock = format!("{}:default:{id}:lock", rig.app.config.prefix);
    let mut redis = rig.redis().await;
    let gone: i64 = redis::cmd("DEL")
        .arg(lock)
        .query_async(&mut redis)
        .await
        .unwrap();
    assert_eq!(gone, 1);
}
