//! PostgreSQL did it, and its answer was lost: found out by reading, and done once.

use bullwark::broker::BrokerState;
use bullwark::job::JobRequest;
use bullwark::job::flow::FlowRequest;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::support::answers::Answers;
use crate::support::proxy::Lose;
use crate::worker::rig::{Rig, UNSERVED, eventually};
use crate::worker::script::{Act, scripted, succeed, wait};

/// The last row of an answer, with its only column, and the end of the statement.
fn row_and_end(id: Uuid, tag: &str) -> Vec<u8> {
    let mut bytes = id.as_bytes().to_vec();
    bytes.push(b'C');
    bytes.extend((tag.len() as u32 + 5).to_be_bytes());
    bytes.extend(tag.as_bytes());
    bytes.push(0);
    bytes
}

/// What Redis says of a job of the default queue, without asking the record.
async fn in_redis(rig: &Rig, id: Uuid) -> Option<BrokerState> {
    let states = rig
        .app
        .broker
        .states(&"default".parse().unwrap(), &[id.to_string()])
        .await;
    states.unwrap()[0]
}

/// The job waits at its gate, its outcome is committed and the answer lost; then nobody can ask.
/// Redis is told nothing until somebody could.
async fn is_told_when_it_is_known(
    rig: &Rig,
    (answers, past): (&Answers, &PgPool),
    name: &str,
    (end, tag): (Act, &str),
    (status, told): (&str, BrokerState),
) {
    let id = rig.enqueue(scripted(name, &[&[wait(name), end]])).await;
    rig.until(id, "processing").await;
    answers.lose_and_shut(&row_and_end(id, tag));
    rig.probe.open(name);
    eventually("an answer to be lost", async || {
        answers.is_lost().then_some(())
    })
    .await;
    let found: String = sqlx::query_scalar("SELECT status FROM jobs WHERE id = $1")
        .bind(id)
        .fetch_one(past)
        .await
        .unwrap();
    assert_eq!(found, status, "it was committed");
    // Whoever took that for granted would have told by now.
    for _ in 0..20 {
        assert_eq!(in_redis(rig, id).await, Some(BrokerState::Active));
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    answers.open();
    eventually("Redis to be told", async || {
        (in_redis(rig, id).await == Some(told)).then_some(())
    })
    .await;
    let (attempt, attempts, failures): (i32, i32, i64) = sqlx::query_as(
        "SELECT attempt, attempts, (SELECT count(*) FROM job_failures WHERE job_id = id)
         FROM jobs WHERE id = $1 AND status = $2",
    )
    .bind(id)
    .bind(status)
    .fetch_one(past)
    .await
    .unwrap();
    let failed = i32::from(status != "completed");
    let spent = i32::from(status == "failed");
    assert_eq!((attempt, failures), (1, i64::from(failed)));
    assert!(attempts == spent || status == "dead_letter", "{attempts}");
    assert_eq!(rig.probe.starts_of(name), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_whose_commit_was_not_heard_of_counts_once_and_redis_hears_of_it_then() {
    let (rig, answers) = Rig::with_lost_answers().await;
    let past = rig.pool().await;
    let worker = rig.work(|_| {});
    let ways = (&*answers, &past);
    let ended = (succeed(json!(1)), "SELECT 1");
    let finished = ("completed", BrokerState::Completed);
    is_told_when_it_is_known(&rig, ways, "ends", ended, finished).await;

    let later = (Act::RetryAfter { ms: 3_600_000 }, "SELECT 1");
    let delayed = ("failed", BrokerState::Delayed);
    is_told_when_it_is_known(&rig, ways, "fails", later, delayed).await;

    let message = "for good".to_owned();
    let dead = (Act::Permanent { message }, "SELECT 1");
    let failed = ("dead_letter", BrokerState::Failed);
    is_told_when_it_is_known(&rig, ways, "dies", dead, failed).await;
    worker.stop().await;
    rig.close().await;
}

/// A job and three children.
fn flow(name: &str, key: Option<&str>, of: impl Fn(&str) -> JobRequest) -> FlowRequest {
    let alone = |name: &str| FlowRequest {
        job: of(name),
        ..FlowRequest::default()
    };
    let mut root = alone(name);
    root.job.idempotency_key = key.map(str::to_owned);
    root.children = (0..3).map(|n| alone(&format!("{name}/{n}"))).collect();
    root
}

/// A flow whose commit was not heard of is there once, whole, and its caller is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_to_the_commit_of_a_flow_makes_no_second_flow_and_no_refusal() {
    let (rig, answers) = Rig::with_lost_answers().await;
    let rig = rig.with_upkeep();
    let worker = rig.work(|_| {});
    let job = |name: &str| scripted(name, &[&[]]);
    let mut roots = Vec::new();
    for (name, key) in [("plain", None), ("keyed", Some("k"))] {
        answers.lose(b"COMMIT\0");
        let flow = flow(name, key, job);
        let accepted = rig.app.enqueue.enqueue_flow(flow.clone()).await.unwrap();
        assert!(answers.is_lost(), "an answer was lost");
        assert!(accepted.root.is_new && accepted.root.created_at.is_some());
        assert_eq!(accepted.ids.len(), 4);
        if key.is_some() {
            let again = rig.app.enqueue.enqueue_flow(flow).await.unwrap();
            assert_eq!(
                (again.root.id, again.root.is_new),
                (accepted.root.id, false)
            );
        }
        roots.push(accepted.root.id);
    }
    for root in roots {
        rig.until(root, "completed").await;
    }
    let count = rig.number("SELECT count(*) FROM jobs").await;
    assert_eq!(count, Some(8));
    assert_eq!(rig.probe.started().len(), 8, "each ran once");
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

/// The same when the server never heard the commit: then it is written the second time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_whose_commit_never_arrived_is_written_again() {
    let (rig, proxy) = Rig::behind_proxy().await;
    for (name, key) in [("plain", None), ("keyed", Some("k"))] {
        proxy.lose(Lose::Commit);
        let job = |name: &str| JobRequest::new(UNSERVED, json!(name));
        let accepted = rig.app.enqueue.enqueue_flow(flow(name, key, job)).await;
        assert!(accepted.unwrap().root.is_new);
    }
    assert_eq!(proxy.lost(), 2);
    let count = rig.number("SELECT count(*) FROM jobs").await;
    assert_eq!(count, Some(8));
    rig.close().await;
}
