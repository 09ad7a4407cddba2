//! A memory of Redis that is not the one that was compared with the record, and how one is made to
//! agree.

use std::time::Duration;

use bullwark::broker::{BrokerError, Finish, Keep, NewJob, Readmit, Settled, rebuilt_token};

use crate::support::{Bench, NOW, claim_options, ids, job};

const LEASE: Duration = Duration::from_secs(30);

fn readmit(id: &str, starts: u32, token: Option<&str>) -> Readmit {
    Readmit {
        starts_max: None,
        id: id.to_owned(),
        starts,
        token: token.map(str::to_owned),
    }
}

#[tokio::test]
async fn a_running_job_is_active_again_wherever_it_waited_and_starts_are_never_lowered() {
    let t = Bench::new().await;
    t.add(&["plain", "waits"]).await;
    let others = [
        NewJob {
            priority: 3,
            ..job("urgent")
        },
        NewJob {
            due_ms: Some(NOW + 60_000),
            ..job("later")
        },
        NewJob {
            attempts_started: Some(9),
            ..job("often")
        },
    ];
    t.broker.add(&t.queue, &others).await.unwrap();
    t.raws(&[
        "ZADD @waiting-children 1 parent",
        "HSET @parent name n",
        "SADD @stalled waits",
    ])
    .await;
    t.raws(&["RPUSH @paused left", "HSET @left name n"]).await;
    let jobs = [
        readmit("plain", 2, None),
        readmit("gone", 4, Some("t")),
        readmit("waits", 1, Some("t")),
        readmit("urgent", 1, Some("t")),
        readmit("later", 1, Some("t")),
        readmit("parent", 1, Some("t")),
        readmit("left", 1, Some("t")),
        readmit("often", 3, None),
    ];
    let known = [true, false, true, true, true, true, true, true];
    for _ in 0..2 {
        let answer = t.broker.readmit(&t.queue, &jobs, LEASE).await.unwrap();
        assert_eq!(answer, known, "and repeating it changes nothing");
        let dump = t.dump().await;
        for line in [
            "active [left parent later urgent waits]",
            "wait [often plain]",
            "left:lock = t ttl<=30s",
            "left {ats=1 name=n}",
        ] {
            assert!(dump.lines().any(|l| l == line), "{line} is not in\n{dump}");
        }
        for absent in ["paused", "prioritized <", "delayed <", "stalled", "gone"] {
            assert!(
                !dump.lines().any(|l| l.starts_with(absent)),
                "{absent}\n{dump}"
            );
        }
        assert!(
            dump.contains("plain {ats=2 ") && dump.contains("often {ats=9 "),
            "{dump}"
        );
    }
}

#[tokio::test]
async fn a_lease_that_is_held_stays_and_only_its_worker_takes_over_one_that_was_put_back() {
    let t = Bench::new().await;
    t.add(&["a", "b", "c"]).await;
    t.raws(&["SET @a:lock other PX 20000"]).await;
    let token = rebuilt_token("w1");
    let jobs = ["a", "b", "c"].map(|id| readmit(id, 1, Some(&token)));
    t.broker.readmit(&t.queue, &jobs, LEASE).await.unwrap();
    let leases = |token: &str| ["a", "b"].map(|id| (id.to_owned(), token.to_owned()));
    let extend = async |token| {
        let lease = Duration::from_secs(50);
        t.broker
            .extend(&t.queue, &leases(token), lease)
            .await
            .unwrap()
    };
    for stranger in ["bullwark:w2:5", "bullwark:w1x:5", "w1:5", "bullwark:w1:x5"] {
        assert_eq!(extend(stranger).await, [false, false], "{stranger}");
    }
    assert_eq!(extend("bullwark:w1:5").await, [false, true]);
    assert_eq!(
        extend("bullwark:w1:6").await,
        [false, false],
        "now it is a start's own"
    );
    assert_eq!(t.raw::<String>("GET @b:lock").await, "bullwark:w1:5");

    // An outcome that comes before the next renewal is taken as well, and a stranger's is not.
    let finish = async |token: &str| {
        let finish = Finish {
            id: "c".to_owned(),
            token: token.to_owned(),
            returnvalue: "1".to_owned(),
            keep: Keep::All,
        };
        t.broker
            .finish(&t.queue, &[finish])
            .await
            .unwrap()
            .remove(0)
    };
    assert_eq!(finish("bullwark:w2:5").await, Settled::LockMismatch);
    assert_eq!(finish("bullwark:w1:5").await, Settled::Done);
    assert_eq!(t.raw::<i64>("EXISTS @c:lock").await, 0);
}

#[tokio::test]
async fn what_reaches_redis_too_late_is_not_added() {
    let t = Bench::new().await;
    let add = async |id: &str, not_after_ms| {
        let jobs = [job(id)];
        t.broker.add_until(&t.queue, &jobs, not_after_ms).await
    };
    assert!(add("a", Some(NOW)).await.is_ok());
    let before = t.dump().await;
    let late = add("b", Some(NOW - 1)).await;
    assert!(matches!(late, Err(BrokerError::TooLate { .. })), "{late:?}");
    assert_eq!(t.dump().await, before);

    // A moment of this process on the server's clock: never later than it was.
    let broker = t.broker_with_server_clock().await;
    let moment = tokio::time::Instant::now();
    let told = broker.server_ms_at(moment).await.unwrap();
    let second = Duration::from_secs(1);
    let later = broker.server_ms_at(moment + second).await.unwrap();
    assert!(
        (told + 999..=told + 1001).contains(&later),
        "{told} {later}"
    );
    assert!(told <= broker.server_time_ms().await.unwrap());
}

#[tokio::test]
async fn only_the_memory_that_is_served_is_worked_with() {
    let t = Bench::new().await;
    let epoch = t.broker.epoch().await.unwrap();
    assert_eq!(t.broker.epoch().await.unwrap(), epoch, "it keeps its name");
    t.broker.serve(&epoch);
    t.add(&["a", "b"]).await;
    assert_eq!(ids(&t.claim(1).await), ["a"]);

    let key = format!("bullwark:{}:epoch", t.prefix);
    let mut set = redis::cmd("SET");
    set.arg(&key).arg("another@server");
    let _: () = t.send(&set).await;
    let before = t.dump().await;
    let claimed = t.broker.claim(&t.queue, &claim_options("t1", 9)).await;
    assert!(matches!(claimed, Err(BrokerError::OtherMemory { .. })));
    let added = t.broker.add(&t.queue, &[job("c")]).await;
    assert!(matches!(added, Err(BrokerError::OtherMemory { .. })));
    assert_eq!(t.dump().await, before, "nothing was touched");
    // Repairs work with any memory.
    let repair = t.broker.for_repair();
    repair.add(&t.queue, &[job("c")]).await.unwrap();
    assert_eq!(
        repair
            .claim(&t.queue, &claim_options("t1", 9))
            .await
            .unwrap()
            .jobs
            .len(),
        2
    );

    // The key is right, but the server is another one: an old file, or a replica.
    let mut set = redis::cmd("SET");
    set.arg(&key).arg("x@0000");
    let _: () = t.send(&set).await;
    t.broker.serve("x@0000");
    let claimed = t.broker.claim(&t.queue, &claim_options("t1", 9)).await;
    assert!(matches!(claimed, Err(BrokerError::OtherMemory { .. })));
    // One that does not name itself is known by the key alone.
    let mut set = redis::cmd("SET");
    set.arg(&key).arg("x@unknown");
    let _: () = t.send(&set).await;
    t.broker.serve("x@unknown");
    assert!(
        t.broker
            .claim(&t.queue, &claim_options("t1", 9))
            .await
            .is_ok()
    );
}

/// Its first start may have been made by a worker whom the record has not heard of yet, and have
/// been forgotten here.
#[tokio::test]
async fn a_job_without_a_known_start_is_asked_about_when_it_is_claimed_next() {
    let t = Bench::new().await;
    let new = NewJob {
        attempts_started: Some(0),
        ..job("new")
    };
    t.broker.add(&t.queue, &[new]).await.unwrap();
    let jobs = [readmit("new", 0, None)];
    t.broker.readmit(&t.queue, &jobs, LEASE).await.unwrap();
    let claimed = t.claim(1).await.jobs;
    assert_eq!(
        (claimed[0].attempts_started, claimed[0].is_counted),
        (1, false)
    );
}
