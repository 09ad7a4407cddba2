//! Three bad records of two hundred: they are named, and the others are written.

use std::collections::BTreeSet;

use bullwark::handlers::providers::DataSource;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use serde_json::json;

use super::many::{domains, wish};
use super::{OTHER, Stage};

/// Apollo packs its questions, the others ask one by one.
const SOURCES: [DataSource; 2] = [DataSource::Apollo, DataSource::Clearbit];

#[tokio::test(flavor = "multi_thread")]
async fn three_records_of_two_hundred_that_are_refused_are_named_and_the_others_are_written() {
    for source in SOURCES {
        let stage = Stage::new().await;
        let all = domains("firm", 200);
        stage.accounts(DEFAULT_WORKSPACE, &all).await;
        stage.accounts(OTHER, &all[..3]).await;
        let bad = ["firm7.com", "firm8.com", "firm150.com"];
        stage.simulator.refuse_about(bad);
        let how = json!({ "provider": source.as_str() });
        let id = stage.begin(wish(json!({ "how": how }))).await;
        let working = stage.rig.work();
        let sums = stage.sums(&id).await;
        for (name, count) in [
            ("matched", 200),
            ("enriched", 197),
            ("failed", 3),
            ("no_match", 0),
            ("nothing_new", 0),
            ("nothing_to_ask", 0),
            ("objected", 0),
            ("not_done", 0),
            ("credits", 197),
            ("from_cache", 0),
        ] {
            assert_eq!(sums[name], count, "{source:?} {name}: {sums}");
        }
        assert_eq!(sums["fields"]["industry"], 197, "{sums}");
        let failures = sums["failures"].as_object().unwrap();
        assert_eq!(failures.len(), 1, "{sums}");
        let (why, count) = failures.iter().next().unwrap();
        assert!(why.contains("answered 422") && count == 3, "{sums}");
        // Which ones, each with its reason.
        let named = format!(
            "SELECT jsonb_agg(jsonb_build_array(a.domain, i.message) ORDER BY a.domain)
             FROM bullwark.enrichment_items i JOIN accounts a ON a.id = i.record_id
             WHERE i.run_id = '{id}' AND i.outcome = 'failed'"
        );
        let named = stage.value(named).await;
        let named = named.as_array().unwrap().iter();
        let names: BTreeSet<&str> = named.map(|one| one[0].as_str().unwrap()).collect();
        assert_eq!(names, BTreeSet::from(bad), "{source:?}");
        let filled = "SELECT count(*) FROM accounts
           WHERE industry IS NOT NULL AND enriched_at IS NOT NULL";
        assert_eq!(stage.value(filled.to_owned()).await, 197, "{source:?}");
        let theirs = format!(
            "SELECT count(*) FROM accounts WHERE workspace_id = '{OTHER}' AND industry IS NULL"
        );
        assert_eq!(stage.value(theirs).await, 3, "others are left alone");
        assert_eq!(stage.simulator.spent(source), 197, "paid for each once");
        working.hurry().await;
        stage.end().await;
    }
}
