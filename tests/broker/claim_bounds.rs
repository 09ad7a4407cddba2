//! How many jobs one claim gives.

use std::time::Duration;

use bullwark::broker::{ClaimOptions, NewJob};

use crate::support::{Bench, claim_options, ids, job};

#[tokio::test]
async fn global_concurrency_bounds_a_claim() {
    let t = Bench::new().await;
    t.add(&["a", "b", "c"]).await;
    t.raws(&["HSET @meta concurrency 2"]).await;
    assert_eq!(ids(&t.claim(9).await), ["a", "b"]);
    let full = t.claim(9).await;
    assert!(full.jobs.is_empty() && full.is_held);
}

#[tokio::test]
async fn a_rate_limit_bounds_a_claim_and_tells_how_long_to_wait() {
    let t = Bench::new().await;
    t.add(&["a", "b", "c", "d"]).await;
    t.raws(&["HSET @meta max 3 duration 60000", "HSET @a defa boom"])
        .await;
    assert_eq!(ids(&t.claim(2).await), ["a", "b"]);
    let used: i64 = t.raw("GET @limiter").await;
    assert_eq!(used, 1, "a job that only fails does not count");
    assert_eq!(ids(&t.claim(1).await), ["c"]);
    t.raws(&["INCR @limiter"]).await;
    let limited = t.claim(9).await;
    assert!(limited.jobs.is_empty() && !limited.is_held);
    assert!(matches!(limited.wait_ms, Some(1..=60000)), "{limited:?}");
    t.raws(&["DEL @limiter"]).await;
    assert_eq!(ids(&t.claim(9).await), ["d"]);
}

#[tokio::test]
async fn a_limit_set_by_hand_counts_only_where_a_maximum_is_set() {
    let t = Bench::new().await;
    t.add(&["a"]).await;
    t.raws(&[
        "SET @limiter 9007199254740991 PX 60000",
        "HSET @meta max 3 duration 1000",
    ])
    .await;
    assert!(t.claim(9).await.wait_ms.is_some());
    t.raws(&["HDEL @meta max"]).await;
    assert_eq!(ids(&t.claim(9).await), ["a"]);
}

#[tokio::test]
async fn who_heeds_a_limiter_finds_it_closed_without_a_maximum_too() {
    let t = Bench::new().await;
    t.add(&["a"]).await;
    let heeds = ClaimOptions {
        heeds_limiter: true,
        ..claim_options("tok", 9)
    };
    let claim = async || t.broker.claim(&t.queue, &heeds).await.unwrap();
    t.broker
        .rate_limit(&t.queue, Duration::from_secs(60))
        .await
        .unwrap();
    let closed = claim().await;
    assert!(closed.jobs.is_empty() && !closed.is_held);
    assert!(matches!(closed.wait_ms, Some(1..=60000)), "{closed:?}");
    // The window of another worker's limit is open, and closes the queue for that worker only.
    t.raws(&["SET @limiter 5 PX 60000"]).await;
    assert_eq!(ids(&claim().await), ["a"]);
    assert_eq!(t.raw::<i64>("GET @limiter").await, 5, "nothing is counted");
}

/// Or the reply would take longer than anybody waits for it.
#[tokio::test]
async fn a_claim_ends_when_what_it_carries_grows_too_large() {
    let t = Bench::new().await;
    let large = |n: usize| NewJob {
        data: format!("\"{}\"", "x".repeat(1 << 20)),
        ..job(&format!("{n:02}"))
    };
    for n in 0..40 {
        t.broker.add(&t.queue, &[large(n)]).await.unwrap();
    }
    let mut order = Vec::new();
    let mut claims = 0;
    while order.len() < 40 {
        let claimed = t.claim(40).await;
        assert!(claimed.jobs.len() <= 16, "{}", claimed.jobs.len());
        order.extend(claimed.jobs.into_iter().map(|job| job.id));
        claims += 1;
    }
    assert_eq!(claims, 3);
    assert!(order.is_sorted(), "{order:?}");
    t.add(&["a", "b"]).await;
    assert_eq!(t.claim(9).await.jobs.len(), 2);
}
