//! How long an emptied Redis takes to hold every open job again.
//!
//! Nothing works meanwhile: the time is that of the rebuild alone, from the moment that Redis is
//! empty until jobs may be claimed from it.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::{BenchError, round};
use crate::app::App;
use crate::config::Config;
use crate::enqueue::ENQUEUE_MAX;
use crate::job::JobRequest;
use crate::reconcile;
use crate::worker::Handlers;

/// Jobs that are put off, of so many.
const DELAYED_OF: usize = 10;
/// Rebuilds that are measured.
const ROUNDS: usize = 3;
/// Between two looks at whether all deliveries have arrived, or are old enough to be made again.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The report.
#[derive(Debug, Clone, Serialize)]
pub struct RebuildReport {
    pub jobs: usize,
    /// Of these, due in an hour.
    pub delayed: usize,
    /// Of each round.
    pub seconds: Vec<f64>,
    /// Both stores agreed after each round.
    pub agree: bool,
}

/// Enqueues jobs of a type that nobody works, and empties Redis several times.
pub async fn run_rebuild(config: Config, jobs: usize) -> Result<RebuildReport, BenchError> {
    let mut handlers = Handlers::default();
    crate::handlers::diagnostics::add(&mut handlers);
    let app = App::connect(config, handlers).await?;
    let mut delayed = 0;
    for first in (0..jobs).step_by(ENQUEUE_MAX) {
        let requests: Vec<JobRequest> = (first..jobs.min(first + ENQUEUE_MAX))
            .map(|n| {
                let is_delayed = n % DELAYED_OF == 0;
                delayed += usize::from(is_delayed);
                JobRequest {
                    delay_ms: is_delayed.then_some(3_600_000),
                    ..JobRequest::new("noop", serde_json::json!({ "n": n }))
                }
            })
            .collect();
        let answers = app.enqueue.enqueue_many(requests).await?;
        answers.into_iter().collect::<Result<Vec<_>, _>>()?;
    }
    // A rebuild leaves the youngest jobs to their own deliveries.
    while reconcile::deliver_recent(&app.record, &app.broker).await? {}
    let settled = Instant::now() + Duration::from_secs(3);
    while Instant::now() < settled {
        tokio::time::sleep(LOOK_EVERY).await;
        reconcile::deliver_recent(&app.record, &app.broker).await?;
    }
    let (mut seconds, mut agree) = (Vec::new(), true);
    for _ in 0..ROUNDS {
        app.broker
            .lose_memory()
            .await
            .map_err(reconcile::ReconcileError::from)?;
        let started = Instant::now();
        while !reconcile::readmit(&app.record, &app.broker).await? {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        seconds.push(round(started.elapsed().as_secs_f64(), 3));
        let verdict = reconcile::verify(&app.record, &app.broker).await?;
        agree &= verdict.agree && verdict.open == jobs as u64;
    }
    app.close().await;
    Ok(RebuildReport {
        jobs,
        delayed,
        seconds,
        agree,
    })
}
