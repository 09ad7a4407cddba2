use bullwark::broker::{NewJob, Retry, Settled};

use crate::support::{Bench, NOW, NOW_SCORE, STEP, job};

fn retry(id: &str, delay_ms: i64) -> Retry {
    Retry {
        id: id.into(),
        token: "t1".into(),
        delay_ms,
        reason: "boom".into(),
        stacktrace: "[]".into(),
        count_attempt: true,
        lifo: false,
    }
}

#[tokio::test]
async fn a_retry_goes_to_delayed_or_straight_back() {
    let t = Bench::new().await;
    let urgent = NewJob {
        priority: 3,
        ..job("urgent")
    };
    t.broker
        .add(&t.queue, &[job("later"), job("now"), urgent])
        .await
        .unwrap();
    t.claim(3).await;
    t.raws(&["DEL @events @marker", "SADD @stalled now"]).await;
    let jobs = [retry("later", 1000), retry("now", 0), retry("urgent", 0)];
    let settled = t.at(NOW + 1).retry(&t.queue, &jobs).await.unwrap();
    assert_eq!(settled, [Settled::Done; 3]);
    let due = NOW + 1001;
    let hash = |delay: i64, priority: u32| {
        format!(
            "{{atm=1 ats=1 data={{}} delay={delay} failedReason=boom name=n opts={{}} \
             priority={priority} processedOn={NOW} stacktrace=[] timestamp={NOW}}}"
        )
    };
    t.expect(&format!(
        "delayed <later={score}>
         events event=delayed jobId=later delay={due}
         events event=waiting jobId=now prev=active
         events event=waiting jobId=urgent prev=active
         id = 3
         later {later}
         marker <0=0 1={due}>
         now {now}
         pc = 2
         prioritized <urgent={urgent_score}>
         urgent {urgent}
         wait [now]",
        score = NOW_SCORE + 1001 * 4096,
        later = hash(1000, 0),
        now = hash(0, 0),
        urgent = hash(0, 3),
        urgent_score = 3 * STEP + 2,
    ))
    .await;
}

#[tokio::test]
async fn a_snooze_spends_no_attempt_and_keeps_the_last_reason() {
    let t = Bench::new().await;
    t.add(&["a"]).await;
    t.raws(&["HSET @a failedReason before"]).await;
    t.claim(1).await;
    let snooze = Retry {
        count_attempt: false,
        reason: String::new(),
        stacktrace: String::new(),
        ..retry("a", 50)
    };
    t.broker.retry(&t.queue, &[snooze]).await.unwrap();
    assert_eq!(t.raw::<Option<i64>>("HGET @a atm").await, None);
    assert_eq!(t.raw::<String>("HGET @a failedReason").await, "before");
    assert_eq!(t.raw::<i64>("HGET @a delay").await, 50);
}

#[tokio::test]
async fn a_lifo_job_is_next_in_line_again() {
    let t = Bench::new().await;
    t.add(&["a", "b"]).await;
    t.claim(1).await;
    t.broker
        .retry(
            &t.queue,
            &[Retry {
                lifo: true,
                ..retry("a", 0)
            }],
        )
        .await
        .unwrap();
    assert_eq!(t.raw::<Vec<String>>("LRANGE @wait 0 -1").await, ["b", "a"]);
}

#[tokio::test]
async fn a_retry_repeated_after_the_next_claim_leaves_that_attempt_alone() {
    let t = Bench::new().await;
    t.add(&["a"]).await;
    t.claim(1).await;
    t.broker.retry(&t.queue, &[retry("a", 0)]).await.unwrap();
    let waiting = t.dump().await;
    let again = t.broker.retry(&t.queue, &[retry("a", 0)]).await.unwrap();
    assert_eq!((again, t.dump().await), (vec![Settled::NotActive], waiting));

    t.broker
        .claim(&t.queue, &crate::support::claim_options("t2", 1))
        .await
        .unwrap();
    let running = t.dump().await;
    let again = t
        .broker
        .retry(&t.queue, &[retry("a", 0), retry("x", 0)])
        .await
        .unwrap();
    assert_eq!(again, [Settled::LockMismatch, Settled::JobMissing]);
    assert_eq!(t.dump().await, running);
}

#[tokio::test]
async fn a_queue_at_its_concurrency_wakes_a_worker_when_a_job_is_put_off() {
    let t = Bench::new().await;
    t.raws(&["HSET @meta concurrency 1"]).await;
    t.add(&["a", "b"]).await;
    t.claim(9).await;
    t.raws(&["DEL @marker"]).await;
    t.broker.retry(&t.queue, &[retry("a", 5000)]).await.unwrap();
    assert_eq!(
        t.raw::<Vec<String>>("ZRANGE @marker 0 -1").await,
        ["0", "1"]
    );
}

#[tokio::test]
async fn a_retry_wakes_nobody_while_the_queue_is_paused() {
    let t = Bench::new().await;
    t.add(&["a"]).await;
    t.claim(1).await;
    t.broker.pause(&t.queue).await.unwrap();
    t.broker.retry(&t.queue, &[retry("a", 0)]).await.unwrap();
    assert_eq!(t.raw::<i64>("EXISTS @marker").await, 0);
}
