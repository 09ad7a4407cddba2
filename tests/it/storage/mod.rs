//! Files in a bucket: exports, uploads and reports with an object storage, which fails, is wrong,
//! and loses its clients in the middle.

mod files;
mod large;
mod lists;
mod rounds;
mod s3;
mod signature;
mod trouble;

use bullwark::handlers::export;
use bullwark::storage::Round;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::server::{Answer, send};
use crate::webhooks::rig::Rig;
use s3::{BUCKET, KEY_ID, S3, SECRET};

const PREFIX: &str = "some/where";

/// A server whose files are in a bucket.
pub(crate) async fn rig(s3: &S3) -> Rig {
    with(s3, &format!("s3://{BUCKET}/{PREFIX}"), SECRET).await
}

async fn with(s3: &S3, url: &str, secret: &str) -> Rig {
    let settings = [
        ("BULLWARK_STORAGE_URL", url),
        ("BULLWARK_STORAGE_ENDPOINT", s3.endpoint.as_str()),
        ("BULLWARK_STORAGE_KEY_ID", KEY_ID),
        ("BULLWARK_STORAGE_SECRET", secret),
    ];
    Rig::with(&settings).await
}

impl Rig {
    async fn account(&self, name: &str) {
        let insert = format!(
            "INSERT INTO accounts (workspace_id, name) VALUES ('{}', '{name}')",
            bullwark::record::workspaces::DEFAULT_WORKSPACE
        );
        self.sql(insert).await;
    }

    /// Asks for an export; its id.
    async fn export(&self) -> String {
        let wish = json!({ "entity_type": "accounts", "fields": ["name", "description"] });
        let answer = self.server.post("/api/exports", wish).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.body["export"]["id"].as_str().unwrap().to_owned()
    }

    async fn shown(&self, export: &str) -> Value {
        let answer = self.server.get(&format!("/api/exports/{export}")).await;
        answer.body["export"].clone()
    }

    async fn exported_file(&self, export: &str, headers: &[(&str, &str)]) -> Answer {
        let path = format!("/api/exports/{export}/file");
        let mut request = self.server.request(Method::GET, &path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(request).await
    }

    /// Files of the data directory in this directory.
    fn here(&self, dir: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.server.data_dir.path().join(dir));
        let entries = entries.into_iter().flatten();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// What the server does now and then.
    async fn sweep(&self) -> usize {
        self.pass(&mut Round::default()).await.0
    }

    /// The same as a part of a round: what was removed, and what was refused.
    async fn pass(&self, round: &mut Round) -> (usize, usize) {
        let services = self.server.app.services();
        let swept = export::sweep(&services.record, &services.storage, round).await;
        let swept = swept.unwrap();
        (swept.removed, swept.refused)
    }
}
