//! `bullwark reconcile` and `bullwark verify`: what differs between the stores, and mending it now.

use clap::Args;
use serde_json::json;

use super::{Done, Failure, Global, connect, output};
use crate::reconcile::{self, Difference, Verdict};

/// Example: bullwark reconcile --dry-run
#[derive(Debug, Args)]
#[command(
    after_help = "Processes of Bullwark do this all the time, bit by bit; this does a whole round \
    at once. Every repair is written to the job's log. Safe while jobs run, and beside itself."
)]
pub(crate) struct Reconcile {
    /// Change nothing: print what differs, and what would be done about it
    #[arg(long)]
    dry_run: bool,
}

/// `bullwark reconcile`
pub(crate) async fn run(global: &Global, args: Reconcile) -> Done {
    let app = connect::app(global).await?;
    if args.dry_run {
        let verdict = reconcile::verify(&app.record, &app.broker).await?;
        app.close().await;
        show(global, &verdict);
        return Ok(());
    }
    let done = reconcile::reconcile_all(&app.record, &app.broker).await?;
    app.close().await;
    if global.json {
        output::json(&done);
    } else {
        if done.compared {
            output::line("Redis had another memory: it was compared with the record as a whole.");
        }
        let row = |name: &str, value: u64| vec![name.to_owned(), value.to_string()];
        output::table(
            &["done", "jobs"],
            vec![
                row("told to Redis (outbox)", done.relayed),
                row("added to Redis again, or ended in the record", done.added),
                row("adopted or copied from Redis", done.copied),
                row("ended in Redis", done.ended),
                row("queues and schedules brought together", done.queues),
            ],
        );
    }
    Ok(())
}

/// `bullwark verify`
pub(crate) async fn verify(global: &Global) -> Done {
    let app = connect::app(global).await?;
    let verdict = reconcile::verify(&app.record, &app.broker).await?;
    app.close().await;
    show(global, &verdict);
    match verdict.agree {
        true => Ok(()),
        false => Err(Failure::Silent),
    }
}

fn show(global: &Global, verdict: &Verdict) {
    if global.json {
        output::json(&json!(verdict));
    } else if verdict.agree {
        output::line(&format!(
            "Both stores agree; {} jobs are open.",
            verdict.open
        ));
    } else {
        let cells = |d: &Difference| {
            let texts = [
                &d.job_id, &d.queue, &d.record, &d.redis, &d.problem, &d.repair,
            ];
            texts.iter().map(|text| (*text).clone()).collect()
        };
        let rows = verdict.differences.iter().map(cells).collect();
        output::table(
            &["job", "queue", "record", "redis", "problem", "repair"],
            rows,
        );
    }
}
