//! What the provider says became of mails that tell of a file.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use super::mailed;
use crate::email::events::{Teller, event};
use crate::email::post::{Post, connect};
use crate::support::server::{OTHER_KEY, send};
use crate::webhooks::receiver::Receiver;

/// Files that were mailed by SendGrid to these; where events go, and the id of each mail.
async fn mailed_to(
    post: &Post,
    teller: &Teller,
    to: &[&str],
) -> (String, BTreeMap<String, String>) {
    let receiver = Receiver::start().await;
    let wish = json!({
        "provider": "sendgrid", "name": "sendgrid", "baseUrl": receiver.url(""),
        "credentials": { "api_key": "SG.hush", "webhook_public_key": teller.public_key() },
    });
    let connection = connect(&post.rig, wish).await;
    let mut wish = mailed(to);
    wish["delivery"]["connection_id"] = json!(connection);
    let working = post.rig.work();
    let id = post.rig.asked("/api/exports", wish).await;
    let told = post.rig.told(&id, "completed").await;
    assert_eq!(told["result"]["sent"], to.len(), "{told}");
    working.hurry().await;
    let mails = sqlx::query_as("SELECT recipient, id::text FROM bullwark.file_deliveries")
        .fetch_all(&post.rig.pool)
        .await
        .unwrap();
    let path = format!("/api/email/events/sendgrid/{connection}");
    (path, mails.into_iter().collect())
}

/// State and reason of each, by recipient.
async fn states(post: &Post) -> BTreeMap<String, String> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT recipient, concat_ws(' ', state, message) FROM bullwark.file_deliveries",
    )
    .fetch_all(&post.rig.pool)
    .await
    .unwrap();
    rows.into_iter().collect()
}

async fn suppressed(post: &Post) -> Value {
    let sql = "SELECT coalesce(jsonb_agg(jsonb_build_array(target, reason, source,
        send_id IN (SELECT id FROM bullwark.file_deliveries)) ORDER BY target, reason), '[]')
        FROM email_suppressions";
    sqlx::query_scalar(sql)
        .fetch_one(&post.rig.pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_say_what_became_of_mails_of_files_and_nothing_is_sent_to_who_bounced() {
    let (post, teller) = (Post::new().await, Teller::new());
    let to = [
        "Gone@x.example",
        "angry@x.example",
        "fine@x.example",
        "full@x.example",
        "doubt@x.example",
        "early@x.example",
    ];
    let (path, mails) = mailed_to(&post, &teller, &to).await;
    let set = |to: &str, state: &str| {
        let id = &mails[to];
        format!("UPDATE bullwark.file_deliveries SET state = '{state}' WHERE id = '{id}';")
    };
    let doubt = set("doubt@x.example", "unknown") + &set("early@x.example", "claimed");
    post.rig.sql(doubt).await;
    let mut blocked = event("e4", "bounce", &mails["full@x.example"]);
    blocked["type"] = json!("blocked");
    let events = json!([
        event("e1", "bounce", &mails["Gone@x.example"]),
        event("e2", "spamreport", &mails["angry@x.example"]),
        event("e3", "delivered", &mails["fine@x.example"]),
        blocked,
        event("e5", "delivered", &mails["doubt@x.example"]),
        event("e6", "processed", &mails["early@x.example"]),
    ]);

    // Another workspace says nothing of them.
    let wish = json!({
        "provider": "sendgrid", "name": "s",
        "credentials": { "api_key": "x", "webhook_public_key": teller.public_key() },
    });
    let theirs = post.rig.server.anonymous(Method::POST, "/api/connections");
    let theirs = send(theirs.bearer_auth(OTHER_KEY).json(&wish)).await.body;
    let theirs = theirs["connection"]["id"].as_str().unwrap();
    let before = states(&post).await;
    let foreign = format!("/api/email/events/sendgrid/{theirs}");
    assert_eq!(
        teller.tell(&post, &foreign, &events).await.status,
        200,
        "it is told that they came"
    );
    assert_eq!(states(&post).await, before);
    assert_eq!(suppressed(&post).await, json!([]));

    for _ in 0..2 {
        let taken = teller.tell(&post, &path, &events).await;
        assert_eq!(taken.status, 200, "{taken:?}");
    }
    // Late, and out of order: what is worse stays.
    let mut late_block = event("f3", "bounce", &mails["fine@x.example"]);
    late_block["type"] = json!("blocked");
    let late = json!([
        event("f1", "delivered", &mails["Gone@x.example"]),
        event("f2", "processed", &mails["angry@x.example"]),
        late_block,
    ]);
    assert_eq!(teller.tell(&post, &path, &late).await.status, 200);
    let expected = [
        ("Gone@x.example", "failed event_bounced"),
        ("angry@x.example", "sent event_complained"),
        ("doubt@x.example", "sent event_delivered"),
        ("early@x.example", "sent event_taken"),
        ("fine@x.example", "sent event_delivered"),
        ("full@x.example", "failed event_blocked"),
    ];
    let expected = expected.map(|(to, state)| (to.to_owned(), state.to_owned()));
    assert_eq!(states(&post).await, expected.into());
    let listed = json!([
        ["angry@x.example", "complained", "sendgrid", true],
        ["gone@x.example", "bounced", "sendgrid", true],
    ]);
    assert_eq!(suppressed(&post).await, listed);

    // The next file is not mailed to them.
    let working = post.rig.work();
    let wish = mailed(&["gone@x.example", "bob@x.example"]);
    let id = post.rig.asked("/api/exports", wish).await;
    crate::stage::eventually("the second is told", async || {
        let jobs = post.rig.telling().await;
        let is_over = |job: &&Value| job["status"] == "completed";
        (jobs.iter().filter(is_over).count() == 2).then_some(())
    })
    .await;
    post.rig.until(&id, "completed").await;
    assert_eq!(post.smtp.recipients(), ["bob@x.example"]);
    working.hurry().await;
    post.rig.end().await;
}
