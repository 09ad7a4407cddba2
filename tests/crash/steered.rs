//! A worker process that is watched, paused and closed over its admin port.

use serde_json::{Value, json};

use crate::stage::{Stage, eventually};

fn client() -> reqwest::Client {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    reqwest::Client::new()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_shows_its_figures_and_ends_well_when_it_is_told_to_close() {
    let stage = Stage::new().await;
    let arguments = ["--admin", "127.0.0.1:0", "--paused"];
    let mut worker = stage.worker(&arguments).await;
    let admin = worker.admin.clone().unwrap();
    let client = client();
    let post = async |path: &str, body: Value| {
        let request = client.post(format!("{admin}{path}")).json(&body);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    };
    let figures = async || {
        let answer = client.get(format!("{admin}/metrics")).send().await.unwrap();
        answer.text().await.unwrap()
    };
    let ids = stage.sleeps(3, 10).await;
    eventually("jobs that wait", async || {
        stage.state(ids[2]).await.is_some()
    })
    .await;
    assert!(
        !figures().await.contains("bullwark_run_seconds"),
        "it is paused"
    );

    post("/resume", json!({})).await;
    stage.until_status(&ids, "completed").await;
    let text = figures().await;
    for name in ["wait", "run"] {
        let counted = format!("bullwark_{name}_seconds_count{{job_type=\"sleep\"}} 3");
        assert!(text.contains(&counted), "{text}");
    }
    // Counted right after the commit.
    eventually("attempts that were counted", async || {
        let counted = "bullwark_attempts_total{outcome=\"completed\"} 3";
        let whole = "bullwark_total_seconds_count{job_type=\"sleep\"} 3";
        let text = figures().await;
        text.contains(counted) && text.contains(whole)
    })
    .await;
    assert!(text.contains("bullwark_run_seconds_bucket{job_type=\"sleep\",le=\"60\"} 3"));

    let running = stage.sleeps(1, 1_500).await;
    stage.until_status(&running, "processing").await;
    post("/close", json!({})).await;
    assert_eq!(worker.end().await, Some(0));
    stage.until_status(&running, "completed").await;
    stage.until_agreed().await;
    stage.close().await;
}

/// Whoever asked for the pause waits for a job, and the worker is told to stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_worker_that_is_told_to_stop_ends_well() {
    let stage = Stage::new().await;
    let worker = stage.worker(&["--admin", "127.0.0.1:0"]).await;
    let admin = worker.admin.clone().unwrap();
    let running = stage.sleeps(1, 2_000).await;
    stage.until_status(&running, "processing").await;
    let pause = async |wait: bool| {
        let request = client().post(format!("{admin}/pause"));
        request.json(&json!({ "wait": wait })).send().await
    };
    pause(false).await.unwrap();
    let waiting = async {
        // Answered when the running job has ended, or not at all.
        let pause = pause(true);
        let stop = async {
            let ids = stage.sleeps(1, 10).await;
            eventually("a job that waits", async || {
                stage.state(ids[0]).await.is_some()
            })
            .await;
            worker.stop().await;
            ids[0]
        };
        tokio::join!(pause, stop).1
    };
    let waiting = waiting.await;
    stage.until_status(&running, "completed").await;
    assert_eq!(stage.job(waiting).await.status, "pending");
    stage.close().await;
}
