//! `GET /metrics`: the figures of this process, and of the queues, as Prometheus reads them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::auth::Caller;
use super::problem::{Code, Problem};
use super::state::State;
use crate::periodic::{Next, every};
use crate::tasks::Tasks;

/// Seconds, from a look at Redis to a long import.
const SECONDS: [f64; 17] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 1800.0,
];
/// Jobs of a batch.
const JOBS: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0];
/// Between two times that histograms are summed up: without it they grow.
const SUM_UP_EVERY: Duration = Duration::from_secs(5);

/// The figures of this process, whose recorder is installed.
#[derive(Clone)]
pub struct Exposition(PrometheusHandle);

impl std::fmt::Debug for Exposition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exposition").finish_non_exhaustive()
    }
}

impl Exposition {
    /// Installs the recorder of this process; the second time it is there already. What was counted
    /// before is lost. Fails when something else has installed one.
    pub fn install() -> Result<Self, BuildError> {
        static INSTALLED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = installed.as_ref() {
            return Ok(Self(handle.clone()));
        }
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
            .set_buckets_for_metric(Matcher::Suffix("_jobs".to_owned()), &JOBS)?
            .install_recorder()?;
        *installed = Some(handle.clone());
        Ok(Self(handle))
    }

    /// Sums up again and again, whether anybody reads the figures or not.
    pub fn keep_small(&self, tasks: &Tasks) {
        let this = self.clone();
        every(tasks, "sum up metrics", SUM_UP_EVERY, move || {
            this.0.run_upkeep();
            std::future::ready(Ok::<_, std::convert::Infallible>(Next::Rest))
        });
    }

    pub(super) fn answer(&self) -> Response {
        let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        ([(CONTENT_TYPE, text)], self.0.render()).into_response()
    }
}

/// Show metrics
///
/// The figures of this process, and of the queues, as Prometheus reads them. Names of queues and
/// job types are in it, whosever they are: for callers of the default workspace.
#[utoipa::path(get, path = "/metrics", operation_id = "getMetrics", tag = "server",
    responses(
        (status = 200, description = "Figures", body = String, content_type = "text/plain"),
        (status = 404, description = "This server has no recorder: `route_not_found`")))]
pub(super) async fn metrics(
    extract::State(state): extract::State<State>,
    caller: Caller,
) -> Result<Response, Problem> {
    caller.who_sees_all()?;
    let exposition = state.options.metrics.as_ref().ok_or_else(|| {
        let detail = "this server was started without a recorder of metrics";
        Problem::new(Code::RouteNotFound, detail)
    })?;
    Ok(exposition.answer())
}
