//! Watching a job until it is over, with a bar for people.

use std::time::Duration;

use anyhow::{Context, anyhow};
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde_json::Value;
use uuid::Uuid;

use super::client::Client;

/// Between two looks at the job.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Looks in a row that may fail before the command gives up watching.
const MISSED_LOOKS_MAX: u32 = 120;

/// How the work is told of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doing {
    /// Such as `import`.
    pub(super) what: &'static str,
    /// What goes on before the first row, and then.
    pub(super) first: &'static str,
    pub(super) then: &'static str,
}

/// The id in the row of a job.
pub(super) fn job_id(job: &Value) -> anyhow::Result<Uuid> {
    let id = job["id"]
        .as_str()
        .ok_or_else(|| anyhow!("the server's answer has no job id"))?;
    id.parse().context("the server's job id")
}

fn progress_bar(is_quiet: bool) -> ProgressBar {
    let target = match is_quiet {
        true => ProgressDrawTarget::hidden(),
        false => ProgressDrawTarget::stderr(),
    };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    if let Ok(style) = ProgressStyle::with_template(
        "{spinner} {msg:24!} [{bar:32}] {human_pos}/{human_len} · {rate} · ETA {eta}",
    ) {
        let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            // A closed terminal is no error.
            write!(out, "{} rows/s", HumanCount(state.per_sec() as u64)).ok();
        };
        bar.set_style(style.with_key("rate", rate).progress_chars("█▌ "));
    }
    bar.set_message("waiting for a worker");
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Watches a job until it is over. A server that restarts meanwhile is waited for.
pub(super) async fn watch(
    client: &Client,
    id: Uuid,
    doing: &Doing,
    is_quiet: bool,
) -> anyhow::Result<Value> {
    let bar = progress_bar(is_quiet);
    let what = doing.what;
    let mut missed = 0;
    loop {
        let job = match client.job(id).await {
            Ok(job) => job,
            Err(error) if missed >= MISSED_LOOKS_MAX => {
                return Err(error.context(format!("{what} {id} goes on without being watched")));
            }
            Err(_) => {
                missed += 1;
                bar.set_message("server is away");
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
        };
        missed = 0;
        show(&job, doing, &bar);
        if matches!(
            job["status"].as_str(),
            Some("completed" | "dead_letter" | "cancelled")
        ) {
            bar.finish_and_clear();
            return Ok(job);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn show(job: &Value, doing: &Doing, bar: &ProgressBar) {
    let progress = &job["progress"];
    if let Some(total) = progress["total"].as_u64() {
        bar.set_length(total);
    }
    if let Some(processed) = progress["processed"].as_u64() {
        bar.set_position(processed);
    }
    let message = match (job["status"].as_str(), progress["processed"].as_u64()) {
        (Some("failed"), _) => "failed, will try again",
        (Some("processing"), Some(1..)) => doing.then,
        (Some("processing"), _) => doing.first,
        _ => "waiting for a worker",
    };
    bar.set_message(message);
}
