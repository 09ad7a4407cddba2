use bullwark::broker::{Added, BATCH_MAX, BrokerError, NewJob, Refusal};

use crate::support::{Bench, NOW, NOW_SCORE, STEP, job};

#[tokio::test]
async fn a_mix_of_jobs_goes_where_each_belongs() {
    let t = Bench::new().await;
    let jobs = [
        NewJob {
            data: r#"{"a":1}"#.into(),
            opts: r#"{"attempts":6}"#.into(),
            ..job("std1")
        },
        job("std2"),
        NewJob {
            lifo: true,
            ..job("lifo")
        },
        NewJob {
            priority: 11,
            ..job("prio1")
        },
        NewJob {
            priority: 1,
            ..job("prio2")
        },
        NewJob {
            priority: 11,
            attempts_started: Some(2),
            attempts_made: 1,
            ..job("prio3")
        },
        NewJob {
            due_ms: Some(NOW + 5000),
            timestamp_ms: NOW - 10,
            ..job("later")
        },
        NewJob {
            due_ms: Some(NOW),
            ..job("due")
        },
    ];
    let added = t.broker.add(&t.queue, &jobs).await.unwrap();
    assert_eq!(added, [Added::Created; 8]);
    t.expect(&format!(
        "delayed <later={later}>
         due {{data={{}} delay=0 name=n opts={{}} priority=0 timestamp={NOW}}}
         events event=added jobId=std1 name=n
         events event=waiting jobId=std1
         events event=added jobId=std2 name=n
         events event=waiting jobId=std2
         events event=added jobId=lifo name=n
         events event=waiting jobId=lifo
         events event=added jobId=prio1 name=n
         events event=waiting jobId=prio1
         events event=added jobId=prio2 name=n
         events event=waiting jobId=prio2
         events event=added jobId=prio3 name=n
         events event=waiting jobId=prio3
         events event=added jobId=later name=n
         events event=delayed jobId=later delay={due}
         events event=added jobId=due name=n
         events event=waiting jobId=due
         id = 8
         later {{data={{}} delay=5010 name=n opts={{}} priority=0 timestamp={early}}}
         lifo {{data={{}} delay=0 name=n opts={{}} priority=0 timestamp={NOW}}}
         marker <0=0 1={due}>
         pc = 3
         prio1 {{data={{}} delay=0 name=n opts={{}} priority=11 timestamp={NOW}}}
         prio2 {{data={{}} delay=0 name=n opts={{}} priority=1 timestamp={NOW}}}
         prio3 {{atm=1 ats=2 data={{}} delay=0 name=n opts={{}} priority=11 processedOn={NOW} \
         timestamp={NOW}}}
         prioritized <prio2={p2} prio1={p1} prio3={p3}>
         std1 {{data={{\"a\":1}} delay=0 name=n opts={{\"attempts\":6}} priority=0 timestamp={NOW}}}
         std2 {{data={{}} delay=0 name=n opts={{}} priority=0 timestamp={NOW}}}
         wait [due std2 std1 lifo]",
        later = NOW_SCORE + 5000 * 4096,
        due = NOW + 5000,
        early = NOW - 10,
        p1 = 11 * STEP + 1,
        p2 = STEP + 2,
        p3 = 11 * STEP + 3,
    ))
    .await;
}

#[tokio::test]
async fn jobs_due_in_one_ms_keep_their_order_until_its_scores_are_used_up() {
    let t = Bench::new().await;
    let due = |id: &str| NewJob {
        due_ms: Some(NOW + 1),
        ..job(id)
    };
    t.broker.add(&t.queue, &[due("a"), due("b")]).await.unwrap();
    t.broker.add(&t.queue, &[due("c")]).await.unwrap();
    let first = NOW_SCORE + 4096;
    let scores: Vec<(String, i64)> = t.raw("ZRANGE @delayed 0 -1 WITHSCORES").await;
    let expected = ["a", "b", "c"]
        .iter()
        .zip(first..)
        .map(|(id, s)| ((*id).to_owned(), s));
    assert_eq!(scores, expected.collect::<Vec<_>>());

    t.raws(&[&format!("ZADD @delayed {} full", first + 4095)])
        .await;
    t.broker.add(&t.queue, &[due("d")]).await.unwrap();
    let score: i64 = t.raw("ZSCORE @delayed d").await;
    assert_eq!(score, first + 4095, "the last score of the ms is shared");
}

#[tokio::test]
async fn an_id_that_exists_is_left_as_it_is() {
    let t = Bench::new().await;
    t.raws(&["HSET @a name old", "SET @id 5"]).await;
    let jobs = [job("a"), job("b"), job("b")];
    let added = t.broker.add(&t.queue, &jobs).await.unwrap();
    assert_eq!(added, [Added::Duplicate, Added::Created, Added::Duplicate]);
    t.expect(&format!(
        "a {{name=old}}
         b {{data={{}} delay=0 name=n opts={{}} priority=0 timestamp={NOW}}}
         events event=duplicated jobId=a
         events event=added jobId=b name=n
         events event=waiting jobId=b
         events event=duplicated jobId=b
         id = 8
         marker <0=0>
         wait [b]"
    ))
    .await;
}

#[tokio::test]
async fn adding_again_after_a_lost_reply_changes_nothing_that_runs() {
    let t = Bench::new().await;
    t.add(&["a"]).await;
    t.claim(1).await;
    let before = t.dump().await;
    t.add(&["a"]).await;
    let after = t
        .dump()
        .await
        .replace("events event=duplicated jobId=a\n", "");
    assert_eq!(after.replace("id = 2", "id = 1"), before);
}

#[tokio::test]
async fn nobody_is_woken_while_the_queue_is_paused_or_at_its_concurrency() {
    let t = Bench::new().await;
    t.raws(&["HSET @meta paused 1"]).await;
    t.add(&["a"]).await;
    assert_eq!(t.raw::<i64>("EXISTS @marker").await, 0);
    assert_eq!(
        t.raw::<Vec<String>>("LRANGE @wait 0 -1").await,
        ["a"],
        "not in `paused`"
    );

    t.raws(&[
        "HDEL @meta paused",
        "HSET @meta concurrency 1",
        "LPUSH @active x",
    ])
    .await;
    t.add(&["b"]).await;
    assert_eq!(t.raw::<i64>("EXISTS @marker").await, 0);

    t.raws(&["HSET @meta concurrency 2"]).await;
    t.add(&["c"]).await;
    assert_eq!(t.raw::<i64>("EXISTS @marker").await, 1);
}

#[tokio::test]
async fn more_jobs_than_a_batch_keep_their_order() {
    let t = Bench::new().await;
    let jobs: Vec<NewJob> = (0..BATCH_MAX * 2 + 1)
        .map(|i| job(&format!("j{i}")))
        .collect();
    let added = t.broker.add(&t.queue, &jobs).await.unwrap();
    assert_eq!(added, vec![Added::Created; jobs.len()]);
    let mut wait: Vec<String> = t.raw("LRANGE @wait 0 -1").await;
    wait.reverse();
    assert!(wait.iter().eq(jobs.iter().map(|job| &job.id)));
}

#[tokio::test]
async fn the_event_stream_is_trimmed_once_per_batch() {
    let t = Bench::new().await;
    t.raws(&["HSET @meta opts.maxLenEvents 50"]).await;
    let jobs: Vec<NewJob> = (0..BATCH_MAX).map(|i| job(&format!("j{i}"))).collect();
    t.broker.add(&t.queue, &jobs).await.unwrap();
    let length: usize = t.raw("XLEN @events").await;
    assert!(
        (50..=200).contains(&length),
        "{length} events, trimmed by whole nodes"
    );
}

#[tokio::test]
async fn what_would_break_the_queue_is_refused_before_anything_is_written() {
    let t = Bench::new().await;
    for (bad, code) in [
        (job("meta"), "job_id"),
        (job(""), "job_id"),
        (
            NewJob {
                priority: 1 << 21,
                ..job("p")
            },
            "priority",
        ),
    ] {
        let refused = t.broker.add(&t.queue, &[job("good"), bad]).await;
        let Err(BrokerError::Refused(refusal)) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(Refusal::code(&refusal), code);
    }
    t.expect("").await;
}
