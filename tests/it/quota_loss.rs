//! What a loss of Redis does to quotas: never a call above a limit.

use std::time::Duration;

use bullwark::broker::{QuotaSeed, TakeQuota, TakenQuota};
use bullwark::quota::{Ask, Learned, Limits, QuotaKey, QuotaWindow, Quotas, Told, Wait, Why};
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use chrono::Timelike;
use uuid::Uuid;

use crate::quota::{Rig, hourly};

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_emptied_again_and_again_lets_no_call_above_the_limit_through() {
    let rig = Rig::new().await;
    let limits = hourly(200);
    let mut granted = 0;
    for _ in 0..6 {
        let processes = [rig.process().await, rig.process().await];
        granted += rig.rush(&limits, &processes, 20).await;
        rig.stage.flush_prefix().await;
    }
    let processes = [rig.process().await];
    for _ in 0..3 {
        granted += rig.rush(&limits, &processes, 60).await;
    }
    assert!(granted <= 200, "{granted}");
    // What is lost are the blocks that were under way.
    assert!(granted >= 140, "{granted}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_loss_a_short_window_counts_as_full_and_opens_again() {
    let rig = Rig::new().await;
    let limits = Limits::of([QuotaWindow::Sliding {
        max: 3,
        per_ms: 2000,
    }]);
    let before = rig.process().await;
    assert_eq!(rig.rush(&limits, &[before], 3).await, 3);
    rig.stage.flush_prefix().await;
    let after = rig.process().await;
    let wait = rig.take(&after, &limits).await.unwrap_err();
    assert_eq!(wait.why, Why::Window);
    assert!(wait.time <= Duration::from_millis(2100), "{wait}");
    tokio::time::sleep(wait.time).await;
    rig.take(&after, &limits).await.unwrap().ended().await;
    rig.end().await;
}

/// Takes one by one until there is no more; how many there were.
async fn drain(rig: &Rig, quotas: &Quotas, limits: &Limits) -> (usize, Wait) {
    let mut granted = 0;
    loop {
        match rig.take(quotas, limits).await {
            Ok(permit) => permit.ended().await,
            Err(wait) => return (granted, wait),
        }
        granted += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_day_and_of_a_long_sliding_window_outlives_redis() {
    let mut rig = Rig::new().await;
    // Somewhere it is neither just before nor just after midnight.
    let zone = match bullwark::clock::now().hour() {
        0 | 23 => "Asia/Tokyo",
        _ => "UTC",
    };
    let zone = zone.to_owned();
    for (service, window) in [
        ("daily", QuotaWindow::Daily { max: 7, zone }),
        (
            "sliding",
            QuotaWindow::Sliding {
                max: 7,
                per_ms: 120_000,
            },
        ),
    ] {
        rig.key = QuotaKey::new(service, DEFAULT_WORKSPACE).unwrap();
        let id = window.id();
        let limits = Limits::of([window]);
        let before = rig.process().await;
        for _ in 0..3 {
            rig.take(&before, &limits).await.unwrap().ended().await;
        }
        rig.stage.flush_prefix().await;
        let after = rig.process().await;
        let (granted, wait) = drain(&rig, &after, &limits).await;
        assert_eq!((granted, wait.detail.as_str()), (4, &*id), "{service}");
        // What nothing is left of stays so.
        rig.stage.flush_prefix().await;
        let later = rig.process().await;
        let (granted, wait) = drain(&rig, &later, &limits).await;
        assert_eq!((granted, wait.why), (0, Why::Window), "{service}");
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_said_of_its_limits_and_of_what_is_left_outlives_redis() {
    let rig = Rig::new().await;
    let limits = hourly(100);
    let before = rig.process().await;
    let said = |name: &str, limit, left, hours: u64| Told {
        name: name.to_owned(),
        limit: Some(limit),
        left,
        resets_in: left.map(|_| Duration::from_secs(1800)),
        per: Some(Duration::from_secs(3600 * hours)),
        is_polled: false,
    };
    let learned = Learned {
        told: vec![said("hour", 6, None, 1), said("other", 50, Some(3), 2)],
        ..Learned::default()
    };
    let permit = rig.take(&before, &limits).await.unwrap();
    assert_eq!(permit.answered(&learned).await, None);
    rig.stage.flush_prefix().await;
    let after = rig.process().await;
    let (granted, wait) = drain(&rig, &after, &limits).await;
    assert_eq!((granted, wait.why), (3, Why::Told), "{wait}");
    assert_eq!(wait.detail, "other");
    let known = format!(
        "{:?}",
        rig.stage
            .broker
            .read_quota(&rig.key.to_string(), &limits)
            .await
    );
    assert!(known.contains("max: 6"), "{known}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_call_does_not_wait_for_a_window_that_nobody_used() {
    let rig = Rig::new().await;
    let limits = Limits::of([QuotaWindow::Sliding {
        max: 100,
        per_ms: 60_000,
    }]);
    let processes = [
        rig.process().await,
        rig.process().await,
        rig.process().await,
    ];
    assert_eq!(rig.rush(&limits, &processes, 10).await, 30);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_that_was_not_compared_with_the_record_gives_nothing_away() {
    let rig = Rig::new().await;
    let quotas = rig.process().await;
    let limits = hourly(10);
    rig.take(&quotas, &limits).await.unwrap().ended().await;
    rig.stage.flush_prefix().await;
    let wait = rig.take(&quotas, &limits).await.unwrap_err();
    assert_eq!(wait.why, Why::Unknown);
    rig.end().await;
}

/// A worker that dies after the record has set units aside, before Redis knows: the units are lost,
/// and nobody gets them twice.
#[tokio::test(flavor = "multi_thread")]
async fn units_that_a_dead_worker_had_set_aside_are_not_given_away_again() {
    let rig = Rig::new().await;
    let limits = hourly(1000);
    let quotas = rig.process().await;
    rig.take(&quotas, &limits).await.unwrap().ended().await;
    let key = rig.key.to_string();
    let row = "SELECT periods[1] FROM bullwark.quota_periods";
    let period: i64 = rig.stage.scalar(row.to_owned()).await;
    let dead = format!(
        "SELECT bullwark.set_quota_aside('{key}', 'fixed:3600000', {period}, {period}, 1000, 500,
           1)"
    );
    assert_eq!(rig.stage.scalar::<i64>(dead).await, 500);
    let mut granted = 1;
    for _ in 0..40 {
        let ask = Ask::new(&rig.key, &limits).cost(20);
        match quotas.take(&ask).await.unwrap() {
            Ok(permit) => {
                granted += 20;
                permit.ended().await;
            }
            Err(_) => break,
        }
    }
    assert!((480..=500).contains(&granted), "{granted}");
    rig.end().await;
}

/// A worker that dies after it took: the cost is spent, its place is free when the lease ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_with_a_permit_gives_its_place_back_and_no_units() {
    let rig = Rig::new().await;
    let limits = Limits::of([QuotaWindow::Bucket {
        capacity: 2,
        refill: 1,
        per_ms: 3_600_000,
    }])
    .at_once(1);
    let broker = rig.stage.another_broker().await;
    broker.serve(&broker.epoch().await.unwrap());
    let seed = QuotaSeed {
        idle_ms: u64::MAX / 2,
        ..QuotaSeed::default()
    };
    let refused = std::collections::BTreeMap::new();
    let key = rig.key.to_string();
    let died = TakeQuota {
        key: &key,
        host: None,
        permit: Uuid::new_v4(),
        limits: &limits,
        cost: 1,
        is_interactive: false,
        lease: Duration::from_secs(1),
        ticket: None,
        random: 0.0,
        is_joined: false,
        seed: Some(&seed),
        credits: &[],
        refused: &refused,
    };
    let taken = broker.take_quota(&died).await.unwrap();
    assert_eq!(taken, TakenQuota::Granted);
    let quotas = rig.process().await;
    let mut waits = Vec::new();
    let permit = loop {
        match rig.take(&quotas, &limits).await {
            Ok(permit) => break permit,
            Err(wait) => {
                waits.push(wait.why);
                tokio::time::sleep(wait.time).await;
            }
        }
    };
    assert!(
        waits.iter().all(|why| *why == Why::Concurrency) && !waits.is_empty(),
        "{waits:?}"
    );
    permit.ended().await;
    assert_eq!(
        rig.take(&quotas, &limits).await.unwrap_err().why,
        Why::Window
    );
    rig.end().await;
}
