//! Lines of those who wait for quota: whose moment moves whose, and who holds nothing.

use bullwark::broker::Broker;
use bullwark::job::quota::{Limits, Window};
use uuid::Uuid;

use crate::quota::{ONE, Want, take};
use crate::support::{Bench, NOW, job};

/// One call a second, and no more of them at once than ten.
const TEN_IN_TEN: Window = Window::Sliding {
    max: 10,
    per_ms: 10_000,
};

/// Uses it up, so that one call becomes free each second.
async fn use_up(t: &Bench, limits: &Limits) {
    for seconds in 0..10 {
        let then = t.at(NOW - 9000 + seconds * 1000);
        take(&then, limits, ONE).await.unwrap();
    }
}

/// So many jobs of the queue that are told to come back, and the last moment that was given away.
async fn waiting(t: &Bench, limits: &Limits, count: usize) -> (Vec<String>, i64) {
    let (mut ids, mut last) = (Vec::new(), 0);
    for _ in 0..count {
        let id = Uuid::new_v4();
        let added = job(&id.to_string());
        t.broker.add(&t.queue, &[added]).await.unwrap();
        let want = Want {
            ticket: Some(id),
            ..ONE
        };
        last = take(&t.broker, limits, want).await.unwrap_err().0;
        ids.push(id.to_string());
    }
    (ids, last)
}

/// When a new job without a turn may come.
async fn told(broker: &Broker, limits: &Limits) -> i64 {
    take(broker, limits, ONE).await.unwrap_err().0
}

async fn it_is_as_if_nobody_waited(t: &Bench, limits: &Limits) {
    let first = told(&t.at(NOW + 10), limits).await;
    assert!(first < 1500, "{first}");
    // Turns of theirs that are just now keep nobody out.
    let then = t.at(NOW + 3700);
    for _ in 0..3 {
        take(&then, limits, ONE).await.unwrap();
    }
}

#[tokio::test]
async fn turns_of_jobs_that_were_cancelled_hold_neither_quota_nor_a_place() {
    let t = Bench::new().await;
    let limits = Limits::of([TEN_IN_TEN]);
    use_up(&t, &limits).await;
    let (ids, last) = waiting(&t, &limits, 60).await;
    assert!(last > 55_000, "{last}");
    t.broker.cancel(&t.queue, &ids).await.unwrap();
    it_is_as_if_nobody_waited(&t, &limits).await;
}

#[tokio::test]
async fn turns_of_a_queue_that_is_paused_hold_nothing_either() {
    let t = Bench::new().await;
    let limits = Limits::of([TEN_IN_TEN]);
    use_up(&t, &limits).await;
    waiting(&t, &limits, 60).await;
    t.broker.pause(&t.queue).await.unwrap();
    it_is_as_if_nobody_waited(&t, &limits).await;
}

#[tokio::test]
async fn a_line_ends_at_the_last_of_its_jobs_that_can_come() {
    let t = Bench::new().await;
    let limits = Limits::of([TEN_IN_TEN]);
    use_up(&t, &limits).await;
    let (ids, _) = waiting(&t, &limits, 60).await;
    t.broker.cancel(&t.queue, &ids[20..]).await.unwrap();
    let next = told(&t.broker, &limits).await;
    assert!((20_000..22_500).contains(&next), "{next}");
}

/// Its jobs are there, and no worker of their queue is.
#[tokio::test]
async fn turns_that_nobody_takes_keep_nobody_from_a_service_that_is_idle() {
    let t = Bench::new().await;
    let limits = Limits::of([Window::Sliding {
        max: 5,
        per_ms: 1000,
    }]);
    take(&t.broker, &limits, Want { cost: 5, ..ONE })
        .await
        .unwrap();
    let (_, last) = waiting(&t, &limits, 20).await;
    // Seven or eight turns are of this moment, more than the window has.
    let then = t.at(NOW + last);
    take(&then, &limits, ONE).await.unwrap();
    assert!(take(&then, &limits, ONE).await.is_err(), "others go first");
}

#[tokio::test]
async fn who_waits_for_a_second_does_not_stand_behind_those_who_wait_for_midnight() {
    let t = Bench::new().await;
    let limits = |daily: u32| {
        let second = Window::Sliding {
            max: 5,
            per_ms: 1000,
        };
        let zone = "UTC".to_owned();
        Limits::of([second, Window::Daily { max: daily, zone }])
    };
    take(&t.broker, &limits(5), Want { cost: 5, ..ONE })
        .await
        .unwrap();
    let (_, last) = waiting(&t, &limits(5), 10).await;
    assert!(last > 3_600_000, "{last}");
    let (first, second) = (
        told(&t.broker, &limits(100)).await,
        told(&t.broker, &limits(100)).await,
    );
    assert!(first < 1500, "{first}");
    assert!((200..250).contains(&(second - first)), "{first} {second}");
    // Those behind them stand in the line that they stood in.
    let next = told(&t.broker, &limits(5)).await;
    assert!(next > last, "{next} {last}");
}

#[tokio::test]
async fn interactive_work_does_not_stand_behind_a_batch() {
    let t = Bench::new().await;
    let limits = Limits::of([TEN_IN_TEN]).reserve(20);
    for seconds in 0..8 {
        let then = t.at(NOW - 9000 + seconds * 1000);
        take(&then, &limits, ONE).await.unwrap();
    }
    let (_, last) = waiting(&t, &limits, 60).await;
    assert!(last > 55_000, "{last}");
    let urgent = Want {
        is_interactive: true,
        ..ONE
    };
    for _ in 0..2 {
        take(&t.broker, &limits, urgent).await.unwrap();
    }
    let mut waits = Vec::new();
    for _ in 0..3 {
        waits.push(take(&t.broker, &limits, urgent).await.unwrap_err().0);
    }
    assert!(waits[0] < 1500, "{waits:?}");
    assert!((3000..4000).contains(&waits[2]), "one by one: {waits:?}");
}

#[tokio::test]
async fn a_turn_is_kept_with_all_that_its_call_costs() {
    let t = Bench::new().await;
    let limits = Limits::of([TEN_IN_TEN]);
    take(&t.broker, &limits, Want { cost: 10, ..ONE })
        .await
        .unwrap();
    let id = Uuid::new_v4();
    t.broker
        .add(&t.queue, &[job(&id.to_string())])
        .await
        .unwrap();
    let five = Want {
        cost: 5,
        ticket: Some(id),
        ..ONE
    };
    let (wait, _) = take(&t.broker, &limits, five).await.unwrap_err();
    let then = t.at(NOW + wait);
    take(&then, &limits, ONE).await.unwrap();
    let also_five = Want { cost: 5, ..ONE };
    assert!(take(&then, &limits, also_five).await.is_err());
    take(&then, &limits, five).await.unwrap();
}
