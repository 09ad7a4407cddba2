//! What a service says of its own windows, and how it is learned that there is more again.

use std::time::Duration;

use bullwark::broker::{EndCall, ToldState};
use bullwark::job::quota::{Limits, Window};
use uuid::Uuid;

use crate::quota::{ONE, Want, take};
use crate::support::{Bench, NOW};

const KEY: &str = "clearbit:w1";
const MINUTE: i64 = 60_000;
/// A call that is over at once.
const BRIEF: Want = Want {
    lease: Duration::from_millis(1),
    ..ONE
};

async fn told(t: &Bench, now: i64, left: u64, limit: u64, resets_ms: Option<u64>) {
    let minute = ToldState {
        resets_ms,
        ..of_a_minute(left, limit)
    };
    tell(t, now, minute).await;
}

fn of_a_minute(left: u64, limit: u64) -> ToldState {
    ToldState {
        name: "minute".to_owned(),
        limit: Some(limit),
        left: Some(left),
        resets_ms: None,
        per_ms: Some(60_000),
        polled: false,
    }
}

async fn tell(t: &Bench, now: i64, state: ToldState) {
    let told = vec![state];
    let call = EndCall {
        key: KEY,
        permit: Uuid::new_v4(),
        lease: ONE.lease,
        is_good: Some(true),
        told,
        learns: true,
        default_window: Duration::from_secs(60),
        ..EndCall::default()
    };
    t.at(now).end_quota(&call).await.unwrap();
}

#[tokio::test]
async fn what_a_service_says_is_left_counts_until_its_window_ends() {
    let t = Bench::new().await;
    let limits = Limits::default();
    take(&t.broker, &limits, BRIEF).await.unwrap();
    told(&t, NOW + 10, 3, 100, Some(5000)).await;
    for _ in 0..3 {
        take(&t.at(NOW + 20), &limits, BRIEF).await.unwrap();
    }
    // An older answer that comes late gives nothing back.
    told(&t, NOW + 30, 3, 100, Some(4980)).await;
    let (wait, why) = take(&t.at(NOW + 40), &limits, ONE).await.unwrap_err();
    assert_eq!((wait, why.as_str()), (4970, "told minute"));
    take(&t.at(NOW + 5010), &limits, ONE).await.unwrap();
}

#[tokio::test]
async fn a_new_window_of_a_service_that_names_no_end_shows_by_what_is_left() {
    let t = Bench::new().await;
    let limits = Limits::default();
    take(&t.broker, &limits, BRIEF).await.unwrap();
    told(&t, NOW + 10, 1, 1000, None).await;
    told(&t, NOW + 30_000, 999, 1000, None).await;
    for _ in 0..5 {
        take(&t.at(NOW + 30_010), &limits, ONE).await.unwrap();
    }
}

#[tokio::test]
async fn a_limit_that_a_service_names_takes_the_place_of_ours_unless_ours_is_pinned() {
    let t = Bench::new().await;
    let limits = Limits::of([Window::Fixed {
        max: 2,
        per_ms: 60_000,
    }]);
    take(&t.broker, &limits, ONE).await.unwrap();
    told(&t, NOW, 4, 5, Some(60_000)).await;
    for _ in 0..3 {
        take(&t.broker, &limits, ONE).await.unwrap();
    }
    let pinned = Limits {
        learns: false,
        ..limits
    };
    assert!(take(&t.broker, &pinned, ONE).await.is_err());
}

/// A day of which nothing is left, and nobody says until when.
fn used_up_day(left: u64) -> ToldState {
    ToldState {
        per_ms: Some(86_400_000),
        ..of_a_minute(left, 2000)
    }
}

const SHORT: Want = BRIEF;

#[tokio::test]
async fn a_service_that_names_no_end_is_tried_by_one_call_in_ten_minutes() {
    let t = Bench::new().await;
    let limits = Limits::default();
    take(&t.broker, &limits, SHORT).await.unwrap();
    tell(&t, NOW + 10, used_up_day(0)).await;
    let (wait, why) = take(&t.at(NOW + 20), &limits, ONE).await.unwrap_err();
    assert_eq!((wait, why.as_str()), (10 * MINUTE - 10, "told minute"));
    assert!(take(&t.at(NOW + 10 * MINUTE), &limits, ONE).await.is_err());
    let mut now = NOW + 10 + 10 * MINUTE;
    take(&t.at(now), &limits, SHORT).await.unwrap();
    for later in [5, 5 * MINUTE] {
        let others = take(&t.at(now + later), &limits, ONE).await;
        assert!(others.is_err(), "one call, not each");
    }
    // There is nothing yet.
    tell(&t, now + 10, used_up_day(0)).await;
    now += 10 + 10 * MINUTE;
    assert!(take(&t.at(now - 1), &limits, ONE).await.is_err());
    take(&t.at(now), &limits, SHORT).await.unwrap();
    // A window that moves on has a few.
    tell(&t, now + 10, used_up_day(2)).await;
    for _ in 0..2 {
        take(&t.at(now + 20), &limits, SHORT).await.unwrap();
    }
    let (wait, _) = take(&t.at(now + 20), &limits, ONE).await.unwrap_err();
    assert_eq!(wait, 10 * MINUTE, "from the last call on");
}

#[tokio::test]
async fn what_is_left_when_it_is_asked_for_is_what_is_left() {
    let t = Bench::new().await;
    let limits = Limits::default();
    let polled = |left| ToldState {
        polled: true,
        ..used_up_day(left)
    };
    take(&t.broker, &limits, SHORT).await.unwrap();
    tell(&t, NOW + 10, polled(0)).await;
    assert!(take(&t.at(NOW + 20), &limits, ONE).await.is_err());
    tell(&t, NOW + 1000, polled(2)).await;
    for _ in 0..2 {
        take(&t.at(NOW + 1010), &limits, SHORT).await.unwrap();
    }
    assert!(take(&t.at(NOW + 1020), &limits, ONE).await.is_err());
    // Calls that are under way are not counted there yet.
    tell(&t, NOW + 2000, polled(3)).await;
    take(&t.at(NOW + 2010), &limits, ONE).await.unwrap();
    tell(&t, NOW + 2020, polled(3)).await;
    for _ in 0..2 {
        take(&t.at(NOW + 2030), &limits, SHORT).await.unwrap();
    }
    assert!(take(&t.at(NOW + 2040), &limits, ONE).await.is_err());
    // Asked for again and again, nobody has to try.
    let mut now = NOW + 3000;
    for _ in 0..30 {
        tell(&t, now, polled(0)).await;
        now += MINUTE;
        assert!(take(&t.at(now), &limits, ONE).await.is_err());
    }
}
