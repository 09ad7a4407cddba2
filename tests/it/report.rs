//! `generate_report`: what a report says, of whom, and who gets it.

use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use chrono::{Days, NaiveDate, Timelike};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::stage::eventually;
use crate::support::server::{Answer, OTHER_KEY, OTHER_WORKSPACE, send};
use crate::webhooks::rig::Rig;

/// A day that is over, whatever the time is now.
pub(crate) fn some_day() -> NaiveDate {
    let today = bullwark::clock::now().date_naive();
    today.checked_sub_days(Days::new(3)).unwrap()
}

impl Rig {
    /// So many attempts of a type that completed at ten o'clock that day, each within 15 to 18 ms.
    pub(crate) async fn ended(&self, workspace: Uuid, day: NaiveDate, kind: &str, many: u32) {
        let runs = format!("{{{}{many}}}", "0,".repeat(16));
        self.sql(format!(
            "INSERT INTO bullwark.rollups (workspace_id, step, at, job_queue, job_type, completed,
               failed, dead, cancelled, run_ms, runs, waits)
             VALUES ('{workspace}', 'hour', '{day} 10:00Z', 'default', '{kind}', {many}, 5, 3, 2,
               100, '{runs}', '{{}}')"
        ))
        .await;
    }

    /// A job that died at eleven o'clock that day.
    async fn died(&self, workspace: Uuid, day: NaiveDate, error: &str) -> Uuid {
        let id = Uuid::now_v7();
        self.sql(format!(
            "INSERT INTO jobs (id, workspace_id, job_type, payload, status, error_message,
               failed_at, completed_at)
             VALUES ('{id}', '{workspace}', 'noop', '{{}}', 'dead_letter', '{error}',
               '{day} 11:00Z', '{day} 11:00Z');
             INSERT INTO bullwark.dead_letters (job_id, workspace_id, job_type, job_queue, died_at,
               fingerprint)
             VALUES ('{id}', '{workspace}', 'noop', 'default', '{day} 11:00Z',
               bullwark.error_fingerprint('noop', '{error}'))"
        ))
        .await;
        id
    }

    async fn ask(&self, key: &str, payload: Value) -> Answer {
        let request = self.server.anonymous(Method::POST, "/api/reports");
        send(request.bearer_auth(key).json(&payload)).await
    }

    /// The result of a report that completes, and its file.
    async fn reported(&self, payload: Value) -> (Value, String) {
        let answer = self.server.post("/api/reports", payload).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let id = answer.body["export"]["id"].as_str().unwrap().to_owned();
        let done = self.until(&id, "completed").await["result"].clone();
        (done, self.file(&id).await)
    }

    async fn file(&self, id: &str) -> String {
        let path = format!("/api/exports/{id}/file");
        let response = self
            .server
            .request(Method::GET, &path)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        response.text().await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_says_what_ended_in_its_days_and_nothing_of_others() {
    let rig = Rig::guarded().await;
    let day = some_day();
    rig.ended(DEFAULT_WORKSPACE, day, "import_csv", 90).await;
    rig.ended(DEFAULT_WORKSPACE, day, "=1+1", 7).await;
    rig.ended(DEFAULT_WORKSPACE, day, "<script>alert(1)</script>", 1)
        .await;
    rig.ended(OTHER_WORKSPACE, day, "foxglove", 1000).await;
    let before = day.pred_opt().unwrap();
    rig.ended(DEFAULT_WORKSPACE, before, "too_early", 1000)
        .await;
    rig.ended(DEFAULT_WORKSPACE, day.succ_opt().unwrap(), "too_late", 1000)
        .await;
    rig.died(DEFAULT_WORKSPACE, day, "host 10.0.0.1 said <b>no</b>")
        .await;
    let newest = rig
        .died(DEFAULT_WORKSPACE, day, "host 10.0.0.2 said <b>no</b>")
        .await;
    rig.died(DEFAULT_WORKSPACE, before, "too early").await;
    rig.died(OTHER_WORKSPACE, day, "foxglove").await;
    for (workspace, rows) in [(DEFAULT_WORKSPACE, 11), (OTHER_WORKSPACE, 5_000)] {
        rig.sql(format!(
            "WITH job AS (
               INSERT INTO jobs (id, workspace_id, job_type, payload, status, completed_at)
               SELECT bullwark.uuid_v7(), '{workspace}', 'noop', '{{}}', 'completed', now()
               FROM generate_series(1, 2) RETURNING id
             ), ids AS (SELECT id, row_number() OVER () AS n FROM job), imported AS (
               INSERT INTO imports (id, workspace_id, entity_type, sha256, bytes, status, total,
                 processed, inserted, updated, encoding, delimiter, finished_at)
               SELECT id, '{workspace}', 'accounts', '', 1, 'completed', {rows}, {rows}, {rows} - 1,
                 1, 'utf-8', ',', now() FROM ids WHERE n = 1
             )
             INSERT INTO exports (id, workspace_id, entity_type, format, file_name, status, rows,
               bytes, sha256, finished_at, expires_at)
             SELECT id, '{workspace}', 'contacts', 'xlsx', 'a', 'expired', {rows}, 2048, '', now(),
               now() FROM ids WHERE n = 2"
        ))
        .await;
    }
    let working = rig.work();
    let days = json!({ "from": day, "to": day, "format": "csv", "title": "=Title" });
    let (done, csv) = rig.reported(days.clone()).await;
    assert_eq!(done["from"], format!("{day}T00:00:00Z"));
    assert_eq!(done["to"], format!("{}T00:00:00Z", day.succ_opt().unwrap()));
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[0], "section,subject,measure,value");
    let hour = format!("hours,{day}T10:00:00Z,completed,98");
    for line in [
        "report,,title,'=Title",
        "all,,completed,98",
        "all,,failed_attempts,15",
        "all,,dead_letters,9",
        "all,,cancelled,6",
        "all,,run_p50_ms,16.5",
        "types,import_csv,completed,90",
        "types,'=1+1,completed,7",
        &hour,
        "open_now,,dead_letter,3",
    ] {
        assert!(lines.contains(&line), "{line} is not in {csv}");
    }
    let errors: Vec<&str> = lines
        .iter()
        .copied()
        .filter(|l| l.starts_with("errors,"))
        .collect();
    assert_eq!(errors.len(), 6, "two jobs of one cause: {errors:?}");
    let tells = |what: String| errors.iter().any(|line| line.ends_with(&what));
    assert!(
        tells(",error,host <address> said <b>no</b>".to_owned()),
        "{errors:?}"
    );
    assert!(tells(",count,2".to_owned()) && tells(format!(",example_job,{newest}")));
    for strange in ["foxglove", "too_", "too early", "10.0.0", "wait_p50"] {
        assert!(!csv.contains(strange), "{strange} is in {csv}");
    }
    // Imports and exports belong to the day on which they were asked for.
    assert!(!csv.contains("imports,"), "{csv}");
    let soon = json!({ "period": "today", "zone": noon(), "format": "csv" });
    let (_, csv) = rig.reported(soon).await;
    for line in [
        "imports,accounts completed,rows,11",
        "imports,accounts completed,updated,1",
        "exports,contacts xlsx completed,rows,11",
        "exports,contacts xlsx completed,bytes,2048",
    ] {
        assert!(csv.lines().any(|l| l == line), "{line} is not in {csv}");
    }
    assert!(
        !csv.contains("pipeline csv"),
        "reports are no exports of records: {csv}"
    );

    let mut page = days;
    page["format"] = json!("html");
    let (done, html) = rig.reported(page).await;
    assert_eq!(done["bytes"], html.len());
    assert!(
        html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"),
        "{html}"
    );
    assert!(
        html.contains("host &lt;address&gt; said &lt;b&gt;no&lt;/b&gt;"),
        "{html}"
    );
    assert!(
        html.contains("default-src 'none'; style-src 'sha256-"),
        "{html}"
    );
    for strange in [
        "<script", "foxglove", "too_", "10.0.0", "style=\"", "src=", "href=", "url(", "://", "NaN",
    ] {
        assert!(!html.contains(strange), "{strange} is in {html}");
    }
    assert_eq!(html.matches("<svg viewBox").count(), 2);
    working.hurry().await;
    rig.end().await;
}

/// The zone where it is about noon now, so that no test sees midnight.
fn noon() -> String {
    let ahead = 12 - i64::from(bullwark::clock::now().hour());
    format!("UTC{ahead:+}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_a_moment_ago_is_in_a_report_of_today() {
    let rig = Rig::guarded().await;
    let working = rig.work();
    for _ in 0..2 {
        let id = rig.noop().await;
        rig.until(&id, "completed").await;
    }
    let id = rig
        .enqueue(
            json!({ "jobType": "fail", "payload": { "message": "no luck at 7 o'clock" },
            "maxAttempts": 0 }),
        )
        .await;
    rig.until(&id, "dead_letter").await;
    let waits = rig
        .enqueue(json!({ "jobType": "noop", "delayMs": 3_600_000 }))
        .await;
    let payload = json!({ "period": "today", "zone": noon(), "format": "csv" });
    let (_, csv) = rig.reported(payload).await;
    let has = |line: &str| csv.lines().any(|l| l == line);
    for line in [
        "types,noop,completed,2",
        "types,fail,dead_letters,1",
        "all,,dead_letters,1",
        "open_now,,dead_letter,1",
        "open_now,default,pending,1",
    ] {
        assert!(has(line), "{line} is not in {csv}");
    }
    assert!(csv.contains("types,noop,wait_p95_ms,"), "{csv}");
    assert!(csv.contains(",error,no luck at <n> o'clock"), "{csv}");
    assert!(!csv.contains(&waits), "{csv}");
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_kept_and_given_out_as_an_export() {
    let rig = Rig::guarded().await;
    let working = rig.work();
    for (wrong, pointers) in [
        (json!({ "period": "next_week" }), vec!["/period"]),
        (
            json!({ "zone": "Mars", "title": "" }),
            vec!["/zone", "/title"],
        ),
        (json!({ "from": "2026-11-01" }), vec!["/to"]),
        (json!({ "days": 7 }), vec!["/days"]),
    ] {
        let answer = rig.server.post("/api/reports", wrong.clone()).await;
        answer.problem(422, "invalid_request");
        let errors = answer.body["errors"].as_array().unwrap().iter();
        let found: Vec<&str> = errors.map(|e| e["pointer"].as_str().unwrap()).collect();
        assert_eq!(found, pointers, "{wrong}");
    }
    let long_ago = json!({ "from": "2020-01-01", "to": "2020-01-02" });
    let answer = rig.server.post("/api/reports", long_ago).await;
    let id = answer.body["export"]["id"].as_str().unwrap().to_owned();
    let dead = rig.until(&id, "dead_letter").await;
    let why = dead["error_message"].as_str().unwrap();
    assert!(why.contains("figures are kept for 90 days"), "{why}");

    let answer = rig
        .server
        .post("/api/reports", json!({ "zone": "Europe/Berlin" }))
        .await;
    let pending = &answer.body["export"];
    assert_eq!(
        (
            &pending["entity_type"],
            &pending["format"],
            &pending["status"]
        ),
        (&json!("pipeline"), &json!("html"), &json!("pending"))
    );
    let id = pending["id"].as_str().unwrap().to_owned();
    let path = format!("/api/exports/{id}");
    assert_eq!(answer.header("location"), path);
    let first = rig.until(&id, "completed").await["result"].clone();
    assert_eq!(first["download"], format!("{path}/file"));
    let shown = rig.server.get(&path).await.body["export"].clone();
    assert_eq!(
        (&shown["status"], &shown["sha256"], &shown["rows"]),
        (&json!("completed"), &first["sha256"], &first["figures"])
    );
    let listed = rig.server.get("/api/exports").await.body;
    assert_eq!(listed["exports"], json!([shown]));
    let head = rig.server.request(Method::GET, &format!("{path}/file"));
    let head = head.send().await.unwrap();
    let header = |name: &str| head.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "text/html; charset=utf-8");
    assert!(header("content-disposition").starts_with("attachment; filename=\"pipeline-report-"));
    assert!(header("content-security-policy").contains("default-src 'none'"));

    // Of no use to another workspace, and of use to whoever has a link.
    for (method, path) in [
        (Method::GET, path.clone()),
        (Method::GET, format!("{path}/file")),
        (Method::POST, format!("{path}/links")),
    ] {
        let theirs = rig.server.anonymous(method, &path).bearer_auth(OTHER_KEY);
        send(theirs).await.problem(404, "export_not_found");
    }
    let link = rig.server.post(&format!("{path}/links"), json!({})).await;
    assert_eq!(link.status, 201, "{link:?}");
    let link = link.body["url"].as_str().unwrap();
    let opened = send(rig.server.anonymous(Method::GET, link)).await;
    assert_eq!(opened.status, 200);
    assert!(opened.body.as_str().unwrap().starts_with("<!doctype html>"));

    // Run again by hand it is another report.
    let retry = rig
        .server
        .request(Method::POST, &format!("/api/jobs/{id}/retry"));
    assert_eq!(send(retry).await.status, 200);
    rig.tell().await;
    let second = rig.until(&id, "completed").await["result"].clone();
    assert_ne!(second["expires_at"], first["expires_at"]);
    assert_eq!(
        rig.file(&id).await.len() as u64,
        second["bytes"].as_u64().unwrap()
    );
    let theirs = rig.ask(OTHER_KEY, json!({})).await;
    assert_eq!(theirs.status, 201, "{theirs:?}");
    let listed = rig.server.get("/api/exports").await.body;
    assert_eq!(listed["exports"].as_array().unwrap().len(), 1);
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_makes_reports() {
    let rig = Rig::guarded().await;
    let working = rig.work();
    let wish = json!({ "everyMs": 1000, "limit": 2, "job": { "jobType": "generate_report",
        "payload": { "period": "yesterday", "zone": "Europe/Berlin" } } });
    let request = rig
        .server
        .request(Method::PUT, "/api/schedules/default/daily");
    let made = send(request.json(&wish)).await;
    assert_eq!(made.status, 201, "{made:?}");
    eventually("two reports are there", async || {
        let listed = rig.server.get("/api/exports").await.body;
        let listed = listed["exports"].as_array().unwrap().clone();
        let done = listed.iter().filter(|e| e["status"] == "completed");
        (done.count() == 2).then_some(())
    })
    .await;
    working.hurry().await;
    rig.end().await;
}
