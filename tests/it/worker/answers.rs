//! PostgreSQL's answers: lost ones, those of a server that was restarted, and refusals for the sake
//! of others.

use bullwark::job::JobRequest;
use bullwark::stores::Kill;
use serde_json::json;

use super::rig::{Rig, UNSERVED};
use crate::support::own_stores;

fn request(payload: serde_json::Value, key: Option<&str>) -> JobRequest {
    JobRequest {
        idempotency_key: key.map(str::to_owned),
        ..JobRequest::new(UNSERVED, payload)
    }
}

/// The answer to a commit is lost: the job is there once, and its caller hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_to_a_commit_makes_no_second_job_and_no_refusal() {
    let (rig, answers) = Rig::with_lost_answers().await;
    let count = "SELECT count(*) FROM jobs";

    // One statement is its own transaction.
    answers.lose(b"SELECT 1\0");
    let plain = rig.enqueue(request(json!(1), None)).await;
    assert!(answers.is_lost(), "an answer was lost");
    assert_eq!(rig.job(plain).await.status, "pending");
    assert_eq!(rig.number(count).await, Some(1));

    // With a key there is a transaction.
    answers.lose(b"COMMIT\0");
    let keyed = rig.enqueue(request(json!(2), Some("k"))).await;
    assert!(answers.is_lost(), "an answer was lost");
    let again = rig.app.enqueue.enqueue(request(json!(2), Some("k"))).await;
    let again = again.unwrap();
    assert_eq!((again.id, again.is_new), (keyed, false));
    assert_eq!(rig.number(count).await, Some(2));
    rig.close().await;
}

/// The pools are full of connections to a server that is gone: no caller notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_calls_after_a_restart_of_the_record_are_served() {
    let mut stores = own_stores().await;
    let rig = Rig::on_stores(&stores).await;
    for round in 0..2 {
        let many = (0..20).map(|n| rig.enqueue(request(json!(n), None)));
        futures_util::future::join_all(many).await;
        rig.app.warm().await;
        stores.restart_postgres(Kill::Immediately).await.unwrap();
        rig.enqueue(request(json!(round), None)).await;
        rig.enqueue(request(json!(round), Some(&format!("k{round}"))))
            .await;
    }
    assert_eq!(rig.number("SELECT count(*) FROM jobs").await, Some(44));
    rig.close().await;
    stores.stop().await.unwrap();
}

/// A row that PostgreSQL always rolls back keeps nobody out, and is told to its caller as worth
/// another try.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_always_in_conflict_keeps_no_other_out() {
    let rig = Rig::new().await;
    rig.sql(
        "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           RAISE EXCEPTION 'in conflict' USING ERRCODE = '40001'; END $$;
         CREATE TRIGGER poison BEFORE INSERT ON jobs FOR EACH ROW
           WHEN (NEW.payload = '\"poison\"'::jsonb) EXECUTE FUNCTION poison()",
    )
    .await;
    let mut requests: Vec<_> = (0..9).map(|n| request(json!(n), None)).collect();
    requests.insert(4, request(json!("poison"), None));
    let answers = rig.app.enqueue.enqueue_many(requests).await.unwrap();
    for (place, answer) in answers.iter().enumerate() {
        match answer {
            Ok(_) => assert_ne!(place, 4),
            Err(error) => assert!(place == 4 && error.is_unavailable(), "{place}: {error}"),
        }
    }
    assert_eq!(rig.number("SELECT count(*) FROM jobs").await, Some(9));
    rig.close().await;
}
