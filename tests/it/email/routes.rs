//! Sequences, steps, suppressions and domains over HTTP: what is refused, and where it is wrong.

use reqwest::Method;
use serde_json::{Value, json};

use super::post::{Post, connect};
use crate::support::server::{OTHER_KEY, send};

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_could_send_nothing_is_refused_where_it_is_wrong() {
    let post = Post::new().await;
    let apollo = connect(
        &post.rig,
        json!({ "provider": "apollo", "name": "a", "credentials": { "api_key": "x" } }),
    )
    .await;
    let steps = format!("/api/sequences/{}/steps", post.sequence);
    let wish = json!({
        "connectionId": post.connection, "fromAddress": "a@x.example", "subject": "x",
        "textBody": "x",
    });
    for (member, value, pointer) in [
        ("connectionId", json!(apollo), "/connectionId"),
        ("connectionId", json!(uuid::Uuid::now_v7()), "/connectionId"),
        ("fromAddress", json!("nobody"), "/fromAddress"),
        ("fromName", json!("a\nb"), "/fromName"),
        ("replyTo", json!("x"), "/replyTo"),
        ("subject", json!("{{ first_name"), "/subject"),
        ("textBody", json!("{{ x|nothing }}"), "/textBody"),
        ("textBody", json!("{% include 'x' %}"), "/textBody"),
        ("textBody", Value::Null, "/textBody"),
        ("position", json!(0), "/position"),
        ("position", json!(101), "/position"),
    ] {
        let mut wrong = wish.clone();
        wrong[member] = value;
        let refused = post.rig.server.post(&steps, wrong.clone()).await;
        refused.problem(422, "invalid_request");
        assert_eq!(refused.body["errors"][0]["pointer"], pointer, "{wrong}");
    }
    let mut taken = wish.clone();
    taken["position"] = json!(1);
    let refused = post.rig.server.post(&steps, taken.clone()).await;
    refused.problem(409, "step_position_taken");
    // The step itself may stay there.
    let own = format!("{steps}/{}", post.step);
    let replaced = send(post.rig.server.request(Method::PUT, &own).json(&taken)).await;
    assert_eq!(replaced.body["step"]["subject"], "x", "{replaced:?}");
    assert_eq!(replaced.body["step"]["id"], post.step);
    let again = json!({ "name": "welcome" });
    let refused = post.rig.server.post("/api/sequences", again).await;
    refused.problem(409, "sequence_name_taken");
    let shown = post
        .rig
        .server
        .get(&format!("/api/sequences/{}", post.sequence))
        .await;
    assert_eq!(shown.body["steps"].as_array().unwrap().len(), 1);
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_touches_what_is_of_another_workspace() {
    let post = Post::new().await;
    let added = json!({ "target": "ada@x.example" });
    post.rig.server.post("/api/suppressions", added).await;
    let ask = |method: Method, path: &str| {
        let request = post.rig.server.anonymous(method, path);
        request.bearer_auth(OTHER_KEY)
    };
    let path = "/api/suppressions/ada@x.example";
    let gone = send(ask(Method::DELETE, path)).await;
    gone.problem(404, "suppression_not_found");
    let steps = format!("/api/sequences/{}/steps", post.sequence);
    let wish = json!({
        "connectionId": post.connection, "fromAddress": "a@x.example", "subject": "x",
        "textBody": "x",
    });
    let refused = send(ask(Method::POST, &steps).json(&wish)).await;
    refused.problem(404, "sequence_not_found");
    // A domain of the same name is another one.
    let paused = ask(Method::PATCH, "/api/email/domains/acme.example");
    send(paused.json(&json!({ "isActive": false }))).await;
    let mine = post.rig.server.get("/api/email/domains").await.body;
    assert_eq!(mine["domains"], json!([]));
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suppressions_are_listed_in_pages_and_added_once() {
    let post = Post::new().await;
    for (target, status) in [
        ("Zoe@x.example", 201),
        ("zoe@X.example", 200),
        ("b.example", 201),
        ("ada@x.example", 201),
        ("nothing", 422),
    ] {
        let made = post
            .rig
            .server
            .post("/api/suppressions", json!({ "target": target }))
            .await;
        assert_eq!(made.status, status, "{target}: {made:?}");
    }
    let first = post.rig.server.get("/api/suppressions?limit=2").await.body;
    let names = |page: &Value| -> Vec<String> {
        let rows = page["suppressions"].as_array().unwrap().iter();
        rows.map(|row| row["target"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&first), ["ada@x.example", "b.example"]);
    assert_eq!(first["next_after"], "b.example:manual");
    let second = post
        .rig
        .server
        .get("/api/suppressions?limit=2&after=b.example:manual")
        .await
        .body;
    assert_eq!(names(&second), ["zoe@x.example"]);
    assert_eq!(second["next_after"], Value::Null);
    post.rig.end().await;
}
