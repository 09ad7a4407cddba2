use std::time::Duration;

use bullwark::broker::{BrokerState, Cancelled, Finish, Keep, NewJob, Settled};

use crate::support::{Bench, NOW, job, strings};

#[tokio::test]
async fn a_job_is_removed_from_whatever_state_it_is_in() {
    let t = Bench::new().await;
    for (arrange, state) in [
        ("RPUSH @wait a", BrokerState::Wait),
        ("RPUSH @paused a", BrokerState::Paused),
        ("LPUSH @active a", BrokerState::Active),
        ("ZADD @prioritized 1 a", BrokerState::Prioritized),
        ("ZADD @delayed 1 a", BrokerState::Delayed),
        ("ZADD @waiting-children 1 a", BrokerState::WaitingChildren),
        ("ZADD @completed 1 a", BrokerState::Completed),
        ("ZADD @failed 1 a", BrokerState::Failed),
        ("PING", BrokerState::Orphan),
    ] {
        t.raws(&[
            arrange,
            "HSET @a name n",
            "RPUSH @a:logs x",
            "HSET @ab name other",
        ])
        .await;
        let answers = t.broker.cancel(&t.queue, &strings(&["a"])).await.unwrap();
        assert_eq!(answers, [Cancelled::Removed(state)]);
        let prev = match state {
            BrokerState::WaitingChildren => "waiting-children".to_owned(),
            BrokerState::Orphan => "unknown".to_owned(),
            other => format!("{other:?}").to_lowercase(),
        };
        t.raws(&["DEL @marker"]).await;
        t.expect(&format!(
            "ab {{name=other}}
             events event=removed jobId=a prev={prev}"
        ))
        .await;
        t.forget_events().await;
    }
}

#[tokio::test]
async fn the_owner_of_a_cancelled_job_loses_the_lease() {
    let t = Bench::new().await;
    t.add(&["a"]).await;
    t.claim(1).await;
    t.raws(&["SADD @stalled a", "DEL @events @marker"]).await;
    t.broker.cancel(&t.queue, &strings(&["a"])).await.unwrap();
    t.expect(
        "events event=removed jobId=a prev=active
         id = 1
         marker <0=0>",
    )
    .await;
    let lease = [("a".to_owned(), "t1".to_owned())];
    let held = t
        .broker
        .extend(&t.queue, &lease, Duration::from_secs(30))
        .await
        .unwrap();
    assert_eq!(held, [false]);
    let end = Finish {
        id: "a".into(),
        token: "t1".into(),
        returnvalue: "1".into(),
        keep: Keep::All,
    };
    assert_eq!(
        t.broker.finish(&t.queue, &[end]).await.unwrap(),
        [Settled::JobMissing]
    );
}

#[tokio::test]
async fn what_is_not_there_is_absent_and_nothing_is_written() {
    let t = Bench::new().await;
    let answers = t
        .broker
        .cancel(&t.queue, &strings(&["a", "b"]))
        .await
        .unwrap();
    assert_eq!(answers, [Cancelled::Absent; 2]);
    t.expect("").await;

    t.add(&["a"]).await;
    let answers = t
        .broker
        .cancel(&t.queue, &strings(&["a", "a"]))
        .await
        .unwrap();
    assert_eq!(
        answers,
        [Cancelled::Removed(BrokerState::Wait), Cancelled::Absent]
    );
}

#[tokio::test]
async fn the_current_iteration_of_a_schedule_stays_and_an_older_one_goes() {
    let t = Bench::new().await;
    t.raws(&[
        "HSET @repeat:s name n",
        &format!("ZADD @repeat {NOW} s"),
        &format!("HSET @repeat:s:{NOW} name n rjk s"),
        &format!("RPUSH @wait repeat:s:{NOW} repeat:s:1"),
        "HSET @repeat:s:1 name n rjk s",
    ])
    .await;
    let ids = [format!("repeat:s:{NOW}"), "repeat:s:1".to_owned()];
    let answers = t.broker.cancel(&t.queue, &ids).await.unwrap();
    assert_eq!(
        answers,
        [Cancelled::Scheduled, Cancelled::Removed(BrokerState::Wait)]
    );
    assert_eq!(
        t.raw::<Vec<String>>("LRANGE @wait 0 -1").await,
        [ids[0].clone()]
    );
}

#[tokio::test]
async fn its_deduplication_id_is_free_again() {
    let t = Bench::new().await;
    t.add(&["a", "b"]).await;
    t.raws(&["HSET @a deid x", "SET @de:x a", "HSET @dn:x name n"])
        .await;
    t.raws(&["HSET @b deid y", "SET @de:y other"]).await;
    t.broker
        .cancel(&t.queue, &strings(&["a", "b"]))
        .await
        .unwrap();
    assert_eq!(t.raw::<i64>("EXISTS @de:x @dn:x").await, 0);
    assert_eq!(t.raw::<String>("GET @de:y").await, "other");
}

#[tokio::test]
async fn many_are_cancelled_in_one_call() {
    let t = Bench::new().await;
    let jobs: Vec<NewJob> = (0..501)
        .map(|i| NewJob {
            priority: 1,
            ..job(&format!("j{i}"))
        })
        .collect();
    t.broker.add(&t.queue, &jobs).await.unwrap();
    let ids: Vec<String> = jobs.into_iter().map(|job| job.id).collect();
    let answers = t.broker.cancel(&t.queue, &ids).await.unwrap();
    assert_eq!(
        answers,
        vec![Cancelled::Removed(BrokerState::Prioritized); 501]
    );
    assert_eq!(t.raw::<i64>("EXISTS @prioritized @j0 @j500").await, 0);
}
