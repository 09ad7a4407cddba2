//! Jobs that are over in the record and wait in Redis all the same.

use std::time::Duration;

use bullwark::broker::{BrokerState, FinishedState, Reprocess};
use bullwark::control;
use bullwark::job::QueueName;
use bullwark::reconcile::Lingering;
use bullwark::record::access::By;
use bullwark::record::settle::settle_many;
use tokio::time::Instant;

use crate::reconcile::deliver;
use crate::stage::{Stage, claim_options, completed, ids, settled, some_jobs};

const LONG: Duration = Duration::from_secs(31);

async fn end_in_the_record(stage: &Stage, ids: &[uuid::Uuid]) {
    let rows: Vec<_> = ids
        .iter()
        .map(|id| settled(*id, 1, "a", completed()))
        .collect();
    let accepted = settle_many(&stage.record, &rows).await.unwrap();
    assert_eq!(accepted.len(), ids.len());
}

#[tokio::test]
async fn what_is_over_and_goes_on_waiting_is_ended_and_what_somebody_ran_again_is_not() {
    let stage = Stage::new().await;
    let queue = QueueName::default();
    let jobs = some_jobs(5);
    stage.insert(&jobs).await;
    deliver(&stage, &jobs).await;
    let all = ids(&jobs);
    let [over, by_client, afresh, by_hand, open] = all[..] else {
        panic!("{all:?}")
    };
    // The first two of these are done, and a client runs them again; the mirror has not heard.
    for id in [by_client, afresh] {
        stage
            .raw(&[
                &format!("ZREM @prioritized {id}"),
                &format!("HSET @{id} ats 1 finishedOn 5 processedOn 4 returnvalue 1"),
                &format!("ZADD @completed 5 {id}"),
            ])
            .await;
    }
    end_in_the_record(&stage, &[over, by_client, afresh, by_hand]).await;
    let resets = Reprocess {
        resets_attempts_made: true,
        resets_attempts_started: true,
        ..Reprocess::default()
    };
    for (id, how) in [(by_client, Reprocess::default()), (afresh, resets)] {
        let id = id.to_string();
        let state = FinishedState::Completed;
        stage
            .broker
            .reprocess(&queue, &id, state, how)
            .await
            .unwrap();
    }

    let (mut lingering, begin) = (Lingering::default(), Instant::now());
    let waiting: Vec<String> = all.iter().map(ToString::to_string).collect();
    let mut look = async |at: Duration| {
        let looked = lingering.look(&stage.record, &stage.broker, &queue, &waiting, begin + at);
        looked.await.unwrap()
    };
    assert_eq!(look(Duration::ZERO).await, 0, "it may be on its way");
    assert_eq!(look(LONG / 2).await, 0);
    let retried = control::retry(&stage.record, &stage.broker, &[by_hand], &By::OPERATOR).await;
    assert_eq!(retried.unwrap(), [by_hand]);
    assert_eq!(look(LONG).await, 1);
    assert_eq!(look(LONG * 3).await, 0, "once is enough");

    assert_eq!(stage.state(over).await, Some(BrokerState::Completed));
    for id in [by_client, afresh, by_hand, open] {
        assert_eq!(stage.state(id).await, Some(BrokerState::Prioritized));
    }
    let told = format!("job_logs WHERE job_id = '{over}' AND message LIKE 'reconciled: ended%'");
    assert_eq!(stage.count(&told).await, 1);
    assert_eq!(
        stage
            .count("job_logs WHERE message LIKE 'reconciled: ended%'")
            .await,
        1
    );
    let claimed = stage.broker.claim(&queue, &claim_options("t")).await;
    assert_eq!(claimed.unwrap().jobs.len(), 4, "it is not handed out");
}
