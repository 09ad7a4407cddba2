//! `bullwark verify`: what differs between the stores.

use serde_json::json;

use super::{Done, Failure, Global, connect, output};
use crate::reconcile::{self, Difference, Verdict};

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
