//! `bullwark jobs` and `bullwark stats`

use anyhow::anyhow;
use chrono::SubsecRound;
use clap::{Args, Subcommand};
use uuid::Uuid;

use super::{Done, Failure, Global, connect, output};
use crate::control;
use crate::job::Status;
use crate::record::access::By;
use crate::record::jobs::{self, JobRow};
use crate::record::list::{self as pages, JobFilter};
use crate::record::logs;

/// Example: bullwark jobs list --status dead_letter
#[derive(Debug, Args)]
pub(crate) struct Jobs {
    #[command(subcommand)]
    command: JobsCommand,
}

#[derive(Debug, Subcommand)]
enum JobsCommand {
    /// List jobs, newest first
    List {
        /// pending, processing, failed, completed, dead_letter or cancelled
        #[arg(long)]
        status: Option<Status>,
        #[arg(long = "type")]
        job_type: Option<String>,
        #[arg(long)]
        queue: Option<String>,
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=500))]
        limit: u16,
        /// Only jobs older than this one: the last of the page before
        #[arg(long)]
        before: Option<Uuid>,
    },
    /// Show a job with its retry history and its newest log lines
    Show { id: Uuid },
    /// Show the log of a job
    Logs { id: Uuid },
    /// Run jobs again that are over
    Retry {
        #[arg(required = true)]
        ids: Vec<Uuid>,
    },
    /// Stop jobs that are not over
    Cancel {
        #[arg(required = true)]
        ids: Vec<Uuid>,
        #[arg(long, default_value = "cancelled on the command line")]
        reason: String,
    },
    /// Delete jobs that do not run, with all that they hold
    Delete {
        #[arg(required = true)]
        ids: Vec<Uuid>,
        #[arg(long, default_value = "deleted on the command line")]
        reason: String,
    },
}

pub(crate) async fn run(global: &Global, jobs: Jobs) -> Done {
    let app = connect::app(global).await?;
    let (record, broker) = (&app.record, &app.broker);
    match jobs.command {
        JobsCommand::List {
            status,
            job_type,
            queue,
            limit,
            before,
        } => {
            let limit = i64::from(limit);
            let filter = JobFilter {
                workspace_id: None,
                status,
                job_type,
                queue,
                before,
                limit,
                ..JobFilter::default()
            };
            let mut view = record.view().await?;
            list(global, &pages::list_page(&mut view, &filter).await?);
        }
        JobsCommand::Show { id } => {
            let mut view = record.view().await?;
            let job = jobs::get(&mut view, id, None)
                .await?
                .ok_or_else(|| unknown(id))?;
            let failures = jobs::failures(&mut view, id).await?;
            let lines = logs::of_job(&mut view, id, 20).await?;
            match global.json {
                true => output::json(
                    &serde_json::json!({ "job": job, "failures": failures, "logs": lines }),
                ),
                false => show(&job, &failures, &lines),
            }
        }
        JobsCommand::Logs { id } => {
            let mut view = record.view().await?;
            jobs::get(&mut view, id, None)
                .await?
                .ok_or_else(|| unknown(id))?;
            let lines = logs::of_job(&mut view, id, logs::LOG_PAGE_MAX).await?;
            match global.json {
                true => output::json(&lines),
                false => lines.iter().for_each(|line| output::line(&log_line(line))),
            }
        }
        JobsCommand::Retry { ids } => {
            let done = control::retry(record, broker, &ids, &By::OPERATOR).await?;
            return changed(global, "retried", &ids, done, "not over, or unknown");
        }
        JobsCommand::Cancel { ids, reason } => {
            let done = control::cancel(record, broker, &ids, &By::OPERATOR, &reason).await?;
            return changed(global, "cancelled", &ids, done, "over already, or unknown");
        }
        JobsCommand::Delete { ids, reason } => {
            let done = control::delete(record, broker, &ids, &By::OPERATOR, &reason).await?;
            let else_ = "running (cancel it first), or unknown";
            return changed(global, "deleted", &ids, done, else_);
        }
    }
    app.close().await;
    Ok(())
}

fn unknown(id: Uuid) -> anyhow::Error {
    anyhow!("there is no job {id}")
}

fn changed(global: &Global, verb: &str, wanted: &[Uuid], done: Vec<Uuid>, else_: &str) -> Done {
    let left: Vec<&Uuid> = wanted.iter().filter(|id| !done.contains(id)).collect();
    if global.json {
        output::json(&serde_json::json!({ verb: done, "unchanged": left }));
    } else {
        done.iter()
            .for_each(|id| output::line(&format!("{id} {verb}")));
        left.iter()
            .for_each(|id| output::error(&format!("{id} is {else_}")));
    }
    match left.is_empty() {
        true => Ok(()),
        false => Err(Failure::Silent),
    }
}

fn list(global: &Global, rows: &[JobRow]) {
    if global.json {
        return output::json(&rows);
    }
    let percent = |job: &JobRow| {
        let progress = job.progress.as_ref()?.get("percentage")?.as_f64()?;
        Some(format!("{progress}%"))
    };
    let cells = |job: &JobRow| {
        vec![
            job.id.to_string(),
            job.job_type.clone(),
            job.job_queue.clone(),
            job.status.clone(),
            percent(job).unwrap_or_default(),
            format!("{}/{}", job.attempts, job.max_attempts),
            job.created_at.trunc_subsecs(0).to_rfc3339(),
        ]
    };
    let header = [
        "id", "type", "queue", "status", "progress", "failures", "created",
    ];
    output::table(&header, rows.iter().map(cells).collect());
}

fn show(job: &JobRow, failures: &[jobs::FailureRow], lines: &[logs::LogRow]) {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let value = serde_json::to_value(job).unwrap_or_default();
    for (name, value) in value.as_object().into_iter().flatten() {
        let text = match value {
            serde_json::Value::Null => continue,
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        rows.push(vec![name.clone(), text]);
    }
    output::table(&["column", "value"], rows);
    for failure in failures {
        output::line(&format!(
            "attempt {} {} at {}: {}",
            failure.attempt,
            failure.outcome,
            failure.ended_at.trunc_subsecs(0).to_rfc3339(),
            failure.error_message.as_deref().unwrap_or("-"),
        ));
    }
    lines.iter().for_each(|line| output::line(&log_line(line)));
}

fn log_line(line: &logs::LogRow) -> String {
    let time = line
        .created_at
        .map(|at| at.trunc_subsecs(3).to_rfc3339())
        .unwrap_or_default();
    let metadata = line
        .metadata
        .as_ref()
        .map(|m| format!(" {m}"))
        .unwrap_or_default();
    format!("{time} {:5} {}{metadata}", line.log_level, line.message)
}

/// `bullwark stats`
pub(crate) async fn stats(global: &Global) -> Done {
    let app = connect::app(global).await?;
    let mut queues = serde_json::Map::new();
    let mut rows = Vec::new();
    for queue in app.broker.queues().await? {
        let counts = app.broker.counts(&queue).await?;
        let waiting = counts.wait + counts.paused + counts.prioritized;
        rows.push(vec![
            queue.to_string(),
            waiting.to_string(),
            counts.delayed.to_string(),
            counts.active.to_string(),
            if counts.is_paused { "paused" } else { "" }.to_owned(),
        ]);
        queues.insert(
            queue.to_string(),
            serde_json::json!({
                "waiting": waiting, "delayed": counts.delayed, "active": counts.active,
                "completed_kept": counts.completed, "failed_kept": counts.failed,
                "paused": counts.is_paused,
            }),
        );
    }
    let statuses = crate::record::server::count_by_status(&app.record).await?;
    app.close().await;
    if global.json {
        let record: serde_json::Map<String, serde_json::Value> = statuses
            .into_iter()
            .map(|(status, count)| (status, count.into()))
            .collect();
        output::json(&serde_json::json!({ "queues": queues, "record": record }));
        return Ok(());
    }
    output::table(&["queue", "waiting", "delayed", "active", ""], rows);
    let cells = |(status, count): (String, i64)| vec![status, count.to_string()];
    output::table(
        &["status in the record", "jobs"],
        statuses.into_iter().map(cells).collect(),
    );
    Ok(())
}
