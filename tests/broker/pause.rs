use bullwark::broker::{Counts, NewJob};

use crate::support::{Bench, NOW, ids, job};

#[tokio::test]
async fn a_pause_leaves_jobs_where_they_are_and_is_announced_once() {
    let t = Bench::new().await;
    t.add(&["a"]).await;
    t.forget_events().await;
    assert!(t.broker.pause(&t.queue).await.unwrap());
    assert!(!t.broker.pause(&t.queue).await.unwrap());
    t.expect(&format!(
        "a {{data={{}} delay=0 name=n opts={{}} priority=0 timestamp={NOW}}}
         events event=paused
         id = 1
         meta {{opts.maxLenEvents=10000 paused=1}}
         wait [a]"
    ))
    .await;
    assert!(t.broker.counts(&t.queue).await.unwrap().is_paused);
}

#[tokio::test]
async fn a_resume_wakes_a_worker_for_what_waits_or_for_the_next_delayed_job() {
    let t = Bench::new().await;
    t.broker.pause(&t.queue).await.unwrap();
    t.broker
        .add(
            &t.queue,
            &[NewJob {
                due_ms: Some(NOW + 9),
                ..job("later")
            }],
        )
        .await
        .unwrap();
    t.raws(&["DEL @marker"]).await;
    assert!(t.broker.resume(&t.queue).await.unwrap());
    let marker: Vec<(String, i64)> = t.raw("ZRANGE @marker 0 -1 WITHSCORES").await;
    assert_eq!(marker, [("1".to_owned(), NOW + 9)]);

    t.broker.pause(&t.queue).await.unwrap();
    t.add(&["a"]).await;
    t.broker.resume(&t.queue).await.unwrap();
    let marker: Vec<(String, i64)> = t.raw("ZRANGE @marker 0 -1 WITHSCORES").await;
    assert_eq!(marker, [("0".to_owned(), 0)]);
    assert!(!t.broker.resume(&t.queue).await.unwrap(), "it runs already");
}

#[tokio::test]
async fn a_resume_merges_an_old_paused_list_in_order_and_loses_no_id() {
    let t = Bench::new().await;
    let old: Vec<NewJob> = (0..2500).map(|i| job(&format!("old{i}"))).collect();
    t.broker.add(&t.queue, &old).await.unwrap();
    t.raws(&["RENAME @wait @paused", "HSET @meta paused 1"])
        .await;
    t.add(&["new"]).await;
    t.broker.resume(&t.queue).await.unwrap();
    assert_eq!(t.raw::<i64>("EXISTS @paused").await, 0);
    assert_eq!(ids(&t.claim(2).await), ["old0", "old1"]);
    let wait: Vec<String> = t.raw("LRANGE @wait 0 -1").await;
    assert_eq!(
        (wait.len(), wait[0].as_str(), wait[1].as_str()),
        (2499, "new", "old2499")
    );
    let counts = t.broker.counts(&t.queue).await.unwrap();
    assert_eq!(
        counts,
        Counts {
            wait: 2499,
            active: 2,
            ..Counts::default()
        }
    );
}
