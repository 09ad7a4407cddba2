//! Whom a batch goes to, what is in its mails, and what is told of each.

use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use serde_json::{Value, json};
use uuid::Uuid;

use super::post::{Post, step};
use crate::stage::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn each_contact_is_sent_a_mail_of_its_own_or_it_is_told_why_not() {
    let post = Post::new().await;
    let mut ids = Vec::new();
    for (email, name) in [
        ("ada@x.example", Some("Ada <3")),
        ("Bob@X.example", Some("Bob")),
        ("nameless@x.example", None),
        ("blank@x.example", Some("  ")),
        ("suppressed@x.example", Some("S")),
        ("anybody@closed.example", Some("C")),
        ("dead@x.example", Some("D")),
        ("nobody@x.example", Some("N")),
        ("policy@x.example", Some("P")),
        ("spam@x.example", Some("S")),
        ("header@x.example", Some("a\r\nBcc: all@x.example")),
    ] {
        ids.push(post.contact(email, name).await);
    }
    let sql = format!(
        "UPDATE contacts SET email_status = 'invalid' WHERE email = 'dead@x.example';
         INSERT INTO contacts (id, workspace_id, linkedin_url)
           VALUES ('{0}', '{DEFAULT_WORKSPACE}', 'https://linkedin.com/in/x')",
        Uuid::nil()
    );
    post.rig.sql(sql).await;
    for target in ["Suppressed@X.example", "closed.example"] {
        let wish = json!({ "target": target, "note": "asked for it" });
        let made = post.rig.server.post("/api/suppressions", wish).await;
        assert_eq!(made.status, 201, "{made:?}");
    }
    ids.extend([Uuid::nil(), Uuid::now_v7(), ids[0]]);
    let working = post.rig.work();
    let job = post.send(&ids).await;
    let summary = post.summary(&job).await;
    assert_eq!(post.smtp.recipients(), ["ada@x.example", "bob@x.example"]);
    let fates = post.fates().await;
    let expected = [
        ("ada@x.example", "handed_over"),
        ("anybody@closed.example", "suppressed suppressed"),
        ("blank@x.example", "failed merge_variable_missing"),
        ("bob@x.example", "handed_over"),
        ("dead@x.example", "suppressed address_dead"),
        ("header@x.example", "failed subject_invalid"),
        ("nameless@x.example", "failed merge_variable_missing"),
        ("nobody@x.example", "failed recipient_rejected"),
        ("policy@x.example", "failed recipient_rejected"),
        ("spam@x.example", "failed message_rejected"),
        ("suppressed@x.example", "suppressed suppressed"),
    ];
    let expected = expected.map(|(to, fate)| (to.to_owned(), fate.to_owned()));
    assert_eq!(fates, expected.into());
    assert_eq!(
        summary,
        json!({
            "contacts": 13, "sent": 2, "suppressed": 3, "failed": 6, "unknown": 0,
            "skipped": { "not_found": 1, "without_address": 1, "already": 0 },
            "reasons": {
                "merge_variable_missing": 2, "recipient_rejected": 2, "suppressed": 2,
                "address_dead": 1, "message_rejected": 1, "subject_invalid": 1,
            },
        })
    );
    let got = post.smtp.got();
    let ada = got
        .iter()
        .find(|got| got.recipient == "ada@x.example")
        .unwrap();
    assert_eq!(ada.header("Subject"), "Hi Ada <3");
    assert_eq!(ada.header("From"), "Acme <news@acme.example>");
    assert_eq!(
        ada.header("List-Unsubscribe-Post"),
        "List-Unsubscribe=One-Click"
    );
    let link = ada.header("List-Unsubscribe");
    assert!(link.starts_with("<http://127.0.0.1:9/jobs/u/"), "{link}");
    assert!(ada.text.contains("Hello Ada &lt;3"), "{}", ada.text);
    assert!(ada.text.contains("\r\n.\r\nbye"), "{}", ada.text);
    let sends = post
        .rig
        .server
        .get(&format!("/api/email/sends?job_id={job}"))
        .await
        .body;
    let sends = sends["sends"].as_array().unwrap();
    assert_eq!(sends.len(), 11);
    let sent = sends
        .iter()
        .find(|send| send["recipient"] == "ada@x.example")
        .unwrap();
    let id = sent["id"].as_str().unwrap();
    assert_eq!(ada.header("Message-ID"), format!("<{id}@acme.example>"));
    assert_eq!(sent["provider_id"], "2.0.0 queued as 4F1");

    // Nobody sends to an address that is none; one that was refused for its sender is fine.
    let listed = post.rig.server.get("/api/suppressions").await.body;
    let bounced = listed["suppressions"].as_array().unwrap().iter();
    let bounced: Vec<&Value> = bounced.filter(|one| one["reason"] == "bounced").collect();
    assert_eq!(bounced.len(), 1, "{listed}");
    assert_eq!(
        (&bounced[0]["target"], &bounced[0]["source"]),
        (&json!("nobody@x.example"), &json!("smtp"))
    );
    let used = "SELECT used::bigint FROM email_domains WHERE domain = 'acme.example'";
    assert_eq!(
        post.value(used).await,
        3,
        "what was refused is given back, bounces are not"
    );
    let enrolled = "SELECT count(*) FROM sequence_enrollments
        WHERE state = 'completed' AND last_position = 1";
    assert_eq!(post.value(enrolled).await, 2);
    assert!(!sends.iter().any(|send| send.to_string().contains("hush")));
    working.hurry().await;
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_goes_to_a_contact_once_however_many_jobs_ask_for_it() {
    let post = Post::new().await;
    let ids = post.contacts(12).await;
    let working = post.rig.work();
    let jobs = [
        post.send(&ids).await,
        post.send(&ids).await,
        post.send(&ids[..5]).await,
    ];
    let mut sent = 0;
    for job in &jobs {
        let summary = post.summary(job).await;
        sent += summary["sent"].as_i64().unwrap();
        let already = summary["skipped"]["already"].as_i64().unwrap();
        assert_eq!(
            already + summary["sent"].as_i64().unwrap(),
            summary["contacts"].as_i64().unwrap()
        );
    }
    assert_eq!((sent, post.smtp.got().len()), (12, 12));
    assert!(post.smtp.connections() <= 20, "connections are used again");

    // Another step goes to all of them.
    let second = step(&post.rig, &post.sequence, &post.connection, "Again").await;
    let job = json!({ "jobType": "send_email_batch", "payload": {
        "sequence_id": post.sequence, "sequence_step_id": second, "contact_ids": ids,
    } });
    let job = post.rig.enqueue(job).await;
    assert_eq!(post.summary(&job).await["sent"], 12);
    assert_eq!(post.smtp.got().len(), 24);
    let state = "SELECT count(*) FROM sequence_enrollments
        WHERE state = 'completed' AND last_position = 2";
    assert_eq!(post.value(state).await, 12);
    working.hurry().await;
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contact_that_was_mended_is_sent_what_could_not_be_sent_before() {
    let post = Post::new().await;
    let id = post.contact("ada@x.example", None).await;
    let working = post.rig.work();
    let first = post.send(&[id]).await;
    assert_eq!(post.summary(&first).await["failed"], 1);
    post.rig
        .sql("UPDATE contacts SET first_name = 'Ada'".to_owned())
        .await;
    let second = post.send(&[id]).await;
    assert_eq!(post.summary(&second).await["sent"], 1);
    assert_eq!(post.smtp.got().len(), 1);
    assert_eq!(
        post.summary(&first).await["failed"],
        1,
        "what was said stays"
    );
    working.hurry().await;
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_taken_yet_is_sent_later_and_no_attempt_is_spent() {
    let post = Post::new().await;
    let ids = [
        post.contact("later@x.example", Some("L")).await,
        post.contact("ada@x.example", Some("A")).await,
    ];
    post.smtp.be_busy(true);
    let working = post.rig.work();
    let job = post.send(&ids).await;
    let waiting = post.put_off(&job).await;
    assert_eq!(waiting["progress"]["processed"], 1, "{waiting}");
    assert_eq!(post.smtp.recipients(), ["ada@x.example"]);
    assert_eq!(post.fates().await["later@x.example"], "planned deferred");
    post.smtp.be_busy(false);
    post.promote(&job).await;
    assert_eq!(post.summary(&job).await["sent"], 2);
    assert_eq!(post.smtp.recipients(), ["ada@x.example", "later@x.example"]);

    // Not for ever.
    post.rig
        .sql("UPDATE contacts SET email = 'later2@x.example' WHERE first_name = 'L'".to_owned())
        .await;
    post.smtp.be_busy(true);
    let job = post.send(&ids[..1]).await;
    for _ in 0..5 {
        post.put_off(&job).await;
        post.promote(&job).await;
        eventually("it runs again", async || {
            let job = post.rig.server.get(&format!("/api/jobs/{job}")).await.body["job"].clone();
            let is_new = job["status"] == "completed" || job["scheduled_for"].is_string();
            is_new.then_some(())
        })
        .await;
    }
    assert_eq!(
        post.summary(&job).await["reasons"],
        json!({ "deferred_too_often": 1 })
    );
    working.hurry().await;
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_looks_at_everybody_sends_nothing_and_leaves_no_trace() {
    let post = Post::new().await;
    let ids = [
        post.contact("ada@x.example", Some("A")).await,
        post.contact("nameless@x.example", None).await,
        Uuid::now_v7(),
    ];
    let working = post.rig.work();
    let mut payload = post.payload(&ids);
    payload["dry_run"] = json!(true);
    let job = json!({ "jobType": "send_email_batch", "payload": payload });
    let job = post.rig.enqueue(job).await;
    let summary = post.summary(&job).await;
    assert_eq!(
        (&summary["would_send"], &summary["failed"], &summary["sent"]),
        (&json!(1), &json!(1), &json!(0)),
        "{summary}"
    );
    assert_eq!(summary["reasons"], json!({ "merge_variable_missing": 1 }));
    assert_eq!(summary["skipped"]["not_found"], 1);
    for table in ["email_sends", "email_domains", "sequence_enrollments"] {
        let count: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
                .fetch_one(&post.rig.pool)
                .await
                .unwrap();
        assert_eq!(count, 0, "{table}");
    }
    assert!(post.smtp.got().is_empty());
    working.hurry().await;
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_that_is_off_waits_and_an_unknown_step_or_server_is_told_of() {
    let post = Post::new().await;
    let id = post.contact("ada@x.example", Some("A")).await;
    let working = post.rig.work();
    let path = format!("/api/sequences/{}", post.sequence);
    post.rig.patch(&path, json!({ "isActive": false })).await;
    let job = post.send(&[id]).await;
    post.put_off(&job).await;
    assert!(post.smtp.got().is_empty());
    post.rig.patch(&path, json!({ "isActive": true })).await;
    post.promote(&job).await;
    assert_eq!(post.summary(&job).await["sent"], 1);

    let mut payload = post.payload(&[id]);
    payload["sequence_step_id"] = json!(Uuid::now_v7());
    let job = json!({ "jobType": "send_email_batch", "payload": payload });
    let job = post.rig.enqueue(job).await;
    let dead = post.rig.until(&job, "dead_letter").await;
    let why = dead["error_message"].as_str().unwrap();
    assert!(why.contains("no such step"), "{why}");
    working.hurry().await;
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workspaces_with_the_same_address_have_nothing_to_do_with_each_other() {
    let post = Post::new().await;
    let mine = post.contact("ada@x.example", Some("Ada")).await;
    let other = crate::support::server::OTHER_WORKSPACE;
    let theirs = Uuid::now_v7();
    post.rig
        .sql(format!(
            "INSERT INTO contacts (id, workspace_id, email, first_name)
               VALUES ('{theirs}', '{other}', 'ada@x.example', 'Foxglove');
             INSERT INTO email_suppressions (workspace_id, target, reason, source)
               VALUES ('{other}', 'ada@x.example', 'manual', 'api');
             INSERT INTO email_domains (workspace_id, domain, paused_reason)
               VALUES ('{other}', 'acme.example', 'theirs')"
        ))
        .await;
    let working = post.rig.work();
    let job = post.send(&[theirs, mine]).await;
    let summary = post.summary(&job).await;
    assert_eq!(
        summary["skipped"]["not_found"], 1,
        "theirs is not known here: {summary}"
    );
    assert_eq!(summary["sent"], 1);
    let got = post.smtp.got();
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].header("Subject"), "Hi Ada");
    working.hurry().await;
    post.rig.end().await;
}
