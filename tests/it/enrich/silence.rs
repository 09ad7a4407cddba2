//! Providers that do not answer in time, and such that nobody is at: the attempt fails, nothing is
//! written or kept, and the next one gets the answer.

use bullwark::handlers::providers::DataSource;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Stage, contacts, job};

/// A call may take one second.
const SETTINGS: [(&str, &str); 1] = [("BULLWARK_PROVIDER_SECONDS", "1")];

impl Stage {
    /// The connection to this provider leads there from now on.
    async fn leads_to(&self, source: DataSource, url: &str) {
        let provider = source.as_str();
        let drop = format!("DELETE FROM connections WHERE provider = '{provider}'");
        self.rig.sql(drop).await;
        let mut wish = self.wish(source, "hush");
        wish["baseUrl"] = json!(url);
        let made = self.rig.server.post("/api/connections", wish).await;
        assert_eq!(made.status, 201, "{made:?}");
    }

    /// Enqueues an enrichment of a company and one of a person; both.
    async fn both(&self, source: DataSource, nth: &str) -> [String; 2] {
        let provider = json!({ "provider": source.as_str() });
        let account = self.account(&format!("{nth}.com")).await;
        let who = json!({ "email": format!("ann.{nth}@acme.com") });
        let contact = self.contact(DEFAULT_WORKSPACE, &who).await;
        [
            self.rig.enqueue(job(account, provider.clone())).await,
            self.rig.enqueue(contacts::job(contact, provider)).await,
        ]
    }

    /// The attempts fail, for this reason; nothing is written. With the provider back, the next
    /// ones fill both.
    async fn fail_and_come_back(&self, (source, nth): (DataSource, &str), words: &str) {
        let jobs = self.both(source, nth).await;
        for job in &jobs {
            let failed = self.rig.until(job, "failed").await;
            let why = failed["error_message"].as_str().unwrap();
            assert!(why.contains(words), "{source:?}: {why}");
            assert!(!why.contains("hush"), "{why}");
            assert_eq!(failed["attempts"], 1, "{failed}");
        }
        let answers = "SELECT count(*) FROM bullwark.enrichment_lookups
           WHERE fetched_at IS NOT NULL OR unreadable_at IS NOT NULL";
        assert_eq!(self.value(answers.to_owned()).await, 0, "nothing is kept");
        for table in ["accounts", "contacts"] {
            let filled = format!("SELECT count(*) FROM {table} WHERE enriched_at IS NOT NULL");
            assert_eq!(self.value(filled).await, 0, "nothing is written");
        }
        let active = "SELECT count(*) FROM connections WHERE NOT is_active".to_owned();
        assert_eq!(self.value(active).await, 0, "the credentials are fine");
        self.leads_to(source, &self.simulator.url()).await;
        for job in &jobs {
            let promote = format!("/api/jobs/{job}/promote");
            let promoted = self.rig.server.post(&promote, Value::Null).await;
            assert_eq!(promoted.status, 200, "{promoted:?}");
            let done = self.rig.until(job, "completed").await;
            assert_eq!(done["result"]["matched"], true, "{done}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_does_not_answer_in_time_is_asked_again_later() {
    for source in [DataSource::Clearbit, DataSource::Apollo] {
        let stage = Stage::with(&SETTINGS).await;
        let working = stage.rig.work();
        // It takes connections, and says nothing to anybody.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        stage.leads_to(source, &url).await;
        let words = "did not answer: nothing came within 1s";
        stage.fail_and_come_back((source, "late"), words).await;
        working.hurry().await;
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_refuses_connections_is_asked_again_later() {
    for source in [DataSource::Clearbit, DataSource::Apollo] {
        let stage = Stage::with(&SETTINGS).await;
        let working = stage.rig.work();
        // Nobody listens there any more.
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", gone.local_addr().unwrap());
        drop(gone);
        stage.leads_to(source, &url).await;
        let words = "can not be reached";
        stage.fail_and_come_back((source, "gone"), words).await;
        working.hurry().await;
        stage.end().await;
    }
}
