//! What is claimed, in which order, and how much at once.

use std::time::Duration;

use bullwark::app::worker_id;
use bullwark::worker::WorkerOptions;
use tokio_util::sync::CancellationToken;

use super::rig::Rig;
use super::script::{Act, scripted, wait};

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
    let (app, stop) = (rig.app.clone(), CancellationToken::new());
    let mut options = WorkerOptions::new(worker_id());
    options.lease = Duration::from_secs(1);
    let ending = stop.clone();
    let frozen = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let work = app.work(options, ending, CancellationToken::new());
        runtime.block_on(work).unwrap();
    });
    rig.probe.starts(1).await;
    assert_eq!(rig.probe.started(), ["blocking"]);
    rig.until_redis(late, "Active").await;
    let lock = format!("{}:default:{late}:lock", rig.app.config.prefix);
    let mut redis = rig.redis().await;
    let gone: i64 = redis::cmd("DEL")
        .arg(lock)
        .query_async(&mut redis)
        .await
        .unwrap();
    assert_eq!(gone, 1);
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
