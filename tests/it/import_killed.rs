//! An import whose worker process is killed, and killed again.

use std::fmt::Write as _;
use std::time::Duration;

use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::stage::eventually;
use crate::support::server::{KEY, OTHER_KEY, send};
use crate::webhooks::rig::Rig;

const ROWS: usize = 60_000;
const BAD: usize = ROWS / 100;

/// Accounts; of each hundred one is wrong and one is there twice.
fn file() -> String {
    let mut text = String::from("name,domain,city\n");
    for n in 0..ROWS {
        let domain = match n % 100 {
            40 => "nonsense".to_owned(),
            60 => format!("company-{}.com", n - 33),
            _ => format!("company-{n}.com"),
        };
        writeln!(text, "Company {n},{domain},Rome").unwrap();
    }
    text
}

async fn count(rig: &Rig, sql: &str) -> i64 {
    let sql = AssertSqlSafe(sql.to_owned());
    sqlx::query_scalar(sql).fetch_one(&rig.pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_whose_workers_are_killed_has_each_row_once() {
    let rig = Rig::new().await;
    let upload = |key: &'static str, text: String| {
        let request = rig
            .server
            .anonymous(Method::POST, "/api/uploads?filename=a.csv");
        async move {
            let answer = send(request.bearer_auth(key).body(text)).await;
            assert_eq!(answer.status, 201, "{answer:?}");
            answer.body["upload"]["url"].as_str().unwrap().to_owned()
        }
    };
    // Another workspace has some of the same companies.
    let few = "name,domain\nTheirs,company-1.com\nTheirs,company-2.com\n";
    let theirs = upload(OTHER_KEY, few.to_owned()).await;
    let wish = |url: &str| {
        json!({ "jobType": "import_csv",
            "payload": { "file_url": url, "entity_type": "accounts" } })
    };
    let request = rig.server.anonymous(Method::POST, "/api/jobs");
    let answer = send(request.bearer_auth(OTHER_KEY).json(&wish(&theirs))).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let url = upload(KEY, file()).await;
    let job = rig.enqueue(wish(&url)).await;
    let rescue = rig.rescue();
    let mut before = 0;
    for death in 1..=3 {
        let mut worker = rig.process(&["--queue", "default", "--lease-ms", "1000"]);
        let mut worker = worker.spawn().unwrap();
        let processed = "SELECT coalesce(max(processed), 0)::bigint FROM imports WHERE total > 2";
        before = eventually("it gets on", async || {
            let now = count(&rig, processed).await;
            (now > before).then_some(now)
        })
        .await;
        worker.kill().await.unwrap();
        assert!(before < ROWS as i64, "death {death} came too late");
    }
    let working = rig.work();
    let done = eventually("it is over", async || {
        let answer = rig.server.get(&format!("/api/jobs/{job}")).await;
        let job = answer.body["job"].clone();
        (job["status"] == "completed").then_some(job)
    });
    let done: Value = done.await;
    let result = &done["result"];
    let sums = ["total", "inserted", "skipped", "failed"].map(|name| result[name].clone());
    let expected = [ROWS, ROWS - 2 * BAD, BAD, BAD].map(|count| json!(count));
    assert_eq!(sums, expected, "{done}");
    assert_eq!(done["attempts"], 0, "a death is no failure of the job");
    let ours = format!("workspace_id = '{DEFAULT_WORKSPACE}'");
    for sql in [
        format!("SELECT count(*) FROM accounts WHERE {ours}"),
        format!("SELECT count(DISTINCT domain) FROM accounts WHERE {ours}"),
        format!("SELECT count(*) FROM bullwark.data_changes WHERE job_id = '{job}'"),
    ] {
        assert_eq!(count(&rig, &sql).await, (ROWS - 2 * BAD) as i64, "{sql}");
    }
    let theirs = "SELECT count(*) FROM accounts WHERE name = 'Theirs' AND city IS NULL";
    assert_eq!(count(&rig, theirs).await, 2, "others have their own");
    rescue.stop(Duration::from_secs(10)).await;
    working.hurry().await;
    rig.end().await;
}
