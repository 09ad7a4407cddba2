//! Hosts that fail: who calls them, and how soon it is known that they are back.

use bullwark::broker::EndCall;
use bullwark::job::quota::Limits;

use crate::quota::{ONE, Want, end, take};
use crate::support::{Bench, NOW};

#[tokio::test]
async fn a_host_that_fails_is_left_alone_and_tried_by_one_call_at_a_time() {
    let t = Bench::new().await;
    let limits = Limits::default();
    let call = Want {
        has_breaker: true,
        ..ONE
    };
    let fails = |end: &mut EndCall<'_>| end.is_good = Some(false);
    let mut opened = None;
    for _ in 0..5 {
        assert_eq!(opened, None);
        let permit = take(&t.broker, &limits, call).await.unwrap();
        opened = end(&t.broker, permit, fails).await.breaker;
    }
    assert_eq!(opened, Some(true));
    let (wait, why) = take(&t.broker, &limits, call).await.unwrap_err();
    assert_eq!((wait, why.as_str()), (500, "breaker "));
    // Without a breaker of its own nothing stands against a call.
    take(&t.broker, &limits, ONE).await.unwrap();

    let half = t.at(NOW + 500);
    let probe = take(&half, &limits, call).await.unwrap();
    assert!(take(&half, &limits, call).await.is_err(), "one at a time");
    assert_eq!(end(&half, probe, fails).await.breaker, Some(true));
    // Twice as long.
    assert!(take(&t.at(NOW + 1499), &limits, call).await.is_err());
    let again = t.at(NOW + 1500);
    let probe = take(&again, &limits, call).await.unwrap();
    // A probe of which nobody hears makes room for another one.
    end(&again, probe, |end| end.is_good = None).await;
    let probe = take(&again, &limits, call).await.unwrap();
    assert_eq!(end(&again, probe, |_| {}).await.breaker, Some(false));
    for _ in 0..3 {
        take(&again, &limits, call).await.unwrap();
    }
}

#[tokio::test]
async fn a_breaker_is_never_open_for_longer_than_five_seconds() {
    let t = Bench::new().await;
    let call = Want {
        has_breaker: true,
        ..ONE
    };
    let limits = Limits::default();
    let (mut now, mut longest) = (NOW, 0);
    for _ in 0..30 {
        let broker = t.at(now);
        match take(&broker, &limits, call).await {
            Ok(permit) => {
                end(&broker, permit, |end| end.is_good = Some(false)).await;
            }
            Err((wait, _)) => {
                longest = longest.max(wait);
                now += wait;
            }
        }
    }
    assert!((5000..6000).contains(&longest), "{longest}");
}

/// Opens the breaker; the moment when the host may be tried.
async fn open(t: &Bench, limits: &Limits, call: Want) -> i64 {
    for _ in 0..5 {
        let permit = take(&t.broker, limits, call).await.unwrap();
        end(&t.broker, permit, |end| end.is_good = Some(false)).await;
    }
    NOW + 500
}

/// Its calls end after 30 s, and the worker of the first one may be dead.
#[tokio::test]
async fn a_host_that_swallows_calls_is_tried_every_five_seconds() {
    let t = Bench::new().await;
    let limits = Limits::default();
    let call = Want {
        has_breaker: true,
        ..ONE
    };
    let from = open(&t, &limits, call).await;
    let first = take(&t.at(from), &limits, call).await.unwrap();
    assert!(take(&t.at(from + 4999), &limits, call).await.is_err());
    let then = t.at(from + 5000);
    let second = take(&then, &limits, call).await.unwrap();
    assert!(take(&then, &limits, call).await.is_err(), "one at a time");
    // It is back.
    let soon = t.at(from + 5100);
    assert_eq!(end(&soon, second, |_| {}).await.breaker, Some(false));
    for _ in 0..10 {
        take(&soon, &limits, call).await.unwrap();
    }
    // What became of the first says nothing of now.
    let late = t.at(from + 30_000);
    let ended = end(&late, first, |end| end.is_good = Some(false)).await;
    assert_eq!(ended.breaker, None);
    take(&late, &limits, call).await.unwrap();
}
