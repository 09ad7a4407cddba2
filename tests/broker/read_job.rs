use bullwark::broker::{
    BrokerState, ChildCounts, ChildState, FinishedState, JobEnd, JobHash, Metrics, Order,
};

use crate::support::{Bench, STEP, strings};

#[tokio::test]
async fn a_job_is_read_whole_and_a_missing_one_is_none() {
    let t = Bench::new().await;
    t.raws(&[
        "HSET @a name n data [1] opts {\"attempts\":3} timestamp 10 delay 20 priority 3",
        "HSET @a progress 50 processedOn 30 finishedOn 40 returnvalue 7 failedReason boom",
        "HSET @a stacktrace [] atm 1 ats 2 stc 3 defa why pb w1 parentKey k parent {} rjk s",
        "HSET @a deid x nrjid repeat:s:9",
        "HSET @old attemptsMade 4",
    ])
    .await;
    let own = |text: &str| Some(text.to_owned());
    let expected = JobHash {
        id: "a".into(),
        name: "n".into(),
        data: "[1]".into(),
        opts: "{\"attempts\":3}".into(),
        timestamp_ms: 10,
        delay_ms: 20,
        priority: 3,
        progress: own("50"),
        processed_ms: Some(30),
        finished_ms: Some(40),
        returnvalue: own("7"),
        failed_reason: own("boom"),
        stacktrace: own("[]"),
        attempts_made: 1,
        attempts_started: 2,
        stalled: 3,
        deferred_failure: own("why"),
        processed_by: own("w1"),
        parent_key: own("k"),
        parent: own("{}"),
        schedule_id: own("s"),
        next_iteration_id: own("repeat:s:9"),
        dedup_id: own("x"),
    };
    assert_eq!(t.broker.job(&t.queue, "a").await.unwrap(), Some(expected));
    let jobs = t
        .broker
        .jobs(&t.queue, &strings(&["x", "old"]))
        .await
        .unwrap();
    assert_eq!(jobs[0], None);
    let old = jobs[1].as_ref().unwrap();
    assert_eq!((old.attempts_made, old.data.as_str()), (4, "{}"));
}

#[tokio::test]
async fn an_end_is_told_from_a_job_that_is_open_or_missing() {
    let t = Bench::new().await;
    t.raws(&[
        "HSET @open name n",
        "HSET @good returnvalue 7",
        "ZADD @completed 1 good",
        "HSET @bad failedReason boom",
        "ZADD @failed 1 bad",
    ])
    .await;
    for (id, end) in [
        ("open", JobEnd::Open),
        ("missing", JobEnd::JobMissing),
        ("good", JobEnd::Completed("7".into())),
        ("bad", JobEnd::Failed("boom".into())),
    ] {
        assert_eq!(t.broker.job_end(&t.queue, id).await.unwrap(), end);
    }
}

#[tokio::test]
async fn a_state_is_read_in_pages_from_either_end() {
    let t = Bench::new().await;
    t.raws(&["LPUSH @wait a b c d", "ZADD @failed 1 a 2 b 3 c 4 d"])
        .await;
    for state in [BrokerState::Wait, BrokerState::Failed] {
        let page = async |offset, limit, order| {
            let page = t.broker.range(&t.queue, state, offset, limit, order);
            page.await.unwrap()
        };
        assert_eq!(page(0, 3, Order::Ascending).await, ["a", "b", "c"]);
        assert_eq!(page(3, 3, Order::Ascending).await, ["d"]);
        assert_eq!(page(0, 3, Order::Descending).await, ["d", "c", "b"]);
        assert_eq!(page(3, 3, Order::Descending).await, ["a"]);
        assert_eq!(page(4, 3, Order::Ascending).await, strings(&[]));
    }
}

#[tokio::test]
async fn jobs_are_counted_per_state_and_per_priority() {
    let t = Bench::new().await;
    t.raws(&[
        "RPUSH @wait a b",
        "RPUSH @paused c",
        &format!(
            "ZADD @prioritized {} d {} e {} f",
            STEP,
            2 * STEP - 1,
            2 * STEP
        ),
    ])
    .await;
    let counts = t.broker.counts_per_priority(&t.queue, &[0, 1, 2, 3]);
    assert_eq!(counts.await.unwrap(), [3, 2, 1, 0]);
    let counts = t.broker.counts(&t.queue).await.unwrap();
    assert_eq!(counts.of(BrokerState::Wait), 2);
    assert_eq!(counts.of(BrokerState::Paused), 1);
    assert_eq!(counts.of(BrokerState::Prioritized), 3);
    assert_eq!(counts.of(BrokerState::Failed), 0);
}

#[tokio::test]
async fn a_parent_knows_its_children_by_what_became_of_them() {
    let t = Bench::new().await;
    t.raws(&[
        "HSET @p:processed k1 1 k2 2",
        "SADD @p:dependencies k3",
        "HSET @p:failed k4 boom",
        "ZADD @p:unsuccessful 9 k5",
    ])
    .await;
    let counts = t.broker.child_counts(&t.queue, "p").await.unwrap();
    let expected = ChildCounts {
        processed: 2,
        pending: 1,
        ignored: 1,
        failed: 1,
    };
    assert_eq!(counts, expected);
    let own = |key: &str, value: Option<&str>| (key.to_owned(), value.map(str::to_owned));
    let values = t.broker.children_values(&t.queue, "p").await.unwrap();
    assert_eq!(
        values.children,
        [own("k1", Some("1")), own("k2", Some("2"))]
    );
    assert_eq!(values.next, None);
    let ignored = t.broker.ignored_failures(&t.queue, "p").await.unwrap();
    assert_eq!(ignored.children, [own("k4", Some("boom"))]);
    for (state, key) in [(ChildState::Pending, "k3"), (ChildState::Failed, "k5")] {
        let page = t
            .broker
            .children(&t.queue, "p", state, 0, 10)
            .await
            .unwrap();
        assert_eq!((page.children, page.next), (vec![own(key, None)], None));
    }
}

#[tokio::test]
async fn many_children_come_in_pages() {
    let t = Bench::new().await;
    for at in 0..1500 {
        t.raws(&[&format!("HSET @p:processed k{at} {at}")]).await;
    }
    let (mut seen, mut cursor, mut pages) = (std::collections::BTreeSet::new(), 0, 0);
    loop {
        let page = t
            .broker
            .children(&t.queue, "p", ChildState::Processed, cursor, 200);
        let page = page.await.unwrap();
        seen.extend(page.children);
        pages += 1;
        match page.next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    assert!(pages > 3, "{pages}");
    assert_eq!(seen.len(), 1500);
    let whole = t.broker.children_values(&t.queue, "p").await.unwrap();
    assert_eq!((whole.children.len(), whole.next), (1500, None));
}

#[tokio::test]
async fn metrics_are_read_newest_point_first() {
    let t = Bench::new().await;
    let metrics = async |offset| {
        let metrics = t.broker.metrics(&t.queue, FinishedState::Failed, offset, 2);
        metrics.await.unwrap()
    };
    assert_eq!(metrics(0).await, Metrics::default());
    t.raws(&[
        "HSET @metrics:failed count 9 prevTS 60000 prevCount 8",
        "RPUSH @metrics:failed:data 3 2 1",
    ])
    .await;
    let expected = Metrics {
        count: 9,
        prev_ms: 60_000,
        prev_count: 8,
        points: vec![3, 2],
        points_total: 3,
    };
    assert_eq!(metrics(0).await, expected);
    assert_eq!(metrics(2).await.points, [1]);
}

#[tokio::test]
async fn workers_are_found_by_the_names_of_their_connections() {
    let t = Bench::new().await;
    let client = redis::Client::open(crate::support::server().url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    // `q` in base 64.
    let name = format!("{}:cQ==:w:mine", t.prefix);
    redis::cmd("CLIENT")
        .arg("SETNAME")
        .arg(name)
        .exec(&mut connection)
        .unwrap();
    let workers = t.broker.workers(&t.queue).await.unwrap();
    assert_eq!(workers.len(), 1, "{workers:?}");
    assert_eq!(workers[0].name.as_deref(), Some("mine"));
    assert!(workers[0].connection_id > 0 && workers[0].address.starts_with("127.0.0.1:"));
    drop(connection);
}
