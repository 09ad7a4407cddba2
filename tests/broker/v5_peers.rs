use bullwark::broker::{LinkedJob, NewJob};

use crate::support::{Bench, NOW, claim_options, ids, job};

async fn bench() -> Bench {
    Bench::with(|options| options.bullmq_v5_peers = true).await
}

#[tokio::test]
async fn a_queue_is_marked_by_whatever_touches_it_first() {
    let t = bench().await;
    t.add(&["a"]).await;
    assert!(t.broker.queue_meta(&t.queue).await.unwrap().has_v5_peers);
    assert!(t.broker.forget_v5_peers(&t.queue).await.unwrap());
    assert!(!t.broker.forget_v5_peers(&t.queue).await.unwrap());
    t.broker.ensure_queue(&t.queue).await.unwrap();
    assert!(t.broker.forget_v5_peers(&t.queue).await.unwrap());
    t.broker.pause(&t.queue).await.unwrap();
    assert!(t.broker.forget_v5_peers(&t.queue).await.unwrap());
    let linked = LinkedJob {
        id: Some("l".into()),
        name: "n".into(),
        data: "{}".into(),
        opts: "{}".into(),
        ..LinkedJob::default()
    };
    t.broker.add_linked(&t.queue, &[linked]).await.unwrap();
    assert!(t.broker.forget_v5_peers(&t.queue).await.unwrap());
    t.broker.requeue(&t.queue, &[job("b")]).await.unwrap();
    assert!(t.broker.queue_meta(&t.queue).await.unwrap().has_v5_peers);

    let t = Bench::new().await;
    t.add(&["a"]).await;
    assert!(!t.broker.queue_meta(&t.queue).await.unwrap().has_v5_peers);
}

#[tokio::test]
async fn while_it_is_paused_jobs_are_where_version_5_looks_for_them() {
    let t = bench().await;
    t.add(&["a", "b"]).await;
    t.forget_events().await;
    assert!(t.broker.pause(&t.queue).await.unwrap());
    assert!(!t.broker.pause(&t.queue).await.unwrap());
    t.add(&["c"]).await;
    let hash = |id: &str| {
        format!("{id} {{data={{}} delay=0 name=n opts={{}} priority=0 timestamp={NOW}}}")
    };
    t.expect(&format!(
        "{a}
         {b}
         {c}
         events event=paused
         events event=added jobId=c name=n
         events event=waiting jobId=c
         id = 3
         meta {{bullwark.v5Peers=1 opts.maxLenEvents=10000 paused=1}}
         paused [c b a]",
        a = hash("a"),
        b = hash("b"),
        c = hash("c"),
    ))
    .await;
    assert!(t.claim(9).await.jobs.is_empty());
    assert!(t.broker.resume(&t.queue).await.unwrap());
    assert_eq!(t.raw::<i64>("EXISTS @paused").await, 0);
    assert_eq!(ids(&t.claim(9).await), ["a", "b", "c"]);
}

#[tokio::test]
async fn everything_that_makes_a_job_wait_puts_it_there() {
    let t = bench().await;
    let later = NewJob {
        due_ms: Some(NOW + 5),
        ..job("later")
    };
    t.broker
        .add(&t.queue, &[job("a"), job("b"), later])
        .await
        .unwrap();
    t.claim(2).await;
    t.broker.pause(&t.queue).await.unwrap();
    t.broker.promote(&t.queue, &["later".into()]).await.unwrap();
    let moved = t.broker.move_to_wait(&t.queue, "a", "t1").await.unwrap();
    assert_eq!(moved.0, bullwark::broker::Settled::Done);
    t.broker
        .change_priority(&t.queue, "later", 3, false)
        .await
        .unwrap();
    t.broker
        .change_priority(&t.queue, "later", 0, false)
        .await
        .unwrap();
    t.raws(&["ZADD @failed 1 f", "HSET @f name n"]).await;
    let state = bullwark::broker::FinishedState::Failed;
    t.broker
        .reprocess_many(&t.queue, state, None, 9)
        .await
        .unwrap();
    let paused: Vec<String> = t.raw("LRANGE @paused 0 -1").await;
    assert_eq!(paused, ["f", "later", "a"]);
    assert_eq!(t.raw::<i64>("EXISTS @wait @marker").await, 0);
    t.broker
        .claim(&t.queue, &claim_options("t2", 9))
        .await
        .unwrap();
    assert_eq!(t.raw::<i64>("LLEN @active").await, 1);
}

#[tokio::test]
async fn a_pause_loses_no_id_where_both_lists_exist() {
    let t = bench().await;
    let jobs: Vec<NewJob> = (0..2500).map(|at| job(&format!("j{at}"))).collect();
    t.broker.add(&t.queue, &jobs).await.unwrap();
    t.raws(&["RPUSH @paused old2 old1"]).await;
    t.broker.pause(&t.queue).await.unwrap();
    assert_eq!(t.raw::<i64>("EXISTS @wait").await, 0);
    let paused: Vec<String> = t.raw("LRANGE @paused 0 -1").await;
    let mut expected: Vec<String> = (0..2500).rev().map(|at| format!("j{at}")).collect();
    expected.extend(["old2".to_owned(), "old1".to_owned()]);
    assert_eq!(paused, expected);
    t.raws(&["RPUSH @wait newest"]).await; // a client of version 6
    t.broker.resume(&t.queue).await.unwrap();
    let wait: Vec<String> = t.raw("LRANGE @wait 0 -1").await;
    expected.insert(0, "newest".to_owned());
    assert_eq!(wait.len(), expected.len());
    assert_eq!((&wait[0], &wait[2502]), (&expected[0], &expected[2502]));
}
