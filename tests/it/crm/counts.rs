//! What a run tells is what it did, once, whatever interrupts it: a worker that dies between
//! writing there and noting it, an answer that is lost, a limit.

use std::time::Duration;

use bullwark::handlers::simulator::hubspot::Instead;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use serde_json::{Value, json};

use super::Stage;

/// What interrupts a run.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    None,
    /// The worker dies when it has written so many parts there.
    Death(u32),
    /// The call to a path, behind so many others, is done, and answered with this status.
    Lost(&'static str, usize, u16),
}

/// Accounts of each kind: to be made there, to be changed there, known there by their domain, gone
/// there, changed on both sides, and such that the CRM refuses.
async fn with_all_kinds(stage: &Stage) {
    let make = |from: u32, to: u32, domain: &str, city: &str| {
        format!(
            "INSERT INTO accounts (workspace_id, name, domain, city)
             SELECT '{DEFAULT_WORKSPACE}', 'A' || n, {domain}, {city}
             FROM generate_series({from}, {to}) n;"
        )
    };
    let domain = "'a' || n || '.com'";
    stage.rig.sql(make(1, 20, domain, "'Bonn'")).await;
    stage.synced("push", json!({})).await;
    let known = stage.hubspot.records("companies");
    assert_eq!(known.len(), 20);
    let of = |name: &str| {
        let mut all = known.iter();
        let found = all.find(|kept| kept.properties["name"] == name);
        found.unwrap().id.clone()
    };
    stage.hubspot.archive("companies", &of("A1"));
    let theirs = json!({ "phone": "1" });
    stage.hubspot.change("companies", &of("A2"), theirs);
    for n in 21..=40 {
        let there = json!({ "name": format!("A{n}"), "domain": format!("a{n}.com"),
            "city": if n <= 30 { "Berlin" } else { "Bonn" } });
        stage.hubspot.make("companies", there);
    }
    let more = [
        "UPDATE accounts SET city = 'Köln' WHERE name IN ('A3', 'A4', 'A5', 'A6', 'A7');"
            .to_owned(),
        "UPDATE accounts SET phone = '2' WHERE name = 'A2';".to_owned(),
        make(21, 40, domain, "'Bonn'"),
        make(41, 140, "NULL", "'Bonn'"),
        make(
            141,
            300,
            domain,
            "CASE WHEN n % 50 = 0 THEN 'Nowhere' ELSE 'Bonn' END",
        ),
    ];
    stage.rig.sql(more.concat()).await;
    stage.hubspot.refuse_value("Nowhere", false);
}

/// The counts of a run through that trouble, and what each company there has in the end.
async fn run(trouble: Trouble) -> (Value, Vec<Value>) {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    with_all_kinds(&stage).await;
    working.hurry().await;
    if let Trouble::Lost(path, after, status) = trouble {
        stage.hubspot.instead(Instead {
            path,
            after,
            status,
            body: json!({}),
            headers: vec![("retry-after", "1".to_owned())],
            is_done: true,
        });
    }
    let wish = json!({ "entity_types": ["accounts"], "strategy": "source_wins" });
    let job = stage.enqueue("push", wish).await;
    if let Trouble::Death(nth) = trouble {
        let fault = format!("after_crm_sent:abort:nth={nth}");
        stage.rig.work_until_it_dies(&fault).await;
    }
    let (rescue, working) = (stage.rig.rescue(), stage.rig.work());
    let done = stage.rig.until(&job, "completed").await;
    let links = "SELECT count(*) FROM crm_links WHERE state = 'linked'";
    assert_eq!(stage.value(links).await, 300 - 1 - 4, "{trouble:?}");
    let there = stage.hubspot.records("companies").into_iter();
    let there = there.map(|kept| {
        let of = |name: &str| kept.properties.get(name).cloned().unwrap_or_default();
        json!([of("name"), of("domain"), of("city"), of("phone")])
    });
    let mut there: Vec<Value> = there.collect();
    there.sort_by_key(Value::to_string);
    rescue.stop(Duration::from_secs(10)).await;
    working.hurry().await;
    let counts = done["result"]["entities"].clone();
    stage.end().await;
    (counts, there)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_interrupted_counts_what_one_that_is_not_does() {
    let (counts, there) = Box::pin(run(Trouble::None)).await;
    let of = |name: &str| counts["accounts"][name].as_u64().unwrap();
    assert_eq!(of("scanned"), 300, "{counts}");
    assert_eq!(
        of("skipped"),
        2,
        "the deletion there, and its record: {counts}"
    );
    assert_eq!(of("created_there"), 256, "{counts}");
    assert_eq!(of("matched"), 20, "{counts}");
    assert_eq!(of("updated_there"), 6 + 10, "{counts}");
    assert_eq!(of("decided"), 1 + 10, "{counts}");
    assert_eq!(of("errors"), 4, "{counts}");
    for trouble in [
        Trouble::Death(1),
        Trouble::Death(2),
        Trouble::Lost("companies/batch/update", 0, 503),
        Trouble::Lost("companies/batch/upsert", 0, 502),
        Trouble::Lost("companies/batch/upsert", 2, 503),
        Trouble::Lost("companies/batch/upsert", 1, 429),
    ] {
        let (told, kept) = Box::pin(run(trouble)).await;
        assert_eq!(told, counts, "{trouble:?}");
        assert_eq!(kept, there, "{trouble:?}: nobody is there twice");
    }
}
