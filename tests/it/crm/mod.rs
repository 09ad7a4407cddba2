//! `sync_crm` against a simulated `HubSpot`: what goes where, what stays, and what is told.

mod apart;
mod both;
mod counts;
mod cursors;
mod deals;
mod decide;
mod dies;
mod portal;
mod refused;
mod shapes;
mod spoiled;
mod stumbles;
mod trouble;
mod twins;
mod unseen;

use bullwark::handlers::simulator::hubspot::{HubspotSimulator, TOKEN};
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use bullwark::tasks::Tasks;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::webhooks::rig::Rig;

pub(crate) struct Stage {
    pub(crate) rig: Rig,
    pub(crate) hubspot: HubspotSimulator,
    tasks: Tasks,
}

impl Stage {
    /// A server whose default workspace has a connection to a `HubSpot`.
    pub(crate) async fn new() -> Self {
        Self::with(json!({ "access_token": TOKEN })).await
    }

    /// The same with other credentials.
    pub(crate) async fn with(credentials: Value) -> Self {
        let (rig, tasks) = (Rig::new().await, Tasks::new());
        let hubspot = HubspotSimulator::start("127.0.0.1:0".parse().unwrap(), &tasks);
        let stage = Self {
            rig,
            hubspot: hubspot.await.unwrap(),
            tasks,
        };
        let wish = json!({
            "provider": "hubspot", "name": "hubspot", "baseUrl": stage.hubspot.url(),
            "credentials": credentials,
        });
        let made = stage.rig.server.post("/api/connections", wish).await;
        assert_eq!(made.status, 201, "{made:?}");
        stage
    }

    pub(crate) async fn account(&self, name: &str, domain: &str) -> Uuid {
        let id = Uuid::now_v7();
        self.rig
            .sql(format!(
                "INSERT INTO accounts (id, workspace_id, name, domain)
                 VALUES ('{id}', '{DEFAULT_WORKSPACE}', '{name}', '{domain}')"
            ))
            .await;
        id
    }

    pub(crate) async fn contact(&self, email: &str, account: Option<Uuid>) -> Uuid {
        let id = Uuid::now_v7();
        let account = account.map_or("NULL".to_owned(), |id| format!("'{id}'"));
        self.rig
            .sql(format!(
                "INSERT INTO contacts (id, workspace_id, email, account_id)
                 VALUES ('{id}', '{DEFAULT_WORKSPACE}', '{email}', {account})"
            ))
            .await;
        id
    }

    pub(crate) async fn enqueue(&self, direction: &str, more: Value) -> String {
        self.rig.enqueue(job(direction, more)).await
    }

    /// A sync to its end; its result.
    pub(crate) async fn synced(&self, direction: &str, more: Value) -> Value {
        let job = self.enqueue(direction, more).await;
        self.rig.until(&job, "completed").await["result"].clone()
    }

    pub(crate) async fn value(&self, sql: impl Into<String>) -> Value {
        let sql = format!("SELECT to_jsonb(v) FROM ({}) AS one (v)", sql.into());
        sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&self.rig.pool)
            .await
            .unwrap()
    }

    /// A property of a record there.
    pub(crate) fn there(&self, object: &str, id: &str, name: &str) -> Value {
        let all = self.hubspot.records(object);
        let found = all.iter().find(|kept| kept.id == id).expect(id);
        found.properties.get(name).cloned().unwrap_or_default()
    }

    pub(crate) async fn end(self) {
        self.tasks.stop(std::time::Duration::from_secs(10)).await;
        self.rig.end().await;
    }
}

pub(crate) fn job(direction: &str, more: Value) -> Value {
    let mut payload = json!({
        "crm_provider": "hubspot", "sync_direction": direction,
        "entity_types": ["contacts", "accounts"],
    });
    for (name, value) in more.as_object().unwrap() {
        payload[name] = value.clone();
    }
    json!({ "jobType": "sync_crm", "payload": payload, "queue": "webhooks" })
}
