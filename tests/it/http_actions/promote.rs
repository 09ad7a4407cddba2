//! Jobs that wait for a time run now.

use std::time::Duration;

use bullwark::broker::BrokerState;
use bullwark::job::QueueName;
use bullwark::record::settle::settle_many;
use bullwark::record::start::mark_running;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{count, die, jobs, states, told};
use crate::http::{enqueue, server};
use crate::stage::{eventually, failed, running, settled, snoozed};
use crate::support::server::{OTHER_KEY, send};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_for_a_time_is_promoted_and_no_other() {
    let (sandbox, server) = server().await;
    let pool = sandbox.pool().await;
    let promote = async |id: Uuid| {
        let path = format!("/api/jobs/{id}/promote");
        send(server.request(Method::POST, &path)).await
    };
    let delayed = jobs(&server, 1, json!({"delayMs": 3_600_000})).await[0];
    eventually("the job in Redis", async || {
        let states = states(&server, &[delayed]).await;
        (states[0] == Some(BrokerState::Delayed)).then_some(())
    })
    .await;
    let answer = promote(delayed).await;
    assert_eq!(
        (answer.status, &answer.body["job"]["status"]),
        (200, &json!("pending"))
    );
    assert_eq!(
        states(&server, &[delayed]).await,
        [Some(BrokerState::Prioritized)]
    );
    let again = promote(delayed).await;
    let expected =
        format!("job {delayed} is pending and can not be promoted: it waits for no time");
    assert_eq!(again.problem(409, "job_state"), expected);
    mark_running(&server.app.record, "w", &[running(delayed, 1)])
        .await
        .unwrap();
    assert!(
        promote(delayed)
            .await
            .problem(409, "job_state")
            .ends_with("it is running")
    );
    die(&server, &jobs(&server, 1, json!({})).await).await;
    let dead = jobs(&server, 1, json!({})).await[0];
    die(&server, &[dead]).await;
    assert!(
        promote(dead)
            .await
            .problem(409, "job_state")
            .ends_with("it is over")
    );
    promote(Uuid::now_v7()).await.problem(404, "job_not_found");
    let theirs = server.anonymous(Method::POST, &format!("/api/jobs/{delayed}/promote"));
    send(theirs.bearer_auth(OTHER_KEY))
        .await
        .problem(404, "job_not_found");
    let audit = server
        .get(&format!("/api/audit?target_kind=job&target_id={delayed}"))
        .await;
    assert_eq!(audit.body["audit"][0]["action"], "job.promote");
    assert_ne!(audit.body["audit"][0]["before"]["due"], Value::Null);
    assert_eq!(
        count(&pool, "SELECT count(*) FROM bullwark.outbox").await,
        0
    );
    server.end().await;
}

/// Between the record and Redis, the start that the promotion was meant for may have come and gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_that_is_told_late_says_nothing_of_the_attempt_after_it() {
    let (_sandbox, server) = server().await;
    let broker = &server.app.broker;
    let queue = QueueName::default();
    let id = jobs(&server, 1, json!({"delayMs": 3_600_000})).await[0];
    eventually("the job in Redis", async || {
        let states = states(&server, &[id]).await;
        (states[0] == Some(BrokerState::Delayed)).then_some(())
    })
    .await;
    let seen = broker
        .read_jobs(&queue, &[id.to_string()], false)
        .await
        .unwrap();
    let starts = seen[0].as_ref().unwrap().attempts_started;
    assert_eq!(
        broker.promote(&queue, &[id.to_string()]).await.unwrap(),
        [true]
    );
    let options = crate::stage::claim_options("t");
    let claimed = broker.claim(&queue, &options).await.unwrap().jobs;
    assert_eq!(claimed.len(), 1);
    let outcome = snoozed(Duration::from_secs(3600));
    let row = settled(id, 1, "w", outcome.clone());
    assert_eq!(
        settle_many(&server.app.record, &[row]).await.unwrap().len(),
        1
    );
    let ended = bullwark::settle::Ended {
        id,
        wire_id: id.to_string(),
        queue: queue.clone(),
        token: "t".to_owned(),
        attempt: 1,
        max_attempts: 5,
        started_at: bullwark::clock::now(),
        outcome,
        manner: None,
        kept_result: None,
    };
    bullwark::settle::tell(broker, &[&ended]).await.unwrap();
    let late = [(id.to_string(), starts)];
    assert_eq!(
        broker.promote_if_started(&queue, &late).await.unwrap(),
        [false]
    );
    assert_eq!(states(&server, &[id]).await, [Some(BrokerState::Delayed)]);
    let now = [(id.to_string(), starts + 1)];
    assert_eq!(
        broker.promote_if_started(&queue, &now).await.unwrap(),
        [true]
    );
    server.end().await;
}

/// The outcome of an attempt is committed and Redis was not told when the job is promoted.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_before_redis_heard_of_the_failure_is_not_lost() {
    let (sandbox, server) = server().await;
    let pool = sandbox.pool().await;
    let (record, broker) = (&server.app.record, &server.app.broker);
    let id = enqueue(&server).await.parse::<Uuid>().unwrap();
    let queue = QueueName::default();
    let options = crate::stage::claim_options("t");
    eventually("the job handed out", async || {
        let claimed = broker.claim(&queue, &options).await.unwrap().jobs;
        (claimed.len() == 1).then_some(())
    })
    .await;
    let outcome = failed("x");
    let row = settled(id, 1, "w", outcome.clone());
    assert_eq!(settle_many(record, &[row]).await.unwrap().len(), 1);
    let path = format!("/api/jobs/{id}/promote");
    assert_eq!(send(server.request(Method::POST, &path)).await.status, 200);
    assert_eq!(
        count(&pool, "SELECT count(*) FROM bullwark.outbox").await,
        1,
        "too early"
    );
    let ended = bullwark::settle::Ended {
        id,
        wire_id: id.to_string(),
        queue: queue.clone(),
        token: "t".to_owned(),
        attempt: 1,
        max_attempts: 5,
        started_at: bullwark::clock::now(),
        outcome,
        manner: None,
        kept_result: None,
    };
    bullwark::settle::tell(broker, &[&ended]).await.unwrap();
    assert_eq!(states(&server, &[id]).await, [Some(BrokerState::Delayed)]);
    told(&server, &pool).await;
    assert_eq!(
        states(&server, &[id]).await,
        [Some(BrokerState::Prioritized)]
    );
    server.end().await;
}
