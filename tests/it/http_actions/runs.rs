//! What an action does, and to which jobs: as many as a dry run says, and no others.

use std::time::Duration;

use bullwark::broker::BrokerState;
use bullwark::record::settle::settle_many;
use bullwark::record::start::mark_running;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{all_are, count, counts, die, done, jobs, start, states, told};
use crate::http::server;
use crate::stage::{discarded, failed, running, settled};
use crate::support::server::{OTHER_KEY, OTHER_WORKSPACE, send};

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_changes_nothing_and_says_what_the_action_then_does() {
    let (sandbox, server) = server().await;
    let pool = sandbox.pool().await;
    let ids = jobs(&server, 30, json!({})).await;
    die(&server, &ids[..25]).await;
    let theirs = server
        .anonymous(Method::POST, "/api/jobs")
        .bearer_auth(OTHER_KEY);
    let theirs = send(theirs.json(&json!({"jobType": "noop"}))).await;
    let theirs: Uuid = theirs.body["job"]["id"].as_str().unwrap().parse().unwrap();
    die(&server, &[theirs]).await;

    let wish = |dry_run: bool| {
        json!({"action": "retry", "filter": {"status": "dead_letter", "error": "SUCH"},
            "dryRun": dry_run, "reason": "the account is back"})
    };
    let dry = start(&server, wish(true)).await;
    assert_eq!(dry.status, 200, "{dry:?}");
    let dry = dry.body;
    assert_eq!(dry["dry_run"], true);
    let numbers = [&dry["matched"], &dry["is_exact"], &dry["fitting"]];
    assert_eq!(numbers, [&json!(25), &json!(true), &json!(25)]);
    assert_eq!(
        dry["by_status"],
        json!([{"name": "dead_letter", "jobs": 25}])
    );
    assert_eq!(dry["by_type"], json!([{"name": "noop", "jobs": 25}]));
    let newest: Vec<String> = ids[5..25].iter().rev().map(Uuid::to_string).collect();
    let sample = dry["sample"].as_array().unwrap().iter();
    let sample: Vec<&str> = sample.map(|job| job["id"].as_str().unwrap()).collect();
    assert_eq!(sample, newest);
    all_are(&pool, &ids[..25], "dead_letter").await;
    assert_eq!(
        count(&pool, "SELECT count(*) FROM bullwark.actions").await,
        0
    );

    let action = done(&server, wish(false)).await;
    assert_eq!(
        (&action["state"], counts(&action)),
        (&json!("done"), [25, 25, 0, 0])
    );
    let expected = (&action["expected"], &action["expected_is_exact"]);
    assert_eq!(expected, (&json!(25), &json!(true)));
    assert_eq!(
        action["filter"],
        json!({"status": "dead_letter", "error": "SUCH"})
    );
    assert_eq!(action["undoable_until"], Value::Null);
    all_are(&pool, &ids, "pending").await;
    all_are(&pool, &[theirs], "dead_letter").await;
    told(&server, &pool).await;
    assert!(
        states(&server, &ids)
            .await
            .iter()
            .all(|s| *s == Some(BrokerState::Prioritized))
    );
    assert_eq!(
        done(&server, wish(false)).await["matched"],
        0,
        "nothing is left"
    );

    let audit = server.get("/api/audit?limit=200").await.body["audit"].clone();
    let audit = audit.as_array().unwrap();
    let of = |action: &str| audit.iter().filter(|row| row["action"] == action).count();
    assert_eq!((of("job.retry"), of("action.start")), (25, 2));
    let row = audit
        .iter()
        .find(|row| row["action"] == "job.retry")
        .unwrap();
    assert_eq!(row["reason"], "the account is back");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_made_to_the_jobs_that_it_fits_and_the_others_are_counted() {
    let (sandbox, server) = server().await;
    let pool = sandbox.pool().await;
    let waiting = jobs(&server, 3, json!({})).await;
    let delayed = jobs(&server, 2, json!({"delayMs": 3_600_000})).await;
    let between = jobs(&server, 2, json!({})).await;
    let busy = jobs(&server, 1, json!({})).await;
    let over = jobs(&server, 2, json!({})).await;
    let ends: Vec<_> = between
        .iter()
        .map(|id| settled(*id, 1, "w", failed("x")))
        .collect();
    assert_eq!(
        settle_many(&server.app.record, &ends).await.unwrap().len(),
        2
    );
    die(&server, &over).await;
    mark_running(&server.app.record, "w", &[running(busy[0], 1)])
        .await
        .unwrap();

    for (action, fitting, unfit) in [
        ("promote", 4, json!([{"name": "waits", "jobs": 0}])),
        ("retry", 2, json!([])),
        ("delete", 9, json!([{"name": "is_running", "jobs": 1}])),
        ("cancel", 8, json!([{"name": "is_over", "jobs": 2}])),
    ] {
        let dry = json!({"action": action, "all": true, "dryRun": true});
        let dry = start(&server, dry).await.body;
        assert_eq!(
            (&dry["matched"], &dry["fitting"]),
            (&json!(10), &json!(fitting))
        );
        let left: i64 = dry["unfit"]
            .as_array()
            .unwrap()
            .iter()
            .map(|counted| counted["jobs"].as_i64().unwrap())
            .sum();
        assert_eq!(left, 10 - fitting, "{action} {dry}");
        if left < 3 {
            assert_eq!(dry["unfit"], unfit, "{action}");
        }
    }
    let all = |action: &str| json!({"action": action, "all": true});
    let promoted = done(&server, all("promote")).await;
    assert_eq!(counts(&promoted), [10, 4, 6, 0]);
    let due = "SELECT count(*) FROM jobs WHERE (status = 'pending' AND scheduled_for <= now())
      OR (status = 'failed' AND next_retry_at <= now() AND attempts = 1)";
    assert_eq!(count(&pool, due).await, 4);

    assert_eq!(counts(&done(&server, all("cancel")).await), [10, 8, 2, 0]);
    for ids in [&waiting, &delayed, &between, &busy] {
        all_are(&pool, ids, "cancelled").await;
    }
    all_are(&pool, &over, "dead_letter").await;
    let few = json!({"action": "delete", "filter": {"status": "cancelled"}, "limit": 3});
    assert_eq!(counts(&done(&server, few).await), [3, 3, 0, 0]);
    let deleted = "SELECT count(*) FROM jobs WHERE deleted_at IS NOT NULL";
    assert_eq!(count(&pool, deleted).await, 3);
    assert_eq!(counts(&done(&server, all("delete")).await), [7, 7, 0, 0]);
    assert_eq!(server.get("/api/jobs").await.body["jobs"], json!([]));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_means_what_it_means_for_lists() {
    let (_sandbox, server) = server().await;
    let mut ids = Vec::new();
    for n in 0..4 {
        let fields = json!({"queue": (["default", "mails"][n % 2]), "delayMs": 3_600_000,
            "payload": {"n": n, "to": {"name": format!("Person {n}"), "vip": n == 3}}});
        ids.extend(jobs(&server, 1, fields).await);
    }
    let ends = [
        settled(ids[1], 1, "w", failed("Connection REFUSED by 10.0.0.1")),
        settled(ids[2], 1, "w", discarded("no such account")),
    ];
    settle_many(&server.app.record, &ends).await.unwrap();
    let later = (bullwark::clock::now() + Duration::from_secs(60)).to_rfc3339();
    let sooner = (bullwark::clock::now() - Duration::from_secs(60)).to_rfc3339();
    for (filter, query) in [
        (json!({"status": "failed"}), "status=failed".to_owned()),
        (
            json!({"status": "dead_letter", "error": "such"}),
            "status=dead_letter&error=such".into(),
        ),
        (
            json!({"status": "pending", "q": "person 0"}),
            "status=pending&q=person%200".into(),
        ),
        (
            json!({"queue": "mails", "jobType": "noop"}),
            "queue=mails&jobType=noop".into(),
        ),
        (json!({"jobType": "sleep"}), "jobType=sleep".into()),
        (json!({"error": "refused"}), "error=refused".into()),
        (json!({"q": "PERSON"}), "q=PERSON".into()),
        (json!({"attemptsMin": 1}), "attempts_min=1".into()),
        (
            json!({"payload": {"n": 3, "to.vip": true}}),
            "payload.n=3&payload.to.vip=true".into(),
        ),
        (
            json!({"payload": {"to.name": "Person"}}),
            "payload.to.name=Person".into(),
        ),
        (
            json!({"createdFrom": later}),
            format!("created_from={}", later.replace('+', "%2B")),
        ),
        (
            json!({"createdTo": sooner}),
            format!("created_to={}", sooner.replace('+', "%2B")),
        ),
        (
            json!({"createdFrom": sooner}),
            format!("created_from={}", sooner.replace('+', "%2B")),
        ),
    ] {
        let listed = server.get(&format!("/api/jobs?{query}")).await.body;
        let listed: Vec<&Value> = listed["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|j| &j["id"])
            .collect();
        let dry = json!({"action": "cancel", "filter": filter, "dryRun": true});
        let dry = start(&server, dry).await.body;
        let found: Vec<&Value> = dry["sample"]
            .as_array()
            .unwrap()
            .iter()
            .map(|j| &j["id"])
            .collect();
        assert_eq!(found, listed, "{filter}");
        assert_eq!(dry["matched"], listed.len());
    }
    // By ids, of which some are others' or nobody's.
    let named = json!([ids[0], ids[3], Uuid::now_v7()]);
    let dry = json!({"action": "cancel", "filter": {"ids": named, "queue": "mails"}});
    assert_eq!(counts(&done(&server, dry).await), [1, 1, 0, 0]);
    server.end().await;
}

/// They are no different, only more.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_another_workspace_are_never_touched() {
    let (sandbox, server) = server().await;
    let pool = sandbox.pool().await;
    let theirs = server
        .anonymous(Method::POST, "/api/jobs/bulk")
        .bearer_auth(OTHER_KEY);
    let many = json!({"jobs": vec![json!({"jobType": "noop", "delayMs": 3_600_000}); 20]});
    assert_eq!(send(theirs.json(&many)).await.status, 200);
    let of_them = async || -> i64 {
        let waiting = "SELECT count(*) FROM jobs WHERE workspace_id = $1 AND status = 'pending'
          AND deleted_at IS NULL AND scheduled_for > now()";
        sqlx::query_scalar(waiting)
            .bind(OTHER_WORKSPACE)
            .fetch_one(&pool)
            .await
            .unwrap()
    };
    let ids: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM jobs")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!((ids.len(), of_them().await), (20, 20));
    for action in ["cancel", "retry", "delete", "promote"] {
        for wish in [
            json!({"action": action, "all": true}),
            json!({"action": action, "filter": {"status": "pending"}}),
            json!({"action": action, "filter": {"ids": ids}}),
        ] {
            assert_eq!(counts(&done(&server, wish).await), [0; 4]);
        }
    }
    assert_eq!(of_them().await, 20);
    server.end().await;
}
