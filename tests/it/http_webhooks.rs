//! Webhooks over HTTP: who may make them, what is refused, and what is written down.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::server::{Answer, OTHER_KEY, send};
use crate::webhooks::rig::Rig;

const HOOK: &str = "https://example.com/hooks?key=hush";

async fn as_other(rig: &Rig, method: Method, path: &str, body: Value) -> Answer {
    let request = rig.server.anonymous(method, path).bearer_auth(OTHER_KEY);
    send(request.json(&body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_made_changed_and_deleted_and_all_of_it_is_written_down() {
    let rig = Rig::guarded().await;
    let wish = json!({
        "url": HOOK, "description": "our CRM", "jobTypes": ["noop", "mail", "noop"],
        "events": ["job.dead_letter", "job.completed", "job.completed"],
    });
    let made = rig.server.post("/api/webhooks", wish).await;
    assert_eq!(made.status, 201, "{made:?}");
    let secret = made.body["secret"].as_str().unwrap();
    assert!(
        secret.starts_with("whsec_") && secret.len() == 50,
        "{secret}"
    );
    let webhook = made.body["webhook"].clone();
    assert_eq!(
        webhook["events"],
        json!(["job.completed", "job.dead_letter"])
    );
    assert_eq!(webhook["job_types"], json!(["mail", "noop"]));
    assert_eq!(
        (&webhook["is_active"], &webhook["url"]),
        (&json!(true), &json!(HOOK))
    );
    let path = format!("/api/webhooks/{}", webhook["id"].as_str().unwrap());
    assert_eq!(rig.server.get(&path).await.body["webhook"], webhook);
    let listed = rig.server.get("/api/webhooks").await.body;
    assert_eq!(listed["webhooks"], json!([webhook]));
    assert!(!listed.to_string().contains(&secret[6..]));

    let change = json!({ "description": "", "jobTypes": null, "events": ["job.failed"] });
    let changed = rig.patch(&path, change).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    let changed = &changed.body["webhook"];
    assert_eq!(changed["job_types"], Value::Null);
    assert_eq!(
        (&changed["events"], &changed["url"]),
        (&json!(["job.failed"]), &json!(HOOK))
    );
    let same = rig.patch(&path, json!({})).await;
    assert_eq!(same.body["webhook"]["events"], json!(["job.failed"]));
    let rotated = rig
        .server
        .post(&format!("{path}/rotate"), Value::Null)
        .await;
    assert_ne!(rotated.body["secret"], secret);
    rig.server.post(&format!("{path}/test"), Value::Null).await;
    let deleted = send(rig.server.request(Method::DELETE, &path)).await;
    assert_eq!(
        (deleted.status, deleted.body),
        (200, json!({ "success": true }))
    );
    for (method, rest) in [
        (Method::GET, ""),
        (Method::PATCH, ""),
        (Method::DELETE, ""),
        (Method::POST, "/rotate"),
        (Method::POST, "/test"),
        (Method::GET, "/deliveries"),
        (Method::POST, "/deliveries/x/replay"),
    ] {
        let gone = rig.server.request(method.clone(), &format!("{path}{rest}"));
        let gone = send(gone.json(&json!({}))).await;
        let code = match rest {
            "/deliveries/x/replay" => "delivery_not_found",
            _ => "webhook_not_found",
        };
        gone.problem(404, code);
    }

    let audit = rig.server.get("/api/audit").await.body;
    let actions: Vec<_> = audit["audit"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["action"].as_str().unwrap())
        .collect();
    let expected = [
        "webhook.delete",
        "webhook.test",
        "webhook.rotate",
        "webhook.change",
        "webhook.create",
    ];
    assert_eq!(actions, expected);
    let text = audit.to_string();
    assert!(!text.contains("hush") && !text.contains("whsec_"), "{text}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_no_webhook_is_refused_with_the_place_of_the_mistake() {
    let rig = Rig::guarded().await;
    let (path, _) = rig.webhook(HOOK, &["job.failed"]).await;
    let long = format!("https://example.com/{}", "x".repeat(2048));
    for (field, value) in [
        ("url", json!("http://example.com/")),
        ("url", json!("https://127.0.0.1/")),
        ("url", json!("https://[::1]/")),
        ("url", json!("https://10.1.2.3:8443/")),
        ("url", json!("https://2130706433/")),
        ("url", json!("https://169.254.169.254/latest/meta-data")),
        ("url", json!("https://localhost:8080/")),
        ("url", json!("https://ada:hush@example.com/")),
        ("url", json!("https://example.com:22/")),
        ("url", json!("ftp://example.com/")),
        ("url", json!("hooks")),
        ("url", json!(long)),
        ("url", json!(7)),
        ("events", json!([])),
        ("events", json!(["job.started"])),
        ("events", json!("job.failed")),
        ("jobTypes", json!([])),
        ("jobTypes", json!([""])),
        ("jobTypes", json!(vec!["a"; 101])),
        ("description", json!("x".repeat(501))),
        ("colour", json!("red")),
    ] {
        let mut wish = json!({ "url": HOOK, "events": ["job.failed"] });
        wish[field] = value.clone();
        let refused = rig.server.post("/api/webhooks", wish).await;
        refused.problem(422, "invalid_request");
        let pointer = format!("/{field}");
        assert_eq!(refused.body["errors"][0]["pointer"], pointer, "{value}");
        assert!(!refused.body.to_string().contains("hush"), "{refused:?}");
        let refused = rig.patch(&path, json!({ field: value })).await;
        refused.problem(422, "invalid_request");
        assert_eq!(refused.body["errors"][0]["pointer"], pointer, "{value}");
    }
    for field in ["url", "events", "description", "isActive"] {
        let refused = rig.patch(&path, json!({ field: null })).await;
        refused.problem(422, "invalid_request");
    }
    let listed = rig.server.get("/api/webhooks").await.body;
    assert_eq!(listed["webhooks"].as_array().unwrap().len(), 1);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_look_and_try_and_admins_make_and_nobody_sees_another_workspace_s() {
    let rig = Rig::guarded().await;
    let (path, _) = rig.webhook(HOOK, &["job.failed"]).await;
    let sent = rig.server.post(&format!("{path}/test"), Value::Null).await;
    let delivery = sent.body["delivery"]["id"].as_str().unwrap();
    let replay = format!("{path}/deliveries/{delivery}/replay");
    let wish = json!({ "url": HOOK, "events": ["job.failed"] });
    for (method, path) in [
        (Method::GET, path.clone()),
        (Method::PATCH, path.clone()),
        (Method::DELETE, path.clone()),
        (Method::POST, format!("{path}/rotate")),
        (Method::POST, format!("{path}/test")),
        (Method::GET, format!("{path}/deliveries")),
        (Method::POST, replay.clone()),
    ] {
        let other = as_other(&rig, method, &path, json!({})).await;
        other.problem(404, "webhook_not_found");
    }
    // A delivery of another webhook is none of this one.
    let made = as_other(&rig, Method::POST, "/api/webhooks", wish.clone()).await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.body["webhook"]["id"].as_str().unwrap();
    let stolen = format!("/api/webhooks/{id}/deliveries/{delivery}/replay");
    let stolen = as_other(&rig, Method::POST, &stolen, Value::Null).await;
    stolen.problem(404, "delivery_not_found");

    let scopes = |scopes: Value| json!({ "name": "k", "scopes": scopes });
    let reader = rig
        .server
        .post("/api/api-keys", scopes(json!(["read"])))
        .await;
    let writer = rig
        .server
        .post("/api/api-keys", scopes(json!(["read", "write"])))
        .await;
    let ask = async |key: &Answer, method: Method, path: &str| {
        let key = key.body["key"].as_str().unwrap();
        let request = rig.server.anonymous(method, path).bearer_auth(key);
        send(request.json(&wish)).await
    };
    for path in ["/api/webhooks", &path, &format!("{path}/deliveries")] {
        assert_eq!(ask(&reader, Method::GET, path).await.status, 200, "{path}");
    }
    let test = format!("{path}/test");
    for path in [&test, &replay] {
        let refused = ask(&reader, Method::POST, path).await;
        refused.problem(403, "forbidden");
        assert_eq!(refused.body["needed"], "write");
    }
    assert_eq!(ask(&writer, Method::POST, &test).await.status, 202);
    for (method, path) in [
        (Method::POST, "/api/webhooks".to_owned()),
        (Method::PATCH, path.clone()),
        (Method::DELETE, path.clone()),
        (Method::POST, format!("{path}/rotate")),
    ] {
        let refused = ask(&writer, method, &path).await;
        refused.problem(403, "forbidden");
        assert_eq!(refused.body["needed"], "admin");
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_has_twenty_webhooks_at_most_also_when_all_come_at_once() {
    let rig = Rig::guarded().await;
    for _ in 0..18 {
        rig.webhook(HOOK, &["job.failed"]).await;
    }
    let wish = json!({ "url": HOOK, "events": ["job.failed"] });
    let make = async || rig.server.post("/api/webhooks", wish.clone()).await;
    let all = tokio::join!(make(), make(), make(), make());
    let answers = [all.0, all.1, all.2, all.3];
    let refused: Vec<_> = answers.iter().filter(|one| one.status != 201).collect();
    assert_eq!(refused.len(), 2, "{answers:?}");
    for one in refused {
        one.problem(409, "too_many_webhooks");
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tests_and_replays_count_as_jobs_and_what_is_refused_does_not() {
    let rig = Rig::limited(2).await;
    let (path, _) = rig.webhook(HOOK, &["job.failed"]).await;
    let test = format!("{path}/test");
    let sent = rig.server.post(&test, Value::Null).await;
    assert_eq!(sent.status, 202, "{sent:?}");
    let delivery = sent.body["delivery"]["id"].as_str().unwrap();
    let replay = format!("{path}/deliveries/{delivery}/replay");
    let open = rig.server.post(&replay, Value::Null).await;
    open.problem(409, "delivery_state");
    assert_eq!(rig.server.post(&test, Value::Null).await.status, 202);
    for path in [&test, &replay] {
        let refused = rig.server.post(path, Value::Null).await;
        refused.problem(429, "creation_limit");
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_made_where_secrets_are_sealed_with_another_one() {
    let rig = Rig::guarded().await;
    rig.sql(
        "INSERT INTO webhooks (workspace_id, url, events, secret)
         SELECT id, 'https://example.com/', '{job.failed}', 'v1.00000000.AAAA' FROM workspaces
         LIMIT 1"
            .into(),
    )
    .await;
    let wish = json!({ "url": HOOK, "events": ["job.failed"] });
    let refused = rig.server.post("/api/webhooks", wish).await;
    refused.problem(500, "internal_error");
    let key = rig.server.data_dir.path().join("encryption.key");
    assert!(!key.exists());
    rig.end().await;
}
