//! Turns of jobs that wait for quota, and what becomes of one that its job does not need.

use bullwark::broker::{Broker, NewJob, QuotaTicket};
use bullwark::job::quota::{Limits, Window};
use uuid::Uuid;

use crate::quota::{ONE, Want, take};
use crate::support::{Bench, NOW, claim_options, job};

const KEY: &str = "clearbit:w1";

/// One call a second, and no more of them at once than ten.
const TEN_IN_TEN: Window = Window::Sliding {
    max: 10,
    per_ms: 10_000,
};

/// Six jobs that wait for it, delayed in Redis until their moments, and the first of these. One
/// call becomes free each second.
async fn waiting(t: &Bench, limits: &Limits) -> (i64, Vec<Want>) {
    for seconds in 0..10 {
        let then = t.at(NOW - 9000 + seconds * 1000);
        take(&then, limits, ONE).await.unwrap();
    }
    let (mut first, mut waiting) = (None, Vec::new());
    for _ in 0..6 {
        let job_id = Uuid::new_v4();
        let want = Want {
            ticket: Some(job_id),
            ..ONE
        };
        let (wait, _) = take(&t.broker, limits, want).await.unwrap_err();
        let delayed = NewJob {
            due_ms: Some(NOW + wait),
            ..job(&job_id.to_string())
        };
        t.broker.add(&t.queue, &[delayed]).await.unwrap();
        first.get_or_insert(NOW + wait);
        waiting.push(want);
    }
    (first.unwrap(), waiting)
}

async fn available(t: &Bench) -> Vec<String> {
    t.raw("LRANGE @wait 0 -1").await
}

async fn pass(broker: &Broker, t: &Bench, want: Want) {
    let job_id = &want.ticket.unwrap().to_string();
    let ticket = QuotaTicket {
        queue: &t.queue,
        job_id,
    };
    broker.pass_quota_turn(KEY, ticket).await.unwrap();
}

#[tokio::test]
async fn a_turn_that_its_job_does_not_need_goes_to_the_last_who_waits() {
    let t = Bench::new().await;
    let limits = Limits::of([TEN_IN_TEN]);
    let (first, jobs) = waiting(&t, &limits).await;
    let then = t.at(first + 100);
    pass(&then, &t, jobs[0]).await;
    let last = jobs[5].ticket.unwrap().to_string();
    assert_eq!(available(&t).await, [&*last], "and nobody else");
    pass(&then, &t, jobs[0]).await;
    assert_eq!(available(&t).await, [&*last], "a turn is passed on once");
    // It is kept; who comes anew stands behind the others, and not behind where the last one was.
    let wait = take(&then, &limits, ONE).await.unwrap_err().0;
    assert!((4900..5200).contains(&wait), "{wait}");
    take(&t.at(first + 300), &limits, jobs[5]).await.unwrap();
    // The others have theirs.
    for (seconds, job) in [(1, jobs[1]), (2, jobs[2]), (3, jobs[3]), (4, jobs[4])] {
        let then = t.at(first + seconds * 1000 + 300);
        take(&then, &limits, job).await.unwrap();
    }
}

#[tokio::test]
async fn only_who_has_a_turn_can_pass_it_on() {
    let t = Bench::new().await;
    let limits = Limits::of([TEN_IN_TEN]);
    let (first, _) = waiting(&t, &limits).await;
    let stranger = Want {
        ticket: Some(Uuid::new_v4()),
        ..ONE
    };
    pass(&t.at(first), &t, stranger).await;
    assert!(available(&t).await.is_empty());
}

#[tokio::test]
async fn nobody_is_brought_forward_who_comes_soon_anyway() {
    let t = Bench::new().await;
    let limits = Limits::of([TEN_IN_TEN]);
    let (first, jobs) = waiting(&t, &limits).await;
    pass(&t.at(first + 4500), &t, jobs[4]).await;
    assert!(available(&t).await.is_empty());
}

/// It was told so just now, and its worker is about to put it off.
#[tokio::test]
async fn a_job_that_is_not_delayed_yet_is_passed_over_for_the_one_before_it() {
    let t = Bench::new().await;
    let limits = Limits::of([TEN_IN_TEN]);
    let (first, jobs) = waiting(&t, &limits).await;
    let job_id = Uuid::new_v4();
    let newest = Want {
        ticket: Some(job_id),
        ..ONE
    };
    take(&t.broker, &limits, newest).await.unwrap_err();
    let active = job(&job_id.to_string());
    t.broker.add(&t.queue, &[active]).await.unwrap();
    t.broker
        .claim(&t.queue, &claim_options("x", 1))
        .await
        .unwrap();
    let then = t.at(first + 100);
    pass(&then, &t, jobs[0]).await;
    let last = jobs[5].ticket.unwrap().to_string();
    assert_eq!(available(&t).await, [last]);
    take(&then, &limits, jobs[5]).await.unwrap();
}
