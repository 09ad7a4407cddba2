use std::time::Duration;

use bullwark::broker::{NewJob, Stalls};

use crate::support::{Bench, NOW, ids, job};

const INTERVAL: Duration = Duration::from_secs(30);

/// A check as if the interval had passed.
async fn check(t: &Bench, max_stalled: u32) -> Vec<String> {
    t.raws(&["DEL @stalled-check"]).await;
    t.broker
        .rescue(&t.queue, INTERVAL, max_stalled, 100)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_job_is_rescued_by_the_second_check_after_its_lease_ran_out() {
    let t = Bench::new().await;
    t.broker
        .add(
            &t.queue,
            &[
                NewJob {
                    priority: 4,
                    ..job("a")
                },
                job("b"),
            ],
        )
        .await
        .unwrap();
    t.claim(2).await;
    t.raws(&["DEL @events @marker @a:lock", "RPUSH @wait c"])
        .await;
    assert!(check(&t, 1).await.is_empty(), "the first check only marks");
    assert_eq!(check(&t, 1).await, ["a"]);
    let hash = |more: &str, priority: u32| {
        format!(
            "{{ats=1 data={{}} delay=0 name=n opts={{}} priority={priority} processedOn={NOW}\
             {more} timestamp={NOW}}}"
        )
    };
    t.expect(&format!(
        "a {a}
         active [b]
         b {b}
         b:lock = t1 ttl<=30s
         events event=waiting jobId=a prev=active
         events event=stalled jobId=a
         id = 2
         marker <0=0>
         pc = 1
         stalled {{b}}
         stalled-check = {NOW} ttl<=30s
         wait [c a]",
        a = hash(" stc=1", 4),
        b = hash("", 0),
    ))
    .await;
}

#[tokio::test]
async fn within_the_interval_of_another_check_nothing_happens() {
    let t = Bench::new().await;
    t.add(&["a"]).await;
    t.claim(1).await;
    check(&t, 1).await;
    t.raws(&["DEL @a:lock"]).await;
    let before = t.dump().await;
    assert!(
        t.broker
            .rescue(&t.queue, INTERVAL, 1, 100)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(t.dump().await, before);
}

#[tokio::test]
async fn a_lease_that_was_extended_between_two_checks_is_safe() {
    let t = Bench::new().await;
    t.add(&["a"]).await;
    t.claim(1).await;
    check(&t, 1).await;
    let held = [("a".to_owned(), "t1".to_owned())];
    t.broker
        .extend(&t.queue, &held, Duration::from_secs(1))
        .await
        .unwrap();
    t.raws(&["DEL @a:lock"]).await;
    assert!(
        check(&t, 1).await.is_empty(),
        "it became a suspect only now"
    );
    assert_eq!(check(&t, 1).await, ["a"]);
}

#[tokio::test]
async fn a_job_that_stalls_too_often_fails_at_its_next_claim_but_not_a_scheduled_one() {
    let t = Bench::new().await;
    t.add(&["a", "s"]).await;
    t.raws(&["HSET @s rjk nightly", "ZADD @repeat 5 nightly"])
        .await;
    for round in 1..=2 {
        t.claim(2).await;
        t.raws(&["DEL @a:lock @s:lock"]).await;
        check(&t, 1).await;
        assert_eq!(check(&t, 1).await.len(), 2, "round {round}");
    }
    let claimed = t.claim(2).await;
    for job in &claimed.jobs {
        let reason = (job.id == "a").then(|| "job stalled more than allowable limit".to_owned());
        assert_eq!(
            (job.stalled_count, &job.deferred_failure),
            (2, &reason),
            "{}",
            job.id
        );
    }
}

#[tokio::test]
async fn an_active_id_without_a_hash_just_leaves() {
    let t = Bench::new().await;
    t.raws(&["LPUSH @active ghost", "SADD @stalled ghost"])
        .await;
    assert!(check(&t, 1).await.is_empty());
    t.expect(&format!("stalled-check = {NOW} ttl<=30s")).await;
}

#[tokio::test]
async fn one_check_looks_at_so_many_suspects_and_the_next_at_the_others() {
    let t = Bench::new().await;
    t.add(&["a", "b", "c"]).await;
    t.claim(3).await;
    t.raws(&["SADD @stalled a b c", "DEL @a:lock @b:lock @c:lock"])
        .await;
    let first = t.broker.rescue(&t.queue, INTERVAL, 1, 2).await.unwrap();
    assert_eq!(first.len(), 2);
    assert_eq!(check(&t, 1).await.len(), 1);
    let mut all = ids(&t.claim(9).await).join(" ");
    all = {
        let mut v: Vec<&str> = all.split(' ').collect();
        v.sort_unstable();
        v.join(" ")
    };
    assert_eq!(all, "a b c");
}

/// Most suspects have been renewed: a lost one among them must not wait for its luck.
#[tokio::test]
async fn a_lost_job_is_found_among_many_that_are_not() {
    let t = Bench::new().await;
    let names: Vec<String> = (0..60).map(|n| format!("j{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    t.add(&names).await;
    assert_eq!(t.claim(60).await.jobs.len(), 60);
    t.raws(&[
        &format!("SADD @stalled {}", names.join(" ")),
        "DEL @j7:lock",
    ])
    .await;
    let rescued = t.broker.rescue(&t.queue, INTERVAL, 1, 2).await.unwrap();
    assert_eq!(rescued, ["j7"]);
}

#[tokio::test]
async fn a_job_that_bullwark_accepted_may_stall_more_often_than_a_client_s() {
    let t = Bench::new().await;
    let own = NewJob {
        opts: r#"{"attempts":6,"bullwark":{}}"#.to_owned(),
        ..job("own")
    };
    t.broker.add(&t.queue, &[own, job("theirs")]).await.unwrap();
    for _ in 0..2 {
        t.claim(2).await;
        t.raws(&["DEL @own:lock @theirs:lock @stalled-check"]).await;
        let stalls = Stalls { max: 1, own_max: 9 };
        for _ in 0..2 {
            t.raws(&["DEL @stalled-check"]).await;
            let check = t.broker.rescue(&t.queue, INTERVAL, stalls, 100);
            check.await.unwrap();
        }
    }
    assert_eq!(t.raw::<Option<String>>("HGET @own defa").await, None);
    assert_eq!(
        t.raw::<Option<String>>("HGET @theirs defa").await.unwrap(),
        "job stalled more than allowable limit"
    );
}
