use bullwark::broker::{BATCH_MAX, NewJob, Release, Settled};

use crate::support::{Bench, NOW, STEP, claim_options, ids, job};

fn release(id: &str) -> Release {
    Release {
        id: id.into(),
        token: "t1".into(),
    }
}

#[tokio::test]
async fn released_jobs_are_next_again_in_their_old_order_and_no_attempt_is_spent() {
    let t = Bench::new().await;
    t.add(&["a", "b"]).await;
    t.claim(2).await;
    t.add(&["c"]).await;
    t.raws(&["DEL @events @marker", "DEL @c", "HSET @c name n"])
        .await;
    let settled = t
        .broker
        .release(&t.queue, &[release("a"), release("b")])
        .await
        .unwrap();
    assert_eq!(settled, [Settled::Done; 2]);
    let hash = format!(
        "{{ats=1 data={{}} delay=0 name=n opts={{}} priority=0 processedOn={NOW} timestamp={NOW}}}"
    );
    t.expect(&format!(
        "a {hash}
         b {hash}
         c {{name=n}}
         events event=waiting jobId=b prev=active
         events event=waiting jobId=a prev=active
         id = 3
         marker <0=0>
         wait [c b a]"
    ))
    .await;
}

#[tokio::test]
async fn a_job_with_a_priority_goes_before_its_equals() {
    let t = Bench::new().await;
    let with = |id: &str| NewJob {
        priority: 7,
        ..job(id)
    };
    t.broker
        .add(&t.queue, &[with("a"), with("b"), with("c")])
        .await
        .unwrap();
    t.claim(2).await;
    t.broker
        .release(&t.queue, &[release("a"), release("b")])
        .await
        .unwrap();
    assert_eq!(t.raw::<i64>("ZSCORE @prioritized a").await, 7 * STEP);
    assert_eq!(ids(&t.claim(3).await), ["a", "b", "c"]);
}

#[tokio::test]
async fn only_the_holder_of_the_lease_can_release() {
    let t = Bench::new().await;
    t.add(&["a"]).await;
    t.broker
        .claim(&t.queue, &claim_options("other", 1))
        .await
        .unwrap();
    let before = t.dump().await;
    let settled = t
        .broker
        .release(&t.queue, &[release("a"), release("x")])
        .await
        .unwrap();
    assert_eq!(settled, [Settled::LockMismatch, Settled::JobMissing]);
    assert_eq!(t.dump().await, before);
}

#[tokio::test]
async fn more_jobs_than_a_batch_keep_their_order_and_their_answers() {
    let t = Bench::new().await;
    let many: Vec<NewJob> = (0..BATCH_MAX + 2).map(|i| job(&format!("j{i}"))).collect();
    t.broker.add(&t.queue, &many).await.unwrap();
    t.claim(BATCH_MAX).await;
    t.claim(BATCH_MAX).await;
    t.raws(&["DEL @j501"]).await;
    let jobs: Vec<Release> = many.iter().map(|job| release(&job.id)).collect();
    let settled = t.broker.release(&t.queue, &jobs).await.unwrap();
    assert_eq!(settled[501], Settled::JobMissing);
    assert!(settled[..501].iter().all(|answer| *answer == Settled::Done));
    let mut wait: Vec<String> = t.raw("LRANGE @wait 0 -1").await;
    wait.reverse();
    assert!(wait.iter().eq(many[..501].iter().map(|job| &job.id)));
}
