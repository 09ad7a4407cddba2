//! Both directions: records that are made, changed, disputed and deleted.

use serde_json::{Value, json};

use super::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn a_push_makes_parents_before_children_and_sends_nothing_twice() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let acme = stage.account("Acme", "acme.com").await;
    stage.contact("ann@acme.com", Some(acme)).await;
    let known = stage
        .hubspot
        .make("companies", json!({ "name": "Beta", "domain": "beta.com" }));
    stage.account("Beta", "beta.com").await;

    let first = stage.synced("push", json!({})).await;
    assert_eq!(first["status"], "completed", "{first}");
    let counts = &first["entities"];
    assert_eq!(counts["accounts"]["created_there"], 1, "{first}");
    assert_eq!(counts["accounts"]["matched"], 1, "one was there: {first}");
    assert_eq!(counts["contacts"]["created_there"], 1, "{first}");
    let companies = stage.hubspot.records("companies");
    assert_eq!(companies.len(), 2, "{companies:?}");
    assert!(companies.iter().any(|kept| kept.id == known));
    let new = companies.iter().find(|kept| kept.id != known).unwrap();
    let people = stage.hubspot.records("contacts");
    assert_eq!(people[0].company.as_deref(), Some(new.id.as_str()));

    let before = stage.hubspot.seen().len();
    let second = stage.synced("push", json!({})).await;
    assert_eq!(
        second["entities"]["accounts"]["updated_there"], 0,
        "{second}"
    );
    let seen = stage.hubspot.seen().split_off(before);
    assert!(
        !seen.iter().any(|seen| seen.path.contains("batch")),
        "{seen:?}"
    );

    stage
        .rig
        .sql("UPDATE accounts SET city = 'Bonn' WHERE domain = 'acme.com'".into())
        .await;
    let third = stage.synced("push", json!({})).await;
    assert_eq!(third["entities"]["accounts"]["updated_there"], 1, "{third}");
    assert_eq!(stage.there("companies", &new.id, "city"), "Bonn");
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_makes_and_changes_records_here_and_does_not_take_its_own_writes_for_changes() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let company = stage.hubspot.make(
        "companies",
        json!({ "name": "Acme", "domain": "acme.com", "numberofemployees": "12" }),
    );
    let ann = json!({ "email": "ann@acme.com", "firstname": "Ann" });
    let ann = stage.hubspot.make("contacts", ann);
    stage.contact("ann@acme.com", None).await;
    let first = stage.synced("pull", json!({})).await;
    assert_eq!(first["entities"]["accounts"]["created_here"], 1, "{first}");
    assert_eq!(first["entities"]["contacts"]["matched"], 1, "{first}");
    let row = stage.value("SELECT jsonb_build_array(name, employee_count, source) FROM accounts");
    assert_eq!(row.await, json!(["Acme", 12, "sync_crm"]));
    assert_eq!(stage.value("SELECT first_name FROM contacts").await, "Ann");

    stage
        .hubspot
        .change("companies", &company, json!({ "city": "Bonn" }));
    stage.synced("bidirectional", json!({})).await;
    assert_eq!(stage.value("SELECT city FROM accounts").await, "Bonn");
    // Ours goes there, comes back, and changes nothing.
    stage
        .rig
        .sql("UPDATE contacts SET title = 'CEO'".into())
        .await;
    stage.synced("bidirectional", json!({})).await;
    assert_eq!(stage.there("contacts", &ann, "jobtitle"), "CEO");
    let changes = "SELECT count(*) FROM bullwark.data_changes";
    let before = stage.value(changes).await;
    let last = stage.synced("bidirectional", json!({})).await;
    assert!(
        last["entities"]["contacts"]["echoes"].as_u64() >= Some(1),
        "{last}"
    );
    assert_eq!(last["entities"]["contacts"]["updated_here"], 0, "{last}");
    assert_eq!(last["entities"]["contacts"]["updated_there"], 0, "{last}");
    assert_eq!(stage.value(changes).await, before);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_both_have_changed_goes_by_the_strategy_and_by_field() {
    for (strategy, more, expected) in [
        ("last_write_wins", json!({}), ["Ours", "Ours"]),
        (
            "source_wins",
            json!({ "source": "crm" }),
            ["Theirs", "Theirs"],
        ),
        (
            "source_wins",
            json!({ "source": "bullwark" }),
            ["Ours", "Ours"],
        ),
        ("manual_review", json!({}), ["Ours", "Theirs"]),
    ] {
        let stage = Stage::new().await;
        let working = stage.rig.work();
        let id = stage
            .hubspot
            .make("companies", json!({ "name": "Acme", "domain": "acme.com" }));
        stage.synced("bidirectional", json!({})).await;
        stage
            .hubspot
            .change("companies", &id, json!({ "name": "Theirs", "phone": "1" }));
        stage
            .rig
            .sql("UPDATE accounts SET name = 'Ours', city = 'Bonn'".into())
            .await;
        let mut wish = more;
        wish["strategy"] = json!(strategy);
        let result = stage.synced("bidirectional", wish.clone()).await;
        let here = stage.value("SELECT name FROM accounts").await;
        let sides = [here, stage.there("companies", &id, "name")];
        assert_eq!(json!(sides), json!(expected), "{strategy}: {result}");
        // The other fields are nobody's dispute.
        assert_eq!(stage.there("companies", &id, "city"), "Bonn", "{strategy}");
        assert_eq!(
            stage.value("SELECT phone FROM accounts").await,
            "1",
            "{strategy}"
        );
        let open = "SELECT count(*) FROM crm_conflicts WHERE state = 'open'";
        let is_manual = strategy == "manual_review";
        assert_eq!(stage.value(open).await, u64::from(is_manual), "{strategy}");
        if is_manual {
            let fields = stage
                .value("SELECT fields -> 'name' FROM crm_conflicts")
                .await;
            let sides = json!({ "agreed": "Acme", "ours": "Ours", "theirs": "Theirs" });
            assert_eq!(fields, sides);
            // It stays open, and closes by itself when both are the same again.
            stage.synced("bidirectional", wish.clone()).await;
            assert_eq!(stage.value(open).await, 1);
            stage
                .hubspot
                .change("companies", &id, json!({ "name": "Ours" }));
            stage.synced("bidirectional", wish).await;
            assert_eq!(stage.value(open).await, 0);
        }
        working.hurry().await;
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_are_kept_or_mirrored_and_the_brake_stops_too_many() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    for n in 0..20 {
        stage.account(&format!("A{n}"), &format!("a{n}.com")).await;
    }
    stage.synced("bidirectional", json!({})).await;
    let all = stage.hubspot.records("companies");
    assert_eq!(all.len(), 20);
    stage.hubspot.archive("companies", &all[0].id);
    stage.synced("bidirectional", json!({})).await;
    assert_eq!(
        stage.value("SELECT count(*) FROM accounts").await,
        20,
        "kept"
    );
    assert_eq!(
        stage.hubspot.records("companies").len(),
        19,
        "not made anew"
    );

    for kept in &all[1..9] {
        stage.hubspot.archive("companies", &kept.id);
    }
    let mirror = json!({ "deletions": "mirror" });
    let job = stage.enqueue("bidirectional", mirror).await;
    let dead = stage.rig.until(&job, "dead_letter").await;
    assert!(
        dead["error_message"].to_string().contains("brake"),
        "{dead}"
    );
    assert_eq!(stage.value("SELECT count(*) FROM accounts").await, 20);
    let meant = json!({ "deletions": "mirror", "brake_percent": 60 });
    let done = stage.synced("bidirectional", meant.clone()).await;
    assert_eq!(done["entities"]["accounts"]["deleted_here"], 8, "{done}");
    assert_eq!(stage.value("SELECT count(*) FROM accounts").await, 12);
    stage
        .rig
        .sql("DELETE FROM accounts WHERE name = 'A19'".into())
        .await;
    stage.synced("bidirectional", meant).await;
    assert_eq!(stage.hubspot.records("companies").len(), 10);
    working.hurry().await;
    stage.end().await;
}

/// What a run must delete here that was stopped by the brake is found by the next one, although it
/// has read changes since: 130 of 150, which is more than one page.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_brake_holds_back_is_deleted_by_the_run_that_may_or_kept_by_the_one_that_keeps() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    for n in 0..150 {
        stage.account(&format!("A{n}"), &format!("a{n}.com")).await;
    }
    let exact = |more: Value| {
        let mut wish = json!({ "deletions": "mirror", "overlap_seconds": 0 });
        wish.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        wish
    };
    stage.synced("bidirectional", exact(json!({}))).await;
    let all = stage.hubspot.records("companies");
    for gone in &all[..130] {
        stage.hubspot.archive("companies", &gone.id);
    }
    let later = json!({ "city": "Bonn" });
    stage.hubspot.change("companies", &all[149].id, later);
    let job = stage.enqueue("bidirectional", exact(json!({}))).await;
    let dead = stage.rig.until(&job, "dead_letter").await;
    let told = dead["error_message"].to_string();
    assert!(told.contains("130 of 150"), "{dead}");
    let city = "SELECT count(*) FROM accounts WHERE city = 'Bonn'";
    assert_eq!(stage.value(city).await, 1, "the change was read");

    let meant = exact(json!({ "brake_percent": 90 }));
    let told = meant.as_object().unwrap().clone();
    let mut tried = json!(told);
    tried["dry_run"] = json!(true);
    let would = stage.synced("bidirectional", tried).await;
    assert_eq!(
        would["entities"]["accounts"]["deleted_here"], 130,
        "{would}"
    );
    assert_eq!(stage.value("SELECT count(*) FROM accounts").await, 150);
    let done = stage.synced("bidirectional", meant).await;
    assert_eq!(done["entities"]["accounts"]["deleted_here"], 130, "{done}");
    assert_eq!(stage.value("SELECT count(*) FROM accounts").await, 20);
    assert_eq!(stage.hubspot.records("companies").len(), 20);

    for gone in &all[130..140] {
        stage.hubspot.archive("companies", &gone.id);
    }
    let job = stage.enqueue("bidirectional", exact(json!({}))).await;
    stage.rig.until(&job, "dead_letter").await;
    let kept = json!({ "overlap_seconds": 0 });
    let done = stage.synced("bidirectional", kept).await;
    assert_eq!(
        done["entities"]["accounts"]["skipped"], 20,
        "marked, and not sent: {done}"
    );
    stage
        .synced("bidirectional", exact(json!({ "brake_percent": 90 })))
        .await;
    assert_eq!(
        stage.value("SELECT count(*) FROM accounts").await,
        20,
        "kept is kept"
    );
    assert_eq!(
        stage.hubspot.records("companies").len(),
        10,
        "not made anew"
    );
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_synced_by_one_job_at_a_time() {
    let stage = Stage::new().await;
    let acme = json!({ "name": "Acme", "domain": "acme.com" });
    stage.hubspot.make("companies", acme);
    // One that has begun, and goes on later.
    let mut parked = super::job("bidirectional", json!({}));
    parked["delayMs"] = json!(3_600_000);
    let jobs = [
        stage.rig.enqueue(parked).await,
        stage.enqueue("bidirectional", json!({})).await,
    ];
    let held = format!(
        "INSERT INTO bullwark.crm_runs (connection_id, workspace_id, job_id, held_until)
         SELECT id, workspace_id, '{}', now() + interval '1 hour' FROM connections",
        jobs[0]
    );
    stage.rig.sql(held).await;
    let working = stage.rig.work();
    let path = format!("/api/jobs/{}", jobs[1]);
    crate::stage::eventually("the second waits for the first", async || {
        let job = stage.rig.server.get(&path).await.body;
        job.to_string()
            .contains(&format!("job {} syncs", jobs[0]))
            .then_some(())
    })
    .await;
    assert_eq!(
        stage.value("SELECT count(*) FROM accounts").await,
        0,
        "it began nothing"
    );
    let first = format!("/api/jobs/{}", jobs[0]);
    let cancelled = json!({ "status": "cancelled" });
    assert_eq!(stage.rig.patch(&first, cancelled).await.status, 200);
    let done = stage.rig.until(&jobs[1], "completed").await;
    assert_eq!(done["attempts"], 0, "waiting spends none: {done}");
    let holds = "SELECT count(*) FROM bullwark.crm_runs";
    assert_eq!(stage.value(holds).await, 0, "given back");
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_and_leaves_no_trace() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage
        .hubspot
        .make("companies", json!({ "name": "Acme", "domain": "acme.com" }));
    stage.account("Beta", "beta.com").await;
    let told = stage
        .synced("bidirectional", json!({ "dry_run": true }))
        .await;
    assert_eq!(told["dry_run"], true);
    assert_eq!(told["entities"]["accounts"]["created_here"], 1, "{told}");
    assert_eq!(told["entities"]["accounts"]["created_there"], 1, "{told}");
    assert_eq!(stage.value("SELECT count(*) FROM accounts").await, 1);
    assert_eq!(stage.hubspot.records("companies").len(), 1);
    for table in ["crm_links", "crm_cursors", "crm_errors", "crm_conflicts"] {
        let count = stage.value(format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(count, 0, "{table}");
    }
    working.hurry().await;
    stage.end().await;
}
