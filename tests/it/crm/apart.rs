//! What a sync is asked for wrongly, and that workspaces with the same data stay apart.

use bullwark::handlers::simulator::hubspot::{HubspotSimulator, TOKEN};
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Stage, job};
use crate::support::server::{OTHER_KEY, OTHER_WORKSPACE, send};

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_that_can_not_be_meant_is_refused_before_anything_is_written() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage.account("Acme", "acme.com").await;
    for wrong in [
        json!({ "directions": "push" }),
        json!({ "entity_types": [] }),
        json!({ "entity_types": ["leads"] }),
        json!({ "crm_provider": "pipedrive" }),
        json!({ "brake_percent": 101 }),
        json!({ "strategy": "whoever" }),
    ] {
        let answer = stage
            .rig
            .server
            .post("/api/jobs", job("push", wrong.clone()));
        let answer = answer.await;
        assert_eq!(answer.status, 422, "{wrong}: {answer:?}");
    }
    for (mapping, told) in [
        (json!({ "accounts": { "city": "hq_city" } }), "`hq_city`"),
        (
            json!({ "accounts": { "shoe_size": "city" } }),
            "`shoe_size`",
        ),
        (
            json!({ "accounts": { "city": "name" } }),
            "`name` for two fields",
        ),
    ] {
        let id = stage
            .enqueue("bidirectional", json!({ "mapping": mapping }))
            .await;
        let dead = stage.rig.until(&id, "dead_letter").await;
        assert!(dead["error_message"].to_string().contains(told), "{dead}");
    }
    assert!(stage.hubspot.records("companies").is_empty());
    assert_eq!(stage.value("SELECT count(*) FROM crm_links").await, 0);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workspaces_with_equal_data_keep_to_their_own_portals() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let other = HubspotSimulator::start("127.0.0.1:0".parse().unwrap(), &stage.tasks);
    let other = other.await.unwrap();
    let as_other = |method, path: &str, body: Value| {
        let request = stage.rig.server.anonymous(method, path);
        send(request.bearer_auth(OTHER_KEY).json(&body))
    };
    let wish = json!({
        "provider": "hubspot", "name": "hubspot", "baseUrl": other.url(),
        "credentials": { "access_token": TOKEN },
    });
    let made = as_other(Method::POST, "/api/connections", wish).await;
    assert_eq!(made.status, 201, "{made:?}");
    stage
        .rig
        .sql(format!(
            "INSERT INTO contacts (workspace_id, email, title)
             SELECT w.id, 'ann@x.example', w.title
             FROM (VALUES ('{DEFAULT_WORKSPACE}'::uuid, 'ours'), ('{OTHER_WORKSPACE}', 'theirs'))
               AS w (id, title);
             INSERT INTO accounts (workspace_id, name) VALUES ('{OTHER_WORKSPACE}', 'Secret')"
        ))
        .await;
    // Both portals give the same ids.
    for (portal, city) in [(&stage.hubspot, "Bonn"), (&other, "Köln")] {
        let same = json!({ "name": "Same", "domain": "same.com", "city": city });
        portal.make("companies", same);
    }
    let theirs = as_other(Method::POST, "/api/jobs", job("bidirectional", json!({}))).await;
    assert_eq!(theirs.status, 201, "{theirs:?}");
    stage.synced("bidirectional", json!({})).await;
    let path = format!("/api/jobs/{}", theirs.body["job"]["id"].as_str().unwrap());
    crate::stage::eventually("theirs is completed", async || {
        let job = as_other(Method::GET, &path, json!({})).await;
        (job.body["job"]["status"] == "completed").then_some(())
    })
    .await;
    for (portal, title, companies) in [(&stage.hubspot, "ours", 1), (&other, "theirs", 2)] {
        let people = portal.records("contacts");
        assert_eq!(people.len(), 1, "{title}: {people:?}");
        assert_eq!(people[0].properties["jobtitle"], title);
        assert_eq!(portal.records("companies").len(), companies, "{title}");
    }
    let cities = "SELECT jsonb_object_agg(workspace_id, city) FROM accounts WHERE name = 'Same'";
    let expected = json!({
        DEFAULT_WORKSPACE.to_string(): "Bonn", OTHER_WORKSPACE.to_string(): "Köln",
    });
    assert_eq!(stage.value(cities).await, expected);
    let links = "SELECT count(DISTINCT (workspace_id, connection_id)) FROM crm_links l
        WHERE workspace_id = (SELECT workspace_id FROM connections WHERE id = l.connection_id)";
    assert_eq!(stage.value(links).await, 2);
    // What each sees through the API is its own.
    let ours = stage.rig.server.get("/api/crm/links").await.body;
    let theirs = as_other(Method::GET, "/api/crm/links", json!({}))
        .await
        .body;
    assert_eq!(ours["links"].as_array().unwrap().len(), 2, "{ours}");
    assert_eq!(theirs["links"].as_array().unwrap().len(), 3, "{theirs}");
    assert!(!ours.to_string().contains("Secret"), "{ours}");
    working.hurry().await;
    stage.end().await;
}
