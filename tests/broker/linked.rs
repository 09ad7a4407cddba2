use bullwark::broker::{
    AddedLinked, BATCH_MAX, BrokerError, LinkedJob, NewJob, ParentLink, Refusal,
};
use bullwark::job::bullmq_options::{Deduplication, JobsOptions};

use crate::support::{Bench, NOW, job};

fn linked(id: &str) -> LinkedJob {
    LinkedJob {
        id: Some(id.to_owned()),
        name: "n".to_owned(),
        data: "{}".to_owned(),
        opts: "{}".to_owned(),
        ..LinkedJob::default()
    }
}

fn created(id: &str) -> AddedLinked {
    AddedLinked::Created { id: id.to_owned() }
}

fn deduplicated(survivor: &str) -> AddedLinked {
    AddedLinked::Deduplicated {
        survivor: survivor.to_owned(),
    }
}

fn keep_last(id: &str, data: &str) -> LinkedJob {
    let options = JobsOptions {
        job_id: Some(id.to_owned()),
        timestamp_ms: Some(NOW - 1000),
        deduplication: Some(Deduplication {
            id: "d".to_owned(),
            keep_last_if_active: true,
            ..Deduplication::default()
        }),
        ..JobsOptions::default()
    };
    LinkedJob::new("n", data, &options).unwrap()
}

#[tokio::test]
async fn a_job_without_links_ends_up_as_add_would_leave_it() {
    let (plain, t) = (Bench::new().await, Bench::new().await);
    let new = NewJob {
        due_ms: Some(NOW + 5000),
        priority: 3,
        attempts_started: Some(2),
        attempts_made: 1,
        ..job("a")
    };
    plain.broker.add(&plain.queue, &[new]).await.unwrap();
    let same = LinkedJob {
        timestamp_ms: Some(NOW),
        delay_ms: 5000,
        priority: 3,
        attempts_started: Some(2),
        attempts_made: 1,
        ..linked("a")
    };
    let added = t.broker.add_linked(&t.queue, &[same]).await.unwrap();
    assert_eq!(added, [created("a")]);
    assert_eq!(t.dump().await, plain.dump().await);
}

#[tokio::test]
async fn a_delay_that_is_over_is_no_delay() {
    let t = Bench::new().await;
    let late = LinkedJob {
        timestamp_ms: Some(NOW - 6000),
        delay_ms: 5000,
        ..linked("a")
    };
    t.broker.add_linked(&t.queue, &[late]).await.unwrap();
    t.expect(&format!(
        "a {{data={{}} delay=0 name=n opts={{}} priority=0 timestamp={early}}}
         events event=added jobId=a name=n
         events event=waiting jobId=a
         id = 1
         marker <0=0>
         wait [a]",
        early = NOW - 6000
    ))
    .await;
}

#[tokio::test]
async fn a_schedule_and_a_parent_stand_in_the_hash() {
    let t = Bench::new().await;
    t.raws(&["HSET @p name p"]).await;
    let queue_key = format!("{}:q", t.prefix);
    let options = JobsOptions {
        continue_parent_on_failure: true,
        ..JobsOptions::default()
    };
    let child = LinkedJob {
        parent: Some(ParentLink::new(&queue_key, "p", &options)),
        schedule_id: Some("nightly".to_owned()),
        timestamp_ms: Some(NOW),
        ..linked("a")
    };
    t.broker.add_linked(&t.queue, &[child]).await.unwrap();
    t.expect(&format!(
        "a {{data={{}} delay=0 name=n opts={{}} parent={{\"id\":\"p\",\"queueKey\":\"{queue_key}\",\
          \"cpof\":true}} parentKey={queue_key}:p priority=0 rjk=nightly timestamp={NOW}}}
         events event=added jobId=a name=n
         events event=waiting jobId=a
         id = 1
         marker <0=0>
         p {{name=p}}
         p:dependencies {{{queue_key}:a}}
         wait [a]"
    ))
    .await;
}

#[tokio::test]
async fn the_last_job_remembered_runs_after_its_owner() {
    let t = Bench::new().await;
    let add = async |job: LinkedJob| {
        let added = t.broker.add_linked(&t.queue, &[job]).await;
        added.unwrap().remove(0)
    };
    assert_eq!(add(keep_last("a", "1")).await, created("a"));
    let owner = t.claim(1).await.jobs.remove(0);
    assert_eq!(owner.dedup_id.as_deref(), Some("d"));
    assert_eq!(add(keep_last("b", "2")).await, deduplicated("a"));
    assert_eq!(add(keep_last("c", "3")).await, deduplicated("a"));
    assert!(t.claim(1).await.jobs.is_empty());

    let finish = bullwark::broker::Finish {
        id: "a".to_owned(),
        token: "t1".to_owned(),
        returnvalue: "null".to_owned(),
        keep: bullwark::broker::Keep::default(),
    };
    t.broker.finish(&t.queue, &[finish]).await.unwrap();
    let next = t.claim(2).await.jobs;
    let next: Vec<_> = next.iter().map(|job| (&*job.id, &*job.data)).collect();
    assert_eq!(next, [("c", "3")], "the last one, and only that");
    assert_eq!(t.raw::<String>("GET @de:d").await, "c");
    let made_ms: i64 = t.raw("HGET @c timestamp").await;
    assert_eq!(made_ms, NOW, "when it was added, not when it was asked for");
}

/// A client adds a job with the id of the one that is remembered; that one is there now.
#[tokio::test]
async fn a_remembered_job_whose_id_is_taken_meanwhile_is_a_duplicate() {
    let t = Bench::new().await;
    let add = async |job: LinkedJob| t.broker.add_linked(&t.queue, &[job]).await.unwrap();
    add(keep_last("a", "1")).await;
    t.claim(1).await;
    assert_eq!(add(keep_last("b", "2")).await, [deduplicated("a")]);
    assert_eq!(add(linked("b")).await, [created("b")]);
    let finish = bullwark::broker::Finish {
        id: "a".to_owned(),
        token: "t1".to_owned(),
        returnvalue: "null".to_owned(),
        keep: bullwark::broker::Keep::default(),
    };
    t.broker.finish(&t.queue, &[finish]).await.unwrap();
    assert_eq!(t.raw::<Vec<String>>("LRANGE @wait 0 -1").await, ["b"]);
    assert_eq!(t.raw::<i64>("EXISTS @dn:d").await, 0);
    let next = t.claim(9).await.jobs;
    assert_eq!(next.len(), 1);
    assert_eq!(next[0].data, "{}", "it is the one that was added");
}

#[tokio::test]
async fn more_jobs_than_a_batch_keep_their_order_and_their_numbers() {
    let t = Bench::new().await;
    let unnamed = LinkedJob {
        id: None,
        ..linked("")
    };
    let jobs = vec![unnamed; BATCH_MAX + 2];
    let added = t.broker.add_linked(&t.queue, &jobs).await.unwrap();
    let ids: Vec<String> = (1..=BATCH_MAX + 2).map(|id| id.to_string()).collect();
    let expected: Vec<AddedLinked> = ids.iter().map(|id| created(id)).collect();
    assert_eq!(added, expected);
    let mut wait: Vec<String> = t.raw("LRANGE @wait 0 -1").await;
    wait.reverse();
    assert_eq!(wait, ids);
}

#[tokio::test]
async fn a_bad_job_keeps_the_whole_call_out() {
    let t = Bench::new().await;
    for (bad, code) in [
        (linked("meta"), "job_id"),
        (
            LinkedJob {
                priority: 1 << 21,
                ..linked("p")
            },
            "priority",
        ),
    ] {
        let refused = t.broker.add_linked(&t.queue, &[linked("a"), bad]).await;
        let Err(BrokerError::Refused(refusal)) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(Refusal::code(&refusal), code);
    }
    t.expect("").await;
}

/// Whoever puts a child back may have read the record before the child ran and left Redis.
#[tokio::test]
async fn a_parent_that_runs_already_does_not_wait_for_a_child_that_is_put_back_late() {
    let t = Bench::new().await;
    t.raws(&["HSET @p name p", "RPUSH @active p"]).await;
    let queue_key = format!("{}:q", t.prefix);
    let late = LinkedJob {
        parent: Some(ParentLink::new(&queue_key, "p", &JobsOptions::default())),
        unless_released: true,
        ..linked("a")
    };
    for _ in 0..2 {
        let added = t.broker.add_linked(&t.queue, std::slice::from_ref(&late));
        added.await.unwrap();
        assert_eq!(t.raw::<i64>("SCARD @p:dependencies").await, 0);
    }

    t.raws(&[
        "LREM @active 0 p",
        &format!("ZADD @waiting-children {NOW} p"),
    ])
    .await;
    t.broker.add_linked(&t.queue, &[late]).await.unwrap();
    assert_eq!(t.raw::<i64>("SCARD @p:dependencies").await, 1);
}
