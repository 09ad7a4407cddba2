//! Ten workers, any two of them killed and replaced every second, until every job is over.

use std::time::{Duration, Instant};

use bullwark::config::environment;
use bullwark::job::{Backoff, JobRequest, QueueName};
use serde_json::json;

use crate::stage::{Stage, Worker, eventually, within};

const JOBS: usize = 2_000;
const WORKERS: usize = 10;
const KILLED_AT_ONCE: usize = 2;
const KILL_EVERY: Duration = Duration::from_secs(1);
/// The jobs come in so many portions, one per round of kills.
const PORTIONS: usize = 10;
/// Rounds of kills after the last portion. On a machine that is slow enough, a storm without an end
/// would take the same few jobs down until they rightly count as crash loops.
const TAIL_MAX: usize = PORTIONS;
const ARGUMENTS: [&str; 4] = ["--lease-ms", "3000", "--concurrency", "10"];

/// Which job the nth one is. Of those that fail, every other one may be retried twice.
fn request(nth: usize) -> JobRequest {
    let mut request = match nth % 10 {
        0..5 => JobRequest::new("noop", json!({})),
        5..8 => JobRequest::new("fail", json!({ "message": format!("fails {nth}") })),
        _ => JobRequest::new("sleep", json!({ "ms": 400 })),
    };
    request.max_attempts = Some(1 + (nth % 2) as u32);
    request.backoff = Some(Backoff::Fixed {
        delay_ms: 100,
        jitter: 0.0,
    });
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_storm_of_kills_every_job_ends_once() {
    let jobs = environment("BULLWARK_CRASH_JOBS").map_or(JOBS, |jobs| jobs.parse().unwrap());
    storm(jobs).await;
}

async fn storm(jobs: usize) {
    let stage = Stage::new().await;
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(stage.worker(&ARGUMENTS).await);
    }
    let began = Instant::now();
    let (mut sent, mut kills, mut tail) = (0, 0, 0);
    let mut rounds = tokio::time::interval(KILL_EVERY);
    let most = Duration::from_secs(120 + jobs as u64 / 20);
    let all = tokio::time::timeout(most, async {
        loop {
            rounds.tick().await;
            let portion = jobs.div_ceil(PORTIONS).min(jobs - sent);
            stage
                .enqueue((sent..sent + portion).map(request).collect())
                .await;
            sent += portion;
            if portion > 0 {
                // Killed while they wait for work, they would lose nothing.
                eventually("some jobs to run", async || {
                    running(&stage).await >= WORKERS as u64
                })
                .await;
            }
            if sent < jobs || tail < TAIL_MAX {
                kills += kill_some(&stage, &mut workers, kills).await;
                tail += usize::from(sent == jobs);
            }
            if sent == jobs && stage.count(OPEN).await == 0 {
                return;
            }
        }
    });
    assert!(
        all.await.is_ok(),
        "{} are open after {most:?}",
        stage.count(OPEN).await
    );
    let over = began.elapsed();

    // What a killed worker had committed and not told Redis is told by the rescue.
    let mut verdict = (false, json!(null));
    within("agreement", async {
        while !verdict.0 {
            verdict = stage.verify().await;
        }
    })
    .await;
    assert_eq!(verdict.1["agree"], true);
    assert_eq!(verdict.1["open"], 0);
    let agreed = began.elapsed();
    for worker in workers {
        worker.stop().await;
    }
    let lost = stage
        .count("SELECT count(*) FROM job_failures WHERE outcome = 'lease_lost'")
        .await;
    println!(
        "{jobs} jobs, {kills} kills, {lost} runs lost and repeated; over after {over:.1?}, \
         agreed after {agreed:.1?}"
    );
    assert!(
        kills >= 2 * PORTIONS && lost > 0,
        "the storm was none: {kills} kills, {lost} runs lost"
    );

    assert_eq!(stage.count("SELECT count(*) FROM jobs").await, jobs as i64);
    assert_eq!(stage.count(WRONG_END).await, 0);
    assert_eq!(stage.count(WRONG_HISTORY).await, 0);
    assert_eq!(stage.count(UNLISTED).await, 0);
    eventually("no lock to be left", async || {
        stage.keys("*:lock").await == 0
    })
    .await;
    stage.close().await;
}

const OPEN: &str = "SELECT count(*) FROM jobs
  WHERE status NOT IN ('completed', 'dead_letter', 'cancelled')";
/// What fails is dead after all its retries, everything else is completed without a failure.
pub(crate) const WRONG_END: &str = "SELECT count(*) FROM jobs
  WHERE (status, attempts) IS DISTINCT FROM
    (CASE job_type WHEN 'fail' THEN 'dead_letter' ELSE 'completed' END,
     CASE job_type WHEN 'fail' THEN max_attempts ELSE 0 END)";
/// Each failure was counted once: as many as there were retries, then the last.
pub(crate) const WRONG_HISTORY: &str = "SELECT count(*) FROM jobs j, LATERAL (
    SELECT count(*) FILTER (WHERE outcome = 'failed') AS failed,
      count(*) FILTER (WHERE outcome = 'dead_letter') AS dead
    FROM job_failures f WHERE f.job_id = j.id) h
  WHERE (failed, dead) IS DISTINCT FROM
    (CASE job_type WHEN 'fail' THEN max_attempts ELSE 0 END,
     CASE job_type WHEN 'fail' THEN 1 ELSE 0 END)";
/// Dead jobs that the dead letter queue does not list, and the other way round.
pub(crate) const UNLISTED: &str = "SELECT count(*) FROM jobs j
  FULL JOIN bullwark.dead_letters d ON d.job_id = j.id
  WHERE (j.status = 'dead_letter') IS DISTINCT FROM (d.job_id IS NOT NULL)";

async fn running(stage: &Stage) -> u64 {
    let queue = QueueName::default();
    stage.app.broker.counts(&queue).await.unwrap().active
}

/// Kills workers here and there and starts others in their place. Not the oldest ones each time:
/// Redis hands a rescued job to whoever has waited longest, and the same job would go down in every
/// round, with the worker that is next.
async fn kill_some(stage: &Stage, workers: &mut Vec<Worker>, kills: usize) -> usize {
    for nth in 0..KILLED_AT_ONCE {
        let at = (kills * 7 + nth * 3) % workers.len();
        workers.remove(at).kill().await;
    }
    for _ in 0..KILLED_AT_ONCE {
        workers.push(stage.worker(&ARGUMENTS).await);
    }
    KILLED_AT_ONCE
}
