use std::time::Duration;

use bullwark::broker::{ClaimOptions, ClaimedJob, LinkedJob, NewJob};

use crate::support::{Bench, NOW, NOW_SCORE, STEP, claim_options, ids, job};

fn prioritized(id: &str, priority: u32) -> NewJob {
    NewJob {
        priority,
        ..job(id)
    }
}

#[tokio::test]
async fn a_claimed_job_is_active_under_a_lock_and_the_next_sleeper_is_woken() {
    let t = Bench::new().await;
    t.add(&["a"]).await;
    t.raws(&["DEL @events @marker"]).await;
    let options = ClaimOptions {
        worker_name: Some("w1".into()),
        ..claim_options("tok", 10)
    };
    let claimed = t.broker.claim(&t.queue, &options).await.unwrap();
    assert_eq!(
        claimed.jobs,
        [ClaimedJob {
            id: "a".into(),
            name: "n".into(),
            data: "{}".into(),
            opts: "{}".into(),
            timestamp_ms: NOW,
            attempts_started: 1,
            ..ClaimedJob::default()
        }]
    );
    assert_eq!(
        (claimed.now_ms, claimed.next_due_ms, claimed.is_held),
        (NOW, None, false)
    );
    t.expect(&format!(
        "a {{ats=1 data={{}} delay=0 name=n opts={{}} pb=w1 priority=0 processedOn={NOW} \
         timestamp={NOW}}}
         a:lock = tok ttl<=30s
         active [a]
         events event=active jobId=a prev=waiting
         id = 1
         marker <0=0>"
    ))
    .await;
}

#[tokio::test]
async fn all_that_a_hash_can_tell_is_handed_out() {
    let t = Bench::new().await;
    t.raws(&[
        "HSET @7 name mail data [1] opts {} timestamp 5 delay 3 priority 2 ats 4 atm 3 stc 1",
        "HSET @7 defa boom parentKey bull:p:1 parent {\"id\":\"1\"} rjk sched deid dd",
        "ZADD @prioritized 1 7",
    ])
    .await;
    let claimed = t.claim(1).await;
    assert_eq!(
        claimed.jobs[0],
        ClaimedJob {
            id: "7".into(),
            name: "mail".into(),
            data: "[1]".into(),
            opts: "{}".into(),
            timestamp_ms: 5,
            delay_ms: 3,
            priority: 2,
            attempts_started: 5,
            is_counted: true,
            attempts_made: 3,
            stalled_count: 1,
            deferred_failure: Some("boom".into()),
            parent_key: Some("bull:p:1".into()),
            parent: Some("{\"id\":\"1\"}".into()),
            repeat_job_key: Some("sched".into()),
            dedup_id: Some("dd".into()),
            stacktrace: None,
            was_started: false,
            hash: Vec::new(),
        }
    );
}

#[tokio::test]
async fn an_empty_queue_gives_nothing_and_is_left_as_it_is() {
    let t = Bench::new().await;
    t.raws(&["SET @pc 9"]).await;
    let claimed = t.claim(5).await;
    assert!(claimed.jobs.is_empty() && !claimed.is_held);
    t.expect("").await;
}

#[tokio::test]
async fn jobs_without_priority_come_first_then_urgent_ones_then_by_arrival() {
    let t = Bench::new().await;
    let jobs = [
        prioritized("p11a", 11),
        prioritized("p1a", 1),
        prioritized("p11b", 11),
        prioritized("p1b", 1),
        job("foreign1"),
        job("foreign2"),
        NewJob {
            lifo: true,
            ..job("lifo1")
        },
        NewJob {
            lifo: true,
            ..job("lifo2")
        },
    ];
    t.broker.add(&t.queue, &jobs).await.unwrap();
    let order = [
        "lifo2", "lifo1", "foreign1", "foreign2", "p1a", "p1b", "p11a", "p11b",
    ];
    let mut claimed = Vec::new();
    for max in [3, 2, 1, 10] {
        claimed.extend(ids(&t.claim(max).await).iter().map(|id| (*id).to_owned()));
    }
    assert_eq!(claimed, order);
    let mut active: Vec<String> = t.raw("LRANGE @active 0 -1").await;
    active.reverse();
    assert_eq!(active, order, "the oldest is at the tail");
    assert_eq!(
        t.raw::<i64>("EXISTS @pc").await,
        0,
        "prioritized was found empty"
    );
}

#[tokio::test]
async fn due_jobs_are_promoted_in_order_and_by_priority() {
    let t = Bench::new().await;
    let due = |id: &str, ms: i64, priority| NewJob {
        due_ms: Some(NOW + ms),
        ..prioritized(id, priority)
    };
    let jobs = [
        due("c", 2, 0),
        due("a", 1, 0),
        due("p", 1, 5),
        due("b", 1, 0),
        due("later", 100, 0),
    ];
    t.broker.add(&t.queue, &jobs).await.unwrap();
    t.raws(&["DEL @events @marker"]).await;
    assert!(
        t.claim(9).await.jobs.is_empty(),
        "the server's clock decides"
    );

    let claimed = t
        .at(NOW + 2)
        .claim(&t.queue, &claim_options("t1", 1))
        .await
        .unwrap();
    assert_eq!(ids(&claimed), ["a"]);
    assert_eq!(claimed.next_due_ms, Some(NOW + 100));
    let found = t.dump().await;
    for line in [
        "events event=waiting jobId=a prev=delayed",
        "events event=waiting jobId=p prev=delayed",
        "events event=active jobId=a prev=waiting",
        "marker <0=0>",
        "wait [c b]",
        &format!("prioritized <p={}>", 5 * STEP + 1),
        &format!("delayed <later={}>", NOW_SCORE + 100 * 4096),
    ] {
        assert!(
            found.lines().any(|l| l == line),
            "{line} is not in\n{found}"
        );
    }
    assert_eq!(t.raw::<i64>("HGET @c delay").await, 0);
}

#[tokio::test]
async fn one_claim_promotes_a_thousand_jobs_at_most() {
    let t = Bench::new().await;
    let jobs: Vec<NewJob> = (0..1001)
        .map(|i| NewJob {
            due_ms: Some(NOW + 1),
            ..job(&format!("j{i}"))
        })
        .collect();
    t.broker.add(&t.queue, &jobs).await.unwrap();
    t.at(NOW + 1)
        .claim(&t.queue, &claim_options("t1", 1))
        .await
        .unwrap();
    assert_eq!(
        t.raw::<Vec<String>>("ZRANGE @delayed 0 -1").await,
        ["j1000"]
    );
    assert_eq!(t.raw::<usize>("LLEN @wait").await, 999);
}

#[tokio::test]
async fn a_paused_queue_promotes_but_gives_nothing() {
    let t = Bench::new().await;
    let later = NewJob {
        due_ms: Some(NOW + 1),
        ..job("later")
    };
    t.broker.add(&t.queue, &[job("a"), later]).await.unwrap();
    t.broker.pause(&t.queue).await.unwrap();
    let claimed = t
        .at(NOW + 1)
        .claim(&t.queue, &claim_options("t1", 9))
        .await
        .unwrap();
    assert!(claimed.jobs.is_empty() && claimed.is_held);
    assert_eq!(
        t.raw::<Vec<String>>("LRANGE @wait 0 -1").await,
        ["later", "a"]
    );
    assert_eq!(t.raw::<i64>("EXISTS @marker @active @a:lock").await, 0);
}

#[tokio::test]
async fn an_id_without_a_hash_is_dropped_and_makes_no_ghost() {
    let t = Bench::new().await;
    t.add(&["a", "lost", "b"]).await;
    t.broker
        .add(&t.queue, &[prioritized("lostp", 1), prioritized("p", 2)])
        .await
        .unwrap();
    t.raws(&["DEL @lost @lostp"]).await;
    assert_eq!(
        ids(&t.claim(3).await),
        ["a", "b", "p"],
        "others take its place"
    );
    assert_eq!(
        t.raw::<Vec<String>>("LRANGE @active 0 -1").await,
        ["p", "b", "a"]
    );
    assert_eq!(t.raw::<i64>("EXISTS @lost @lost:lock @lostp").await, 0);
}

#[tokio::test]
async fn old_markers_are_skipped_and_an_old_paused_list_is_drained_after_wait() {
    let t = Bench::new().await;
    t.add(&["p1", "p2"]).await;
    t.raws(&["RENAME @wait @paused"]).await;
    t.add(&["w1", "w2"]).await;
    t.raws(&["RPUSH @wait 0:123", "LPUSH @wait 0:7"]).await;
    assert_eq!(ids(&t.claim(1).await), ["w1"]);
    assert_eq!(ids(&t.claim(3).await), ["w2", "p1", "p2"]);
    assert_eq!(t.raw::<i64>("EXISTS @wait @paused").await, 0);
}

#[tokio::test]
async fn what_is_no_text_costs_nothing_but_itself() {
    let t = Bench::new().await;
    t.add(&["a", "b"]).await;
    let _: i64 = t
        .send(
            redis::cmd("HSET")
                .arg(t.key("a"))
                .arg("data")
                .arg(&[b'"', 0xff, b'"'][..]),
        )
        .await;
    let claimed = t.claim(9).await;
    assert_eq!(ids(&claimed), ["a", "b"]);
    assert_eq!(claimed.jobs[0].data, "\"\u{fffd}\"");
}

#[tokio::test]
async fn production_uses_the_server_clock() {
    let t = Bench::new().await;
    let live = t.broker_with_server_clock().await;
    let now = live.server_time_ms().await.unwrap();
    let soon = NewJob {
        due_ms: Some(now + 60_000),
        timestamp_ms: now,
        ..job("soon")
    };
    live.add(&t.queue, &[soon, job("a")]).await.unwrap();
    let options = ClaimOptions {
        lease: Duration::from_millis(1500),
        ..claim_options("t", 9)
    };
    let claimed = live.claim(&t.queue, &options).await.unwrap();
    assert_eq!(ids(&claimed), ["a"]);
    assert_eq!(claimed.next_due_ms, Some(now + 60_000));
    assert!(
        (now..now + 10_000).contains(&claimed.now_ms),
        "{}",
        claimed.now_ms
    );
    assert!((1..=1500).contains(&t.raw::<i64>("PTTL @a:lock").await));
}

/// A job of the record brings its count along, a client's begins without one; and a client that
/// runs a job again may take the count away.
#[tokio::test]
async fn a_claim_tells_whether_the_hash_counts_the_starts() {
    let t = Bench::new().await;
    let counted = NewJob {
        attempts_started: Some(0),
        ..job("ours")
    };
    let jobs = [counted, job("theirs")];
    t.broker.add(&t.queue, &jobs).await.unwrap();
    let linked = |id: &str, starts| LinkedJob {
        attempts_started: starts,
        timestamp_ms: Some(NOW),
        ..LinkedJob::from(job(id))
    };
    let jobs = [linked("child", Some(0)), linked("plain", None)];
    t.broker.add_linked(&t.queue, &jobs).await.unwrap();
    let claimed = t.claim(4).await.jobs;
    let told = |job: &ClaimedJob| (job.id.clone(), job.attempts_started, job.is_counted);
    assert_eq!(
        claimed.iter().map(told).collect::<Vec<_>>(),
        [
            ("ours", true),
            ("theirs", false),
            ("child", true),
            ("plain", false)
        ]
        .map(|(id, is_counted)| (id.to_owned(), 1, is_counted))
    );
    t.raws(&["HDEL @ours ats", "LREM @active 1 ours", "LPUSH @wait ours"])
        .await;
    let again = t.claim(1).await.jobs;
    assert_eq!(told(&again[0]), ("ours".to_owned(), 1, false));
}
