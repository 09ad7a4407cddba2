//! Links to unsubscribe: one click, and no further marketing.

use reqwest::Method;
use serde_json::{Value, json};

use super::post::{Post, sequence, step};
use crate::support::server::send;
use crate::webhooks::rig::PUBLIC_URL;

/// The path on this server that the link of a mail leads to.
fn path(post: &Post, recipient: &str) -> String {
    let got = post.smtp.got();
    let mail = got.iter().find(|got| got.recipient == recipient).unwrap();
    let link = mail.header("List-Unsubscribe");
    let link = link.trim_start_matches('<').trim_end_matches('>');
    link.strip_prefix(PUBLIC_URL).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_click_ends_all_marketing_and_looking_at_the_link_ends_nothing() {
    let post = Post::new().await;
    let ids = [
        post.contact("ada@x.example", Some("Ada")).await,
        post.contact("bob@x.example", Some("Bob")).await,
    ];
    let second = step(&post.rig, &post.sequence, &post.connection, "Again").await;
    let working = post.rig.work();
    let job = post.send(&ids).await;
    post.summary(&job).await;
    let link = path(&post, "ada@x.example");
    assert_ne!(link, path(&post, "bob@x.example"));

    // Programs look at every link.
    for _ in 0..2 {
        let page = send(post.rig.server.anonymous(Method::GET, &link)).await;
        assert_eq!(page.status, 200, "{page:?}");
        assert!(page.header("content-type").starts_with("text/html"));
        assert_eq!(page.header("cache-control"), "no-store");
        let text = page.body.as_str().unwrap();
        assert!(text.contains("<form method=\"post\">"), "{text}");
        assert!(
            !text.contains("ada@"),
            "whoever has the mail need not know for whom it was"
        );
    }
    let none = "SELECT count(*) FROM email_suppressions";
    assert_eq!(post.value(none).await, 0);
    for _ in 0..2 {
        let click = post.rig.server.anonymous(Method::POST, &link);
        let click = click
            .header("content-type", "application/x-www-form-urlencoded")
            .body("List-Unsubscribe=One-Click");
        assert_eq!(send(click).await.status, 200);
    }
    assert_eq!(post.value(none).await, 1);

    let payload = json!({
        "sequence_id": post.sequence, "sequence_step_id": second, "contact_ids": ids,
    });
    let job = json!({ "jobType": "send_email_batch", "payload": payload });
    let job = post.rig.enqueue(job).await;
    let summary = post.summary(&job).await;
    assert_eq!(
        summary["reasons"],
        json!({ "unsubscribed": 1 }),
        "{summary}"
    );
    assert_eq!(
        post.smtp.recipients(),
        ["ada@x.example", "bob@x.example", "bob@x.example"]
    );

    // What she needs to know is sent all the same, without such a link.
    let needed = sequence(&post.rig, "receipts", "transactional").await;
    let receipt = step(&post.rig, &needed, &post.connection, "Receipt").await;
    let payload = json!({
        "sequence_id": needed, "sequence_step_id": receipt, "contact_ids": ids,
    });
    let job = json!({ "jobType": "send_email_batch", "payload": payload });
    let job = post.rig.enqueue(job).await;
    assert_eq!(post.summary(&job).await["sent"], 2);
    let got = post.smtp.got();
    let receipts = got.iter().filter(|got| got.header("Subject") == "Receipt");
    assert!(
        receipts
            .clone()
            .all(|got| got.header("List-Unsubscribe").is_empty())
    );
    assert_eq!(receipts.count(), 2);

    // That her address works again does not mean that she wants mails.
    let bounced = json!({ "target": "ada@x.example", "reason": "bounced" });
    let added = post.rig.server.post("/api/suppressions", bounced).await;
    assert_eq!(added.status, 201, "{added:?}");
    let remove = async |path: &str| send(post.rig.server.request(Method::DELETE, path)).await;
    let path = "/api/suppressions/Ada%40x.example?reason=bounced";
    assert_eq!(remove(path).await.status, 200);
    remove(path).await.problem(404, "suppression_not_found");
    let none = "SELECT count(*) FROM email_suppressions WHERE reason = 'unsubscribed'";
    assert_eq!(post.value(none).await, 1);
    let stopped = "SELECT count(*) FROM sequence_enrollments WHERE state = 'stopped'";
    assert_eq!(post.value(stopped).await, 1, "one reason is left");

    // She asks for mails again.
    let gone = remove("/api/suppressions/Ada%40x.example").await;
    assert_eq!(gone.status, 200, "{gone:?}");
    assert_eq!(post.value(stopped).await, 0);
    let job = json!({ "jobType": "send_email_batch", "payload": {
        "sequence_id": post.sequence, "sequence_step_id": second, "contact_ids": ids,
    } });
    let job = post.rig.enqueue(job).await;
    assert_eq!(post.summary(&job).await["sent"], 1);
    working.hurry().await;
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_do_not_work_look_all_the_same() {
    let post = Post::new().await;
    for token in ["x", &"y".repeat(43), &"z".repeat(500), "%00"] {
        for method in [Method::GET, Method::POST] {
            let path = format!("/u/{token}");
            let answer = send(post.rig.server.anonymous(method, &path)).await;
            assert_eq!(answer.status, 404, "{token}");
            let text = match &answer.body {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            assert!(text.contains("does not work"), "{text}");
        }
    }
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn marketing_without_a_place_for_its_links_is_not_sent() {
    let rig = crate::webhooks::rig::Rig::new().await;
    let connection = super::post::connect(
        &rig,
        json!({
            "provider": "smtp", "name": "mail",
            "settings": { "host": "127.0.0.1", "port": 9, "security": "none" },
            "credentials": {},
        }),
    )
    .await;
    let sequence = sequence(&rig, "welcome", "marketing").await;
    let step = step(&rig, &sequence, &connection, "Hi").await;
    let working = rig.work();
    let job = json!({ "jobType": "send_email_batch", "payload": {
        "sequence_id": sequence, "sequence_step_id": step, "contact_ids": [uuid::Uuid::now_v7()],
    } });
    let job = rig.enqueue(job).await;
    let dead = rig.until(&job, "dead_letter").await;
    let why = dead["error_message"].as_str().unwrap();
    assert!(why.contains("BULLWARK_PUBLIC_URL"), "{why}");
    working.hurry().await;
    rig.end().await;
}
