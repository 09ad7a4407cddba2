use std::time::Duration;

use bullwark::broker::BrokerState;

use crate::support::{Bench, NOW};

const HOUR: Duration = Duration::from_secs(3600);
const YOUNG: i64 = NOW - 60_000;
const OLD: i64 = NOW - 7_200_000;

/// Three old jobs, oldest first, and two young ones, in this state.
async fn aged(state: &str) -> Bench {
    let t = Bench::new().await;
    for at in 1..=5 {
        let time = if at <= 3 { OLD + at } else { YOUNG + at };
        t.raws(&[&format!("HSET @j{at} name n timestamp {time}")])
            .await;
        let place = match state {
            "wait" | "active" | "paused" => format!("LPUSH @{state} j{at}"),
            "completed" | "failed" => format!("ZADD @{state} {time} j{at}"),
            _ => format!("ZADD @{state} {at} j{at}"),
        };
        t.raws(&[&place]).await;
    }
    t
}

const STATES: [(&str, BrokerState); 7] = [
    ("wait", BrokerState::Wait),
    ("paused", BrokerState::Paused),
    ("active", BrokerState::Active),
    ("prioritized", BrokerState::Prioritized),
    ("delayed", BrokerState::Delayed),
    ("completed", BrokerState::Completed),
    ("failed", BrokerState::Failed),
];

#[tokio::test]
async fn old_jobs_of_a_state_are_deleted_oldest_first_and_young_ones_stay() {
    for (name, state) in STATES {
        let t = aged(name).await;
        let two = t.broker.clean(&t.queue, state, HOUR, 2).await.unwrap();
        assert_eq!(two, ["j1", "j2"], "{name}");
        let rest = t.broker.clean(&t.queue, state, HOUR, 100).await.unwrap();
        assert_eq!(rest, ["j3"], "{name}");
        let left: i64 = t.raw("EXISTS @j1 @j2 @j3 @j4 @j5").await;
        assert_eq!(left, 2, "{name}");
        let page = t.broker.list(&t.queue, state, 0, 9).await.unwrap();
        let mut ids = page.ids;
        ids.sort();
        assert_eq!(ids, ["j4", "j5"], "{name}");
        let events = t.dump().await;
        let events: Vec<&str> = events
            .lines()
            .filter(|line| line.starts_with("events"))
            .collect();
        let expected = [
            "events event=cleaned count=2",
            "events event=cleaned count=1",
        ];
        assert_eq!(events, expected, "{name}");
    }
}

#[tokio::test]
async fn an_active_job_with_a_lock_and_a_current_iteration_stay() {
    let t = aged("active").await;
    t.raws(&["SET @j1:lock t1", "SADD @stalled j1 j2"]).await;
    let ids = t.broker.clean(&t.queue, BrokerState::Active, HOUR, 9);
    assert_eq!(ids.await.unwrap(), ["j2", "j3"]);
    assert_eq!(t.raw::<Vec<String>>("SMEMBERS @stalled").await, ["j1"]);

    let t = aged("wait").await;
    t.raws(&[
        "ZADD @repeat 500 s",
        "HSET @repeat:s:500 name n rjk s timestamp 1",
        "RPUSH @wait repeat:s:500",
    ])
    .await;
    let zero = Duration::ZERO;
    let ids = t.broker.clean(&t.queue, BrokerState::Wait, zero, 99);
    assert_eq!(ids.await.unwrap(), ["j1", "j2", "j3", "j4", "j5"]);
    let wait: Vec<String> = t.raw("LRANGE @wait 0 -1").await;
    assert_eq!(wait, ["repeat:s:500"]);
}

#[tokio::test]
async fn more_jobs_than_one_call_looks_at_are_cleaned_behind_those_that_stay() {
    let t = Bench::new().await;
    for at in 0..1500 {
        t.raws(&[
            &format!("HSET @y{at} name n timestamp {YOUNG}"),
            &format!("LPUSH @wait y{at}"),
        ])
        .await;
    }
    t.raws(&[
        &format!("HSET @old name n timestamp {OLD}"),
        "LPUSH @wait old",
    ])
    .await;
    let ids = t.broker.clean(&t.queue, BrokerState::Wait, HOUR, 9);
    assert_eq!(ids.await.unwrap(), ["old"]);
    assert_eq!(t.raw::<i64>("LLEN @wait").await, 1500);
}

#[tokio::test]
async fn a_parent_in_the_same_queue_goes_with_its_last_child_and_one_elsewhere_is_released() {
    let t = Bench::new().await;
    let elsewhere = |suffix: &str| format!("{}:other:{suffix}", t.prefix);
    t.raws(&[
        "HSET @c1 name n parentKey @p",
        "HSET @p name n",
        "SADD @p:dependencies @c1",
        "ZADD @waiting-children 1 p",
        &format!("HSET @c2 name n deid x parentKey {}", elsewhere("p")),
        "SET @de:x c2",
        &format!("HSET {} name n", elsewhere("p")),
        &format!("SADD {} @c2", elsewhere("p:dependencies")),
        &format!("ZADD {} 1 p", elsewhere("waiting-children")),
        "RPUSH @wait c1 c2",
    ])
    .await;
    let drained = t.broker.drain(&t.queue, false).await.unwrap();
    assert_eq!(drained, 2);
    t.expect(&format!(
        "{marker} <0=0>
         {p} {{name=n}}
         {wait} [p]",
        marker = elsewhere("marker"),
        p = elsewhere("p"),
        wait = elsewhere("wait"),
    ))
    .await;
}

#[tokio::test]
async fn draining_takes_what_waits_and_what_is_delayed_only_if_asked() {
    let t = Bench::new().await;
    t.raws(&[
        "RPUSH @wait a",
        "RPUSH @paused b",
        "ZADD @prioritized 1 c",
        "ZADD @delayed 1 d 2 repeat:s:500",
        "ZADD @repeat 500 s",
        "LPUSH @active e",
        "ZADD @failed 1 f",
    ])
    .await;
    for id in ["a", "b", "c", "d", "e", "f"] {
        t.raws(&[&format!("HSET @{id} name n")]).await;
    }
    t.raws(&["HSET @repeat:s:500 name n rjk s"]).await;
    assert_eq!(t.broker.drain(&t.queue, false).await.unwrap(), 3);
    t.expect(
        "active [e]
         d {name=n}
         delayed <d=1 repeat:s:500=2>
         e {name=n}
         f {name=n}
         failed <f=1>
         repeat <s=500>
         repeat:s:500 {name=n rjk=s}",
    )
    .await;
    assert_eq!(t.broker.drain(&t.queue, true).await.unwrap(), 1);
    t.expect(
        "active [e]
         delayed <repeat:s:500=2>
         e {name=n}
         f {name=n}
         failed <f=1>
         repeat <s=500>
         repeat:s:500 {name=n rjk=s}",
    )
    .await;
}
