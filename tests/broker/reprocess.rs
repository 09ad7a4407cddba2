use bullwark::broker::{FinishedState, Moved, Reprocess};

use crate::support::{Bench, NOW, STEP};

const ENDED: &str = "processedOn 4 finishedOn 5 atm 3 ats 4";

/// A finished job, by its name and further fields.
async fn finished(t: &Bench, state: &str, id: &str, more: &str) {
    let outcome = match state {
        "failed" => "failedReason boom stacktrace []",
        _ => "returnvalue 1",
    };
    t.raws(&[
        &format!("HSET @{id} name n timestamp {NOW} delay 0 priority 0 {outcome} {ENDED} {more}"),
        &format!("ZADD @{state} 5 {id}"),
    ])
    .await;
}

#[tokio::test]
async fn a_failed_job_waits_again_and_keeps_what_its_attempts_were() {
    let t = Bench::new().await;
    finished(&t, "failed", "a", "").await;
    t.raws(&["RPUSH @wait x"]).await;
    let again = async || {
        let how = Reprocess::default();
        let moved = t
            .broker
            .reprocess(&t.queue, "a", FinishedState::Failed, how);
        moved.await.unwrap()
    };
    assert_eq!(again().await, Moved::Done);
    let expected = format!(
        "a {{atm=3 ats=4 delay=0 name=n priority=0 stacktrace=[] timestamp={NOW}}}
         events event=waiting jobId=a prev=failed
         marker <0=0>
         wait [a x]"
    );
    t.expect(&expected).await;
    assert_eq!(again().await, Moved::NotInState);
    t.expect(&expected).await;
}

#[tokio::test]
async fn a_completed_job_starts_afresh_at_its_own_priority() {
    let t = Bench::new().await;
    finished(&t, "completed", "a", "priority 3").await;
    let how = Reprocess {
        resets_attempts_made: true,
        resets_attempts_started: true,
        ..Reprocess::default()
    };
    let moved = t
        .broker
        .reprocess(&t.queue, "a", FinishedState::Completed, how);
    assert_eq!(moved.await.unwrap(), Moved::Done);
    t.expect(&format!(
        "a {{delay=0 name=n priority=3 timestamp={NOW}}}
         events event=waiting jobId=a prev=completed
         marker <0=0>
         pc = 1
         prioritized <a={}>",
        3 * STEP + 1
    ))
    .await;
}

#[tokio::test]
async fn a_lifo_job_is_next_in_line_and_a_paused_queue_wakes_nobody() {
    let t = Bench::new().await;
    finished(&t, "failed", "a", "").await;
    t.raws(&["RPUSH @wait x", "HSET @meta paused 1"]).await;
    let how = Reprocess {
        lifo: true,
        ..Reprocess::default()
    };
    let moved = t
        .broker
        .reprocess(&t.queue, "a", FinishedState::Failed, how);
    assert_eq!(moved.await.unwrap(), Moved::Done);
    assert_eq!(t.raw::<Vec<String>>("LRANGE @wait 0 -1").await, ["x", "a"]);
    assert_eq!(t.raw::<i64>("EXISTS @marker").await, 0);
}

#[tokio::test]
async fn a_child_that_runs_again_is_pending_for_a_parent_that_lives() {
    for (state, told) in [
        (FinishedState::Failed, "ZADD @p:unsuccessful 1 @a"),
        (FinishedState::Failed, "HSET @p:failed @a boom"),
        (FinishedState::Completed, "HSET @p:processed @a 1"),
    ] {
        let t = Bench::new().await;
        let name = format!("{state:?}").to_lowercase();
        finished(&t, &name, "a", &format!("parentKey {}", t.key("p"))).await;
        t.raws(&["HSET @p name n", told]).await;
        let how = Reprocess::default();
        let moved = t.broker.reprocess(&t.queue, "a", state, how).await;
        assert_eq!(moved.unwrap(), Moved::Done);
        let pending: Vec<String> = t.raw("SMEMBERS @p:dependencies").await;
        assert_eq!(pending, [t.key("a")], "{told}");
        let left: i64 = t.raw("EXISTS @p:unsuccessful @p:failed @p:processed").await;
        assert_eq!(left, 0, "{told}");
    }
    let t = Bench::new().await;
    finished(&t, "failed", "a", &format!("parentKey {}", t.key("gone"))).await;
    let how = Reprocess::default();
    let moved = t
        .broker
        .reprocess(&t.queue, "a", FinishedState::Failed, how);
    assert_eq!(moved.await.unwrap(), Moved::Done);
    assert_eq!(t.raw::<i64>("EXISTS @gone:dependencies").await, 0);
}

#[tokio::test]
async fn many_failed_jobs_wait_again_oldest_first_up_to_a_time_and_a_number() {
    let t = Bench::new().await;
    for (id, score) in [("b", 6), ("a", 5), ("d", 8), ("c", 7)] {
        finished(&t, "failed", id, if id == "b" { "priority 2" } else { "" }).await;
        t.raws(&[&format!("ZADD @failed {score} {id}")]).await;
    }
    t.raws(&["ZADD @failed 1 ghost", "DEL @events"]).await;
    let moved = t
        .broker
        .reprocess_many(&t.queue, FinishedState::Failed, Some(7), 2);
    assert_eq!(moved.await.unwrap(), 2, "the ghost is one of them");
    assert_eq!(t.raw::<Vec<String>>("LRANGE @wait 0 -1").await, ["a"]);
    let moved = t
        .broker
        .reprocess_many(&t.queue, FinishedState::Failed, Some(7), 9);
    assert_eq!(moved.await.unwrap(), 2);
    let again = |id: &str, priority: u8| {
        format!(
            "{id} {{atm=3 ats=4 delay=0 name=n priority={priority} stacktrace=[] timestamp={NOW}}}"
        )
    };
    t.expect(&format!(
        "{a}
         {b}
         {c}
         d {{atm=3 ats=4 delay=0 failedReason=boom finishedOn=5 name=n priority=0 processedOn=4 \
          stacktrace=[] timestamp={NOW}}}
         events event=waiting jobId=a prev=failed
         events event=waiting jobId=b prev=failed
         events event=waiting jobId=c prev=failed
         failed <d=8>
         marker <0=0>
         pc = 1
         prioritized <b={score}>
         wait [c a]",
        a = again("a", 0),
        b = again("b", 2),
        c = again("c", 0),
        score = 2 * STEP + 1,
    ))
    .await;
}

#[tokio::test]
async fn all_delayed_jobs_are_promoted_in_the_order_they_are_due() {
    let t = Bench::new().await;
    for at in 0..2500 {
        t.raws(&[
            &format!("HSET @j{at} name n delay 9 priority 0"),
            &format!("ZADD @delayed {at} j{at}"),
        ])
        .await;
    }
    assert_eq!(t.broker.promote_many(&t.queue, 1200).await.unwrap(), 1200);
    assert_eq!(t.raw::<i64>("ZCARD @delayed").await, 1300);
    assert_eq!(t.broker.promote_many(&t.queue, 9999).await.unwrap(), 1300);
    let wait: Vec<String> = t.raw("LRANGE @wait 0 -1").await;
    let expected: Vec<String> = (0..2500).rev().map(|at| format!("j{at}")).collect();
    assert_eq!(wait, expected);
    assert_eq!(t.raw::<i64>("HGET @j7 delay").await, 0);
    assert_eq!(t.broker.promote_many(&t.queue, 9999).await.unwrap(), 0);
}
