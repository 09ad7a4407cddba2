use std::time::Duration;

use bullwark::broker::QueueMeta;

use crate::support::Bench;

#[tokio::test]
async fn settings_are_written_where_other_clients_look_and_read_back() {
    let t = Bench::new().await;
    assert_eq!(
        t.broker.queue_meta(&t.queue).await.unwrap(),
        QueueMeta::default()
    );
    t.broker.set_concurrency(&t.queue, Some(3)).await.unwrap();
    let minute = Duration::from_secs(60);
    t.broker
        .set_rate_limit(&t.queue, Some((5, minute)))
        .await
        .unwrap();
    t.expect("meta {concurrency=3 duration=60000 max=5}").await;
    t.raws(&["HSET @meta version bullmq:6.7.0 opts.maxLenEvents 99 paused 1"])
        .await;
    let expected = QueueMeta {
        is_paused: true,
        concurrency: Some(3),
        rate_max: Some(5),
        rate_duration_ms: Some(60_000),
        events_max: Some(99),
        version: Some("bullmq:6.7.0".to_owned()),
        has_v5_peers: false,
        is_fair: false,
    };
    assert_eq!(t.broker.queue_meta(&t.queue).await.unwrap(), expected);
    assert!(t.broker.is_paused(&t.queue).await.unwrap());
    t.broker.set_concurrency(&t.queue, None).await.unwrap();
    t.broker.set_rate_limit(&t.queue, None).await.unwrap();
    t.expect("meta {opts.maxLenEvents=99 paused=1 version=bullmq:6.7.0}")
        .await;
}

#[tokio::test]
async fn a_queue_is_maxed_when_as_many_jobs_are_active_as_it_allows() {
    let t = Bench::new().await;
    t.raws(&["LPUSH @active a b"]).await;
    assert!(!t.broker.is_maxed(&t.queue).await.unwrap());
    t.broker.set_concurrency(&t.queue, Some(3)).await.unwrap();
    assert!(!t.broker.is_maxed(&t.queue).await.unwrap());
    t.broker.set_concurrency(&t.queue, Some(2)).await.unwrap();
    assert!(t.broker.is_maxed(&t.queue).await.unwrap());
    assert!(!t.broker.is_paused(&t.queue).await.unwrap());
}

#[tokio::test]
async fn a_rate_limit_holds_back_while_its_window_is_full() {
    let t = Bench::new().await;
    let ttl = async |max| t.broker.rate_limit_ttl(&t.queue, max).await.unwrap();
    assert_eq!(ttl(None).await, None);
    t.raws(&["SET @limiter 3 PX 50000"]).await;
    let minute = Duration::from_secs(60);
    t.broker
        .set_rate_limit(&t.queue, Some((4, minute)))
        .await
        .unwrap();
    assert_eq!(ttl(None).await, None, "there is room for one");
    assert_eq!(ttl(Some(4)).await, None);
    let left = ttl(Some(3)).await.unwrap();
    assert!(left > Duration::from_secs(40), "{left:?}");
    t.broker
        .set_rate_limit(&t.queue, Some((3, minute)))
        .await
        .unwrap();
    assert!(ttl(None).await.is_some());
    assert!(t.broker.remove_rate_limit_key(&t.queue).await.unwrap());
    assert!(!t.broker.remove_rate_limit_key(&t.queue).await.unwrap());
    assert_eq!(ttl(None).await, None);
}
