use bullwark::broker::{BATCH_MAX, BrokerOptions, Finish, Keep, NewJob, Settled};

use crate::support::{Bench, NOW, claim_options, job};

fn finish(id: &str) -> Finish {
    finish_keeping(id, Keep::All)
}

fn finish_keeping(id: &str, keep: Keep) -> Finish {
    Finish {
        id: id.into(),
        token: "t1".into(),
        returnvalue: r#"{"ok":true}"#.into(),
        keep,
    }
}

async fn active(ids: &[&str]) -> Bench {
    let t = Bench::new().await;
    t.add(ids).await;
    t.claim(ids.len()).await;
    t.forget_events().await;
    t
}

#[tokio::test]
async fn a_finished_job_leaves_its_result_and_an_empty_queue_says_so() {
    let t = active(&["a"]).await;
    t.raws(&["SADD @stalled a other"]).await;
    let settled = t
        .at(NOW + 7)
        .finish(&t.queue, &[finish("a")])
        .await
        .unwrap();
    assert_eq!(settled, [Settled::Done]);
    t.expect(&format!(
        "a {{atm=1 ats=1 data={{}} delay=0 finishedOn={end} name=n opts={{}} priority=0 \
         processedOn={NOW} returnvalue={{\"ok\":true}} timestamp={NOW}}}
         completed <a={end}>
         events event=completed jobId=a returnvalue={{\"ok\":true}} prev=active
         events event=drained
         id = 1
         marker <0=0>
         stalled {{other}}",
        end = NOW + 7
    ))
    .await;
}

#[tokio::test]
async fn a_queue_with_work_left_is_not_drained() {
    for more in ["RPUSH @wait x", "LPUSH @active x", "ZADD @prioritized 1 x"] {
        let t = active(&["a"]).await;
        t.raws(&[more]).await;
        t.broker.finish(&t.queue, &[finish("a")]).await.unwrap();
        assert!(!t.dump().await.contains("drained"), "{more}");
    }
}

#[tokio::test]
async fn finishing_twice_is_harmless() {
    let t = active(&["a", "b"]).await;
    t.broker.finish(&t.queue, &[finish("a")]).await.unwrap();
    let before = t.dump().await;
    let again = t
        .at(NOW + 9)
        .finish(&t.queue, &[finish("a"), finish("a")])
        .await
        .unwrap();
    assert_eq!(again, [Settled::NotActive; 2]);
    assert_eq!(t.dump().await, before);
    let twice = t
        .broker
        .finish(&t.queue, &[finish("b"), finish("b")])
        .await
        .unwrap();
    assert_eq!(
        twice,
        [Settled::Done, Settled::NotActive],
        "in one batch, too"
    );
    assert_eq!(t.raw::<i64>("HGET @b atm").await, 1);
}

#[tokio::test]
async fn the_lock_of_another_attempt_stops_it_and_nothing_changes() {
    let t = active(&["a"]).await;
    t.raws(&["SET @a:lock other PX 30000"]).await;
    let before = t.dump().await;
    let settled = t.broker.finish(&t.queue, &[finish("a")]).await.unwrap();
    assert_eq!(settled, [Settled::LockMismatch]);
    assert_eq!(t.dump().await, before);
}

#[tokio::test]
async fn a_lock_that_ran_out_does_not_stop_what_the_record_decided() {
    let t = active(&["a"]).await;
    t.raws(&["DEL @a:lock"]).await;
    assert_eq!(
        t.broker.finish(&t.queue, &[finish("a")]).await.unwrap(),
        [Settled::Done]
    );
    assert_eq!(t.raw::<i64>("EXISTS @active").await, 0);
    assert!(t.raw::<Option<i64>>("ZSCORE @completed a").await.is_some());
}

#[tokio::test]
async fn a_job_that_waits_again_keeps_its_place_and_even_its_lock() {
    let t = active(&["a"]).await;
    t.raws(&["RPOPLPUSH @active @wait"]).await;
    let before = t.dump().await;
    let answers = t
        .broker
        .finish(&t.queue, &[finish("a"), finish("nowhere")])
        .await
        .unwrap();
    assert_eq!(answers, [Settled::NotActive, Settled::JobMissing]);
    assert_eq!(t.dump().await, before);
}

#[tokio::test]
async fn refused_jobs_do_not_hold_up_the_others_of_a_batch() {
    let t = active(&["a", "b", "c"]).await;
    t.raws(&["DEL @b"]).await;
    let jobs = [finish("a"), finish("b"), finish("c")];
    let settled = t.broker.finish(&t.queue, &jobs).await.unwrap();
    assert_eq!(settled, [Settled::Done, Settled::JobMissing, Settled::Done]);
}

#[tokio::test]
async fn a_job_that_is_not_kept_is_announced_and_gone_with_all_its_parts() {
    let t = active(&["a"]).await;
    t.raws(&[
        "RPUSH @a:logs x",
        "SADD @a:dependencies x",
        "HSET @a:processed x 1",
        "HSET @a:failed x 1",
        "ZADD @a:unsuccessful 1 x",
    ])
    .await;
    t.broker
        .finish(&t.queue, &[finish_keeping("a", Keep::Remove)])
        .await
        .unwrap();
    t.expect(
        "events event=completed jobId=a returnvalue={\"ok\":true} prev=active
         events event=drained
         id = 1
         marker <0=0>",
    )
    .await;
}

#[tokio::test]
async fn a_count_keeps_the_newest_jobs() {
    let t = active(&["a", "b"]).await;
    t.raws(&[
        "ZADD @completed 1 old1 2 old2 3 old3",
        "HSET @old1 name x",
        "RPUSH @old1:logs y",
    ])
    .await;
    let keep = Keep::Some {
        count: Some(3),
        age_seconds: None,
        limit: None,
    };
    let jobs = [finish_keeping("a", keep), finish_keeping("b", keep)];
    t.broker.finish(&t.queue, &jobs).await.unwrap();
    assert_eq!(
        t.raw::<Vec<String>>("ZRANGE @completed 0 -1").await,
        ["old3", "a", "b"]
    );
    assert_eq!(t.raw::<i64>("EXISTS @old1 @old1:logs").await, 0);
    assert_eq!(t.raw::<i64>("EXISTS @a @b").await, 2);
}

#[tokio::test]
async fn an_age_lets_old_jobs_go_a_few_at_a_time() {
    let t = active(&["a"]).await;
    let old = NOW - 60_000;
    t.raws(&[&format!(
        "ZADD @completed {} old1 {} old2 {old} old3",
        old - 2,
        old - 1
    )])
    .await;
    t.raws(&[&format!("ZADD @completed {} young", old + 1)])
        .await;
    let keep = Keep::Some {
        count: None,
        age_seconds: Some(60),
        limit: Some(2),
    };
    t.broker
        .finish(&t.queue, &[finish_keeping("a", keep)])
        .await
        .unwrap();
    assert_eq!(
        t.raw::<Vec<String>>("ZRANGE @completed 0 -1").await,
        ["old3", "young", "a"]
    );
}

#[tokio::test]
async fn an_owner_gives_its_deduplication_id_free_unless_that_expires_or_is_anothers() {
    let t = active(&["a", "b", "c"]).await;
    t.raws(&[
        "HSET @a deid one",
        "SET @de:one a",
        "HSET @b deid two",
        "SET @de:two b PX 60000",
        "HSET @c deid three",
        "SET @de:three x",
    ])
    .await;
    let jobs = [finish("a"), finish("b"), finish("c")];
    t.broker.finish(&t.queue, &jobs).await.unwrap();
    assert_eq!(t.raw::<i64>("EXISTS @de:one").await, 0);
    assert_eq!(t.raw::<i64>("EXISTS @de:two @de:three").await, 2);
}

#[tokio::test]
async fn a_queue_at_its_concurrency_wakes_a_worker_when_a_slot_gets_free() {
    let t = Bench::new().await;
    t.raws(&["HSET @meta concurrency 1"]).await;
    t.add(&["a", "b"]).await;
    t.claim(9).await;
    t.raws(&["DEL @marker"]).await;
    t.broker.finish(&t.queue, &[finish("a")]).await.unwrap();
    assert_eq!(t.raw::<Vec<String>>("ZRANGE @marker 0 -1").await, ["0"]);
}

#[tokio::test]
async fn metrics_hold_one_number_per_minute_newest_first() {
    let t = Bench::with(|o: &mut BrokerOptions| o.metrics_points_max = Some(3)).await;
    let mut minute = 0;
    for (jobs, minutes_later) in [(2, 0), (3, 0), (1, 1), (1, 2), (1, 9)] {
        minute += minutes_later;
        let names: Vec<String> = (0..jobs).map(|i| format!("m{minute}_{jobs}_{i}")).collect();
        let new: Vec<NewJob> = names.iter().map(|id| job(id)).collect();
        t.broker.add(&t.queue, &new).await.unwrap();
        t.claim(jobs).await;
        let ends: Vec<Finish> = names.iter().map(|id| finish(id)).collect();
        let broker = t.at(NOW + minute * 60_000);
        assert_eq!(
            broker.finish(&t.queue, &ends).await.unwrap(),
            vec![Settled::Done; jobs]
        );
        let points: Vec<i64> = t.raw("LRANGE @metrics:completed:data 0 -1").await;
        match minute {
            0 => assert!(points.is_empty()),
            1 => assert_eq!(points, [5]),
            3 => assert_eq!(points, [0, 1, 5]),
            _ => assert_eq!(points, [0, 0, 1], "silent minutes are zeros"),
        }
    }
    let [count, before]: [i64; 2] = t.raw("HMGET @metrics:completed count prevCount").await;
    assert_eq!((count, before), (8, 7));
}

#[tokio::test]
async fn more_jobs_than_a_batch_are_finished() {
    let t = Bench::new().await;
    let many: Vec<NewJob> = (0..BATCH_MAX + 1).map(|i| job(&format!("j{i}"))).collect();
    t.broker.add(&t.queue, &many).await.unwrap();
    let mut ends = Vec::new();
    while ends.len() < many.len() {
        let claimed = t
            .broker
            .claim(&t.queue, &claim_options("t1", 9999))
            .await
            .unwrap();
        assert!((1..=BATCH_MAX).contains(&claimed.jobs.len()));
        ends.extend(claimed.jobs.iter().map(|job| finish(&job.id)));
    }
    let settled = t.broker.finish(&t.queue, &ends).await.unwrap();
    assert_eq!(settled, vec![Settled::Done; many.len()]);
    assert_eq!(t.raw::<usize>("ZCARD @completed").await, many.len());
}

/// Its parent's keys are broken by somebody: the job ends all the same, and so do its neighbours.
#[tokio::test]
async fn a_parent_that_can_not_be_told_keeps_no_job_from_ending() {
    let t = active(&["a", "b", "c"]).await;
    t.raws(&[
        "SET @p:dependencies text",
        &format!("HSET @b parentKey {}:q:p", t.prefix),
    ])
    .await;
    let all = ["a", "b", "c"].map(finish);
    let settled = t.broker.finish(&t.queue, &all).await.unwrap();
    assert_eq!(settled, [Settled::Done; 3]);
    let done: Vec<String> = t.raw("ZRANGE @completed 0 -1").await;
    assert_eq!(done, ["a", "b", "c"]);
    let active: u64 = t.raw("LLEN @active").await;
    assert_eq!(active, 0);
}
