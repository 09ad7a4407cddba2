//! Settings and schedules of queues: in the record, told, copied, and given back.

use std::time::Duration;

use bullwark::broker::BrokerState;
use bullwark::control;
use bullwark::job::schedule::StoredSchedule;
use bullwark::job::{QueueChange, QueueName, QueueSettings, Schedule, Template};
use bullwark::reconcile;
use bullwark::record::access::By;
use bullwark::record::{queues, schedules};

use crate::stage::{Stage, claim_options};

const BY: &By<'static> = &By::OPERATOR;

fn queue() -> QueueName {
    QueueName::default()
}

fn template() -> Template {
    Template {
        name: "noop".into(),
        data: r#"{"a":1}"#.into(),
        opts: r#"{"attempts":2}"#.into(),
    }
}

async fn stage() -> Stage {
    let stage = Stage::new().await;
    readmit(&stage).await;
    stage
}

async fn readmit(stage: &Stage) {
    while !reconcile::readmit(&stage.record, &stage.broker)
        .await
        .unwrap()
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn keep(stage: &Stage) -> u64 {
    reconcile::keep_queues(&stage.record, &stage.broker)
        .await
        .unwrap()
}

async fn shown(stage: &Stage) -> QueueSettings {
    stage.broker.queue_meta(&queue()).await.unwrap().settings()
}

async fn recorded(stage: &Stage) -> queues::KnownQueue {
    let page = queues::page(&stage.record, &stage.prefix, "").await;
    let mut known = page.unwrap().0.into_iter();
    known.find(|known| known.queue == queue()).unwrap()
}

async fn change(stage: &Stage, change: QueueChange) -> QueueSettings {
    control::change_queue(&stage.record, &stage.broker, &queue(), &change, (BY, None))
        .await
        .unwrap()
}

async fn known_schedules(stage: &Stage) -> Vec<schedules::KnownSchedule> {
    let page = schedules::page(&stage.record, &stage.prefix, ("", ""));
    page.await.unwrap().0
}

#[tokio::test]
async fn what_bullwark_changes_of_a_queue_is_recorded_told_and_given_back() {
    let stage = stage().await;
    stage.broker.ensure_queue(&queue()).await.unwrap();
    stage
        .broker
        .set_concurrency(&queue(), Some(3))
        .await
        .unwrap();
    let rate = QueueChange {
        rate_limit: Some(Some((10, 60_000))),
        ..QueueChange::default()
    };
    change(&stage, rate).await;
    let now = change(&stage, QueueChange::pause(true)).await;
    let expected = QueueSettings {
        is_paused: true,
        concurrency: Some(3), // set by a client, and not lost
        rate_max: Some(10),
        rate_duration_ms: Some(60_000),
        events_max: Some(10_000),
        has_v5_peers: false,
        is_fair: false,
    };
    assert_eq!(now, expected);
    assert_eq!(shown(&stage).await, expected);
    assert!(recorded(&stage).await.is_told);
    assert_eq!(keep(&stage).await, 0, "nothing differs");

    stage.flush_prefix().await;
    assert_eq!(shown(&stage).await, QueueSettings::default());
    assert_eq!(
        keep(&stage).await,
        0,
        "what a lost memory shows is not copied"
    );
    readmit(&stage).await;
    assert_eq!(shown(&stage).await, expected);
    let none = QueueChange {
        is_paused: Some(false),
        concurrency: Some(None),
        rate_limit: Some(None),
        is_fair: None,
    };
    change(&stage, none).await;
    assert_eq!(
        shown(&stage).await,
        QueueSettings {
            events_max: Some(10_000),
            ..QueueSettings::default()
        }
    );
}

#[tokio::test]
async fn what_a_client_changes_of_a_queue_is_copied_and_given_back() {
    let stage = stage().await;
    stage.broker.ensure_queue(&queue()).await.unwrap();
    stage.broker.pause(&queue()).await.unwrap();
    stage
        .broker
        .set_rate_limit(&queue(), Some((5, Duration::from_secs(1))))
        .await
        .unwrap();
    assert_eq!(keep(&stage).await, 1);
    assert_eq!(keep(&stage).await, 0, "twice is once");
    let before = shown(&stage).await;
    assert_eq!(recorded(&stage).await.settings, before);

    stage.flush_prefix().await;
    readmit(&stage).await;
    assert_eq!(shown(&stage).await, before);
    assert!(
        stage
            .broker
            .claim(&queue(), &claim_options("t"))
            .await
            .unwrap()
            .is_held
    );

    // Bullwark changed it between the look at the record and the look at Redis.
    let seen = recorded(&stage).await;
    change(&stage, QueueChange::pause(false)).await;
    let copied = queues::copy(
        &stage.record,
        &stage.prefix,
        &queue(),
        &before,
        seen.version,
    )
    .await;
    assert!(!copied.unwrap());
    assert!(!recorded(&stage).await.settings.is_paused);
}

/// A client has paused the queue a moment ago, which the record has not heard of.
#[tokio::test]
async fn what_bullwark_changes_of_a_queue_leaves_the_rest_to_clients() {
    let stage = stage().await;
    stage.broker.ensure_queue(&queue()).await.unwrap();
    change(&stage, QueueChange::pause(false)).await;
    let (broker, queue) = (&stage.broker, queue());
    broker.pause(&queue).await.unwrap();
    broker.set_concurrency(&queue, Some(7)).await.unwrap();
    let rate = QueueChange {
        rate_limit: Some(Some((10, 1000))),
        ..QueueChange::default()
    };
    change(&stage, rate).await;
    let now = shown(&stage).await;
    assert!(now.is_paused);
    assert_eq!((now.concurrency, now.rate_max), (Some(7), Some(10)));
    assert_eq!(keep(&stage).await, 1, "the record hears of it");
    assert_eq!(recorded(&stage).await.settings, now);
}

#[tokio::test]
async fn a_change_that_redis_was_not_told_of_is_told_later() {
    let stage = stage().await;
    stage.broker.ensure_queue(&queue()).await.unwrap();
    let base = shown(&stage).await;
    let paused = QueueChange::pause(true);
    // The process died after its commit.
    queues::change(
        &stage.record,
        &stage.prefix,
        &queue(),
        &base,
        &paused,
        (BY, None),
    )
    .await
    .unwrap();
    let schedule = StoredSchedule::new("s", &Schedule::every(3_600_000), &template());
    schedules::change(&stage.record, &stage.prefix, &queue(), &schedule, BY)
        .await
        .unwrap();
    schedules::remove(&stage.record, &stage.prefix, &queue(), "gone", BY)
        .await
        .unwrap();
    assert!(keep(&stage).await >= 2);
    assert!(shown(&stage).await.is_paused);
    assert!(
        stage
            .broker
            .schedule(&queue(), "s")
            .await
            .unwrap()
            .is_some()
    );
    let known = known_schedules(&stage).await;
    assert_eq!(known.len(), 1, "what was to be removed is gone: {known:?}");
    assert!(known[0].is_told && known[0].schedule.due_ms.is_some());
    assert!(recorded(&stage).await.is_told);
    assert_eq!(keep(&stage).await, 0);
}

#[tokio::test]
async fn schedules_are_recorded_copied_and_given_back_without_doubling_a_tick() {
    let stage = stage().await;
    let every = Schedule::every(3_600_000);
    control::upsert_schedule(
        &stage.record,
        &stage.broker,
        &queue(),
        "ours",
        &every,
        &template(),
        BY,
    )
    .await
    .unwrap();
    let cron = Schedule::cron("0 5 1 1 *", "Europe/Berlin");
    stage
        .broker
        .upsert_schedule(&queue(), "client's", &cron, &template())
        .await
        .unwrap();
    keep(&stage).await;
    let known = known_schedules(&stage).await;
    assert_eq!(known.len(), 2);
    let before = [
        stage
            .broker
            .schedule(&queue(), "ours")
            .await
            .unwrap()
            .unwrap(),
        stage
            .broker
            .schedule(&queue(), "client's")
            .await
            .unwrap()
            .unwrap(),
    ];
    // The first iteration of ours is due at once: it runs, and makes the next one.
    let claimed = stage.claim("t").await.jobs.remove(0);
    stage
        .broker
        .schedule_next(&queue(), &claimed)
        .await
        .unwrap()
        .unwrap();
    keep(&stage).await;
    let due = |known: &[schedules::KnownSchedule], id: &str| {
        let one = known.iter().find(|known| known.schedule.id == id);
        one.unwrap().schedule.due_ms.unwrap()
    };
    let known = known_schedules(&stage).await;
    assert!(
        due(&known, "ours") > before[0].due_ms,
        "it follows the chain"
    );

    stage.flush_prefix().await;
    readmit(&stage).await;
    readmit(&stage).await;
    let after = [
        stage
            .broker
            .schedule(&queue(), "ours")
            .await
            .unwrap()
            .unwrap(),
        stage
            .broker
            .schedule(&queue(), "client's")
            .await
            .unwrap()
            .unwrap(),
    ];
    assert_eq!(after[0].due_ms, due(&known, "ours"));
    assert_eq!(after[1], before[1]);
    assert_eq!(after[0].schedule, before[0].schedule);
    let counts = stage.broker.counts(&queue()).await.unwrap();
    assert_eq!(
        (counts.delayed, counts.wait),
        (2, 0),
        "one iteration each, none that ran"
    );

    control::remove_schedule(&stage.record, &stage.broker, &queue(), "ours", BY)
        .await
        .unwrap();
    stage
        .broker
        .remove_schedule(&queue(), "client's")
        .await
        .unwrap();
    keep(&stage).await;
    assert_eq!(known_schedules(&stage).await, []);
    stage.flush_prefix().await;
    readmit(&stage).await;
    assert_eq!(stage.broker.count_schedules(&queue()).await.unwrap(), 0);
}

/// The first iteration is due and waits; nobody has run it, and it was accepted.
#[tokio::test]
async fn an_iteration_that_waits_comes_back_as_it_was() {
    let stage = stage().await;
    let every = Schedule::every(3_600_000);
    let (record, broker) = (&stage.record, &stage.broker);
    control::upsert_schedule(record, broker, &queue(), "ours", &every, &template(), BY)
        .await
        .unwrap();
    let waiting = async || {
        let page = broker.list(&queue(), BrokerState::Wait, 0, 9).await;
        page.unwrap().ids
    };
    let before = waiting().await;
    assert_eq!(before.len(), 1);
    reconcile::reconcile_all(record, broker).await.unwrap();
    assert_eq!(stage.count("bullwark.foreign_jobs").await, 1);
    // The youngest jobs are left to the passes.
    stage
        .execute("UPDATE jobs SET created_at = created_at - interval '1 minute'".into())
        .await;
    stage.flush_prefix().await;
    readmit(&stage).await;
    assert_eq!(waiting().await, before);
    let delayed = broker.counts(&queue()).await.unwrap().delayed;
    assert_eq!(delayed, 0, "the next one is made when this one runs");
}

#[tokio::test]
async fn a_schedule_that_can_not_be_is_refused_before_anything_is_written() {
    let stage = stage().await;
    let wrong = [
        ("s", Schedule::every(0)),
        ("s", Schedule::cron("61 * * * *", "UTC")),
        ("", Schedule::every(1000)),
    ];
    for (id, schedule) in wrong {
        let refused = control::upsert_schedule(
            &stage.record,
            &stage.broker,
            &queue(),
            id,
            &schedule,
            &template(),
            BY,
        )
        .await;
        assert!(matches!(refused, Err(control::ScheduleError::Invalid(_))));
    }
    assert_eq!(known_schedules(&stage).await, []);
}
