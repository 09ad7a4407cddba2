use bullwark::broker::{BrokerError, Moved, NewJob, Refusal};

use crate::support::{Bench, NOW, NOW_SCORE, STEP, job};

fn delayed(id: &str, delay_ms: i64) -> NewJob {
    NewJob {
        due_ms: Some(NOW + delay_ms),
        ..job(id)
    }
}

#[tokio::test]
async fn another_delay_counts_from_now_and_wakes_a_worker_in_time() {
    let t = Bench::new().await;
    let jobs = [delayed("a", 9000), delayed("b", 500)];
    t.broker.add(&t.queue, &jobs).await.unwrap();
    t.raws(&["DEL @events @marker"]).await;
    let moved = t.at(NOW + 100).change_delay(&t.queue, "a", 400).await;
    assert_eq!(moved.unwrap(), Moved::Done);
    t.expect(&format!(
        "a {{data={{}} delay=400 name=n opts={{}} priority=0 timestamp={NOW}}}
         b {{data={{}} delay=500 name=n opts={{}} priority=0 timestamp={NOW}}}
         delayed <b={b} a={a}>
         events event=delayed jobId=a delay={due}
         id = 2
         marker <1={due}>",
        b = NOW_SCORE + 500 * 4096,
        a = NOW_SCORE + 500 * 4096 + 1,
        due = NOW + 500,
    ))
    .await;
}

#[tokio::test]
async fn only_a_delayed_job_gets_another_delay() {
    let t = Bench::new().await;
    t.add(&["a"]).await;
    let before = t.dump().await;
    let waiting = t.broker.change_delay(&t.queue, "a", 5).await.unwrap();
    let missing = t.broker.change_delay(&t.queue, "x", 5).await.unwrap();
    assert_eq!((waiting, missing), (Moved::NotInState, Moved::JobMissing));
    assert_eq!(t.dump().await, before);
}

#[tokio::test]
async fn another_priority_moves_a_waiting_job_behind_or_before_its_equals() {
    let t = Bench::new().await;
    let urgent = NewJob {
        priority: 2,
        ..job("urgent")
    };
    t.broker
        .add(&t.queue, &[job("a"), job("b"), job("c"), urgent])
        .await
        .unwrap();
    t.raws(&["DEL @events @marker"]).await;
    let change = async |id: &str, priority, lifo| {
        let moved = t.broker.change_priority(&t.queue, id, priority, lifo).await;
        assert_eq!(moved.unwrap(), Moved::Done);
    };
    change("a", 2, false).await;
    change("b", 2, true).await;
    let order: Vec<(String, i64)> = t.raw("ZRANGE @prioritized 0 -1 WITHSCORES").await;
    let expected = [
        ("b", 2 * STEP),
        ("urgent", 2 * STEP + 1),
        ("a", 2 * STEP + 2),
    ];
    assert_eq!(order, expected.map(|(id, score)| (id.to_owned(), score)));
    change("urgent", 0, true).await;
    change("a", 0, false).await;
    let hash = |priority: u8| {
        format!("{{data={{}} delay=0 name=n opts={{}} priority={priority} timestamp={NOW}}}")
    };
    t.expect(&format!(
        "a {none}
         b {two}
         c {none}
         id = 4
         marker <0=0>
         pc = 2
         prioritized <b={b}>
         urgent {none}
         wait [a c urgent]",
        b = 2 * STEP,
        none = hash(0),
        two = hash(2),
    ))
    .await;
}

#[tokio::test]
async fn a_job_that_does_not_wait_has_the_priority_when_it_does() {
    let t = Bench::new().await;
    t.broker.add(&t.queue, &[delayed("a", 5)]).await.unwrap();
    let changed = t.broker.change_priority(&t.queue, "a", 7, false).await;
    assert_eq!(changed.unwrap(), Moved::Done);
    t.broker.promote(&t.queue, &["a".into()]).await.unwrap();
    let score: i64 = t.raw("ZSCORE @prioritized a").await;
    assert_eq!(score, 7 * STEP + 1);
    let missing = t.broker.change_priority(&t.queue, "x", 7, false).await;
    assert_eq!(missing.unwrap(), Moved::JobMissing);
    assert_eq!(t.raw::<i64>("EXISTS @x").await, 0);
}

#[tokio::test]
async fn a_priority_that_has_no_score_and_a_key_of_the_queue_are_refused() {
    let t = Bench::new().await;
    let high = t
        .broker
        .change_priority(&t.queue, "a", 1 << 21, false)
        .await;
    assert!(matches!(
        high,
        Err(BrokerError::Refused(Refusal::Priority(2_097_152)))
    ));
    t.raws(&["HSET @meta paused 1"]).await;
    let meta = t.broker.change_priority(&t.queue, "meta", 1, false).await;
    assert!(matches!(meta, Err(BrokerError::Refused(Refusal::JobId(_)))));
    t.expect("meta {paused=1}").await;
}
