use bullwark::broker::{NewJob, Requeued};

use crate::support::{Bench, NOW, NOW_SCORE, STEP, job};

#[tokio::test]
async fn a_finished_job_waits_again_as_if_it_had_never_run() {
    for state in ["failed", "completed"] {
        let t = Bench::new().await;
        t.raws(&[
            "HSET @a name old data old opts {} timestamp 5 delay 9 priority 0 parentKey p:q:1",
            "HSET @a finishedOn 1 processedOn 1 returnvalue 1 failedReason x stacktrace []",
            "HSET @a defa x stc 2 ats 3 atm 3",
            "RPUSH @a:logs line",
            &format!("ZADD @{state} 7 a 8 other"),
        ])
        .await;
        let again = NewJob {
            attempts_made: 3,
            attempts_started: Some(4),
            ..job("a")
        };
        assert_eq!(
            t.broker.requeue(&t.queue, &[again]).await.unwrap(),
            [Requeued::Waits]
        );
        let hash = format!(
            "a {{atm=3 ats=4 data={{}} delay=0 name=n opts={{}} parentKey=p:q:1 priority=0 \
             timestamp={NOW}}}"
        );
        let set = format!("{state} <other=8>");
        let event = format!("events event=waiting jobId=a prev={state}");
        let mut lines = [
            hash.as_str(),
            "a:logs [line]",
            event.as_str(),
            "marker <0=0>",
            set.as_str(),
            "wait [a]",
        ];
        lines.sort_unstable();
        t.expect(&lines.join("\n")).await;
    }
}

#[tokio::test]
async fn a_lost_job_comes_back_where_the_record_wants_it() {
    let t = Bench::new().await;
    let jobs = [
        NewJob {
            priority: 5,
            ..job("prio")
        },
        NewJob {
            due_ms: Some(NOW + 10),
            ..job("later")
        },
        job("plain"),
    ];
    let answers = t.broker.requeue(&t.queue, &jobs).await.unwrap();
    assert_eq!(answers, [Requeued::Waits; 3]);
    let due = NOW + 10;
    let hash = |delay: i64, priority: u32| {
        format!("{{data={{}} delay={delay} name=n opts={{}} priority={priority} timestamp={NOW}}}")
    };
    t.expect(&format!(
        "delayed <later={}>
         events event=added jobId=prio name=n
         events event=waiting jobId=prio
         events event=added jobId=later name=n
         events event=delayed jobId=later delay={due}
         events event=added jobId=plain name=n
         events event=waiting jobId=plain
         id = 3
         later {}
         marker <0=0 1={due}>
         pc = 1
         plain {}
         prio {}
         prioritized <prio={}>
         wait [plain]",
        NOW_SCORE + 10 * 4096,
        hash(10, 0),
        hash(0, 0),
        hash(0, 5),
        5 * STEP + 1,
    ))
    .await;
}

#[tokio::test]
async fn a_live_job_is_left_as_it_is() {
    let t = Bench::new().await;
    for arrange in [
        "RPUSH @wait a",
        "RPUSH @paused a",
        "LPUSH @active a",
        "ZADD @prioritized 1 a",
        "ZADD @delayed 1 a",
        "ZADD @waiting-children 1 a",
    ] {
        t.raws(&[arrange, "HSET @a name old"]).await;
        let before = t.dump().await;
        let answers = t.broker.requeue(&t.queue, &[job("a")]).await.unwrap();
        assert_eq!(
            (answers, t.dump().await),
            (vec![Requeued::IsLive], before),
            "{arrange}"
        );
        let key = arrange.split_whitespace().nth(1).unwrap();
        t.raws(&[&format!("DEL {key}")]).await;
    }
}

/// It was cancelled and run again before Redis heard of either.
#[tokio::test]
async fn a_job_that_is_delayed_for_too_long_is_not_left_there() {
    let t = Bench::new().await;
    let score = |ms: i64| (NOW + ms) * 4096 + 7;
    let again = |id: &str| NewJob {
        attempts_started: Some(2),
        ..job(id)
    };
    let soon = NewJob {
        due_ms: Some(NOW + 5000),
        ..again("soon")
    };
    for (delayed_ms, jobs, is_late) in [
        (1000, [again("a")], false),
        (1001, [again("a")], true),
        (6000, [soon.clone()], false),
        (6001, [soon], true),
        (6001, [job("new")], false),
    ] {
        let id = jobs[0].id.clone();
        t.raws(&[
            &format!("HSET @{id} name old delay {delayed_ms} timestamp {NOW}"),
            &format!("ZADD @delayed {} {id}", score(delayed_ms)),
        ])
        .await;
        let answers = t.broker.requeue(&t.queue, &jobs).await.unwrap();
        let expected = match is_late {
            true => Requeued::Waits,
            false => Requeued::IsLive,
        };
        assert_eq!(answers, [expected], "{id} {delayed_ms}");
        let shown: Option<i64> = t.raw(&format!("ZSCORE @delayed {id}")).await;
        let due = match (is_late, jobs[0].due_ms) {
            (false, _) => Some(score(delayed_ms)),
            (true, due) => due.map(|due| due * 4096),
        };
        assert_eq!(shown, due, "{id} {delayed_ms}");
        let waits: Option<i64> = t.raw(&format!("LPOS @wait {id}")).await;
        assert_eq!(waits.is_some(), is_late && due.is_none(), "{id}");
        t.raws(&["DEL @delayed", "DEL @wait"]).await;
    }
}

/// Whoever asks read of it before it was started, and put off.
#[tokio::test]
async fn a_job_that_was_started_since_keeps_its_delay() {
    let t = Bench::new().await;
    t.raws(&[
        &format!("HSET @a name n ats 2 atm 1 timestamp {NOW} delay 60000"),
        &format!("ZADD @delayed {} a", (NOW + 60_000) * 4096),
    ])
    .await;
    let before = t.dump().await;
    let stale = NewJob {
        attempts_started: Some(2),
        ..job("a")
    };
    let answers = t.broker.requeue(&t.queue, &[stale]).await.unwrap();
    assert_eq!(answers, [Requeued::IsLive]);
    assert_eq!(t.dump().await, before);
}

#[tokio::test]
async fn a_hash_in_no_state_waits_and_a_live_id_gets_its_hash_back() {
    let t = Bench::new().await;
    t.raws(&[
        "HSET @orphan name old processedOn 1",
        "ZADD @prioritized 9 hollow",
    ])
    .await;
    let jobs = [
        job("orphan"),
        NewJob {
            priority: 2,
            ..job("hollow")
        },
    ];
    let answers = t.broker.requeue(&t.queue, &jobs).await.unwrap();
    assert_eq!(answers, [Requeued::Waits; 2]);
    let hash =
        |p: u32| format!("{{data={{}} delay=0 name=n opts={{}} priority={p} timestamp={NOW}}}");
    t.expect(&format!(
        "events event=waiting jobId=orphan
         events event=added jobId=hollow name=n
         hollow {}
         id = 1
         marker <0=0>
         orphan {}
         prioritized <hollow=9>
         wait [orphan]",
        hash(2),
        hash(0)
    ))
    .await;
}

#[tokio::test]
async fn requeueing_again_changes_nothing() {
    let t = Bench::new().await;
    let once = t
        .broker
        .requeue(&t.queue, &[job("a"), job("a")])
        .await
        .unwrap();
    assert_eq!(once, [Requeued::Waits, Requeued::IsLive]);
    let before = t.dump().await;
    let again = t.broker.requeue(&t.queue, &[job("a")]).await.unwrap();
    assert_eq!((again, t.dump().await), (vec![Requeued::IsLive], before));
}

/// A person runs a job again, and Redis has not heard yet that its last run is over.
#[tokio::test]
async fn a_job_of_which_an_earlier_start_is_active_is_named_and_left_as_it_is() {
    let t = Bench::new().await;
    let again = NewJob {
        attempts_started: Some(3),
        ..job("a")
    };
    for (starts, answer) in [("2", Requeued::IsEnding), ("3", Requeued::IsLive)] {
        t.raws(&[
            "DEL @active",
            "LPUSH @active a",
            &format!("HSET @a ats {starts}"),
        ])
        .await;
        let before = t.dump().await;
        let answers = t
            .broker
            .requeue(&t.queue, std::slice::from_ref(&again))
            .await
            .unwrap();
        assert_eq!((answers, t.dump().await), (vec![answer], before));
    }
}

/// Its parent was told of its failure, and waits for it again.
#[tokio::test]
async fn a_child_that_waits_again_is_pending_for_its_parent() {
    let t = Bench::new().await;
    let key = t.key("child");
    t.raws(&[
        "HSET @parent name p",
        &format!("ZADD @parent:unsuccessful 5 {key}"),
        &format!(
            "HSET @child name c ats 1 parentKey {} failedReason x",
            t.key("parent")
        ),
        "ZADD @failed 5 child",
    ])
    .await;
    let again = NewJob {
        attempts_started: Some(2),
        ..job("child")
    };
    let requeued = t.broker.requeue(&t.queue, &[again]).await.unwrap();
    assert_eq!(requeued, [Requeued::Waits]);
    assert_eq!(t.raw::<i64>("EXISTS @parent:unsuccessful").await, 0);
    assert_eq!(
        t.raw::<Vec<String>>("SMEMBERS @parent:dependencies").await,
        [key]
    );
}
