use std::collections::BTreeSet;

use bullwark::broker::{BrokerState, Counts, IdPage};

use crate::support::{Bench, job, strings};

const EVERY_STATE: [(&str, BrokerState); 9] = [
    ("RPUSH @wait w", BrokerState::Wait),
    ("RPUSH @paused pa", BrokerState::Paused),
    ("LPUSH @active a", BrokerState::Active),
    ("ZADD @prioritized 1 pr", BrokerState::Prioritized),
    ("ZADD @delayed 1 d", BrokerState::Delayed),
    ("ZADD @waiting-children 1 wc", BrokerState::WaitingChildren),
    ("ZADD @completed 1 c", BrokerState::Completed),
    ("ZADD @failed 1 f", BrokerState::Failed),
    ("HSET @o name n", BrokerState::Orphan),
];

#[tokio::test]
async fn each_state_is_recognised_however_many_are_asked_for() {
    let t = Bench::new().await;
    for (arrange, _) in EVERY_STATE {
        t.raws(&[arrange]).await;
    }
    let names = ["w", "pa", "a", "pr", "d", "wc", "c", "f", "o", "none", "w"];
    let expected: Vec<Option<BrokerState>> = EVERY_STATE
        .iter()
        .map(|(_, state)| Some(*state))
        .chain([None, Some(BrokerState::Wait)])
        .collect();
    let before = t.dump().await;
    assert_eq!(
        t.broker.states(&t.queue, &strings(&names)).await.unwrap(),
        expected
    );
    for (name, state) in names.iter().zip(&expected) {
        let alone = t.broker.states(&t.queue, &strings(&[name])).await.unwrap();
        assert_eq!(alone, [*state], "{name}");
    }
    assert_eq!(t.dump().await, before);
}

#[tokio::test]
async fn a_long_list_is_walked_in_pages() {
    let t = Bench::new().await;
    let jobs: Vec<_> = (0..12_000).map(|i| job(&format!("j{i}"))).collect();
    t.broker.add(&t.queue, &jobs).await.unwrap();
    let ids = strings(&["j0", "j4999", "j5000", "j5001", "j11999", "j7", "none"]);
    let states = t.broker.states(&t.queue, &ids).await.unwrap();
    assert_eq!(states[..6], [Some(BrokerState::Wait); 6]);
    assert_eq!(states[6], None);
}

#[tokio::test]
async fn all_states_are_counted_at_one_moment() {
    let t = Bench::new().await;
    for (arrange, _) in EVERY_STATE {
        t.raws(&[arrange]).await;
    }
    t.raws(&["HSET @meta paused 1", "RPUSH @wait w2"]).await;
    assert_eq!(
        t.broker.counts(&t.queue).await.unwrap(),
        Counts {
            wait: 2,
            paused: 1,
            active: 1,
            prioritized: 1,
            delayed: 1,
            waiting_children: 1,
            completed: 1,
            failed: 1,
            is_paused: true
        }
    );
}

#[tokio::test]
async fn a_state_is_listed_page_by_page() {
    let t = Bench::new().await;
    t.add(&["a", "b", "c"]).await;
    let page = |offset| t.broker.list(&t.queue, BrokerState::Wait, offset, 2);
    let first = page(0).await.unwrap();
    assert_eq!(
        first,
        IdPage {
            ids: strings(&["c", "b"]),
            next: Some(2)
        }
    );
    assert_eq!(
        page(2).await.unwrap(),
        IdPage {
            ids: strings(&["a"]),
            next: None
        }
    );
    for (arrange, state) in EVERY_STATE {
        t.raws(&[arrange]).await;
        let ids = t
            .broker
            .list(&t.queue, state, 0, usize::MAX / 4)
            .await
            .unwrap()
            .ids;
        let expected = usize::from(state != BrokerState::Orphan);
        assert!(ids.len() >= expected, "{state:?}: {ids:?}");
    }
}

#[tokio::test]
async fn locks_and_keys_of_one_queue_are_enumerated() {
    let t = Bench::new().await;
    t.add(&["a", "b"]).await;
    t.claim(1).await;
    let _: () = t
        .send(
            redis::cmd("SET")
                .arg(format!("{}:qq:z:lock", t.prefix))
                .arg("1"),
        )
        .await;
    let (mut locks, mut keys) = (BTreeSet::new(), BTreeSet::new());
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        let page = t.broker.locks(&t.queue, at).await.unwrap();
        locks.extend(page.keys);
        cursor = page.next;
    }
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        let page = t.broker.scan_keys(&t.queue, at).await.unwrap();
        keys.extend(page.keys);
        cursor = page.next;
    }
    assert_eq!(locks, BTreeSet::from(["a".to_owned()]));
    let all = [
        "a", "a:lock", "active", "b", "events", "id", "marker", "meta", "wait",
    ];
    assert_eq!(keys, strings(&all).into_iter().collect());
}

#[tokio::test]
async fn queues_are_found_by_their_settings() {
    let t = Bench::new().await;
    let second = "b-2".parse().unwrap();
    t.broker.ensure_queue(&second).await.unwrap();
    t.broker.ensure_queue(&t.queue).await.unwrap();
    let _: () = t
        .send(
            redis::cmd("HSET")
                .arg(format!("{}:no:queue:meta", t.prefix))
                .arg(&["a", "b"]),
        )
        .await;
    assert_eq!(t.broker.queues().await.unwrap(), [second, t.queue.clone()]);
}

#[tokio::test]
async fn what_others_set_in_a_queue_stays() {
    let t = Bench::new().await;
    t.raws(&["HSET @meta version bullmq:6.7.0"]).await;
    t.broker.ensure_queue(&t.queue).await.unwrap();
    t.expect("meta {opts.maxLenEvents=10000 version=bullmq:6.7.0}")
        .await;
    t.raws(&["DEL @meta"]).await;
    t.broker.ensure_queue(&t.queue).await.unwrap();
    let version = env!("CARGO_PKG_VERSION");
    t.expect(&format!(
        "meta {{opts.maxLenEvents=10000 version=bullwark:{version}}}"
    ))
    .await;
}
