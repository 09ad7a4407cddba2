//! What an attempt may write, and when it may not any more.

use std::time::Duration;

use bullwark::control;
use bullwark::job::JobError;
use bullwark::record::access::By;
use bullwark::worker::LOG_LINES_MAX;
use serde_json::{Value, json};

use super::probe::What;
use super::rig::{Rig, eventually};
use super::script::{Act, scripted, wait};

fn log(lines: u32, message: &str, metadata: Value) -> Act {
    let message = message.to_owned();
    Act::Log {
        lines,
        message,
        metadata,
    }
}

fn checkpoint(checkpoint: Value) -> Act {
    Act::Checkpoint {
        checkpoint,
        fails: false,
    }
}

fn report(gate: &str, message: &str) -> Act {
    let (gate, message) = (gate.to_owned(), message.to_owned());
    Act::Report { gate, message }
}

fn stubborn(gate: &str) -> Act {
    let gate = gate.to_owned();
    Act::Stubborn { gate }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_shown_at_most_four_times_a_second() {
    let rig = Rig::new().await;
    let worker = rig.work(|_| {});
    let id = rig
        .enqueue(scripted("a", &[&[report("enough", "counting")]]))
        .await;
    let shown = async || {
        let mut redis = rig.redis().await;
        let events = format!("{}:default:events", rig.app.config.prefix);
        let entries: Vec<(String, Vec<String>)> = redis::cmd("XRANGE")
            .arg(&[events.as_str(), "-", "+"])
            .query_async(&mut redis)
            .await
            .unwrap();
        let is_progress = |fields: &[String]| fields.iter().any(|field| field == "progress");
        entries
            .iter()
            .filter(|(_, fields)| is_progress(fields))
            .count()
    };
    eventually("the first progress", async || {
        (shown().await > 0).then_some(())
    })
    .await;
    let began = std::time::Instant::now();
    let before = shown().await;
    eventually("more progress", async || {
        (shown().await >= before + 4).then_some(())
    })
    .await;
    assert!(
        began.elapsed() > Duration::from_millis(700),
        "{:?}",
        began.elapsed()
    );
    let progress = rig.job(id).await.progress.unwrap();
    assert_eq!(progress["message"], "counting");
    assert!(progress["processed"].as_u64().unwrap() > 0);
    assert!(rig.job(id).await.worker_heartbeat_at.is_some());
    rig.probe.open("enough");
    rig.until(id, "completed").await;
    worker.stop().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_lines_are_written_and_capped() {
    let rig = Rig::new().await;
    let worker = rig.work(|_| {});
    let few = [log(3, "hello", json!({ "n": 1 })), wait("go")];
    let id = rig.enqueue(scripted("few", &[&few])).await;
    let lines = async || Some(rig.logs(id).await).filter(|lines| lines.len() == 3);
    let lines = eventually("three lines", lines).await;
    assert_eq!(
        (lines[0].message.as_str(), &lines[0].metadata),
        ("hello", &Some(json!({ "n": 1 })))
    );
    rig.probe.open("go");
    rig.until(id, "completed").await;

    // More than an attempt may write, in portions that the journal keeps up with.
    let portion = [log(LOG_LINES_MAX + 50, "flood", Value::Null)];
    let flood = rig.enqueue(scripted("flood", &[&portion])).await;
    rig.until(flood, "completed").await;
    worker.stop().await;
    let mut tx = rig.app.record.begin().await.unwrap();
    let (count, last): (i64, String) =
        sqlx::query_as("SELECT count(*), max(message) FROM job_logs WHERE job_id = $1")
            .bind(flood)
            .fetch_one(tx.connection())
            .await
            .unwrap();
    assert!(count <= i64::from(LOG_LINES_MAX) + 1, "{count}");
    assert!(count >= 5_000, "{count}");
    assert!(last.starts_with("more than") || last == "flood", "{last}");
    drop(tx);
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_record_can_not_hold_costs_nobody_elses_lines() {
    let rig = Rig::new().await;
    let worker = rig.work(|_| {});
    let bad = [
        log(1, "bad␀line", json!({ "text": "a␀b" })),
        report("enough", "bad␀progress"),
    ];
    let bad = rig.enqueue(scripted("bad", &[&bad])).await;
    rig.probe.starts(1).await;
    let good = [log(2, "good", Value::Null), report("enough", "going")];
    let good = rig.enqueue(scripted("good", &[&good])).await;
    let lines = async || Some(rig.logs(good).await).filter(|lines| lines.len() == 2);
    eventually("the neighbour's lines", lines).await;
    let going = async || {
        let progress = rig.job(good).await.progress?;
        (progress["message"] == "going").then_some(())
    };
    eventually("the neighbour's progress", going).await;
    let lines = async || Some(rig.logs(bad).await).filter(|lines| lines.len() == 1);
    let lines = eventually("the bad line, made storable", lines).await;
    assert_eq!(lines[0].message, "bad\u{fffd}line");
    rig.probe.open("enough");
    rig.until(bad, "completed").await;
    rig.until(good, "completed").await;
    worker.stop().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_message_has_a_largest_size() {
    let rig = Rig::new().await;
    let worker = rig.work(|_| {});
    let long = "x".repeat(200_000);
    let acts = [log(1, &long, json!({ "blob": long })), wait("go")];
    let id = rig.enqueue(scripted("a", &[&acts])).await;
    let lines = async || Some(rig.logs(id).await).filter(|lines| lines.len() == 1);
    let line = eventually("the line", lines).await.remove(0);
    assert!(line.message.len() <= 16 * 1024, "{}", line.message.len());
    assert!(line.metadata.unwrap().to_string().len() <= 16 * 1024);
    rig.probe.open("go");
    rig.until(id, "completed").await;
    worker.stop().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_and_its_checkpoint_are_one_and_the_next_attempt_goes_on_from_there() {
    let rig = Rig::new().await;
    let worker = rig.work(|_| {});
    let torn = Act::Checkpoint {
        checkpoint: json!({ "at": 2 }),
        fails: true,
    };
    let runs: [&[Act]; 2] = [
        &[checkpoint(json!({ "at": 1 })), torn],
        &[checkpoint(json!({ "at": 2 }))],
    ];
    let id = rig.enqueue(scripted("a", &runs)).await;
    rig.until(id, "completed").await;
    let checkpoints: Vec<_> = rig
        .probe
        .notes()
        .into_iter()
        .filter_map(|note| match note.what {
            What::Started { checkpoint } => Some(checkpoint),
            What::Told | What::Wrote(_) | What::Gone => None,
        })
        .collect();
    assert_eq!(checkpoints, [None, Some(json!({ "at": 1 }))]);
    assert_eq!(rig.effects("a").await, 2, "the torn one had no effect");
    worker.stop().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_job_stops_and_writes_nothing_more() {
    let rig = Rig::new().await.with_upkeep();
    let worker = rig.work(|options| options.lease = Duration::from_secs(1));
    let late = [
        stubborn("late"),
        log(1, "too late", Value::Null),
        checkpoint(json!("too late")),
    ];
    let id = rig.enqueue(scripted("a", &[&late])).await;
    rig.probe.starts(1).await;
    let (record, broker) = (&rig.app.record, &rig.app.broker);
    let cancelled = control::cancel(record, broker, &[id], &By::OPERATOR, "not needed")
        .await
        .unwrap();
    assert_eq!(cancelled, [id]);
    rig.probe.saw("a", |what| *what == What::Told).await;
    rig.probe.open("late");
    let wrote = rig
        .probe
        .saw("a", |what| matches!(what, What::Wrote(_)))
        .await;
    assert_eq!(wrote.what, What::Wrote(Err(JobError::LeaseLost)));
    worker.stop().await;
    let job = rig.job(id).await;
    assert_eq!(job.status, "cancelled");
    assert_eq!(rig.effects("a").await, 0);
    let messages: Vec<String> = rig.logs(id).await.into_iter().map(|l| l.message).collect();
    assert_eq!(messages, ["cancelled: not needed"]);
    assert_eq!(rig.redis_state(id).await, None);
    rig.agree().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_attempt_writes_nothing() {
    let rig = Rig::new().await.with_upkeep();
    let worker = rig.work(|options| options.lease = Duration::from_secs(1));
    let old = [
        stubborn("late"),
        log(1, "too late", Value::Null),
        checkpoint(json!("too late")),
    ];
    let id = rig.enqueue(scripted("a", &[&old, &[wait("new")]])).await;
    rig.probe.starts(1).await;
    rig.until(id, "processing").await;
    // Another worker holds the job now, as after a pause that was longer than the lease.
    rig.sql("UPDATE jobs SET attempt = 2, worker_id = 'another'")
        .await;
    rig.probe.open("late");
    let wrote = rig
        .probe
        .saw("a", |what| matches!(what, What::Wrote(_)))
        .await;
    assert_eq!(wrote.what, What::Wrote(Err(JobError::LeaseLost)));
    // Nobody else is there, so it is rescued and runs again.
    rig.probe.starts_named("a", 2).await;
    rig.probe.open("new");
    rig.until(id, "completed").await;
    assert_eq!(rig.effects("a").await, 0);
    worker.stop().await;
    assert!(
        rig.logs(id)
            .await
            .iter()
            .all(|line| line.message != "too late")
    );
    rig.agree().await;
    rig.close().await;
}
