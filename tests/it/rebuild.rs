//! Redis comes back with another memory: nothing is claimed from it before it agrees.

use std::time::Duration;

use bullwark::broker::{BrokerError, BrokerState, ClaimedJob};
use bullwark::job::{Due, NewJob, Priority, QueueName};
use bullwark::reconcile;
use bullwark::record::access::By;
use bullwark::record::enqueue::INSERT_MAX;
use bullwark::record::owed_logs;
use bullwark::record::settle::settle_many;
use bullwark::record::start::mark_running;
use bullwark::stores::Stores;
use redis::aio::MultiplexedConnection;

use crate::reconcile::deliver;
use crate::stage::{Stage, claim_options, completed, failed, ids, old_job, running, settled};
use crate::support::own_stores;

const HOUR: Duration = Duration::from_secs(3600);

/// Every key with its value, to be put back later. Not the server's own doing: keys that expire
/// are kept without their time.
struct Snapshot(Vec<(Vec<u8>, Vec<u8>)>);

impl Snapshot {
    async fn take(redis: &mut MultiplexedConnection) -> Self {
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS")
            .arg("*")
            .query_async(redis)
            .await
            .unwrap();
        let mut all = Vec::new();
        for key in keys {
            let dump = redis::cmd("DUMP")
                .arg(&key)
                .query_async(redis)
                .await
                .unwrap();
            all.push((key, dump));
        }
        Self(all)
    }

    /// The server forgets what came after, as one does that was started from an old file or was
    /// promoted too early: under another replication id.
    async fn put_back(self, redis: &mut MultiplexedConnection) {
        let mut pipe = redis::pipe();
        pipe.cmd("FLUSHALL").ignore();
        for (key, dump) in self.0 {
            pipe.cmd("RESTORE").arg(key).arg(0).arg(dump).ignore();
        }
        pipe.cmd("REPLICAOF").arg("127.0.0.1").arg(1).ignore();
        pipe.cmd("REPLICAOF").arg("NO").arg("ONE").ignore();
        pipe.exec_async(redis).await.unwrap();
    }
}

async fn own_stage() -> (Stores, Stage, MultiplexedConnection) {
    let stores = own_stores().await;
    let stage = Stage::on(&stores).await;
    assert!(readmit(&stage).await);
    let redis = stage.redis().await;
    (stores, stage, redis)
}

async fn readmit(stage: &Stage) -> bool {
    reconcile::readmit(&stage.record, &stage.broker)
        .await
        .unwrap()
}

/// Jobs in both stores, past every lag.
async fn old_jobs(stage: &Stage, jobs: &[NewJob]) {
    for jobs in jobs.chunks(INSERT_MAX) {
        stage.insert(jobs).await;
    }
    let sql = "UPDATE jobs SET created_at = created_at - interval '1 minute'";
    stage.execute(sql.into()).await;
    deliver(stage, jobs).await;
}

fn jobs_of_age(count: u32) -> Vec<NewJob> {
    (0..count)
        .map(|n| old_job(2 * HOUR - Duration::from_secs(u64::from(n))))
        .collect()
}

async fn claimed_ids(stage: &Stage, token: &str) -> Vec<String> {
    let claimed = stage.claim(token).await;
    claimed.jobs.into_iter().map(|job| job.id).collect()
}

async fn flush(redis: &mut MultiplexedConnection) {
    redis::cmd("FLUSHALL").exec_async(redis).await.unwrap();
}

#[tokio::test]
async fn nothing_goes_into_or_out_of_an_emptied_redis_before_it_was_compared() {
    let (stores, stage, mut redis) = own_stage().await;
    let jobs = jobs_of_age(4);
    old_jobs(&stage, &jobs[..3]).await;
    flush(&mut redis).await;

    let queue = QueueName::default();
    let refused = stage.broker.claim(&queue, &claim_options("t")).await;
    assert!(matches!(refused, Err(BrokerError::OtherMemory { .. })));
    stage.insert(&jobs[3..]).await;
    let entry = bullwark::enqueue::entry(&jobs[3], bullwark::clock::now_ms(), None, 0, 0);
    let refused = stage.broker.add(&queue, &[entry]).await.unwrap_err();
    assert!(refused.is_unavailable(), "{refused}");
    assert_eq!(stage.state(jobs[3].id).await, None);

    assert!(readmit(&stage).await);
    deliver(&stage, &jobs[3..]).await;
    let order: Vec<String> = ids(&jobs).iter().map(ToString::to_string).collect();
    assert_eq!(claimed_ids(&stage, "t").await, order);
    assert_eq!(stage.count("bullwark.epochs").await, 1);
    stores.stop().await.unwrap();
}

#[tokio::test]
async fn every_open_job_comes_back_as_it_was_and_a_running_one_stays_its_worker_s() {
    let (stores, stage, mut redis) = own_stage().await;
    let mut jobs = jobs_of_age(8);
    jobs[1].priority = Priority::try_from(7).unwrap();
    jobs[3].due = Due::In(HOUR);
    old_jobs(&stage, &jobs).await;
    let all = ids(&jobs);
    settle_many(
        &stage.record,
        &[
            settled(all[4], 1, "a", failed("x")), // its retry is due in a minute
            settled(all[5], 1, "a", completed()),
        ],
    )
    .await
    .unwrap();
    mark_running(
        &stage.record,
        "a",
        &[running(all[6], 1), running(all[7], 1)],
    )
    .await
    .unwrap();
    flush(&mut redis).await;

    assert!(readmit(&stage).await);
    assert!(readmit(&stage).await, "twice is once");
    let (ready, delayed) = (Some(BrokerState::Prioritized), Some(BrokerState::Delayed));
    let active = Some(BrokerState::Active);
    let mut states = Vec::new();
    for id in &all {
        states.push(stage.state(*id).await);
    }
    let expected = [ready, ready, ready, delayed, delayed, None, active, active];
    assert_eq!(states, expected);
    let order = [all[1], all[0], all[2]].map(|id| id.to_string());
    assert_eq!(claimed_ids(&stage, "t").await, order);
    let lines = "job_logs WHERE message LIKE 'reconciled:%'";
    assert_eq!(stage.count(lines).await, 0, "nobody waits for them");
    let write = || owed_logs::write_next(&stage.record);
    let (one, other) = tokio::join!(write(), write());
    assert_ne!(one.unwrap(), other.unwrap(), "one of them has written");
    assert!(!write().await.unwrap());
    assert_eq!(stage.count(lines).await, 7, "one line per repair");

    // Its worker renews the lease with its own token; nobody else can.
    let queue = QueueName::default();
    let lease = |worker: &str| vec![(all[6].to_string(), format!("bullwark:{worker}:17"))];
    let extend = async |worker| {
        let leases = lease(worker);
        stage.broker.extend(&queue, &leases, HOUR).await.unwrap()
    };
    assert_eq!(extend("b").await, [false]);
    assert_eq!(extend("a").await, [true]);
    assert_eq!(extend("a").await, [true]);
    let lock = format!("own:default:{}:lock", all[6]);
    let holder: String = redis::cmd("GET")
        .arg(lock)
        .query_async(&mut redis)
        .await
        .unwrap();
    assert_eq!(holder, "bullwark:a:17");
    stores.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_over_by_the_record_is_not_handed_out_again_by_an_older_memory() {
    let (stores, stage, mut redis) = own_stage().await;
    let jobs = jobs_of_age(6);
    old_jobs(&stage, &jobs).await;
    let all = ids(&jobs);
    let before = Snapshot::take(&mut redis).await;
    settle_many(
        &stage.record,
        &[
            settled(all[0], 1, "a", completed()),
            settled(all[1], 1, "a", crate::stage::discarded("no")),
            settled(all[2], 1, "a", failed("x")),
        ],
    )
    .await
    .unwrap();
    let cancel =
        bullwark::control::cancel(&stage.record, &stage.broker, &all[3..4], &By::OPERATOR, "x");
    cancel.await.unwrap();
    mark_running(&stage.record, "a", &[running(all[4], 1)])
        .await
        .unwrap();
    before.put_back(&mut redis).await;

    let queue = QueueName::default();
    let refused = stage.broker.claim(&queue, &claim_options("t")).await;
    assert!(
        matches!(refused, Err(BrokerError::OtherMemory { .. })),
        "the old name alone must not do"
    );
    assert!(readmit(&stage).await);
    assert_eq!(stage.state(all[0]).await, Some(BrokerState::Completed));
    assert_eq!(stage.state(all[1]).await, Some(BrokerState::Failed));
    assert_eq!(stage.state(all[3]).await, None);
    assert_eq!(stage.state(all[4]).await, Some(BrokerState::Active));
    let claimed = stage.claim("t").await.jobs;
    let found: Vec<_> = claimed
        .iter()
        .map(|job| (job.id.clone(), job.attempts_started))
        .collect();
    assert_eq!(
        found,
        [(all[2].to_string(), 2), (all[5].to_string(), 1)],
        "one that failed meanwhile is asked about; it was not Redis's first start"
    );
    for (id, status) in [
        (all[0], "completed"),
        (all[1], "dead_letter"),
        (all[3], "cancelled"),
    ] {
        assert_eq!(stage.status(id).await, status);
    }
    stores.stop().await.unwrap();
}

/// A worker that lives goes on while an older memory is compared. Whenever its job ends, nobody may
/// take what waits there for a first start.
#[tokio::test]
async fn what_ends_while_an_older_memory_is_compared_is_not_started_unasked() {
    let (stores, stage, mut redis) = own_stage().await;
    let jobs = jobs_of_age(2);
    old_jobs(&stage, &jobs).await;
    let all = ids(&jobs);
    Snapshot::take(&mut redis).await.put_back(&mut redis).await;
    let ending = async {
        // In the midst of the wait for starts that are written behind.
        tokio::time::sleep(Duration::from_millis(250)).await;
        let ended = settle_many(&stage.record, &[settled(all[0], 1, "a", completed())]).await;
        assert_eq!(ended.unwrap().len(), 1);
    };
    let (is_compared, ()) = tokio::join!(readmit(&stage), ending);
    assert!(is_compared);
    let claimed = stage.claim("t").await.jobs;
    let unasked = |job: &ClaimedJob| job.id == all[0].to_string() && job.is_counted;
    assert!(!claimed.iter().any(unasked), "{claimed:?}");
    assert!(claimed.iter().any(|job| job.id == all[1].to_string()));
    stores.stop().await.unwrap();
}

#[tokio::test]
async fn a_restart_that_lost_nothing_changes_nothing() {
    let (stores, stage, mut redis) = own_stage().await;
    let jobs = jobs_of_age(3);
    old_jobs(&stage, &jobs).await;
    let claimed = stage
        .broker
        .claim(
            &QueueName::default(),
            &bullwark::broker::ClaimOptions {
                max: 1,
                ..claim_options("bullwark:a:1")
            },
        )
        .await
        .unwrap();
    assert_eq!(claimed.jobs.len(), 1);
    mark_running(&stage.record, "a", &[running(jobs[0].id, 1)])
        .await
        .unwrap();
    // But for one thing: of a job without a known start it no longer says that there was none.
    let mut forget = redis::pipe();
    for job in &jobs[1..] {
        let key = format!("{}:default:{}", stage.prefix, job.id);
        forget.cmd("HDEL").arg(key).arg("ats").ignore();
    }
    let restarted = async |redis: &mut MultiplexedConnection| {
        let mut pipe = redis::pipe();
        pipe.cmd("REPLICAOF").arg("127.0.0.1").arg(1).ignore();
        pipe.cmd("REPLICAOF").arg("NO").arg("ONE").ignore();
        pipe.exec_async(redis).await.unwrap();
    };
    forget.exec_async(&mut redis).await.unwrap();
    let before = Snapshot::take(&mut redis).await;
    restarted(&mut redis).await;

    assert!(readmit(&stage).await);
    let after = Snapshot::take(&mut redis).await;
    let without_epoch = |snapshot: Snapshot| {
        let mut keys = snapshot.0;
        keys.retain(|(key, _)| !key.ends_with(b":epoch"));
        keys.sort();
        keys
    };
    assert_eq!(without_epoch(before), without_epoch(after));
    assert_eq!(stage.count("job_logs").await, 0);
    stores.stop().await.unwrap();
}

#[tokio::test]
async fn two_that_notice_it_at_once_put_everything_back_once() {
    let (stores, stage, mut redis) = own_stage().await;
    let jobs = jobs_of_age(700);
    old_jobs(&stage, &jobs).await;
    flush(&mut redis).await;
    let other = Stage::on(&stores).await;
    let both = async |stage: &Stage| {
        while !readmit(stage).await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::join!(both(&stage), both(&other));
    let counts = stage.broker.counts(&QueueName::default()).await.unwrap();
    assert_eq!(counts.prioritized, 700);
    let order: Vec<String> = ids(&jobs).iter().map(ToString::to_string).collect();
    let mut claimed = claimed_ids(&other, "t").await;
    claimed.extend(claimed_ids(&stage, "t").await);
    assert_eq!(claimed, order);
    stores.stop().await.unwrap();
}

/// However many queues there are.
#[tokio::test]
async fn what_only_redis_knows_is_adopted_in_every_queue() {
    let stage = Stage::new().await;
    for name in ["a", "b", "c"] {
        let job = bullwark::broker::NewJob {
            id: format!("of {name}"),
            name: "noop".to_owned(),
            data: "{}".to_owned(),
            opts: "{}".to_owned(),
            timestamp_ms: 5,
            ..bullwark::broker::NewJob::default()
        };
        let queue: QueueName = name.parse().unwrap();
        stage.broker.add(&queue, &[job]).await.unwrap();
    }
    assert!(readmit(&stage).await);
    assert_eq!(stage.count("bullwark.foreign_jobs").await, 3);
}
