//! `enrich_account`, `enrich_contact` and enrichments of many, against the simulator of providers:
//! what is asked, written, and what stays.

mod answers;
mod asking;
mod bad;
mod contacts;
mod demo;
mod fleet;
mod from_crm;
mod many;
mod pages;
mod people;
mod raised;
mod silence;
mod steps;
mod unreadable;
mod urgent;
mod waits;
mod without;

use bullwark::handlers::providers::DataSource;
use bullwark::handlers::simulator::Simulator;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use bullwark::tasks::Tasks;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::support::server::{OTHER_KEY, OTHER_WORKSPACE, send};
use crate::webhooks::rig::Rig;

/// A server whose default workspace has a connection to each provider of a simulator.
pub(crate) struct Stage {
    pub(crate) rig: Rig,
    pub(crate) simulator: Simulator,
    tasks: Tasks,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::on(Rig::new().await).await
    }

    /// The same with these settings.
    pub(crate) async fn with(settings: &[(&'static str, &str)]) -> Self {
        let here = [("BULLWARK_ALLOW_PRIVATE_ADDRESSES", "1")];
        Self::on(Rig::with(&[&here[..], settings].concat()).await).await
    }

    /// On a server that may call this machine.
    pub(crate) async fn on(rig: Rig) -> Self {
        let tasks = Tasks::new();
        let simulator = Simulator::start("127.0.0.1:0".parse().unwrap(), &tasks);
        let stage = Self {
            rig,
            simulator: simulator.await.unwrap(),
            tasks,
        };
        for source in DataSource::ALL {
            let made = stage
                .rig
                .server
                .post("/api/connections", stage.wish(source, "hush"));
            let made = made.await;
            assert_eq!(made.status, 201, "{made:?}");
        }
        stage
    }

    fn wish(&self, source: DataSource, secret: &str) -> Value {
        let credentials = match source {
            DataSource::Zoominfo => json!({ "username": "ann", "password": secret }),
            _ => json!({ "api_key": secret }),
        };
        let name = source.as_str();
        let url = self.simulator.url();
        json!({ "provider": name, "name": name, "baseUrl": url, "credentials": credentials })
    }

    /// An account that a job made, as an import would have, of the default workspace.
    pub(crate) async fn account(&self, domain: &str) -> Uuid {
        self.account_in(DEFAULT_WORKSPACE, domain).await
    }

    pub(crate) async fn account_in(&self, workspace: Uuid, domain: &str) -> Uuid {
        let id = Uuid::now_v7();
        self.by_job(format!(
            "INSERT INTO accounts (id, workspace_id, name, domain)
             VALUES ('{id}', '{workspace}', 'Name of {domain}', '{domain}')"
        ))
        .await;
        id
    }

    /// What an import or another job writes.
    pub(crate) async fn by_job(&self, sql: String) {
        let job = Uuid::now_v7();
        let sql = format!("BEGIN; SET LOCAL bullwark.job_id = '{job}'; {sql}; COMMIT");
        self.rig.sql(sql).await;
    }

    /// Enqueues a job; what is to be asked of clearbit unless `more` says something else.
    pub(crate) async fn enqueue(&self, account: Uuid, more: Value) -> String {
        self.rig.enqueue(job(account, more)).await
    }

    /// The same to its end; its result.
    pub(crate) async fn enriched(&self, account: Uuid, more: Value) -> Value {
        let job = self.enqueue(account, more).await;
        self.rig.until(&job, "completed").await["result"].clone()
    }

    /// The same in another workspace, which has an own connection to clearbit.
    pub(crate) async fn enqueue_elsewhere(&self, account: Uuid) -> String {
        self.send_elsewhere(job(account, json!({}))).await
    }

    /// Any job, in another workspace with an own connection to clearbit.
    pub(crate) async fn send_elsewhere(&self, job: Value) -> String {
        let wish = self.wish(DataSource::Clearbit, "theirs");
        let post = |path: &str, body: Value| {
            let request = self.rig.server.anonymous(Method::POST, path);
            request.bearer_auth(OTHER_KEY).json(&body)
        };
        let made = send(post("/api/connections", wish)).await;
        assert_eq!(made.status, 201, "{made:?}");
        let made = send(post("/api/jobs", job)).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.body["job"]["id"].as_str().unwrap().to_owned()
    }

    /// One value, as JSON.
    pub(crate) async fn value(&self, sql: String) -> Value {
        let sql = format!("SELECT to_jsonb(v) FROM ({sql}) AS one (v)");
        sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&self.rig.pool)
            .await
            .unwrap()
    }

    pub(crate) async fn row(&self, account: Uuid) -> Value {
        self.value(format!(
            "SELECT to_jsonb(a) FROM accounts a WHERE id = '{account}'"
        ))
        .await
    }

    /// Domains that were asked for, of one provider.
    pub(crate) fn asked(&self, source: DataSource) -> Vec<String> {
        let seen = self.simulator.seen().into_iter();
        seen.filter(|seen| seen.source == source)
            .map(|seen| seen.domain)
            .collect()
    }

    pub(crate) async fn end(self) {
        self.tasks.stop(std::time::Duration::from_secs(10)).await;
        self.rig.end().await;
    }
}

pub(crate) fn job(account: Uuid, more: Value) -> Value {
    let mut payload = json!({ "account_id": account });
    if more.get("provider").is_none() && more.get("providers").is_none() {
        payload["provider"] = json!("clearbit");
    }
    for (name, value) in more.as_object().unwrap() {
        payload[name] = value.clone();
    }
    json!({ "jobType": "enrich_account", "payload": payload })
}

pub(crate) const OTHER: Uuid = OTHER_WORKSPACE;
