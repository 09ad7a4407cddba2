//! Fair queues: those who share one take turns.

use std::collections::BTreeMap;

use bullwark::broker::{ClaimedJob, LinkedJob, NewJob, Release, Retry};

use crate::support::{Bench, job};

async fn fair() -> Bench {
    let t = Bench::new().await;
    t.broker.set_fair(&t.queue, true).await.unwrap();
    t
}

/// Jobs `OWNER0`, `OWNER1`, … of one owner.
fn of(owner: &str, numbers: std::ops::Range<usize>) -> Vec<NewJob> {
    let one = |n| NewJob {
        owner: Some(owner.to_owned()),
        ..job(&format!("{owner}{n}"))
    };
    numbers.map(one).collect()
}

fn with_priority(jobs: Vec<NewJob>, priority: u32) -> Vec<NewJob> {
    let one = |job| NewJob { priority, ..job };
    jobs.into_iter().map(one).collect()
}

async fn add(t: &Bench, jobs: &[NewJob]) {
    t.broker.add(&t.queue, jobs).await.unwrap();
}

/// Claims so many, and says how many of each owner.
async fn claim(t: &Bench, max: usize) -> BTreeMap<char, usize> {
    let mut count = BTreeMap::new();
    for job in t.claim(max).await.jobs {
        *count.entry(owner_of(&job)).or_default() += 1;
    }
    count
}

/// Claims all that are left.
async fn all(t: &Bench) -> Vec<ClaimedJob> {
    let mut claimed = Vec::new();
    loop {
        let jobs = t.claim(100).await.jobs;
        if jobs.is_empty() {
            return claimed;
        }
        claimed.extend(jobs);
    }
}

async fn arrange(t: &Bench) {
    let mut from = t.broker.arrange(&t.queue, None).await.unwrap();
    while from.is_some() {
        from = t.broker.arrange(&t.queue, from).await.unwrap();
    }
}

fn owner_of(job: &ClaimedJob) -> char {
    job.id.chars().next().unwrap()
}

fn counts<const N: usize>(pairs: [(char, usize); N]) -> BTreeMap<char, usize> {
    pairs.into()
}

#[tokio::test]
async fn ten_jobs_do_not_wait_behind_thousands_of_somebody_else() {
    let t = fair().await;
    add(&t, &of("a", 0..1500)).await;
    add(&t, &of("a", 1500..3000)).await;
    assert_eq!(claim(&t, 100).await, counts([('a', 100)]));
    add(&t, &of("b", 0..10)).await;
    add(&t, &of("c", 0..10)).await;
    let next = claim(&t, 30).await;
    assert_eq!(next, counts([('a', 10), ('b', 10), ('c', 10)]));
    assert_eq!(claim(&t, 30).await, counts([('a', 30)]));
}

#[tokio::test]
async fn the_jobs_of_one_keep_their_order() {
    let t = fair().await;
    add(&t, &of("a", 0..20)).await;
    add(&t, &of("b", 0..20)).await;
    let claimed = t.claim(40).await.jobs;
    for owner in ['a', 'b'] {
        let own = claimed.iter().filter(|job| owner_of(job) == owner);
        let ids: Vec<&str> = own.map(|job| job.id.as_str()).collect();
        let expected: Vec<String> = (0..20).map(|n| format!("{owner}{n}")).collect();
        assert_eq!(ids, expected);
    }
}

/// Whoever was idle has saved nothing up, and whoever was busy owes nothing.
#[tokio::test]
async fn the_past_gives_nobody_an_advantage() {
    let t = fair().await;
    add(&t, &of("a", 0..200)).await;
    claim(&t, 150).await;
    add(&t, &of("b", 0..200)).await;
    assert_eq!(claim(&t, 60).await, counts([('a', 30), ('b', 30)]));
    // Now nobody waits, and the next begin anew.
    all(&t).await;
    add(&t, &of("b", 200..300)).await;
    add(&t, &of("a", 200..300)).await;
    assert_eq!(claim(&t, 60).await, counts([('a', 30), ('b', 30)]));
}

#[tokio::test]
async fn of_all_who_wait_none_is_served_twice_before_another_once() {
    let t = fair().await;
    for (owner, jobs) in [("a", 300), ("b", 40), ("c", 41), ("d", 7)] {
        add(&t, &of(owner, 0..jobs)).await;
        claim(&t, 3).await;
    }
    let mut left: BTreeMap<char, usize> = BTreeMap::new();
    for id in t.raw::<Vec<String>>("ZRANGE @prioritized 0 -1").await {
        *left.entry(id.chars().next().unwrap()).or_default() += 1;
    }
    assert_eq!(left.len(), 4);
    let mut served: BTreeMap<char, usize> = left.keys().map(|owner| (*owner, 0)).collect();
    while left.values().all(|left| *left > 0) {
        let owner = owner_of(&t.claim(1).await.jobs[0]);
        *left.get_mut(&owner).unwrap() -= 1;
        *served.get_mut(&owner).unwrap() += 1;
        let (least, most) = (served.values().min(), served.values().max());
        assert!(most.unwrap() - least.unwrap() <= 2, "{served:?}");
    }
}

#[tokio::test]
async fn priorities_go_before_turns() {
    let t = fair().await;
    add(&t, &with_priority(of("a", 0..50), 2)).await;
    add(&t, &with_priority(of("b", 0..50), 2)).await;
    add(&t, &with_priority(of("c", 0..5), 1)).await;
    add(&t, &of("d", 0..5)).await;
    assert_eq!(claim(&t, 5).await, counts([('d', 5)]));
    assert_eq!(claim(&t, 5).await, counts([('c', 5)]));
    assert_eq!(claim(&t, 20).await, counts([('a', 10), ('b', 10)]));
}

#[tokio::test]
async fn a_retry_takes_the_next_turn_of_its_owner() {
    let t = fair().await;
    add(&t, &of("a", 0..30)).await;
    add(&t, &of("b", 0..2)).await;
    let claimed = t.claim(2).await.jobs;
    let first = claimed.iter().find(|job| owner_of(job) == 'b').unwrap();
    let retry = Retry {
        id: first.id.clone(),
        token: "t1".into(),
        delay_ms: 0,
        reason: String::new(),
        stacktrace: String::new(),
        count_attempt: true,
        lifo: false,
    };
    t.broker.retry(&t.queue, &[retry]).await.unwrap();
    let next = claim(&t, 4).await;
    assert_eq!(next, counts([('a', 2), ('b', 2)]));
}

#[tokio::test]
async fn what_is_given_back_lets_nobody_pass_who_comes_anew() {
    let t = fair().await;
    add(&t, &with_priority(of("a", 0..100), 5)).await;
    let claimed = t.claim(50).await.jobs;
    let back: Vec<Release> = claimed[48..]
        .iter()
        .map(|job| Release {
            id: job.id.clone(),
            token: "t1".into(),
        })
        .collect();
    t.broker.release(&t.queue, &back).await.unwrap();
    add(&t, &with_priority(of("b", 0..50), 5)).await;
    let next = claim(&t, 22).await;
    assert!(next[&'b'] <= 11 && next[&'b'] >= 9, "{next:?}");
}

#[tokio::test]
async fn linked_jobs_have_their_turns_too() {
    let t = fair().await;
    add(&t, &of("a", 0..100)).await;
    let linked: Vec<LinkedJob> = of("b", 0..10).into_iter().map(LinkedJob::from).collect();
    t.broker.add_linked(&t.queue, &linked).await.unwrap();
    assert_eq!(claim(&t, 20).await, counts([('a', 10), ('b', 10)]));
}

#[tokio::test]
async fn a_queue_becomes_fair_with_what_waits_in_it_and_goes_back() {
    let t = Bench::new().await;
    add(&t, &of("a", 0..700)).await;
    add(&t, &of("b", 0..20)).await;
    let untold: Option<String> = t.raw("HGET @a0 gid").await;
    assert_eq!(untold, None, "where nobody asks it costs nothing");
    let owners: Vec<(String, String)> = of("a", 0..700)
        .into_iter()
        .chain(of("b", 0..20))
        .chain(of("gone", 0..1))
        .map(|job| (job.id, job.owner.unwrap()))
        .collect();
    t.broker.mark_owners(&t.queue, &owners).await.unwrap();
    let untold: Option<String> = t.raw("HGET @a0 gid").await;
    assert_eq!(untold, None, "the queue is not fair");

    t.broker.set_fair(&t.queue, true).await.unwrap();
    for _ in 0..2 {
        t.broker.mark_owners(&t.queue, &owners).await.unwrap();
        arrange(&t).await;
    }
    let made: i64 = t.raw("EXISTS @gone0").await;
    assert_eq!(made, 0, "a job that is gone stays gone");
    assert_eq!(claim(&t, 40).await, counts([('a', 20), ('b', 20)]));

    t.broker.set_fair(&t.queue, false).await.unwrap();
    arrange(&t).await;
    let left: i64 = t.raw("EXISTS @prioritized").await;
    assert_eq!(left, 0);
    add(&t, &of("c", 0..5)).await;
    let ids: Vec<String> = all(&t).await.into_iter().map(|job| job.id).collect();
    let expected: Vec<String> = (20..700)
        .map(|n| format!("a{n}"))
        .chain((0..5).map(|n| format!("c{n}")))
        .collect();
    assert!(ids == expected, "{ids:?}");
}

/// As it is with jobs of the record, which all have a priority on the wire.
#[tokio::test]
async fn jobs_with_priorities_get_turns_for_their_arrivals_and_keep_them() {
    let t = Bench::new().await;
    add(&t, &with_priority(of("a", 0..1300), 6)).await;
    add(&t, &with_priority(of("b", 0..20), 6)).await;
    add(&t, &with_priority(of("c", 0..20), 7)).await;
    let jobs = [of("a", 0..1300), of("b", 0..20), of("c", 0..20)].concat();
    let owners: Vec<(String, String)> = jobs
        .into_iter()
        .map(|job| (job.id, job.owner.unwrap()))
        .collect();
    t.broker.set_fair(&t.queue, true).await.unwrap();
    t.broker.mark_owners(&t.queue, &owners).await.unwrap();
    // Somebody dies in the middle, jobs come and go, and another one begins again.
    let mut from = None;
    for _ in 0..3 {
        from = t.broker.arrange(&t.queue, from).await.unwrap();
    }
    assert_eq!(claim(&t, 100).await[&'a'], 100, "b's are not reached yet");
    add(&t, &with_priority(of("b", 20..25), 6)).await;
    arrange(&t).await;
    arrange(&t).await;
    assert_eq!(claim(&t, 50).await, counts([('a', 25), ('b', 25)]));
    // Whoever comes now does not go before all that was arranged.
    add(&t, &with_priority(of("d", 0..500), 6)).await;
    assert_eq!(claim(&t, 100).await, counts([('a', 50), ('d', 50)]));

    t.broker.set_fair(&t.queue, false).await.unwrap();
    arrange(&t).await;
    add(&t, &with_priority(of("e", 0..5), 6)).await;
    let left = all(&t).await;
    let owners: Vec<char> = left.iter().map(owner_of).collect();
    let first = owners.iter().position(|owner| *owner == 'e').unwrap();
    assert!(owners[..first].iter().all(|owner| "ad".contains(*owner)));
    assert_eq!(owners[first..first + 5], ['e'; 5]);
    assert_eq!(owners[first + 5..], ['c'; 20]);
}

#[tokio::test]
async fn next_in_line_stays_next_in_line() {
    let t = fair().await;
    add(&t, &of("a", 0..10)).await;
    let mut urgent = of("b", 0..1);
    urgent[0].lifo = true;
    add(&t, &urgent).await;
    assert_eq!(claim(&t, 1).await, counts([('b', 1)]));
}

#[tokio::test]
async fn a_queue_that_is_obliterated_leaves_no_turns() {
    let t = fair().await;
    add(&t, &of("a", 0..3)).await;
    let turns = format!("bullwark:{}:q:turns", t.prefix);
    let kept: i64 = t.raw(&format!("EXISTS {turns}")).await;
    assert_eq!(kept, 1);
    t.broker.pause(&t.queue).await.unwrap();
    t.broker.obliterate(&t.queue, false).await.unwrap();
    let kept: i64 = t.raw(&format!("EXISTS {turns}")).await;
    assert_eq!(kept, 0);
}
