use bullwark::broker::{BrokerError, Detached, Refusal, Removed};

use crate::support::{Bench, NOW};

#[tokio::test]
async fn a_job_is_removed_with_all_it_has_and_all_it_held() {
    for (arrange, prev) in [
        ("RPUSH @wait a", "wait"),
        ("RPUSH @paused a", "paused"),
        ("LPUSH @active a", "active"),
        ("ZADD @prioritized 1 a", "prioritized"),
        ("ZADD @delayed 1 a", "delayed"),
        ("ZADD @waiting-children 1 a", "waiting-children"),
        ("ZADD @completed 1 a", "completed"),
        ("ZADD @failed 1 a", "failed"),
        ("PING", "unknown"),
    ] {
        let t = Bench::new().await;
        t.raws(&[
            arrange,
            "HSET @a name n deid x",
            "SET @de:x a",
            "HSET @dn:x name n",
            "RPUSH @a:logs x",
            "HSET @a:processed k 1",
        ])
        .await;
        let removed = t.broker.remove(&t.queue, "a", false).await.unwrap();
        assert_eq!(removed, Removed::Done);
        t.raws(&["DEL @marker"]).await;
        let event = format!("events event=removed jobId=a prev={prev}");
        t.expect(&event).await;
        let again = t.broker.remove(&t.queue, "a", false).await.unwrap();
        assert_eq!(again, Removed::JobMissing);
        t.expect(&event).await;
    }
}

#[tokio::test]
async fn a_locked_job_a_current_iteration_and_a_key_of_the_queue_stay() {
    let t = Bench::new().await;
    t.raws(&[
        "HSET @a name n",
        "LPUSH @active a",
        "SET @a:lock t1",
        "HSET @repeat:s name n",
        "ZADD @repeat 500 s",
        "HSET @repeat:s:500 name n rjk s",
        "ZADD @delayed 1 repeat:s:500",
        "HSET @meta concurrency 1",
    ])
    .await;
    let before = t.dump().await;
    let remove = async |id: &str| t.broker.remove(&t.queue, id, true).await;
    assert_eq!(remove("a").await.unwrap(), Removed::Locked);
    assert_eq!(remove("repeat:s:500").await.unwrap(), Removed::Scheduled);
    assert!(matches!(
        remove("meta").await,
        Err(BrokerError::Refused(Refusal::JobId(_)))
    ));
    assert_eq!(t.dump().await, before);
    t.raws(&["ZADD @repeat 600 s"]).await;
    assert_eq!(remove("repeat:s:500").await.unwrap(), Removed::Done);
    assert_eq!(t.raw::<i64>("EXISTS @delayed @repeat:s:500").await, 0);
}

#[tokio::test]
async fn a_slot_of_a_full_queue_is_free_when_an_active_job_is_removed() {
    let t = Bench::new().await;
    t.raws(&[
        "HSET @meta concurrency 1",
        "HSET @a name n",
        "LPUSH @active a",
    ])
    .await;
    assert_eq!(
        t.broker.remove(&t.queue, "a", false).await.unwrap(),
        Removed::Done
    );
    assert_eq!(t.raw::<i64>("ZSCORE @marker 0").await, 0);
}

/// p waits for c1, which waits, and c4, which waits for g in another queue; c2 and c3 are over.
async fn family() -> Bench {
    let t = Bench::new().await;
    t.raws(&[
        "HSET @p name n",
        "ZADD @waiting-children 1 p",
        "SADD @p:dependencies @c1 @c4",
        "HSET @p:processed @c2 1",
        "HSET @p:failed @c3 boom",
        "HSET @c1 name n parentKey @p",
        "RPUSH @wait c1",
        "HSET @c2 name n parentKey @p",
        "ZADD @completed 1 c2",
        "HSET @c3 name n parentKey @p",
        "ZADD @failed 1 c3",
        "HSET @c4 name n parentKey @p",
        "ZADD @waiting-children 2 c4",
        &format!("SADD @c4:dependencies {}", other(&t, "g")),
        &format!("HSET {} name n parentKey @c4", other(&t, "g")),
        &format!("ZADD {} 9 g", other(&t, "delayed")),
    ])
    .await;
    t
}

fn other(t: &Bench, suffix: &str) -> String {
    format!("{}:other:{suffix}", t.prefix)
}

#[tokio::test]
async fn a_job_goes_with_its_children_in_every_queue_or_without_them() {
    let t = family().await;
    assert_eq!(
        t.broker.remove(&t.queue, "p", true).await.unwrap(),
        Removed::Done
    );
    let jobs: i64 = t
        .raw(&format!("EXISTS @p @c1 @c2 @c3 @c4 {}", other(&t, "g")))
        .await;
    let places: i64 = t
        .raw(&format!(
            "EXISTS @waiting-children @wait @completed @failed @p:dependencies {}",
            other(&t, "delayed")
        ))
        .await;
    assert_eq!((jobs, places), (0, 0));
    let announced: i64 = t.raw("XLEN @events").await;
    assert_eq!(
        announced, 5,
        "each of this queue, and no parent was released"
    );
    assert_eq!(t.raw::<i64>("EXISTS @marker").await, 0);

    let t = family().await;
    assert_eq!(
        t.broker.remove(&t.queue, "p", false).await.unwrap(),
        Removed::Done
    );
    let jobs: i64 = t.raw("EXISTS @p @c1 @c2 @c3 @c4").await;
    assert_eq!(jobs, 4);
}

#[tokio::test]
async fn a_locked_descendant_keeps_the_whole_tree() {
    let t = family().await;
    t.raws(&[&format!("SET {} t1", other(&t, "g:lock"))]).await;
    let before = t.dump().await;
    assert_eq!(
        t.broker.remove(&t.queue, "p", true).await.unwrap(),
        Removed::Locked
    );
    assert_eq!(t.dump().await, before);
}

#[tokio::test]
async fn a_large_tree_goes_in_parts() {
    let t = Bench::new().await;
    t.raws(&["HSET @p name n", "ZADD @waiting-children 1 p"])
        .await;
    for at in 0..2300 {
        t.raws(&[
            &format!("HSET @c{at} name n parentKey @p"),
            &format!("RPUSH @wait c{at}"),
            &format!("SADD @p:dependencies @c{at}"),
        ])
        .await;
    }
    assert_eq!(
        t.broker.remove(&t.queue, "p", true).await.unwrap(),
        Removed::Done
    );
    t.raws(&["DEL @events @marker"]).await;
    t.expect("").await;
}

#[tokio::test]
async fn children_that_nobody_began_are_removed_and_their_parent_is_released() {
    let t = family().await;
    let removed = t.broker.remove_children(&t.queue, "p").await.unwrap();
    assert_eq!(removed, Some(3));
    let all = t.dump().await;
    // The children of a job are in no order.
    let mut events: Vec<&str> = all
        .lines()
        .filter(|line| line.contains("events "))
        .collect();
    events.sort_unstable();
    let expected = [
        "events event=removed jobId=c1 prev=wait",
        "events event=removed jobId=c4 prev=waiting-children",
        "events event=waiting jobId=p prev=waiting-children",
        &format!("{} event=removed jobId=g prev=delayed", other(&t, "events")),
    ];
    assert_eq!(events, expected);
    t.raws(&[&format!("DEL @events {}", other(&t, "events"))])
        .await;
    let p = t.key("p");
    t.expect(&format!(
        "c2 {{name=n parentKey={p}}}
         c3 {{name=n parentKey={p}}}
         completed <c2=1>
         failed <c3=1>
         marker <0=0>
         p {{name=n}}
         p:failed {{{c3}=boom}}
         p:processed {{{c2}=1}}
         wait [p]",
        c2 = t.key("c2"),
        c3 = t.key("c3"),
    ))
    .await;
}

#[tokio::test]
async fn children_that_somebody_works_on_stay_and_so_do_failed_ones() {
    let t = family().await;
    t.raws(&["SET @c4:lock t1", "LREM @wait 1 c1", "ZADD @failed 2 c1"])
        .await;
    let before = t.dump().await;
    let removed = t.broker.remove_children(&t.queue, "p").await.unwrap();
    assert_eq!((removed, t.dump().await), (Some(0), before));
    assert_eq!(
        t.broker.remove_children(&t.queue, "x").await.unwrap(),
        Some(0)
    );
}

#[tokio::test]
async fn a_child_that_loses_its_parent_releases_it_if_it_was_the_last() {
    let t = Bench::new().await;
    let parent = t.key("p");
    let detach = async || t.broker.detach_child(&t.queue, "c", &parent).await.unwrap();
    assert_eq!(detach().await, Detached::JobMissing);
    t.raws(&[&format!(
        "HSET @c name n timestamp {NOW} parentKey @p parent {{}}"
    )])
    .await;
    assert_eq!(detach().await, Detached::ParentMissing);
    t.raws(&["HSET @p name n", "ZADD @waiting-children 1 p"])
        .await;
    assert_eq!(detach().await, Detached::NotPending);
    t.raws(&["SADD @p:dependencies @c", "RPUSH @wait c"]).await;
    assert_eq!(detach().await, Detached::Done);
    t.expect(&format!(
        "c {{name=n timestamp={NOW}}}
         events event=waiting jobId=p prev=waiting-children
         marker <0=0>
         p {{name=n}}
         wait [c p]"
    ))
    .await;
    assert_eq!(detach().await, Detached::NotPending);
}

#[tokio::test]
async fn a_job_with_too_many_descendants_to_look_at_is_left_alone() {
    let t = Bench::new().await;
    t.raws(&["HSET @p name n", "ZADD @failed 1 p"]).await;
    for part in 0..6 {
        let mut cmd = redis::cmd("SADD");
        cmd.arg(t.key("p:dependencies"));
        for at in 0..10_000 {
            cmd.arg(t.key(&format!("c{part}:{at}")));
        }
        t.send::<i64>(&cmd).await;
    }
    let removed = t.broker.remove(&t.queue, "p", true).await.unwrap();
    assert_eq!(removed, Removed::TooManyChildren);
    let children = t.broker.remove_children(&t.queue, "p").await.unwrap();
    assert_eq!(children, None);
    assert_eq!(t.raw::<i64>("SCARD @p:dependencies").await, 60_000);
    assert_eq!(
        t.broker.remove(&t.queue, "p", false).await.unwrap(),
        Removed::Done
    );
}
