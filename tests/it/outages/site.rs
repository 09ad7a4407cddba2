//! A whole Bullwark in this process, on servers that the test may hurt.

use std::collections::BTreeMap;
use std::time::Duration;

use bullwark::http::{HttpOptions, serve};
use bullwark::reconcile;
use bullwark::record::api_keys;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use bullwark::stores::{Stores, StoresOptions};
use bullwark::tasks::Tasks;
use redis::aio::MultiplexedConnection;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::server::{Answer, KEY, send};
use crate::worker::rig::{Rig, Working, eventually};
use crate::worker::script::{Act, scripted};

/// The lease of the worker.
pub(crate) const LEASE: Duration = Duration::from_secs(2);

/// The API, the duties of upkeep and a worker.
pub(crate) struct Site {
    pub(crate) stores: Stores,
    pub(crate) rig: Rig,
    pub(crate) caller: Caller,
    worker: Working,
    stop: CancellationToken,
    serving: Tasks,
}

impl Site {
    /// On servers that keep nothing.
    pub(crate) async fn new() -> Self {
        Self::on(StoresOptions::throwaway()).await
    }

    pub(crate) async fn on(options: StoresOptions) -> Self {
        Box::pin(Self::begin(options)).await
    }

    async fn begin(options: StoresOptions) -> Self {
        let stores = Stores::start(options).await.unwrap();
        let rig = Rig::on_stores(&stores).await.with_upkeep();
        let record = &rig.app.record;
        api_keys::ensure(record, KEY, DEFAULT_WORKSPACE, "test")
            .await
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let caller = Caller::of(&listener.local_addr().unwrap().to_string());
        let (stop, serving) = (CancellationToken::new(), Tasks::new());
        let options = HttpOptions::default();
        let server = serve(rig.app.services(), options, listener, stop.clone());
        serving.spawn("http server", async move { server.await.unwrap() });
        let worker = rig.work(|options| {
            options.slots = 8;
            options.lease = LEASE;
        });
        let site = Self {
            stores,
            rig,
            caller,
            worker,
            stop,
            serving,
        };
        // Redis has been compared with the record.
        site.until_well().await;
        site
    }

    /// Accepts these jobs, which wait at their gate, and returns when they run.
    pub(crate) async fn running(&self, count: usize, gate: &str) -> Vec<Uuid> {
        let before = self.rig.probe.started().len();
        let act = Act::Wait {
            gate: gate.to_owned(),
        };
        let mut ids = Vec::new();
        for n in 0..count {
            let request = scripted(&format!("{gate}{n}"), &[std::slice::from_ref(&act)]);
            ids.push(self.rig.enqueue(request).await);
        }
        self.rig.probe.starts(before + count).await;
        for id in &ids {
            self.rig.until(*id, "processing").await;
        }
        ids
    }

    pub(crate) async fn ready(&self) -> Answer {
        self.caller.ready().await
    }

    /// Waits until a store is said to be in this state.
    pub(crate) async fn until_state(&self, store: &str, state: &str) -> Answer {
        let seen = async || {
            let ready = self.ready().await;
            (ready.body["stores"][store]["status"] == state).then_some(ready)
        };
        eventually(&format!("{store} to be {state}"), seen).await
    }

    /// Waits until nothing is wrong any more.
    pub(crate) async fn until_well(&self) {
        let well = async || (self.ready().await.body["status"] == "ok").then_some(());
        eventually("everything to be well", well).await;
    }

    /// How many jobs of the record have a status other than this one.
    async fn others(&self, status: &str) -> Option<i64> {
        let mut tx = self.rig.app.record.begin().await.ok()?;
        let found = sqlx::query_scalar("SELECT count(*) FROM jobs WHERE status <> $1")
            .bind(status)
            .fetch_one(tx.connection());
        found.await.ok()
    }

    /// Waits until every job is completed and both stores agree; all of `accepted` are there.
    pub(crate) async fn until_done(&self, accepted: &[Uuid]) {
        eventually("all jobs to complete", async || {
            (self.others("completed").await? == 0).then_some(())
        })
        .await;
        let mut tx = self.rig.app.record.begin().await.unwrap();
        let there: i64 = sqlx::query_scalar("SELECT count(*) FROM jobs WHERE id = ANY($1)")
            .bind(accepted)
            .fetch_one(tx.connection())
            .await
            .unwrap();
        assert_eq!(there as usize, accepted.len(), "accepted means kept");
        eventually("both stores to agree", async || {
            let app = &self.rig.app;
            let verifying = Box::pin(reconcile::verify(&app.record, &app.broker));
            let verdict = verifying.await.ok()?;
            verdict.agree.then_some(())
        })
        .await;
    }

    /// The jobs that were started more than once.
    pub(crate) fn repeated(&self) -> Vec<String> {
        let mut starts = BTreeMap::<String, u32>::new();
        for name in self.rig.probe.started() {
            *starts.entry(name).or_default() += 1;
        }
        let repeated = starts.into_iter().filter(|(_, count)| *count > 1);
        repeated.map(|(name, _)| name).collect()
    }

    /// A connection to Redis of the test's own.
    pub(crate) async fn redis(&self) -> MultiplexedConnection {
        self.rig.redis().await
    }

    pub(crate) async fn end(self) {
        self.worker.stop().await;
        self.stop.cancel();
        self.serving.drained().await;
        self.rig.close().await;
        self.stores.stop().await.unwrap();
    }
}

/// A client of the API.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    base: String,
    client: Client,
}

impl Caller {
    pub(crate) fn of(address: &str) -> Self {
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let client = Client::builder().timeout(Duration::from_secs(60)).build();
        Self {
            base: format!("http://{address}"),
            client: client.unwrap(),
        }
    }

    pub(crate) async fn ready(&self) -> Answer {
        send(self.client.get(format!("{}/readyz", self.base))).await
    }

    /// Sends a job that does this; the key is its name.
    pub(crate) async fn post(&self, name: &str, acts: &[Act]) -> Answer {
        let payload = scripted(name, &[acts]).payload;
        self.post_body(
            &json!({ "jobType": "scripted", "payload": payload, "idempotencyKey": name }),
        )
        .await
    }

    /// Sends any job.
    pub(crate) async fn post_body(&self, body: &Value) -> Answer {
        let request = self.client.post(format!("{}/api/jobs", self.base));
        send(request.bearer_auth(KEY).json(body)).await
    }

    /// Sends a job that must be accepted although Redis has trouble.
    pub(crate) async fn accepted(&self, name: &str) -> Uuid {
        let answer = self.post(name, &[]).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        assert_eq!(answer.body["job"]["status"], "pending");
        id_of(&answer.body)
    }
}

pub(crate) fn id_of(body: &Value) -> Uuid {
    body["job"]["id"].as_str().unwrap().parse().unwrap()
}

/// Changes a setting of the running Redis.
pub(crate) async fn set(redis: &mut MultiplexedConnection, name: &str, value: &str) {
    let mut cmd = redis::cmd("CONFIG");
    cmd.arg("SET").arg(name).arg(value);
    cmd.exec_async(redis).await.unwrap();
}
