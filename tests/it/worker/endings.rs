//! Every way a run can end, in both stores.

use std::time::Duration;

use bullwark::job::JobRequest;
use bullwark::worker::RESULT_MAX_BYTES;
use serde_json::json;

use super::probe::What;
use super::rig::{Rig, UNSERVED};
use super::script::{Act, fail, scripted, succeed, wait};

fn multi(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_is_in_both_stores() {
    let rig = Rig::new().await;
    let worker = rig.work(|_| {});
    let value = json!({ "sum": 42, "text": "größe" });
    let id = rig
        .enqueue(scripted("a", &[&[succeed(value.clone())]]))
        .await;
    let job = rig.until(id, "completed").await;
    assert_eq!(job.result, Some(value.clone()));
    assert_eq!((job.attempts, job.error_message), (0, None));
    assert_eq!(job.worker_id.as_deref(), Some(worker.worker_id.as_str()));
    assert!(job.started_at.is_some() && job.completed_at >= job.started_at);
    rig.until_redis(id, "Completed").await;
    let returned = rig.hash("default", id, "returnvalue").await.unwrap();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&returned).unwrap(),
        value
    );
    assert!(rig.failures(id).await.is_empty());
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_job_is_retried_then_dead_with_its_whole_history() {
    let rig = Rig::new().await;
    let worker = rig.work(|_| {});
    let runs: [&[Act]; 3] = [&[fail("first")], &[fail("second")], &[fail("third")]];
    let mut request = scripted("a", &runs);
    request.max_attempts = Some(2);
    let id = rig.enqueue(request).await;
    let job = rig.until(id, "dead_letter").await;
    // The specification: dead when it has failed more than `max_attempts` times.
    assert_eq!(rig.probe.starts_of("a"), 3);
    assert_eq!(job.attempts, 2);
    assert_eq!(job.error_message.as_deref(), Some("third"));
    let history: Vec<_> = rig
        .failures(id)
        .await
        .into_iter()
        .map(|f| (f.attempt, f.outcome, f.error_message.unwrap_or_default()))
        .collect();
    let expected = [
        (1, "failed", "first"),
        (2, "failed", "second"),
        (3, "dead_letter", "third"),
    ];
    let expected = expected.map(|(n, outcome, why)| (n, outcome.to_owned(), why.to_owned()));
    assert_eq!(history, expected);
    rig.until_redis(id, "Failed").await;
    assert_eq!(
        rig.hash("default", id, "failedReason").await.as_deref(),
        Some("third")
    );
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_delay_is_the_specifications_formula() {
    let rig = Rig::new().await;
    let worker = rig.work(|_| {});
    let mut request = scripted("a", &[&[fail("boom")]]);
    request.backoff = None;
    let id = rig.enqueue(request).await;
    let job = rig.until(id, "failed").await;
    // failed_at and next_retry_at are of one statement, by one clock.
    let delay = (job.next_retry_at.unwrap() - job.failed_at.unwrap()).as_seconds_f64();
    assert!((60.0..90.0).contains(&delay), "{delay}");
    assert_eq!(job.attempts, 1);
    rig.until_redis(id, "Delayed").await;
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_decides_more_than_good_or_bad() {
    let rig = Rig::new().await;
    let worker = rig.work(|_| {});
    let permanent = Act::Permanent {
        message: "no such account".into(),
    };
    let permanent = rig.enqueue(scripted("permanent", &[&[permanent]])).await;
    let later = Act::RetryAfter { ms: 3_600_000 };
    let later = rig.enqueue(scripted("later", &[&[later]])).await;
    let snooze = Act::Snooze { ms: 20 };
    let snoozed = rig.enqueue(scripted("snoozed", &[&[snooze], &[]])).await;

    let job = rig.until(permanent, "dead_letter").await;
    assert_eq!((rig.probe.starts_of("permanent"), job.attempts), (1, 0));
    assert_eq!(job.error_message.as_deref(), Some("no such account"));

    let job = rig.until(later, "failed").await;
    let delay = job.next_retry_at.unwrap() - job.failed_at.unwrap();
    assert_eq!(delay.num_milliseconds(), 3_600_000);
    assert_eq!(job.attempts, 1);

    let job = rig.until(snoozed, "completed").await;
    assert_eq!((rig.probe.starts_of("snoozed"), job.attempts), (2, 0));
    assert!(
        rig.failures(snoozed).await.is_empty(),
        "a snooze is no failure"
    );
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_costs_its_own_job_only() {
    let rig = Rig::new().await;
    let worker = rig.work(|_| {});
    let neighbour = rig.enqueue(scripted("neighbour", &[&[wait("go")]])).await;
    rig.probe.starts(1).await;
    let id = rig.enqueue(scripted("a", &[&[Act::Panic], &[]])).await;
    rig.until(id, "completed").await;
    let failures = rig.failures(id).await;
    assert_eq!(
        failures[0].error_message.as_deref(),
        Some("panic: at the disco")
    );
    rig.probe.open("go");
    rig.until(neighbour, "completed").await;
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeout_tells_the_handler_and_then_drops_it() {
    let rig = Rig::new().await;
    let worker = rig.work(|_| {});
    for (name, act) in [
        ("obedient", wait("never")),
        (
            "stubborn",
            Act::Stubborn {
                gate: "never".into(),
            },
        ),
    ] {
        let mut request = scripted(name, &[&[act]]);
        request.timeout_seconds = Some(1);
        request.max_attempts = Some(0);
        let id = rig.enqueue(request).await;
        rig.probe.saw(name, |what| *what == What::Told).await;
        rig.probe.saw(name, |what| *what == What::Gone).await;
        let job = rig.until(id, "dead_letter").await;
        assert_eq!(
            job.error_message.as_deref(),
            Some("timeout after 1 s"),
            "{name}"
        );
    }
    assert_eq!(rig.probe.started(), multi(&["obedient", "stubborn"]));
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_wants_to_go_on_behind_its_time_limit_spends_no_retry() {
    let rig = Rig::new().await;
    let worker = rig.work(|_| {});
    let enqueue = async |name, gets_on| {
        let mut request = scripted(name, &[&[Act::SnoozeWhenTold { gets_on }], &[]]);
        request.timeout_seconds = Some(1);
        request.max_attempts = Some(0);
        rig.enqueue(request).await
    };
    let (id, idle) = (enqueue("long", true).await, enqueue("idle", false).await);
    let job = rig.until(id, "completed").await;
    assert_eq!((rig.probe.starts_of("long"), job.attempts), (2, 0));
    assert!(rig.failures(id).await.is_empty());
    // One that gets nowhere would go on for ever.
    rig.until(idle, "dead_letter").await;
    assert_eq!(rig.probe.starts_of("idle"), 1);
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_without_handler_fails_and_names_the_known_ones() {
    let rig = Rig::new().await;
    let worker = rig.work(|_| {});
    let mut request = JobRequest::new(UNSERVED, json!({}));
    request.max_attempts = Some(0);
    let id = rig.enqueue(request).await;
    let error = rig.until(id, "dead_letter").await.error_message.unwrap();
    assert_eq!(
        error,
        "this worker has no handler for `unserved`; it has: coded, scripted"
    );
    worker.stop().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_is_too_large_or_kept_as_a_text_and_costs_no_other_one() {
    let rig = Rig::new().await;
    let worker = rig.work(|_| {});
    let large = Act::Large {
        bytes: RESULT_MAX_BYTES,
    };
    let large = rig.enqueue(scripted("large", &[&[large]])).await;
    let zero = rig
        .enqueue(scripted(
            "zero",
            &[&[Act::Succeed {
                value: json!("a␀b"),
            }]],
        ))
        .await;
    // Of the same batch, so that a wrong one would take it along.
    let fine = rig.enqueue(scripted("fine", &[&[succeed(json!(1))]])).await;

    let error = rig.until(large, "dead_letter").await.error_message.unwrap();
    assert!(error.starts_with("result has "), "{error}");
    // What PostgreSQL can not read as JSON is done all the same: it is kept as a text there, and as
    // it is in Redis.
    let kept = rig.until(zero, "completed").await.result.unwrap();
    let text = rig.hash("default", zero, "returnvalue").await;
    assert!(text.as_deref().unwrap().contains("\\u0000"), "{text:?}");
    assert_eq!(kept.as_str(), text.as_deref());
    rig.until(fine, "completed").await;
    worker.stop().await;
    assert_eq!(rig.redis_state(large).await.as_deref(), Some("Failed"));
    assert_eq!(rig.redis_state(zero).await.as_deref(), Some("Completed"));
    rig.agree().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_observer_hears_of_each_outcome_once_and_may_panic() {
    use std::sync::{Arc, Mutex};
    let rig = Rig::new().await;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = heard.clone();
    let worker = rig.work(|options| {
        options.observer = Some(Arc::new(move |ended| {
            hearing.lock().unwrap().push(ended.id);
            panic!("an observer is not ours");
        }));
    });
    let mut ids = Vec::new();
    for n in 0..3 {
        let id = rig.enqueue(scripted(&format!("{n}"), &[&[]])).await;
        rig.until(id, "completed").await;
        rig.until_redis(id, "Completed").await;
        ids.push(id);
    }
    worker.stop().await;
    assert_eq!(*heard.lock().unwrap(), ids);
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outrageous_delay_is_cut_not_refused() {
    let rig = Rig::new().await;
    let worker = rig.work(|_| {});
    let id = rig
        .enqueue(scripted("a", &[&[Act::RetryAfter { ms: u64::MAX }]]))
        .await;
    let job = rig.until(id, "failed").await;
    let delay = job.next_retry_at.unwrap() - job.failed_at.unwrap();
    assert!(delay.to_std().unwrap() > Duration::from_secs(3600));
    rig.until_redis(id, "Delayed").await;
    worker.stop().await;
    rig.close().await;
}
