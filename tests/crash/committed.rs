//! A worker that dies around the commit of a handler's transaction.

use bullwark::broker::BrokerState;
use serde_json::json;

use crate::own_worker::write;
use crate::stage::{Stage, eventually, outcomes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn effects_and_outcome_are_one_wherever_the_worker_dies() {
    let stage = Stage::new().await;
    stage.serve_writes().await;
    let points = ["before the fence", "in the transaction", "after the commit"];
    let mut ids = Vec::new();
    for point in points {
        let mut worker = stage.own_worker(false).await;
        let id = stage.enqueue(vec![write(json!({ "killed": point }))]).await[0];
        assert_eq!(worker.end().await, None, "killed {point}");
        let (status, ends) = match point {
            "after the commit" => ("completed", 1),
            _ => ("processing", 0),
        };
        assert_eq!(stage.job(id).await.status, status, "{point}");
        assert_eq!(stage.effects(id, "end").await, ends, "{point}");
        assert_eq!(stage.state(id).await, Some(BrokerState::Active), "{point}");
        ids.push(id);
    }

    let worker = stage.own_worker(true).await;
    stage.until_status(&ids, "completed").await;
    for (point, id) in points.into_iter().zip(ids) {
        let what = format!("the job that was killed {point} to be over in Redis");
        eventually(&what, async || {
            stage.state(id).await == Some(BrokerState::Completed)
        })
        .await;
        let job = stage.job(id).await;
        assert_eq!((job.result, job.attempts), (Some(json!("written")), 0));
        // What was done before the crash was not done again.
        for name in ["checkpoint", "step", "step in tx", "call", "end"] {
            assert_eq!(stage.effects(id, name).await, 1, "{name}, {point}");
        }
        let failures = stage.failures(id).await;
        match point {
            "after the commit" => assert!(failures.is_empty(), "it was over, and did not run"),
            _ => assert_eq!(outcomes(&failures), ["lease_lost"], "{point}"),
        }
    }
    let said = worker.stop_and_listen().await;
    assert_eq!(said.len(), 2, "one job was not run again: {said:?}");
    let (is_good, verdict) = stage.verify().await;
    assert!(is_good, "{verdict}");
    stage.close().await;
}
