use bullwark::broker::{BrokerState, WireContent};

use crate::support::{Bench, NOW, job, strings};

#[tokio::test]
async fn a_job_is_read_with_its_place_and_what_became_of_it() {
    let t = Bench::new().await;
    t.raws(&[
        "HSET @w name n data {} opts {} timestamp 5 priority 0",
        "RPUSH @wait w",
        "HSET @a name n timestamp 5 processedOn 6 ats 2 atm 1 pb me",
        "LPUSH @active a",
        "SET @a:lock token",
        "HSET @d name n timestamp 5",
        "HSET @c name n timestamp 5 returnvalue [1] finishedOn 9 atm 1 ats 1",
        "ZADD @completed 9 c",
        "HSET @f name n failedReason why stacktrace [] attemptsMade 3",
        "ZADD @failed 9 f",
        "HSET @p priority 7",
        "ZADD @prioritized 1 p",
    ])
    .await;
    let score = NOW * 4096 + 3;
    t.raws(&[&format!("ZADD @delayed {score} d")]).await;
    let before = t.dump().await;
    let ids = strings(&["w", "a", "d", "c", "f", "p", "none"]);
    let jobs = t.broker.read_jobs(&t.queue, &ids, false).await.unwrap();
    assert_eq!(t.dump().await, before);
    let states: Vec<_> = jobs
        .iter()
        .map(|job| job.as_ref().map(|job| job.state))
        .collect();
    use BrokerState as S;
    let expected = [
        S::Wait,
        S::Active,
        S::Delayed,
        S::Completed,
        S::Failed,
        S::Prioritized,
    ];
    assert_eq!(states[..6], expected.map(Some));
    assert_eq!(states[6], None);
    let at = |nth: usize| jobs[nth].as_ref().unwrap();
    assert_eq!(
        (at(1).token.as_deref(), at(1).processed_by.as_deref()),
        (Some("token"), Some("me"))
    );
    assert_eq!((at(1).attempts_started, at(1).attempts_made), (2, 1));
    assert_eq!(at(2).due_ms, Some(NOW));
    assert_eq!(
        (at(3).returnvalue.as_deref(), at(3).finished_ms),
        (Some("[1]"), Some(9))
    );
    assert_eq!(
        (at(4).failed_reason.as_deref(), at(4).attempts_made),
        (Some("why"), 3)
    );
    assert!(jobs.iter().flatten().all(|job| job.content.is_none()));
}

#[tokio::test]
async fn what_the_client_wrote_is_read_when_it_is_asked_for() {
    let t = Bench::new().await;
    let jobs: Vec<_> = (0..120).map(|n| job(&format!("j{n}"))).collect();
    t.broker.add(&t.queue, &jobs).await.unwrap();
    t.raws(&["HSET @j7 parentKey k parent {} rjk r deid d"])
        .await;
    let ids: Vec<String> = jobs.iter().map(|job| job.id.clone()).collect();
    let read = t.broker.read_jobs(&t.queue, &ids, true).await.unwrap();
    assert_eq!(read.len(), 120);
    let content = read[7].as_ref().unwrap().content.clone().unwrap();
    let expected = WireContent {
        name: jobs[7].name.clone(),
        data: jobs[7].data.clone(),
        opts: jobs[7].opts.clone(),
        parent_key: Some("k".into()),
        parent: Some("{}".into()),
        repeat_job_key: Some("r".into()),
        dedup_id: Some("d".into()),
    };
    assert_eq!(content, expected);
    assert_eq!(
        read[119]
            .as_ref()
            .unwrap()
            .content
            .as_ref()
            .unwrap()
            .parent_key,
        None
    );
}

#[tokio::test]
async fn a_key_of_another_type_is_no_job_and_keeps_no_other_from_being_read() {
    let t = Bench::new().await;
    t.raws(&[
        "HSET @a name n timestamp 5",
        "SET @text x",
        "RPUSH @list x",
        "HSET @b name n timestamp 5",
        "HSET @b:lock not text",
    ])
    .await;
    let ids = strings(&["a", "text", "list", "b"]);
    for is_whole in [false, true] {
        let jobs = t.broker.read_jobs(&t.queue, &ids, is_whole).await.unwrap();
        let found: Vec<bool> = jobs.iter().map(Option::is_some).collect();
        assert_eq!(found, [true, false, false, true]);
        assert_eq!(jobs[3].as_ref().unwrap().token, None);
    }
}
