use bullwark::broker::{Fail, Keep, Settled};

use crate::support::{Bench, NOW};

fn fail(id: &str) -> Fail {
    Fail {
        id: id.into(),
        token: "t1".into(),
        reason: "no \"such\" host".into(),
        stacktrace: r#"["at main"]"#.into(),
        attempts: 2,
        keep: Keep::All,
    }
}

#[tokio::test]
async fn a_job_that_failed_for_good_keeps_its_reason() {
    let t = Bench::new().await;
    t.add(&["a"]).await;
    t.raws(&["HSET @a defa boom"]).await;
    t.claim(1).await;
    t.forget_events().await;
    let settled = t.at(NOW + 5).fail(&t.queue, &[fail("a")]).await.unwrap();
    assert_eq!(settled, [Settled::Done]);
    t.expect(&format!(
        "a {{atm=1 ats=1 data={{}} delay=0 failedReason=no \"such\" host finishedOn={end} name=n \
         opts={{}} priority=0 processedOn={NOW} stacktrace=[\"at main\"] timestamp={NOW}}}
         events event=failed jobId=a failedReason=no \"such\" host prev=active
         events event=drained
         failed <a={end}>
         id = 1
         marker <0=0>",
        end = NOW + 5
    ))
    .await;
}

#[tokio::test]
async fn the_last_attempt_is_announced_as_exhausted() {
    let t = Bench::new().await;
    t.add(&["a"]).await;
    t.raws(&["HSET @a atm 1"]).await;
    t.claim(1).await;
    t.broker.fail(&t.queue, &[fail("a")]).await.unwrap();
    let dump = t.dump().await;
    assert!(
        dump.contains("events event=retries-exhausted jobId=a attemptsMade=2"),
        "{dump}"
    );
}

#[tokio::test]
async fn failing_twice_or_with_a_stale_token_changes_nothing() {
    let t = Bench::new().await;
    t.add(&["a", "b"]).await;
    t.claim(2).await;
    t.broker.fail(&t.queue, &[fail("a")]).await.unwrap();
    let before = t.dump().await;
    let stale = Fail {
        token: "t0".into(),
        ..fail("b")
    };
    let settled = t
        .at(NOW + 9)
        .fail(&t.queue, &[fail("a"), stale, fail("x")])
        .await
        .unwrap();
    assert_eq!(
        settled,
        [
            Settled::NotActive,
            Settled::LockMismatch,
            Settled::JobMissing
        ]
    );
    assert_eq!(t.dump().await, before);
}

#[tokio::test]
async fn a_failed_job_that_is_not_kept_is_announced_and_gone() {
    let t = Bench::new().await;
    t.add(&["a"]).await;
    t.claim(1).await;
    t.forget_events().await;
    t.broker
        .fail(
            &t.queue,
            &[Fail {
                keep: Keep::Remove,
                ..fail("a")
            }],
        )
        .await
        .unwrap();
    t.expect(
        "events event=failed jobId=a failedReason=no \"such\" host prev=active
         events event=drained
         id = 1
         marker <0=0>",
    )
    .await;
}
