//! Servers of mail that do not answer, are away, or do not know the password.

use serde_json::json;

use super::post::Post;
use crate::stage::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_nobody_answered_for_is_in_doubt_and_is_not_sent_again_by_itself() {
    let post = Post::new().await;
    let id = post.contact("cut@x.example", Some("C")).await;
    let working = post.rig.work();
    let job = post.send(&[id]).await;
    let summary = post.summary(&job).await;
    assert_eq!(
        (&summary["unknown"], &summary["reasons"]),
        (&json!(1), &json!({ "no_answer": 1 }))
    );
    let again = post.send(&[id]).await;
    assert_eq!(post.summary(&again).await["skipped"]["already"], 1);
    assert_eq!(post.smtp.got().len(), 1, "it is not sent again");

    let listed = post
        .rig
        .server
        .get("/api/email/sends?state=unknown")
        .await
        .body;
    let send = listed["sends"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/email/sends/{send}/resolve");
    let resolved = post
        .rig
        .server
        .post(&path, json!({ "outcome": "not_sent" }))
        .await;
    assert_eq!(resolved.body["send"]["state"], "failed", "{resolved:?}");
    let twice = post
        .rig
        .server
        .post(&path, json!({ "outcome": "sent" }))
        .await;
    twice.problem(409, "email_send_state");
    let audit = post.rig.server.get("/api/audit").await.body.to_string();
    assert!(audit.contains("email_send.resolve"), "{audit}");
    let third = post.send(&[id]).await;
    post.summary(&third).await;
    assert_eq!(
        post.smtp.got().len(),
        2,
        "an admin said that it was not sent"
    );
    working.hurry().await;
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_costs_attempts_and_refused_passwords_rest_the_connection() {
    let post = Post::new().await;
    let id = post.contact("ada@x.example", Some("A")).await;
    let path = format!("/api/connections/{}", post.connection);
    // Nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let moved = json!({
        "settings": { "host": "127.0.0.1", "port": port, "security": "none" },
        "credentials": { "username": "ada", "password": "hush" },
    });
    assert_eq!(post.rig.patch(&path, moved).await.status, 200);
    let working = post.rig.work();
    let job = post.send(&[id]).await;
    let failed = post.rig.until(&job, "failed").await;
    let why = failed["error_message"].as_str().unwrap();
    assert!(why.contains("smtp is not available"), "{why}");
    assert_eq!(post.fates().await["ada@x.example"], "planned not_available");
    let used = "SELECT used::bigint FROM email_domains";
    assert_eq!(post.value(used).await, 0, "nothing was sent");

    let back = json!({
        "settings": { "host": "127.0.0.1", "port": post.smtp.port, "security": "none" },
        "credentials": { "username": "ada", "password": "wrong" },
    });
    assert_eq!(post.rig.patch(&path, back).await.status, 200);
    post.promote(&job).await;
    let connection = eventually("the connection rests", async || {
        let connection = post.rig.server.get(&path).await.body["connection"].clone();
        (connection["is_active"] == false).then_some(connection)
    })
    .await;
    let why = connection["paused_reason"].as_str().unwrap();
    assert!(why.contains("535") && !why.contains("wrong"), "{why}");
    let renewed = json!({ "credentials": { "username": "ada", "password": "hush" } });
    post.rig.patch(&path, renewed).await;
    eventually("the job waits", async || {
        let job = post.rig.server.get(&format!("/api/jobs/{job}")).await.body["job"].clone();
        (job["status"] != "processing").then_some(())
    })
    .await;
    post.promote(&job).await;
    assert_eq!(post.summary(&job).await["sent"], 1);
    assert_eq!(post.smtp.got().len(), 1);
    working.hurry().await;
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stays_away_costs_the_first_jobs_an_attempt_and_no_other() {
    let post = Post::new().await;
    let path = format!("/api/connections/{}", post.connection);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = |port: u16| {
        let settings = json!({ "host": "127.0.0.1", "port": port, "security": "none" });
        json!({ "settings": settings })
    };
    let away = at(free.local_addr().unwrap().port());
    drop(free);
    assert_eq!(post.rig.patch(&path, away).await.status, 200);
    let mut jobs = Vec::new();
    for n in 0..20 {
        let id = post.contact(&format!("p{n}@x.example"), Some("A")).await;
        jobs.push(post.send(&[id]).await);
    }
    // One after the other: what the first ones met, the others are told.
    let working = post.rig.work_with(1);
    let waiting = "SELECT count(*) FROM jobs WHERE job_type = 'send_email_batch'
         AND (attempts > 0 OR next_retry_at IS NOT NULL OR scheduled_for IS NOT NULL)";
    eventually("each of them was begun", async || {
        (post.value(waiting).await == 20).then_some(())
    })
    .await;
    let spent = "SELECT sum(attempts)::bigint FROM jobs WHERE job_type = 'send_email_batch'";
    let spent = post.value(spent).await;
    assert!(
        (5..=10).contains(&spent),
        "{spent} attempts are spent by 20 jobs"
    );
    assert_eq!(post.smtp.got().len(), 0);
    assert_eq!(post.rig.patch(&path, at(post.smtp.port)).await.status, 200);
    for job in &jobs {
        let shown = post.rig.server.get(&format!("/api/jobs/{job}")).await;
        // Those that wait for the server come back by themselves, soon.
        if shown.body["job"]["attempts"] != 0 && shown.body["job"]["status"] == "failed" {
            post.promote(job).await;
        }
    }
    for job in &jobs {
        post.rig.until(job, "completed").await;
    }
    let got = post.smtp.got();
    assert_eq!(got.len(), 20, "each is sent once");
    working.hurry().await;
    post.rig.end().await;
}
