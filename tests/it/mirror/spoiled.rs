//! Jobs that one of the stores refuses, among others.

use super::{Follower, foreign};
use crate::stage::Stage;

#[tokio::test]
async fn a_job_that_the_record_refuses_holds_up_no_other() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let jobs: Vec<_> = (0..20).map(|n| foreign(&format!("j{n}"))).collect();
    let ids = stage.add(&jobs).await;
    // A time that PostgreSQL can not tell.
    stage
        .raw(&[
            "HSET @j7 timestamp 9000000000000000000",
            "DEL @j11",
            "SET @j11 x",
        ])
        .await;
    follower.catch_up().await;
    for (nth, id) in ids.iter().enumerate() {
        if nth != 7 && nth != 11 {
            assert_eq!(stage.status(*id).await, "pending", "j{nth}");
        }
    }
    assert_eq!(stage.count("jobs WHERE redis_id LIKE 'j%'").await, 18);
}

#[tokio::test]
async fn a_job_that_became_readable_is_found_by_the_scan() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let ids = stage.add(&[foreign("a"), foreign("b")]).await;
    stage.raw(&["HSET @a timestamp 9000000000000000000"]).await;
    follower.catch_up().await;
    assert_eq!(stage.count("jobs WHERE redis_id = 'a'").await, 0);
    stage
        .raw(&[&format!("HSET @a timestamp {}", super::T)])
        .await;
    // The next one walks through every queue.
    stage.forget_lease().await;
    Follower::new(&stage).until(ids[0], "pending").await;
    assert_eq!(stage.status(ids[1]).await, "pending");
}
