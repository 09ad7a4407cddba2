use bullwark::broker::{ChildrenAwaited, Settled};

use crate::support::{Bench, NOW, NOW_SCORE, STEP};

async fn active() -> Bench {
    let t = Bench::new().await;
    t.raws(&[
        &format!("HSET @a name n timestamp {NOW} delay 0 priority 0 ats 1"),
        "LPUSH @active a",
        "SET @a:lock t1 PX 30000",
        "SADD @stalled a",
    ])
    .await;
    t
}

#[tokio::test]
async fn a_running_job_is_put_off_with_or_without_spending_an_attempt() {
    for (skip_attempt, attempts) in [(true, ""), (false, "atm=1 ")] {
        let t = active().await;
        let moved = t
            .broker
            .move_to_delayed(&t.queue, "a", "t1", 700, skip_attempt);
        assert_eq!(moved.await.unwrap(), Settled::Done);
        let due = NOW + 700;
        t.expect(&format!(
            "a {{{attempts}ats=1 delay=700 name=n priority=0 timestamp={NOW}}}
             delayed <a={score}>
             events event=delayed jobId=a delay={due}
             marker <1={due}>",
            score = NOW_SCORE + 700 * 4096,
        ))
        .await;
    }
}

#[tokio::test]
async fn a_delay_that_is_over_is_a_delay_all_the_same() {
    let t = active().await;
    let moved = t.broker.move_to_delayed(&t.queue, "a", "t1", -5, true);
    assert_eq!(moved.await.unwrap(), Settled::Done);
    assert_eq!(t.raw::<i64>("ZSCORE @delayed a").await, NOW_SCORE);
    assert_eq!(t.raw::<i64>("EXISTS @wait").await, 0);
}

#[tokio::test]
async fn a_running_job_goes_back_to_the_front_and_hears_of_the_rate_limit() {
    let t = active().await;
    t.raws(&["RPUSH @wait x y", "SET @limiter 3 PX 50000"])
        .await;
    let (moved, rate_wait_ms) = t.broker.move_to_wait(&t.queue, "a", "t1").await.unwrap();
    assert_eq!(moved, Settled::Done);
    assert!((40_000..=50_000).contains(&rate_wait_ms), "{rate_wait_ms}");
    t.expect(&format!(
        "a {{ats=1 delay=0 name=n priority=0 timestamp={NOW}}}
         events event=waiting jobId=a prev=active
         limiter = 3 ttl<=50s
         marker <0=0>
         wait [x y a]"
    ))
    .await;

    let t = active().await;
    t.raws(&["HSET @a priority 4"]).await;
    let moved = t.broker.move_to_wait(&t.queue, "a", "t1").await.unwrap();
    assert_eq!(moved, (Settled::Done, 0));
    assert_eq!(t.raw::<i64>("ZSCORE @prioritized a").await, 4 * STEP);
}

#[tokio::test]
async fn a_running_job_waits_for_its_children_as_long_as_some_are_pending() {
    let t = active().await;
    let wait = async |child: Option<&str>| {
        t.broker
            .move_to_waiting_children(&t.queue, "a", "t1", child)
            .await
            .unwrap()
    };
    assert_eq!(wait(None).await, ChildrenAwaited::NothingPending);
    t.raws(&["SADD @a:dependencies @b"]).await;
    let before = t.dump().await;
    let other = t.key("c");
    assert_eq!(wait(Some(&other)).await, ChildrenAwaited::NothingPending);
    assert_eq!(t.dump().await, before);
    let child = t.key("b");
    assert_eq!(wait(Some(&child)).await, ChildrenAwaited::Waits);
    t.expect(&format!(
        "a {{ats=1 delay=0 name=n priority=0 timestamp={NOW}}}
         a:dependencies {{{child}}}
         events event=waiting-children jobId=a prev=active
         waiting-children <a={NOW}>"
    ))
    .await;
    assert_eq!(
        wait(None).await,
        ChildrenAwaited::Refused(Settled::LockMissing)
    );
}

#[tokio::test]
async fn a_job_with_a_failed_child_waits_for_no_other() {
    let t = active().await;
    t.raws(&["SADD @a:dependencies @b", "ZADD @a:unsuccessful 1 @c"])
        .await;
    let before = t.dump().await;
    let moved = t.broker.move_to_waiting_children(&t.queue, "a", "t1", None);
    assert_eq!(moved.await.unwrap(), ChildrenAwaited::ChildFailed);
    assert_eq!(t.dump().await, before);
}

#[tokio::test]
async fn without_the_lock_nothing_is_moved() {
    for (arrange, refusal) in [
        ("DEL @a:lock", Settled::LockMissing),
        ("SET @a:lock t2", Settled::LockMismatch),
        ("DEL @active", Settled::NotActive),
        ("DEL @a", Settled::JobMissing),
    ] {
        let t = active().await;
        t.raws(&["SADD @a:dependencies @b", arrange]).await;
        let before = t.dump().await;
        let delayed = t.broker.move_to_delayed(&t.queue, "a", "t1", 5, true);
        assert_eq!(delayed.await.unwrap(), refusal);
        let waits = t.broker.move_to_wait(&t.queue, "a", "t1").await.unwrap();
        assert_eq!(waits.0, refusal);
        let parent = t.broker.move_to_waiting_children(&t.queue, "a", "t1", None);
        assert_eq!(parent.await.unwrap(), ChildrenAwaited::Refused(refusal));
        assert_eq!(t.dump().await, before, "{arrange}");
    }
}
