//! Schedules whose iterations people touch.

use bullwark::control;
use bullwark::job::{QueueName, Schedule, Template};
use bullwark::record::access::By;
use uuid::Uuid;

use super::rig::{Rig, eventually};
use super::script::scripted;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_goes_on_though_its_next_iteration_was_cancelled() {
    let rig = Rig::new().await.with_upkeep();
    let (record, broker) = (&rig.app.record, &rig.app.broker);
    let queue = QueueName::default();
    let request = scripted("tick", &[&[]]);
    let template = Template {
        name: request.job_type.clone(),
        data: request.payload.to_string(),
        opts: "{}".to_owned(),
    };
    let every = Schedule::every(1000);
    control::upsert_schedule(
        record,
        broker,
        &queue,
        "tick",
        &every,
        &template,
        &By::OPERATOR,
    )
    .await
    .unwrap();
    let current = "SELECT id, redis_id FROM jobs WHERE redis_id LIKE 'repeat:tick:%'";
    let (id, wire_id): (Uuid, String) = eventually("the iteration in the record", async || {
        let mut tx = record.begin().await.unwrap();
        let found = sqlx::query_as(current)
            .fetch_optional(tx.connection())
            .await;
        found.unwrap()
    })
    .await;
    let cancelled = control::cancel(record, broker, &[id], &By::OPERATOR, "not this one").await;
    assert_eq!(cancelled.unwrap(), [id]);

    let worker = rig.work(|_| {});
    rig.probe.starts_named("tick", 2).await;
    let ids = [wire_id];
    eventually("the cancelled one to leave Redis", async || {
        let states = broker.states(&queue, &ids).await.unwrap();
        states[0].is_none().then_some(())
    })
    .await;
    assert_eq!(rig.job(id).await.status, "cancelled");
    assert!(rig.failures(id).await.is_empty(), "it was not run");
    control::remove_schedule(record, broker, &queue, "tick", &By::OPERATOR)
        .await
        .unwrap();
    worker.stop().await;
    rig.close().await;
}
