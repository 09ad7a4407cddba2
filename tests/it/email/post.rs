//! A workspace with a sequence, a server of mail, and contacts.

use std::collections::BTreeMap;

use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use serde_json::{Value, json};
use uuid::Uuid;

use super::smtp::Smtp;
use crate::stage::eventually;
use crate::webhooks::rig::Rig;

pub(crate) struct Post {
    pub(crate) rig: Rig,
    pub(crate) smtp: Smtp,
    pub(crate) connection: String,
    pub(crate) sequence: String,
    pub(crate) step: String,
}

impl Post {
    pub(crate) async fn new() -> Self {
        Self::of_kind("marketing").await
    }

    pub(crate) async fn of_kind(kind: &str) -> Self {
        let (rig, smtp) = (Rig::mailing().await, Smtp::start().await);
        let connection = connect(
            &rig,
            json!({
                "provider": "smtp", "name": "mail",
                "settings": { "host": "127.0.0.1", "port": smtp.port, "security": "none" },
                "credentials": { "username": "ada", "password": "hush" },
            }),
        )
        .await;
        let sequence = sequence(&rig, "welcome", kind).await;
        let step = step(&rig, &sequence, &connection, "Hi {{ first_name }}").await;
        Self {
            rig,
            smtp,
            connection,
            sequence,
            step,
        }
    }

    /// A contact of the default workspace.
    pub(crate) async fn contact(&self, email: &str, first_name: Option<&str>) -> Uuid {
        sqlx::query_scalar(
            "INSERT INTO contacts (workspace_id, email, first_name) VALUES ($1, $2, $3)
             RETURNING id",
        )
        .bind(DEFAULT_WORKSPACE)
        .bind(email)
        .bind(first_name)
        .fetch_one(&self.rig.pool)
        .await
        .unwrap()
    }

    /// So many of them, `c1@x.example` and so on.
    pub(crate) async fn contacts(&self, count: i32) -> Vec<Uuid> {
        sqlx::query_scalar(
            "INSERT INTO contacts (workspace_id, email, first_name)
             SELECT $1, 'c' || i || '@x.example', 'C' || i FROM generate_series(1, $2) i
             RETURNING id",
        )
        .bind(DEFAULT_WORKSPACE)
        .bind(count)
        .fetch_all(&self.rig.pool)
        .await
        .unwrap()
    }

    pub(crate) fn payload(&self, contacts: &[Uuid]) -> Value {
        json!({
            "sequence_id": self.sequence, "sequence_step_id": self.step, "contact_ids": contacts,
            "batch_size": 50,
        })
    }

    pub(crate) async fn send(&self, contacts: &[Uuid]) -> String {
        let payload = self.payload(contacts);
        let job = json!({ "jobType": "send_email_batch", "payload": payload });
        self.rig.enqueue(job).await
    }

    /// Waits until a job is over, and what it has to say.
    pub(crate) async fn summary(&self, job: &str) -> Value {
        self.rig.until(job, "completed").await["result"].clone()
    }

    /// Waits until a job was put off: it spends no attempt.
    pub(crate) async fn put_off(&self, job: &str) -> Value {
        let put_off = eventually("the job is put off", async || {
            let job = self.rig.until(job, "pending").await;
            job["scheduled_for"].is_string().then_some(job)
        })
        .await;
        assert_eq!(put_off["attempts"], 0, "{put_off}");
        put_off
    }

    /// Redis may hear a moment later than the record that the job waits.
    pub(crate) async fn promote(&self, job: &str) {
        let path = format!("/api/jobs/{job}/promote");
        eventually("the job may be promoted", async || {
            let answer = self.rig.server.post(&path, Value::Null).await;
            assert!([200, 409].contains(&answer.status), "{answer:?}");
            (answer.status == 200).then_some(())
        })
        .await;
    }

    /// State and code of every mail, by recipient.
    pub(crate) async fn fates(&self) -> BTreeMap<String, String> {
        let rows: Vec<(String, String, Option<String>)> =
            sqlx::query_as("SELECT recipient, state, code FROM email_sends")
                .fetch_all(&self.rig.pool)
                .await
                .unwrap();
        let fate = |(recipient, state, code): (String, String, Option<String>)| {
            let code = code.map(|code| format!(" {code}"));
            (recipient, format!("{state}{}", code.unwrap_or_default()))
        };
        rows.into_iter().map(fate).collect()
    }

    pub(crate) async fn value(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql)
            .fetch_one(&self.rig.pool)
            .await
            .unwrap()
    }
}

pub(crate) async fn connect(rig: &Rig, wish: Value) -> String {
    let made = rig.server.post("/api/connections", wish).await;
    assert_eq!(made.status, 201, "{made:?}");
    made.body["connection"]["id"].as_str().unwrap().to_owned()
}

pub(crate) async fn sequence(rig: &Rig, name: &str, kind: &str) -> String {
    let wish = json!({ "name": name, "kind": kind });
    let made = rig.server.post("/api/sequences", wish).await;
    assert_eq!(made.status, 201, "{made:?}");
    made.body["sequence"]["id"].as_str().unwrap().to_owned()
}

pub(crate) async fn step(rig: &Rig, sequence: &str, connection: &str, subject: &str) -> String {
    let wish = json!({
        "connectionId": connection, "fromAddress": "news@acme.example", "fromName": "Acme",
        "subject": subject, "textBody": "Hello {{ first_name }}\n.\nbye",
        "htmlBody": "<p>Hello {{ first_name }}</p>",
    });
    let path = format!("/api/sequences/{sequence}/steps");
    let made = rig.server.post(&path, wish).await;
    assert_eq!(made.status, 201, "{made:?}");
    made.body["step"]["id"].as_str().unwrap().to_owned()
}
