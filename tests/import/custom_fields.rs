//! Custom fields that a workspace has declared.

use bullwark::record::access::By;
use bullwark::record::custom_fields::{self, Declared, NewField};
use bullwark::worker::Handler;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{World, parse};

async fn declare(world: &World, workspace_id: Uuid, name: &str, kind: &'static str) {
    let new = NewField {
        workspace_id,
        entity_type: "accounts",
        name: name.to_owned(),
        kind,
        created_by: None,
    };
    let declared = custom_fields::declare(&world.record, &new, &By::OPERATOR).await;
    assert_ne!(declared.unwrap(), Declared::TooMany);
}

async fn payload(world: &World, workspace: Uuid, text: &str) -> Value {
    let url = world.upload_of(Some(workspace), text).await;
    json!({"file_url": url, "entity_type": "accounts", "options": {"update_existing": true}})
}

#[tokio::test]
async fn values_of_declared_fields_have_their_kind_and_others_are_texts() {
    let world = World::new().await;
    let (ours, theirs) = (
        world.workspace("ours").await,
        world.workspace("theirs").await,
    );
    for (name, kind) in [("Score", "number"), ("vip", "boolean"), ("since", "date")] {
        declare(&world, ours, name, kind).await;
    }
    let text = "name,score,VIP,custom.since,custom.other\n\
         Acme,\"1,234.5\",yes,01.03.2024,7\n\
         Beta,n/a,,,\n\
         Gamma,many,yes,,\n\
         Delta,1,perhaps,3/1/2024,\n";
    let summary = world
        .run_in(Some(ours), payload(&world, ours, text).await)
        .await
        .unwrap();
    assert_eq!((summary.inserted, summary.failed), (2, 2));
    assert_eq!(summary.by_code["TYPE_MISMATCH"], 2);
    let report = world.report(&summary);
    assert!(
        report.contains("`many` is not a number of at most"),
        "{report}"
    );
    assert!(report.contains("`perhaps` is not yes or no"), "{report}");
    let custom: Value = world
        .one("SELECT jsonb_agg(custom ORDER BY name) FROM accounts")
        .await;
    let acme = json!({"Score": 1234.5, "vip": true, "since": "2024-03-01", "other": "7"});
    assert_eq!(custom, json!([acme, {}]));
    // The same again changes nothing.
    let again = world
        .run_in(Some(ours), payload(&world, ours, text).await)
        .await
        .unwrap();
    assert_eq!((again.updated, again.unchanged), (0, 2));

    // Where nothing is declared, columns are left out unless they are named, and are texts.
    let summary = world
        .run_in(Some(theirs), payload(&world, theirs, text).await)
        .await
        .unwrap();
    assert_eq!((summary.inserted, summary.failed), (4, 0));
    let custom: Value = world
        .one(
            "SELECT a.custom FROM accounts a JOIN workspaces w ON w.id = a.workspace_id
             WHERE w.name = 'theirs' AND a.name = 'Acme'",
        )
        .await;
    assert_eq!(custom, json!({"since": "01.03.2024", "other": "7"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_goes_on_with_the_kinds_that_it_began_with() {
    let world = World::new().await;
    let ours = world.workspace("ours").await;
    declare(&world, ours, "score", "number").await;
    let rows = 6_000_i64;
    let mut text = String::from("name,score\n");
    for n in 0..rows {
        text += &format!("Company {n},{n}\n");
    }
    let payload = payload(&world, ours, &text).await;
    let job = world.job(Some(ours)).await;
    let (context, handler) = (world.context(job, 1).await, world.handler());
    let first = parse(payload.clone());
    let running = tokio::spawn(async move { handler.run(context, first).await });
    while world.one::<i64>("SELECT count(*) FROM accounts").await == 0 {
        tokio::task::yield_now().await;
    }
    running.abort();
    let _ = running.await;
    let written: i64 = world.one("SELECT count(*) FROM accounts").await;
    assert!(written < rows, "it died half-way");

    declare(&world, ours, "score", "boolean").await;
    let context = world.context(job, 2).await;
    let summary = world.handler().run(context, parse(payload)).await.unwrap();
    assert_eq!((summary.inserted, summary.failed), (rows, 0));
    let numbers = "SELECT count(*) FROM accounts WHERE jsonb_typeof(custom -> 'score') = 'number'";
    assert_eq!(world.one::<i64>(numbers).await, rows);
}
