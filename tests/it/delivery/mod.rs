//! Files of exports and reports get to people: by mail, once, and by calls.

mod events;
mod trouble;

use std::time::Duration;

use bullwark::record::file_deliveries::address_of_creator;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::email::post::Post;
use crate::email::smtp::Got;
use crate::stage::eventually;
use crate::support::server::send;
use crate::webhooks::receiver::Receiver;
use crate::webhooks::rig::{PUBLIC_URL, Rig};

const SECRET: &str = "whsec_bWFkZSBmb3IgdGVzdHMgb25seQ==";

impl Rig {
    /// The jobs that tell people, of which there is one export in a test.
    async fn telling(&self) -> Vec<Value> {
        self.tell().await;
        let listed = self
            .server
            .get("/api/jobs?jobType=deliver_export&limit=100")
            .await;
        listed.body["jobs"].as_array().unwrap().clone()
    }

    /// Waits until those are told, or it is given up.
    async fn told(&self, _export: &str, status: &str) -> Value {
        eventually("people are told", async || {
            let jobs = self.telling().await;
            let done = jobs.into_iter().find(|job| job["status"] == status)?;
            let path = format!("/api/jobs/{}", done["id"].as_str().unwrap());
            Some(self.server.get(&path).await.body["job"].clone())
        })
        .await
    }

    async fn asked(&self, path: &str, wish: Value) -> String {
        let answer = self.server.post(path, wish).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.body["export"]["id"].as_str().unwrap().to_owned()
    }

    async fn open(&self, link: &str) -> Value {
        let path = link.strip_prefix(PUBLIC_URL).unwrap();
        let opened = send(self.server.anonymous(Method::GET, path)).await;
        assert_eq!(opened.status, 200, "{path}: {opened:?}");
        opened.body
    }
}

fn mailed(to: &[&str]) -> Value {
    json!({
        "entity_type": "accounts", "fields": ["name"], "deliver_to": "email",
        "delivery": { "to": to, "from": "exports@acme.example", "from_name": "Acme" },
    })
}

fn link(got: &Got) -> String {
    let body = got.lines();
    let mut lines = body.lines().map(str::trim);
    let link = lines.find(|line| line.starts_with(PUBLIC_URL));
    link.unwrap_or_else(|| panic!("no link: {}", got.text))
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_mailed_to_each_once_with_a_link_that_opens_it() {
    let post = Post::new().await;
    let working = post.rig.work();
    let to = ["ada@x.example", "Ada@X.example", "bob@x.example"];
    let id = post.rig.asked("/api/exports", mailed(&to)).await;
    post.rig.until(&id, "completed").await;
    let told = post.rig.told(&id, "completed").await;
    assert_eq!(
        (&told["result"]["sent"], &told["result"]["failed"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(post.smtp.recipients(), ["ada@x.example", "bob@x.example"]);
    let got = post.smtp.got();
    assert_eq!(got[0].header("From"), "Acme <exports@acme.example>");
    assert!(
        got[0]
            .header("Subject")
            .starts_with("Your export accounts-"),
        "{:?}",
        got[0]
    );
    let (first, second) = (link(&got[0]), link(&got[1]));
    assert_ne!(first, second, "each has a link of its own");
    assert_eq!(post.rig.open(&first).await, "name\r\n");

    // The link is a secret of its mail.
    let token = first.rsplit('/').next().unwrap();
    let job = told["id"].as_str().unwrap();
    for path in [
        format!("/api/jobs/{job}"),
        format!("/api/jobs/{job}/logs"),
        format!("/api/jobs/{id}"),
    ] {
        let shown = post.rig.server.get(&path).await.body.to_string();
        assert!(!shown.contains(token), "{path}");
    }

    // By hand nobody is told again, nor of an export that named nobody.
    let again = json!({ "jobType": "deliver_export", "payload": { "export_id": id } });
    let again = post.rig.enqueue(again).await;
    post.rig.until(&again, "completed").await;
    assert_eq!(post.smtp.got().len(), 2);
    working.hurry().await;
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_mailed_from_the_address_of_the_connection() {
    let post = Post::new().await;
    let settings = json!({
        "host": "127.0.0.1", "port": post.smtp.port, "security": "none",
        "from_address": "reports@acme.example",
    });
    let path = format!("/api/connections/{}", post.connection);
    let changed = post.rig.patch(&path, json!({ "settings": settings })).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    let working = post.rig.work();
    let wish = json!({
        "format": "csv", "deliver_to": "email", "delivery": { "to": ["ada@x.example"] },
    });
    let id = post.rig.asked("/api/reports", wish).await;
    post.rig.told(&id, "completed").await;
    let got = post.smtp.got();
    assert_eq!(got[0].header("From"), "reports@acme.example");
    assert!(
        got[0]
            .header("Subject")
            .starts_with("Your report pipeline-report-")
    );
    post.rig.open(&link(&got[0])).await;
    working.hurry().await;
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_whose_end_is_not_noted_has_one_job_that_tells_of_it() {
    let post = Post::new().await;
    let id = post
        .rig
        .asked("/api/exports", mailed(&["ada@x.example"]))
        .await;
    post.rig
        .work_on_until_it_dies("default", "after_handler:abort")
        .await;
    let (rescue, working) = (post.rig.rescue(), post.rig.work());
    let done = post.rig.until(&id, "completed").await;
    assert_eq!(
        done["attempt"].as_i64().unwrap_or(2),
        2,
        "it ran twice: {done}"
    );
    post.rig.told(&id, "completed").await;
    assert_eq!(post.rig.telling().await.len(), 1);
    assert_eq!(post.smtp.got().len(), 1);
    rescue.stop(Duration::from_secs(10)).await;
    working.hurry().await;
    post.rig.end().await;
}

/// A worker dies there while it mails two people; how many mails came in all, and what is said.
async fn dies_at(fault: &str) -> (Post, Value) {
    let post = Post::new().await;
    let id = post
        .rig
        .asked("/api/exports", mailed(&["ada@x.example", "bob@x.example"]))
        .await;
    let working = post.rig.work();
    post.rig.until(&id, "completed").await;
    working.hurry().await;
    post.rig.tell().await;
    post.rig.work_on_until_it_dies("default", fault).await;
    let (rescue, working) = (post.rig.rescue(), post.rig.work());
    let told = post.rig.told(&id, "completed").await;
    rescue.stop(Duration::from_secs(10)).await;
    working.hurry().await;
    (post, told)
}

/// One of two mails is in doubt, the other one is sent; who got one.
async fn one_is_in_doubt(fault: &str) -> Vec<String> {
    let (post, told) = Box::pin(dies_at(fault)).await;
    let result = &told["result"];
    assert_eq!(
        (&result["sent"], &result["unknown"]),
        (&json!(1), &json!(1))
    );
    let mut got = post.smtp.recipients();
    // Which of them was the first, nobody promises.
    got.sort();
    post.rig.end().await;
    got
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_whose_worker_died_behind_it_is_not_sent_again() {
    let got = Box::pin(one_is_in_doubt("after_hand_over:abort:nth=1")).await;
    assert_eq!(got, ["ada@x.example", "bob@x.example"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_whose_worker_died_before_it_is_in_doubt_and_not_sent() {
    let got = Box::pin(one_is_in_doubt("after_email_claim:abort:nth=1")).await;
    assert_eq!(got.len(), 1, "{got:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_to_who_can_or_will_not_have_it_and_a_person_hears_of_that() {
    let post = Post::new().await;
    let suppress = json!({ "target": "gone@x.example", "reason": "manual" });
    let suppressed = post.rig.server.post("/api/suppressions", suppress).await;
    assert_eq!(suppressed.status, 201, "{suppressed:?}");
    let working = post.rig.work();
    let id = post
        .rig
        .asked(
            "/api/exports",
            mailed(&["gone@x.example", "nobody@x.example"]),
        )
        .await;
    let told = post.rig.told(&id, "dead_letter").await;
    let why = told["error_message"].as_str().unwrap();
    assert!(why.contains("2 refused, 0 in doubt"), "{why}");
    assert_eq!(post.smtp.got().len(), 0);
    assert_eq!(
        post.rig.until(&id, "completed").await["status"],
        "completed"
    );
    working.hurry().await;
    post.rig.end().await;
}

/// Such as that of the user who asked, which is not checked here.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_none_keeps_no_other_from_its_mail() {
    let post = Post::new().await;
    let spoil = "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.recipient := 'nobody'; RETURN NEW; END $$;
        CREATE TRIGGER spoil BEFORE INSERT ON bullwark.file_deliveries FOR EACH ROW
        WHEN (NEW.recipient = 'spoiled@x.example') EXECUTE FUNCTION spoil()";
    sqlx::raw_sql(spoil).execute(&post.rig.pool).await.unwrap();
    let working = post.rig.work();
    let wish = mailed(&["spoiled@x.example", "ada@x.example"]);
    let id = post.rig.asked("/api/exports", wish).await;
    let told = post.rig.told(&id, "completed").await;
    let (sent, failed) = (&told["result"]["sent"], &told["result"]["failed"]);
    assert_eq!((sent, failed), (&json!(1), &json!(1)));
    assert_eq!(post.smtp.recipients(), ["ada@x.example"]);
    working.hurry().await;
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_is_called_until_it_has_taken_it() {
    let (rig, receiver) = (Rig::mailing().await, Receiver::start().await);
    let wish = json!({
        "provider": "http", "name": "receiver", "baseUrl": receiver.url("/hook"),
        "credentials": { "authorization": "Bearer hush", "signing_secret": SECRET },
    });
    let connection = crate::email::post::connect(&rig, wish).await;
    receiver.answer_with(&[("503 Busy", "retry-after: 1\r\n")]);
    let working = rig.work();
    let wish = json!({
        "entity_type": "accounts", "fields": ["name"], "deliver_to": "webhook",
        "delivery": { "connection_id": connection },
    });
    let id = rig.asked("/api/exports", wish).await;
    let failed = rig.told(&id, "failed").await;
    let promote = format!("/api/jobs/{}/promote", failed["id"].as_str().unwrap());
    rig.server.post(&promote, Value::Null).await;
    rig.told(&id, "completed").await;
    let got = receiver.got();
    assert_eq!(got.len(), 2);
    let key = |at: usize| got[at].header("idempotency-key").to_owned();
    assert!(!key(0).is_empty() && key(0) == key(1), "the same delivery");
    assert_eq!(
        (got[1].path.as_str(), got[1].signed_by(SECRET)),
        ("/hook", 1)
    );
    assert_eq!(got[1].header("authorization"), "Bearer hush");
    let data = &got[1].body()["data"];
    assert_eq!((&data["export_id"], &data["rows"]), (&json!(id), &json!(0)));
    assert_eq!(rig.open(data["url"].as_str().unwrap()).await, "name\r\n");
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_delivered_is_not_made() {
    let rig = Rig::new().await;
    let wish = json!({ "entity_type": "accounts", "deliver_to": "webhook" });
    let answer = rig.server.post("/api/exports", wish).await;
    answer.problem(422, "invalid_request");
    assert_eq!(
        answer.body["errors"][0]["pointer"],
        "/delivery/connection_id"
    );

    // This installation does not know where it is.
    let working = rig.work();
    let id = rig.asked("/api/exports", mailed(&["ada@x.example"])).await;
    let ended = rig.until(&id, "dead_letter").await;
    let why = ended["error_message"].as_str().unwrap();
    assert!(why.contains("BULLWARK_PUBLIC_URL"), "{why}");
    assert!(!rig.server.data_dir.path().join("exports").exists());
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_without_anybody_to_go_to_is_told_before_the_first_row() {
    let post = Post::new().await;
    let working = post.rig.work();
    let wish = json!({ "entity_type": "accounts", "deliver_to": "email" });
    let id = post.rig.asked("/api/exports", wish).await;
    let ended = post.rig.until(&id, "dead_letter").await;
    let why = ended["error_message"].as_str().unwrap();
    assert!(why.contains("`delivery.to`"), "{why}");
    working.hurry().await;
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_has_left_the_workspace_gets_none_of_its_files() {
    let post = Post::new().await;
    let (user, member) = (Uuid::now_v7(), Uuid::now_v7());
    let id = post
        .rig
        .enqueue(json!({ "jobType": "noop", "delayMs": 3_600_000 }))
        .await;
    let record = &post.rig.server.app.record;
    let job: Uuid = id.parse().unwrap();
    let made_by = async |user: Uuid| {
        let sql = format!("UPDATE jobs SET created_by = '{user}' WHERE id = '{id}'");
        post.rig.sql(sql).await;
        address_of_creator(record, job).await.unwrap()
    };
    let others = Uuid::now_v7();
    post.rig
        .sql(format!(
            "INSERT INTO auth.users (id, email) VALUES ('{user}', 'gone@x.example'),
               ('{member}', 'ada@x.example');
             INSERT INTO workspaces (id, name) VALUES ('{others}', 'others');
             INSERT INTO workspace_members (workspace_id, user_id, role)
             VALUES ('{DEFAULT_WORKSPACE}', '{member}', 'member'),
               ('{others}', '{user}', 'member')"
        ))
        .await;
    assert_eq!(made_by(user).await, None, "a member of another one only");
    assert_eq!(made_by(member).await.as_deref(), Some("ada@x.example"));
    let left = format!("DELETE FROM workspace_members WHERE user_id = '{member}'");
    post.rig.sql(left).await;
    assert_eq!(made_by(member).await, None);
    post.rig.end().await;
}
