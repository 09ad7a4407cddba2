//! Templates of mappings, as imports use them.

use std::collections::BTreeMap;

use bullwark::handlers::import_csv::template::fingerprint;
use bullwark::record::access::By;
use bullwark::record::import_templates::{self, NewTemplate, Saved};
use bullwark::worker::Handler;
use serde_json::json;
use uuid::Uuid;

use crate::support::{World, parse};

/// `Wer` is known to no synonym.
const HEADERS: [&str; 3] = ["Wer", "Wo", "Branche"];
const FILE: &str = "branche;WER;wo\nSteel;Acme;Rome\nGlass;Beta;Bonn\n";

/// Saves a template for [`HEADERS`], in place of the one before.
async fn save(world: &World, workspace_id: Uuid, mapping: &[(&str, &str)]) {
    let headers: Vec<String> = HEADERS.iter().map(|header| (*header).to_owned()).collect();
    let mapping: BTreeMap<_, _> = mapping.iter().copied().collect();
    let new = NewTemplate {
        workspace_id,
        entity_type: "accounts",
        name: "Messe".to_owned(),
        fingerprint: fingerprint(&headers),
        headers,
        mapping: json!(mapping),
        created_by: None,
    };
    let saved = import_templates::save(&world.record, &new, &By::OPERATOR).await;
    assert_ne!(saved.unwrap(), Saved::TooMany);
}

#[tokio::test]
async fn a_file_with_known_headers_is_mapped_by_the_template_of_its_workspace() {
    let world = World::new().await;
    let (ours, theirs) = (
        world.workspace("ours").await,
        world.workspace("theirs").await,
    );
    save(
        &world,
        ours,
        &[("Wer", "name"), ("Wo", "city"), ("Branche", "")],
    )
    .await;
    let payload = async |workspace, more: serde_json::Value| {
        let mut payload = json!({
            "file_url": world.upload_of(Some(workspace), FILE).await, "entity_type": "accounts",
        });
        for (key, value) in more.as_object().unwrap() {
            payload[key] = value.clone();
        }
        world.run_in(Some(workspace), payload).await
    };
    for (workspace, more) in [
        (theirs, json!({})),
        (ours, json!({"options": {"use_templates": false}})),
        (ours, json!({"mapping": {"Wo": "city"}})),
    ] {
        let refused = payload(workspace, more.clone()).await.unwrap_err();
        let text = format!("{refused:?}");
        assert!(text.contains("no column for `name`"), "{more}: {text}");
    }
    assert_eq!(payload(ours, json!({})).await.unwrap().inserted, 2);
    let sql = "SELECT concat_ws('|', name, city, industry) FROM accounts";
    assert_eq!(world.texts(sql).await, ["Acme|Rome", "Beta|Bonn"]);
    let sql = "SELECT template ->> 'name' FROM imports";
    assert_eq!(world.one::<String>(sql).await, "Messe");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_goes_on_with_the_template_that_it_began_with() {
    let world = World::new().await;
    let workspace = world.workspace("ours").await;
    save(&world, workspace, &[("Wer", "name"), ("Wo", "city")]).await;
    let rows = 6_000;
    let mut text = String::from("Wer,Wo,Branche\n");
    for n in 0..rows {
        text += &format!("Company {n},Rome,Steel\n");
    }
    let url = world.upload_of(Some(workspace), text).await;
    let payload = || parse(json!({"file_url": url, "entity_type": "accounts"}));
    let job = world.job(Some(workspace)).await;
    let (context, handler) = (world.context(job, 1).await, world.handler());
    let first = payload();
    let running = tokio::spawn(async move { handler.run(context, first).await });
    while world.one::<i64>("SELECT count(*) FROM accounts").await == 0 {
        tokio::task::yield_now().await;
    }
    running.abort();
    let _ = running.await;
    let written: i64 = world.one("SELECT count(*) FROM accounts").await;
    assert!(written < rows, "it died half-way");

    save(
        &world,
        workspace,
        &[("Wer", "name"), ("Wo", "industry"), ("Branche", "")],
    )
    .await;
    let summary = world
        .handler()
        .run(world.context(job, 2).await, payload())
        .await
        .unwrap();
    assert_eq!(summary.inserted, rows);
    let alike = "SELECT count(*) FROM accounts WHERE city = 'Rome' AND industry = 'Steel'";
    assert_eq!(world.one::<i64>(alike).await, rows);
}
