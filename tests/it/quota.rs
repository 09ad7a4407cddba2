//! Quotas with both stores: one limit for all workers, and jobs that wait for it.

use std::time::Duration;

use bullwark::broker::Broker;
use bullwark::broker::BrokerOptions;
use bullwark::job::JobError;
use bullwark::quota::{
    Ask, Learned, Limits, Permit, QuotaError, QuotaKey, QuotaWindow, Quotas, Told, Urgency, Wait,
    Why,
};
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use bullwark::record::{Record, RecordOptions};
use bullwark::tasks::Tasks;
use tokio::task::JoinSet;

use crate::stage::{PATIENCE, Stage};

/// Both stores, and limiters as processes have them.
pub(crate) struct Rig {
    pub(crate) stage: Stage,
    pub(crate) tasks: Tasks,
    pub(crate) key: QuotaKey,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        let stage = Stage::new().await;
        stage
            .execute(format!(
                "INSERT INTO workspaces (id, name) VALUES ('{DEFAULT_WORKSPACE}', 'x')
                 ON CONFLICT DO NOTHING"
            ))
            .await;
        Self {
            stage,
            tasks: Tasks::new(),
            key: QuotaKey::new("clearbit", DEFAULT_WORKSPACE).unwrap(),
        }
    }

    /// As another process has one: it has compared Redis with the record.
    pub(crate) async fn process(&self) -> Quotas {
        let broker = self.stage.another_broker().await;
        broker.serve(&broker.epoch().await.unwrap());
        self.with(self.stage.record.clone(), broker)
    }

    pub(crate) fn with(&self, record: Record, broker: Broker) -> Quotas {
        let stop = self.tasks.stopping().clone();
        Quotas::start(record, broker, &self.tasks, stop)
    }

    pub(crate) async fn take(&self, quotas: &Quotas, limits: &Limits) -> Result<Permit, Wait> {
        quotas.take(&Ask::new(&self.key, limits)).await.unwrap()
    }

    /// Everybody asks as often as this at once; how many calls were granted.
    pub(crate) async fn rush(&self, limits: &Limits, processes: &[Quotas], each: usize) -> usize {
        let mut asking = JoinSet::new();
        for quotas in processes {
            for _ in 0..each {
                let (quotas, key, limits) = (quotas.clone(), self.key.clone(), limits.clone());
                asking.spawn(async move {
                    let taken = quotas.take(&Ask::new(&key, &limits)).await.unwrap();
                    match taken {
                        Ok(permit) => {
                            permit.ended().await;
                            1_usize
                        }
                        Err(_) => 0,
                    }
                });
            }
        }
        asking.join_all().await.into_iter().sum()
    }

    pub(crate) async fn end(self) {
        self.tasks.stop(PATIENCE).await;
    }
}

pub(crate) fn hourly(max: u32) -> Limits {
    Limits::of([QuotaWindow::Fixed {
        max,
        per_ms: 3_600_000,
    }])
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_have_one_limit_to_the_last_call() {
    let mut rig = Rig::new().await;
    let processes = [
        rig.process().await,
        rig.process().await,
        rig.process().await,
    ];
    for (service, window) in [
        (
            "fixed",
            QuotaWindow::Fixed {
                max: 37,
                per_ms: 3_600_000,
            },
        ),
        (
            "sliding",
            QuotaWindow::Sliding {
                max: 370,
                per_ms: 7_200_000,
            },
        ),
        (
            "bucket",
            QuotaWindow::Bucket {
                capacity: 43,
                refill: 1,
                per_ms: 3_600_000,
            },
        ),
    ] {
        rig.key = QuotaKey::new(service, DEFAULT_WORKSPACE).unwrap();
        let max = window.max() as usize;
        let limits = Limits::of([window]);
        let mut granted = 0;
        for _ in 0..3 {
            granted += rig.rush(&limits, &processes, max / 4 + 1).await;
            assert!(granted <= max, "{service}: {granted}");
        }
        // Units that were set aside and not used are used before the limit is.
        assert_eq!(granted, max, "{service}");
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_fits_into_no_window_is_refused_for_good() {
    let rig = Rig::new().await;
    let quotas = rig.process().await;
    let limits = hourly(10);
    let refused = quotas
        .take(&Ask::new(&rig.key, &limits).cost(11))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, QuotaError::TooExpensive { max: 10, .. }),
        "{refused}"
    );
    assert!(matches!(JobError::from(refused), JobError::Permanent(_)));
    let odd = hourly(0);
    let refused = quotas.take(&Ask::new(&rig.key, &odd)).await.unwrap_err();
    assert!(
        refused.to_string().contains("numbers of the window"),
        "{refused}"
    );
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_fits_into_no_limit_that_the_service_named_is_refused_for_good() {
    let rig = Rig::new().await;
    let quotas = rig.process().await;
    let limits = Limits::of([QuotaWindow::Sliding {
        max: 100,
        per_ms: 60_000,
    }]);
    let told = |left: Option<u64>, per: Option<u64>| Learned {
        told: vec![Told {
            name: "requests".to_owned(),
            limit: Some(5),
            left,
            resets_in: None,
            per: per.map(Duration::from_secs),
            is_polled: false,
        }],
        ..Learned::default()
    };
    let ten = Ask::new(&rig.key, &limits).cost(10);
    // Of a window of a minute, and of one that the service says nothing about.
    for learned in [told(None, Some(60)), told(Some(5), None)] {
        let permit = rig.take(&quotas, &limits).await.unwrap();
        assert_eq!(permit.answered(&learned).await, None);
        let refused = quotas.take(&ten).await.unwrap_err();
        assert!(
            matches!(refused, QuotaError::TooExpensive { max: 5, .. }),
            "{refused}"
        );
        assert!(matches!(JobError::from(refused), JobError::Permanent(_)));
        // One of a record fits.
        rig.take(&quotas, &limits).await.unwrap().ended().await;
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_costs_its_units_and_reserve_is_for_those_who_wait_for_an_answer() {
    let rig = Rig::new().await;
    let quotas = rig.process().await;
    let limits = hourly(100).reserve(20);
    let fifty = Ask::new(&rig.key, &limits).cost(50);
    quotas.take(&fifty).await.unwrap().unwrap().ended().await;
    let wait = quotas.take(&fifty).await.unwrap().unwrap_err();
    assert_eq!(
        (wait.why, wait.detail.as_str()),
        (Why::Window, "fixed:3600000")
    );
    assert!(wait.time > Duration::from_secs(3500), "{wait}");
    let urgent = fifty.clone().urgency(Urgency::Interactive);
    quotas.take(&urgent).await.unwrap().unwrap().ended().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_closes_the_key_for_all_processes_and_outlives_redis() {
    let rig = Rig::new().await;
    let (one, other) = (rig.process().await, rig.process().await);
    let limits = hourly(100);
    let permit = rig.take(&one, &limits).await.unwrap();
    let refused = Learned {
        is_limited: true,
        closed_for: Some(Duration::from_secs(600)),
        ..Learned::default()
    };
    let wait = permit.answered(&refused).await.unwrap();
    assert!((590..=601).contains(&wait.time.as_secs()), "{wait}");
    let JobError::Snooze(time, why) = JobError::from(wait.clone()) else {
        panic!("the job comes back");
    };
    assert_eq!(time, wait.time);
    assert!(why.contains("clearbit"), "{why}");
    let wait = rig.take(&other, &limits).await.unwrap_err();
    assert_eq!(wait.why, Why::Closed);

    rig.stage.flush_prefix().await;
    let after = rig.process().await;
    let wait = rig.take(&after, &limits).await.unwrap_err();
    assert_eq!(wait.why, Why::Closed);
    assert!(wait.time > Duration::from_secs(500), "{wait}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_place_of_a_permit_that_is_dropped_is_free_again() {
    let rig = Rig::new().await;
    let quotas = rig.process().await;
    let limits = Limits::default().at_once(1);
    let permit = rig.take(&quotas, &limits).await.unwrap();
    assert_eq!(
        rig.take(&quotas, &limits).await.unwrap_err().why,
        Why::Concurrency
    );
    drop(permit);
    let free = async {
        while rig.take(&quotas, &limits).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.unwrap();
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_store_is_away_nobody_knows_what_is_left_and_nobody_calls() {
    let rig = Rig::new().await;
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let broker = Broker::lazy(BrokerOptions {
        url: format!("redis://{nowhere}"),
        ..BrokerOptions::default()
    });
    let without_redis = rig.with(rig.stage.record.clone(), broker.unwrap());
    let wait = rig.take(&without_redis, &hourly(5)).await.unwrap_err();
    assert_eq!(wait.why, Why::Unknown);
    assert!((2..=4).contains(&wait.time.as_secs()), "{wait}");

    let url = format!("postgres://nobody@{nowhere}/none");
    let record = Record::connect(&RecordOptions::new(url)).unwrap();
    let without_record = rig.with(record, rig.stage.broker.clone());
    let wait = rig.take(&without_record, &hourly(5)).await.unwrap_err();
    assert_eq!(wait.why, Why::Unknown);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_an_admin_set_go_before_those_of_the_service() {
    let rig = Rig::new().await;
    let limits = r#"{"windows": [{"kind": "fixed", "max": 2, "per_ms": 3600000}]}"#;
    rig.stage
        .execute(format!(
            "INSERT INTO rate_limits (workspace_id, key, max_requests, limits)
             VALUES ('{DEFAULT_WORKSPACE}', '{}', 2, '{limits}')",
            rig.key
        ))
        .await;
    let quotas = rig.process().await;
    assert_eq!(
        rig.rush(&hourly(100), std::slice::from_ref(&quotas), 10)
            .await,
        2
    );
    // They hold for each user of the workspace, who has a count of its own.
    let key = rig.key.clone().of_user(uuid::Uuid::new_v4());
    let usual = hourly(100);
    for expected in [true, true, false] {
        let taken = quotas.take(&Ask::new(&key, &usual)).await.unwrap();
        assert_eq!(taken.is_ok(), expected);
    }
    rig.end().await;
}
