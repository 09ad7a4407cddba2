use bullwark::broker::Obliterated;

use crate::support::{Bench, NOW, job};

/// A queue with something in every key that there is.
async fn full() -> Bench {
    let t = Bench::new().await;
    t.raws(&[
        "RPUSH @wait a",
        "RPUSH @paused b",
        "ZADD @prioritized 1 c",
        "ZADD @delayed 1 d",
        "ZADD @waiting-children 1 e",
        "ZADD @completed 1 f",
        "ZADD @failed 1 g",
        "SADD @e:dependencies @x",
        "HSET @e:processed k 1",
        "RPUSH @f:logs x",
        "HSET @repeat:s name n",
        "ZADD @repeat 500 s",
        "SET @de:x a",
        "SET @de:gone nobody",
        "HSET @dn:x name n",
        "SET @limiter 4",
        "SET @id 5",
        "SET @pc 4",
        "HSET @metrics:failed count 4",
        "RPUSH @metrics:failed:data 4",
        "HSET @metrics:completed count 4",
        "RPUSH @metrics:completed:data 4",
        "SADD @stalled x",
        "SET @stalled-check 3",
        "ZADD @marker 0 0",
        "HSET @orphan name n timestamp 1",
        "SET @lost:lock t1",
        "XADD @events * event paused",
        "HSET @meta version x",
    ])
    .await;
    for id in ["a", "b", "c", "d", "e", "f", "g"] {
        t.raws(&[&format!("HSET @{id} name n timestamp {NOW}")])
            .await;
    }
    // A neighbour whose name begins alike.
    let neighbour = format!("{}:qq:meta", t.prefix);
    t.raws(&[&format!("HSET {neighbour} paused 1")]).await;
    t
}

fn neighbour(t: &Bench) -> String {
    format!("{}:qq:meta {{paused=1}}", t.prefix)
}

#[tokio::test]
async fn only_a_paused_queue_is_obliterated_and_nothing_stays_of_it() {
    let t = full().await;
    let before = t.dump().await;
    let refused = t.broker.obliterate(&t.queue, true).await.unwrap();
    assert_eq!((refused, t.dump().await), (Obliterated::NotPaused, before));
    t.broker.pause(&t.queue).await.unwrap();
    let done = t.broker.obliterate(&t.queue, false).await.unwrap();
    assert_eq!(done, Obliterated::Done);
    t.expect(&neighbour(&t)).await;
}

#[tokio::test]
async fn active_jobs_need_force_and_lose_their_locks() {
    let t = full().await;
    t.raws(&["LPUSH @active z", "HSET @z name n", "SET @z:lock t1"])
        .await;
    t.broker.pause(&t.queue).await.unwrap();
    let before = t.dump().await;
    let refused = t.broker.obliterate(&t.queue, false).await.unwrap();
    assert_eq!((refused, t.dump().await), (Obliterated::HasActive, before));
    let done = t.broker.obliterate(&t.queue, true).await.unwrap();
    assert_eq!(done, Obliterated::Done);
    t.expect(&neighbour(&t)).await;
}

#[tokio::test]
async fn a_parent_in_another_queue_is_released() {
    let t = Bench::new().await;
    let elsewhere = |suffix: &str| format!("{}:other:{suffix}", t.prefix);
    t.raws(&[
        &format!("HSET @c name n parentKey {}", elsewhere("p")),
        "RPUSH @wait c",
        &format!("HSET {} name n", elsewhere("p")),
        &format!("SADD {} @c", elsewhere("p:dependencies")),
        &format!("ZADD {} 1 p", elsewhere("waiting-children")),
        "HSET @meta paused 1",
    ])
    .await;
    let done = t.broker.obliterate(&t.queue, false).await.unwrap();
    assert_eq!(done, Obliterated::Done);
    let wait: Vec<String> = t.raw(&format!("LRANGE {} 0 -1", elsewhere("wait"))).await;
    assert_eq!(wait, ["p"]);
}

#[tokio::test]
async fn a_large_queue_goes_in_parts() {
    let t = Bench::new().await;
    let jobs: Vec<_> = (0..2500).map(|at| job(&format!("j{at}"))).collect();
    t.broker.add(&t.queue, &jobs).await.unwrap();
    t.broker.pause(&t.queue).await.unwrap();
    let done = t.broker.obliterate(&t.queue, false).await.unwrap();
    assert_eq!(done, Obliterated::Done);
    t.expect("").await;
}

#[tokio::test]
async fn orphans_go_and_what_is_in_a_state_or_is_no_job_stays() {
    let t = Bench::new().await;
    t.add(&["a"]).await;
    t.raws(&[
        "DEL @events @marker",
        "HSET @o1 name n timestamp 1 deid x",
        "SET @de:x o1",
        "RPUSH @o1:logs x",
        "HSET @repeat:s:7 name n timestamp 1 rjk s",
        "SET @lost:lock t1",
        "HSET @ghost processedOn 1 ats 1",
        "HSET @repeat:s name n every 5",
        "ZADD @repeat 8 s",
        "HSET @metrics:failed count 1",
        "HSET @o2 name n timestamp 1 parentKey @p",
        "HSET @p name n timestamp 1",
        "SADD @p:dependencies @o2",
        "ZADD @waiting-children 1 p",
    ])
    .await;
    let removed = t.broker.remove_orphans(&t.queue).await.unwrap();
    assert_eq!(removed, 5);
    t.expect(&format!(
        "a {{data={{}} delay=0 name=n opts={{}} priority=0 timestamp={NOW}}}
         events event=waiting jobId=p prev=waiting-children
         id = 1
         marker <0=0>
         metrics:failed {{count=1}}
         p {{name=n timestamp=1}}
         repeat <s=8>
         repeat:s {{every=5 name=n}}
         wait [a p]"
    ))
    .await;
    assert_eq!(t.broker.remove_orphans(&t.queue).await.unwrap(), 0);
}
