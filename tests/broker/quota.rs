//! Quotas in Redis, by a clock of the test: what is granted, what is not, and when to come back.

use std::collections::BTreeMap;
use std::time::Duration;

use bullwark::broker::{
    Broker, EndCall, Ended, QuotaCredit, QuotaSeed, QuotaTicket, TakeQuota, TakenQuota,
};
use bullwark::job::quota::{Limits, Window};
use uuid::Uuid;

use crate::support::{Bench, NOW};

const KEY: &str = "clearbit:w1";
const HOST: &str = "api.example";
const SECOND: Duration = Duration::from_secs(1);

/// A call that may be made, or when to come back and why.
pub(crate) type Went = Result<Uuid, (i64, String)>;

/// What wants to call, besides its limits.
#[derive(Clone, Copy)]
pub(crate) struct Want {
    pub(crate) cost: u32,
    pub(crate) is_interactive: bool,
    pub(crate) ticket: Option<Uuid>,
    pub(crate) has_breaker: bool,
    pub(crate) lease: Duration,
}

pub(crate) const ONE: Want = Want {
    cost: 1,
    is_interactive: false,
    ticket: None,
    has_breaker: false,
    lease: Duration::from_secs(60),
};

fn sliding(max: u32, per_ms: u64) -> Window {
    Window::Sliding { max, per_ms }
}

fn fixed(max: u32, per_ms: u64) -> Window {
    Window::Fixed { max, per_ms }
}

pub(crate) fn nothing_spent() -> QuotaSeed {
    QuotaSeed {
        idle_ms: u64::MAX / 2,
        ..QuotaSeed::default()
    }
}

/// Takes; whatever the record is asked for, it has.
pub(crate) async fn take(broker: &Broker, limits: &Limits, want: Want) -> Went {
    let (permit, seed, refused) = (Uuid::new_v4(), nothing_spent(), BTreeMap::new());
    let (mut credits, queue) = (Vec::new(), &"q".parse().unwrap());
    let job_id = want.ticket.map(|id| id.to_string());
    for _ in 0..9 {
        let asked = TakeQuota {
            key: KEY,
            host: want.has_breaker.then_some(HOST),
            permit,
            limits,
            cost: want.cost,
            is_interactive: want.is_interactive,
            lease: want.lease,
            ticket: job_id
                .as_deref()
                .map(|job_id| QuotaTicket { queue, job_id }),
            random: 0.5,
            is_joined: false,
            seed: Some(&seed),
            credits: &credits,
            refused: &refused,
        };
        match broker.take_quota(&asked).await.unwrap() {
            TakenQuota::Granted => return Ok(permit),
            TakenQuota::Denied { wait, why, which } => {
                return Err((wait.as_millis() as i64, format!("{why} {which}")));
            }
            TakenQuota::Cold => panic!("it has a seed"),
            odd @ TakenQuota::TooExpensive { .. } => panic!("{odd:?}"),
            TakenQuota::NeedsCredit { id, period, .. } => {
                let units = want.cost;
                credits = vec![QuotaCredit { id, period, units }];
            }
        }
    }
    panic!("it is asked for credits for ever");
}

pub(crate) async fn end(
    broker: &Broker,
    permit: Uuid,
    change: impl FnOnce(&mut EndCall<'_>),
) -> Ended {
    let mut call = EndCall {
        key: KEY,
        host: Some(HOST),
        permit,
        lease: ONE.lease,
        is_good: Some(true),
        learns: true,
        default_window: Duration::from_secs(60),
        ..EndCall::default()
    };
    change(&mut call);
    broker.end_quota(&call).await.unwrap()
}

/// Takes whatever it gets, every few ms; the moments of what was granted.
async fn greedy(t: &Bench, limits: &Limits, (from, to): (i64, i64), step: usize) -> Vec<i64> {
    let mut granted = Vec::new();
    for now in (from..to).step_by(step) {
        while take(&t.at(now), limits, ONE).await.is_ok() {
            granted.push(now);
        }
    }
    granted
}

/// The most that is in any stretch of this length.
fn densest(moments: &[i64], per_ms: i64) -> usize {
    let within = |from: i64| {
        let stretch = from..from + per_ms;
        moments.iter().filter(|m| stretch.contains(m)).count()
    };
    moments.iter().map(|from| within(*from)).max().unwrap_or(0)
}

#[tokio::test]
async fn no_stretch_has_more_than_a_sliding_window_allows_and_little_is_lost() {
    let t = Bench::new().await;
    let limits = Limits::of([sliding(40, 1000)]);
    let granted = greedy(&t, &limits, (NOW, NOW + 10_000), 7).await;
    assert!(densest(&granted, 1000) <= 40, "{}", densest(&granted, 1000));
    assert!(granted.len() >= 380, "{}", granted.len());
}

#[tokio::test]
async fn a_bucket_gives_what_it_holds_and_then_its_rate() {
    let t = Bench::new().await;
    let limits = Limits::of([Window::Bucket {
        capacity: 10,
        refill: 20,
        per_ms: 1000,
    }]);
    let granted = greedy(&t, &limits, (NOW, NOW + 5000), 10).await;
    let at_once = granted.iter().filter(|at| **at == NOW).count();
    assert_eq!(at_once, 10);
    assert!((109..=110).contains(&granted.len()), "{}", granted.len());
    // Empty, it says to the millisecond when there is enough again.
    let t = Bench::new().await;
    take(&t.broker, &limits, Want { cost: 10, ..ONE })
        .await
        .unwrap();
    let refused = take(&t.at(NOW), &limits, Want { cost: 3, ..ONE }).await;
    let (wait, why) = refused.unwrap_err();
    assert_eq!((wait, why.as_str()), (150, "window bucket:1000"));
}

#[tokio::test]
async fn a_fixed_window_opens_with_its_first_call() {
    let t = Bench::new().await;
    let limits = Limits::of([fixed(2, 60_000)]);
    let later = t.at(NOW + 50_000);
    take(&t.broker, &limits, ONE).await.unwrap();
    take(&later, &limits, ONE).await.unwrap();
    let (wait, why) = take(&later, &limits, ONE).await.unwrap_err();
    // Its end, and the way to the service.
    assert_eq!((wait, why.as_str()), (11_200, "window fixed:60000"));
    take(&t.at(NOW + 61_200), &limits, ONE).await.unwrap();
}

#[tokio::test]
async fn a_call_must_fit_into_all_windows_and_else_costs_none_of_them() {
    let t = Bench::new().await;
    let limits = Limits::of([sliding(5, 1000), fixed(8, 3_600_000)]);
    let five = Want { cost: 5, ..ONE };
    take(&t.broker, &limits, five).await.unwrap();
    let soon = t.at(NOW + 2000);
    let (_, why) = take(&soon, &limits, five).await.unwrap_err();
    assert_eq!(why, "window fixed:3600000");
    let three = Want { cost: 3, ..ONE };
    take(&soon, &limits, three).await.unwrap();
    let left = t.broker.read_quota(KEY, &limits).await.unwrap().unwrap();
    let left: Vec<u64> = left.windows.iter().map(|w| w.left).collect();
    assert_eq!(left[1], 0);
}

#[tokio::test]
async fn a_day_ends_at_midnight_of_its_zone_also_when_it_is_short() {
    let t = Bench::new().await;
    // 2026-03-29, 12:00 in Berlin: this day had 23 hours. It ends at 22:00 UTC.
    let noon = 1_774_778_400_000;
    let limits = Limits::of([Window::Daily {
        max: 2,
        zone: "Europe/Berlin".to_owned(),
    }]);
    for _ in 0..2 {
        take(&t.at(noon), &limits, ONE).await.unwrap();
    }
    let (wait, why) = take(&t.at(noon), &limits, ONE).await.unwrap_err();
    assert_eq!(
        (wait, why.as_str()),
        (12 * 3_600_000 + 2000, "window daily:Europe/Berlin")
    );
    // Around midnight nobody knows on which day the service counts a call.
    let midnight = noon + 12 * 3_600_000;
    assert!(take(&t.at(midnight + 1999), &limits, ONE).await.is_err());
    take(&t.at(midnight + 2000), &limits, ONE).await.unwrap();
}

#[tokio::test]
async fn what_is_kept_in_reserve_is_for_interactive_work() {
    let t = Bench::new().await;
    let limits = Limits::of([fixed(10, 60_000)]).reserve(20);
    for _ in 0..8 {
        take(&t.broker, &limits, ONE).await.unwrap();
    }
    assert!(take(&t.broker, &limits, ONE).await.is_err());
    let urgent = Want {
        is_interactive: true,
        ..ONE
    };
    for _ in 0..2 {
        take(&t.broker, &limits, urgent).await.unwrap();
    }
    assert!(take(&t.broker, &limits, urgent).await.is_err());
}

#[tokio::test]
async fn the_place_of_a_call_whose_worker_died_is_free_when_its_lease_ends() {
    let t = Bench::new().await;
    let limits = Limits::default().at_once(2);
    let first = take(&t.broker, &limits, ONE).await.unwrap();
    take(&t.broker, &limits, ONE).await.unwrap();
    let (_, why) = take(&t.broker, &limits, ONE).await.unwrap_err();
    assert_eq!(why, "concurrency ");
    end(&t.broker, first, |_| {}).await;
    take(&t.broker, &limits, ONE).await.unwrap();
    assert!(take(&t.at(NOW + 59_999), &limits, ONE).await.is_err());
    take(&t.at(NOW + 60_000), &limits, ONE).await.unwrap();
}

#[tokio::test]
async fn a_refusal_closes_the_key_for_everybody_and_longer_each_time_without_a_time() {
    let t = Bench::new().await;
    let limits = Limits::of([fixed(100, 1000)]);
    let permit = take(&t.broker, &limits, ONE).await.unwrap();
    let refused = |call: &mut EndCall<'_>| call.is_limited = true;
    let ended = end(&t.broker, permit, |call| {
        refused(call);
        call.closed_for = Some(SECOND * 30);
    })
    .await;
    assert_eq!(ended.closed_for, Some(SECOND * 30));
    let (wait, why) = take(&t.broker, &limits, ONE).await.unwrap_err();
    assert_eq!((wait, why.as_str()), (30_000, "closed "));
    // Nobody shortens it.
    let short = end(&t.broker, Uuid::new_v4(), |call| {
        call.is_good = Some(false);
        call.closed_for = Some(SECOND);
    })
    .await;
    assert_eq!(short.closed_for, Some(SECOND * 30));

    let later = t.at(NOW + 30_000);
    let mut waits = Vec::new();
    for _ in 0..3 {
        let ended = end(&later, Uuid::new_v4(), refused).await;
        waits.push(ended.closed_for.unwrap().as_millis());
    }
    assert_eq!(waits, [2000, 4000, 8000]);
    // A call that works forgets them.
    let after = t.at(NOW + 40_000);
    let permit = take(&after, &limits, ONE).await.unwrap();
    end(&after, permit, |_| {}).await;
    let ended = end(&after, Uuid::new_v4(), refused).await;
    assert_eq!(ended.closed_for, Some(SECOND));
}

#[tokio::test]
async fn a_permit_that_is_asked_for_twice_is_paid_once() {
    let t = Bench::new().await;
    let limits = Limits::of([fixed(2, 60_000)]);
    let (seed, refused) = (nothing_spent(), BTreeMap::new());
    let asked = TakeQuota {
        key: KEY,
        host: None,
        permit: Uuid::new_v4(),
        limits: &limits,
        cost: 1,
        is_interactive: false,
        lease: SECOND,
        ticket: None,
        random: 0.0,
        is_joined: false,
        seed: Some(&seed),
        credits: &[],
        refused: &refused,
    };
    for _ in 0..3 {
        let taken = t.broker.take_quota(&asked).await.unwrap();
        assert_eq!(taken, TakenQuota::Granted);
    }
    take(&t.broker, &limits, ONE).await.unwrap();
    assert!(take(&t.broker, &limits, ONE).await.is_err());
}
