//! Who waits for quota: moments to come back, turns that are kept, and a memory that was lost.

use std::collections::BTreeMap;
use std::time::Duration;

use bullwark::broker::{QuotaSeed, TakeQuota, TakenQuota};
use bullwark::job::quota::{Limits, Window};
use uuid::Uuid;

use crate::quota::{ONE, Want, nothing_spent, take};
use crate::support::{Bench, NOW, job};

const KEY: &str = "clearbit:w1";

/// A job that can wait.
async fn waiter(t: &Bench) -> Uuid {
    let id = Uuid::new_v4();
    t.broker
        .add(&t.queue, &[job(&id.to_string())])
        .await
        .unwrap();
    id
}

fn per_second(max: u32) -> Limits {
    Limits::of([Window::Sliding { max, per_ms: 1000 }])
}

#[tokio::test]
async fn jobs_without_quota_come_back_at_the_rate_that_is_allowed() {
    let t = Bench::new().await;
    let limits = per_second(20);
    for _ in 0..20 {
        take(&t.broker, &limits, ONE).await.unwrap();
    }
    let mut moments = Vec::new();
    for _ in 0..60 {
        moments.push(take(&t.broker, &limits, ONE).await.unwrap_err().0);
    }
    assert!(moments[0] >= 1000, "{moments:?}");
    let steps: Vec<i64> = moments.windows(2).map(|m| m[1] - m[0]).collect();
    assert!(
        steps.iter().all(|step| (50..=53).contains(step)),
        "{steps:?}"
    );

    // Whoever comes back then finds quota.
    let mut denied = 0;
    for wait in moments {
        denied += usize::from(take(&t.at(NOW + wait), &limits, ONE).await.is_err());
    }
    assert_eq!(denied, 0);
}

#[tokio::test]
async fn a_long_window_slows_down_who_waits_only_once_it_is_used_up() {
    let steps = async |limits: &Limits, calls: usize| -> Vec<i64> {
        let t = Bench::new().await;
        for _ in 0..calls {
            take(&t.broker, limits, ONE).await.unwrap();
        }
        let mut moments = Vec::new();
        for _ in 0..40 {
            moments.push(take(&t.broker, limits, ONE).await.unwrap_err().0);
        }
        moments.windows(2).map(|m| m[1] - m[0]).collect()
    };
    let both = |long_max: u32| {
        let (max, per_ms) = (long_max, 10_000);
        let short = Window::Sliding {
            max: 20,
            per_ms: 1000,
        };
        Limits::of([short, Window::Sliding { max, per_ms }])
    };
    // Two calls a second would be all that the long one allows in the long run.
    let found = steps(&both(40), 20).await;
    assert!(
        found.iter().all(|step| (50..=53).contains(step)),
        "{found:?}"
    );
    let found = steps(&both(20), 20).await;
    assert!(
        found.iter().all(|step| (500..=530).contains(step)),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_job_that_comes_back_when_it_was_told_finds_its_turn_kept() {
    let t = Bench::new().await;
    let limits = Limits::of([Window::Bucket {
        capacity: 1,
        refill: 1,
        per_ms: 1000,
    }]);
    let job = Want {
        ticket: Some(waiter(&t).await),
        ..ONE
    };
    take(&t.broker, &limits, ONE).await.unwrap();
    let (wait, _) = take(&t.broker, &limits, job).await.unwrap_err();
    let then = t.at(NOW + wait);
    assert!(
        take(&then, &limits, ONE).await.is_err(),
        "others do not overtake it"
    );
    take(&then, &limits, job).await.unwrap();

    // Its turn does not wait for one that never comes.
    let (wait, _) = take(&then, &limits, job).await.unwrap_err();
    let late = t.at(NOW + 1000 + wait + 1600);
    take(&late, &limits, ONE).await.unwrap();
}

#[tokio::test]
async fn a_waiting_line_ends_in_sight() {
    let t = Bench::new().await;
    let limits = Limits::of([Window::Sliding {
        max: 1,
        per_ms: 60_000,
    }]);
    take(&t.broker, &limits, ONE).await.unwrap();
    let mut last = 0;
    for _ in 0..4000 {
        last = take(&t.broker, &limits, ONE).await.unwrap_err().0;
    }
    // An hour, and at any moment of another one.
    assert!((3_600_000..7_400_000).contains(&last), "{last}");
}

fn asked<'a>(
    limits: &'a Limits,
    seed: Option<&'a QuotaSeed>,
    refused: &'a BTreeMap<String, u64>,
) -> TakeQuota<'a> {
    TakeQuota {
        key: KEY,
        host: None,
        permit: Uuid::new_v4(),
        limits,
        cost: 1,
        is_interactive: false,
        lease: Duration::from_secs(60),
        ticket: None,
        random: 0.0,
        is_joined: false,
        seed,
        credits: &[],
        refused,
    }
}

#[tokio::test]
async fn a_memory_that_knows_nothing_takes_short_windows_for_full() {
    let t = Bench::new().await;
    let hour = Window::Fixed {
        max: 100,
        per_ms: 3_600_000,
    };
    let limits = Limits::of([
        Window::Sliding {
            max: 10,
            per_ms: 1000,
        },
        hour,
    ]);
    let refused = BTreeMap::new();
    let cold = t.broker.take_quota(&asked(&limits, None, &refused)).await;
    assert_eq!(cold.unwrap(), TakenQuota::Cold);
    let spent = format!("{} 99", NOW - 1000);
    let seed = QuotaSeed {
        spent: [("fixed:3600000".to_owned(), spent)].into(),
        ..QuotaSeed::default()
    };
    let seeded = t
        .broker
        .take_quota(&asked(&limits, Some(&seed), &refused))
        .await;
    let TakenQuota::Denied { wait, which, .. } = seeded.unwrap() else {
        panic!("anything may have been spent of the last second");
    };
    assert_eq!(which, "sliding:1000");
    assert!(wait <= Duration::from_millis(1050), "{wait:?}");
    let later = t.at(NOW + wait.as_millis() as i64);
    take(&later, &limits, ONE).await.unwrap();
    // The hour is known from the record: 99 were spent, and this one.
    let (wait, why) = take(&later, &limits, ONE).await.unwrap_err();
    assert_eq!(why, "window fixed:3600000");
    assert!(wait < 3_604_000 - 1000, "{wait}");
}

#[tokio::test]
async fn another_memory_begins_anew_with_what_the_record_knows() {
    let t = Bench::new().await;
    let limits = per_second(5);
    take(&t.broker, &limits, ONE).await.unwrap();
    let epoch = format!("bullwark:{}:epoch", t.prefix);
    t.raws(&[&*format!("SET {epoch} other")]).await;
    let refused = BTreeMap::new();
    let taken = t.broker.take_quota(&asked(&limits, None, &refused)).await;
    assert_eq!(taken.unwrap(), TakenQuota::Cold);
    let seed = QuotaSeed {
        closed_ms: 9000,
        ..nothing_spent()
    };
    let taken = t
        .broker
        .take_quota(&asked(&limits, Some(&seed), &refused))
        .await;
    let TakenQuota::Denied { wait, why, .. } = taken.unwrap() else {
        panic!("it was closed before");
    };
    assert_eq!((wait, why.as_str()), (Duration::from_secs(9), "closed"));
}

#[tokio::test]
async fn units_that_the_record_has_not_set_aside_are_not_given_away() {
    let t = Bench::new().await;
    let limits = Limits::of([Window::Sliding {
        max: 640,
        per_ms: 3_600_000,
    }]);
    let (seed, mut refused) = (nothing_spent(), BTreeMap::new());
    let taken = t
        .broker
        .take_quota(&asked(&limits, Some(&seed), &refused))
        .await;
    let TakenQuota::NeedsCredit { id, max, .. } = taken.unwrap() else {
        panic!("nothing was set aside");
    };
    assert_eq!((id.as_str(), max), ("sliding:3600000", 640));
    refused.insert(id, 0);
    let taken = t
        .broker
        .take_quota(&asked(&limits, Some(&seed), &refused))
        .await;
    assert!(matches!(taken.unwrap(), TakenQuota::Denied { .. }));
}
