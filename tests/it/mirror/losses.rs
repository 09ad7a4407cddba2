//! Events read twice, by two, or never; places not written; and a Redis that forgot.

use bullwark::broker::{self, Keep};
use serde_json::json;

use super::{Follower, T, foreign};
use crate::stage::Stage;

#[tokio::test]
async fn events_that_are_read_twice_or_by_two_followers_change_nothing() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let ids = stage
        .add(&[foreign("a"), foreign("b"), foreign("c"), foreign("d")])
        .await;
    stage.claim_elsewhere().await;
    stage.retry_elsewhere("a", "x", 60_000).await;
    stage.finish_elsewhere("b", "1", Keep::All).await;
    stage.fail_elsewhere("c", "x").await;
    follower.catch_up().await;
    for (id, status) in ids
        .iter()
        .zip(["failed", "completed", "dead_letter", "processing"])
    {
        assert_eq!(stage.status(*id).await, status);
    }
    let before = stage.everything().await;
    // A process died before its place was written: the next one reads everything again.
    stage
        .execute("DELETE FROM bullwark.mirror_positions".into())
        .await;
    stage.forget_lease().await;
    let (mut second, mut third) = (Follower::new(&stage), Follower::new(&stage));
    for _ in 0..3 {
        second.mirror.step().await.unwrap();
        stage.forget_lease().await;
        third.mirror.step().await.unwrap();
        stage.forget_lease().await;
    }
    assert_eq!(stage.everything().await, before);

    // Both at once, on new events.
    stage.finish_elsewhere("d", "4", Keep::All).await;
    let new: Vec<_> = (0..200).map(|n| foreign(&format!("n{n}"))).collect();
    let new = stage.add(&new).await;
    let (one, other) = tokio::join!(second.mirror.step(), third.mirror.step());
    one.unwrap();
    other.unwrap();
    stage.forget_lease().await;
    second.until(new[199], "pending").await;
    second.until(ids[3], "completed").await;
    assert_eq!(stage.count("jobs WHERE redis_id LIKE 'n%'").await, 200);
    assert_eq!(
        stage
            .count("jobs WHERE redis_id = 'd' AND attempt = 1")
            .await,
        1
    );
}

#[tokio::test]
async fn one_follows_until_it_is_gone_and_the_next_goes_on_where_it_was() {
    let stage = Stage::new().await;
    let (mut first, mut second) = (Follower::new(&stage), Follower::new(&stage));
    let a = stage.add(&[foreign("a")]).await[0];
    first.until(a, "pending").await;
    second.mirror.step().await.unwrap();
    let b = stage.add(&[foreign("b")]).await[0];
    second.mirror.step().await.unwrap();
    let known = bullwark::record::jobs::get(&mut stage.record.view().await.unwrap(), b, None)
        .await
        .unwrap();
    assert!(known.is_none(), "it is not its turn");
    drop(first);
    second.until(b, "pending").await;
    let place = "bullwark.mirror_positions WHERE job_queue = 'default' AND event_ms > 0";
    assert_eq!(stage.count(place).await, 1);
}

#[tokio::test]
async fn a_queue_whose_events_were_lost_is_walked_through() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let ids = stage.add(&[foreign("a"), foreign("b"), foreign("c")]).await;
    follower.until(ids[2], "pending").await;
    drop(follower);
    stage.forget_lease().await;
    // Nobody follows; things happen, and their events are gone.
    stage.claim_elsewhere().await;
    stage.finish_elsewhere("a", "1", Keep::All).await;
    stage.retry_elsewhere("b", "x", 60_000).await;
    let unseen = stage.add(&[foreign("d")]).await[0];
    stage.claim_elsewhere().await;
    stage.fail_elsewhere("d", "y").await;
    stage.raw(&["XTRIM @events MAXLEN 0"]).await;
    let mut follower = Follower::new(&stage);
    follower.until(unseen, "dead_letter").await;
    follower.until(ids[1], "failed").await;
    follower.until(ids[2], "processing").await;
    stage.sweep().await;
    assert_eq!(stage.status(ids[0]).await, "completed");
    assert!(
        stage
            .count("job_logs WHERE message LIKE 'reconciled:%'")
            .await
            > 0
    );
}

#[tokio::test]
async fn an_adopted_job_without_a_place_in_redis_was_removed_or_lost() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let ids = stage.add(&[foreign("5"), foreign("6")]).await;
    follower.until(ids[1], "pending").await;
    // What `drain` leaves behind: no event.
    stage.raw(&["DEL @wait", "DEL @5"]).await;
    stage.raw(&["RPUSH @wait 6"]).await;
    stage.sweep().await;
    assert_eq!(stage.status(ids[0]).await, "cancelled");
    assert_eq!(stage.status(ids[1]).await, "pending");
    // The memory is another one: what is absent was lost, and its number is not given again.
    stage.flush_prefix().await;
    stage.sweep().await;
    assert_eq!(stage.status(ids[1]).await, "pending");
    let claimed = stage.claim_elsewhere().await;
    assert_eq!(claimed, ["6"]);
    let mut redis = stage.redis().await;
    let count: u64 = redis::cmd("GET")
        .arg(format!("{}:default:id", stage.prefix))
        .query_async(&mut redis)
        .await
        .unwrap();
    assert!(count >= 6, "{count}");
}

#[tokio::test]
async fn a_lost_job_whose_id_was_given_away_comes_back_under_another() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let old = stage.add(&[foreign("1")]).await[0];
    follower.until(old, "pending").await;
    stage.flush_prefix().await;
    // The client's counter was lost, too: its next job has the same number.
    let next = broker::NewJob {
        timestamp_ms: T + 5,
        ..foreign("1")
    };
    let new = stage.add(&[next]).await[0];
    let mut follower = Follower::new(&stage);
    follower.until(new, "pending").await;
    stage.sweep().await;
    let mut claimed = stage.claim_elsewhere().await;
    claimed.sort();
    assert_eq!(claimed, ["1".to_owned(), format!("bullwark-{old}")]);
    for id in &claimed {
        stage.finish_elsewhere(id, "1", Keep::All).await;
    }
    follower.until(old, "completed").await;
    follower.until(new, "completed").await;
    assert_eq!(stage.count("jobs").await, 2);
}

/// Two jobs with the id of an iteration are one moment of a schedule.
#[tokio::test]
async fn a_lost_iteration_that_was_made_again_does_not_run_twice() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let iteration = foreign("repeat:tick:1700000000000");
    let old = stage.add(std::slice::from_ref(&iteration)).await[0];
    follower.until(old, "pending").await;
    stage.flush_prefix().await;
    let again = broker::NewJob {
        timestamp_ms: T + 5,
        ..iteration
    };
    let new = stage.add(&[again]).await[0];
    let mut follower = Follower::new(&stage);
    follower.until(new, "pending").await;
    follower.until(old, "cancelled").await;
    stage.sweep().await;
    assert_eq!(stage.claim_elsewhere().await, ["repeat:tick:1700000000000"]);
    assert_eq!(stage.count("jobs").await, 2);
}

/// What the sweep takes for removed may have ended, and its event not been read yet.
#[tokio::test]
async fn an_end_that_comes_to_light_late_counts() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let id = stage.add(&[foreign("a")]).await[0];
    follower.until(id, "pending").await;
    stage.claim_elsewhere().await;
    stage.finish_elsewhere("a", "5", Keep::Remove).await;
    stage.sweep().await;
    assert_eq!(stage.status(id).await, "cancelled");
    follower.until(id, "completed").await;
    assert_eq!(stage.row(id).await.result, Some(json!(5)));
}
