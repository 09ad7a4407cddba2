//! The HTTP API. The only place of the crate that says `axum`.
//!
//! One file per group of routes; around them `connection` (sockets), `observe` (what every request
//! gets), `auth` (whose request it is), `body` and `query` (reading with limits) and `problem` (how
//! errors look).
//!
//! Promises: every answer carries a request id; every error is a problem document with a stable
//! code; every body, page, wait and number of requests has a limit; a caller sees its own workspace
//! only; a handler that is dropped because its client left loses nothing that was acknowledged.
//! Refuses: requests without an API key or a token (but for health), and requests from other sites'
//! pages, but for those of the settings (`cors`).

mod actions;
mod alerts;
mod allowance;
mod api_keys;
mod audit;
mod auth;
mod body;
mod bounds;
mod bulk;
mod connection;
mod connection_control;
mod connections;
mod consistency;
mod control;
mod cors;
mod custom_fields;
mod data_changes;
mod dead_letters;
mod docs;
mod email;
mod email_events;
mod enqueue;
mod events;
mod exports;
mod exposition;
mod figures;
mod files;
mod flow_view;
mod flows;
mod form;
mod gauges;
mod health;
mod import_templates;
mod import_undo;
mod imports;
mod job_filter;
mod job_page;
mod jobs;
mod limits;
mod links;
mod observe;
mod openapi;
mod options;
mod own_origin;
mod pipeline_reports;
mod places;
mod problem;
mod query;
mod queue_control;
mod queue_figures;
mod queues;
mod quotas;
mod rate_limits;
mod redact;
mod reports;
mod retention;
mod schedule_control;
mod schedules;
mod sealing;
mod sequences;
mod sessions;
mod standing;
mod state;
mod stats;
mod steering;
mod suppressions;
mod types;
mod unsubscribe;
mod uploads;
mod webhook_control;
mod webhook_deliveries;
mod webhooks;
mod workers;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use axum::middleware::{Next, from_fn};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::broker::Broker;
use crate::enqueue::Enqueue;
use crate::handlers::export::{self, SweepError};
use crate::job::JobTypes;
use crate::periodic::{Next as Rest, every};
use crate::reconcile::ReconcileError;
use crate::record::{Record, RecordError};
use crate::sealed::Sealer;
pub use crate::secret::Secret;
use crate::tasks::{Names, Tasks};
pub use auth::{AUDIENCE, TokenOptions};
pub use exposition::Exposition;
use gauges::Gauges;
pub use options::HttpOptions;
use problem::{Code, Problem};
use state::State;
pub use steering::{WorkerAdmin, serve_worker};

/// How often the stores are looked at, for gauges and for what answers say about it.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// How often queues are looked at, for gauges.
const GAUGES_EVERY: Duration = Duration::from_secs(10);
/// How often allowance that nobody used is given back.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(10);
/// How often the remains of unfinished uploads, and files of old exports, are removed.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// How long a duty may take to end.
const DUTY_STOP_LIMIT: Duration = Duration::from_secs(5);

/// What the routes work on.
#[derive(Debug, Clone)]
pub struct Services {
    pub record: Record,
    pub broker: Broker,
    pub enqueue: Enqueue,
    /// The built-in job types.
    pub types: JobTypes,
    /// Uploads and reports are below it.
    pub data_dir: PathBuf,
    /// Seals secrets that are stored.
    pub sealer: Sealer,
    /// Whether addresses of users may be inside of this network.
    pub allows_private_addresses: bool,
    /// Duties of this process that fail.
    pub failing: Names,
}

/// Serves the API until `shutdown`: then no connection is accepted any more, requests in flight
/// end, and those past the limit are cut off.
pub async fn serve(
    services: Services,
    options: HttpOptions,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    tracing::info!(address = %listener.local_addr()?, "http listens");
    let stop_limit = options.stop_limit;
    let state = State::new(services, options, shutdown.clone());
    let duties = state.tasks.clone();
    start_duties(&state, &duties);
    let connections_max = state.options.connections_max;
    let router = routes(state.clone());
    connection::serve(router, listener, shutdown, stop_limit, connections_max).await;
    duties.stop(DUTY_STOP_LIMIT).await;
    let unused = state.allowances.give_back(&state.services.record, true);
    match tokio::time::timeout(DUTY_STOP_LIMIT, unused).await {
        Ok(Ok(())) => {}
        failed => tracing::debug!(?failed, "unused allowance is not given back"),
    }
    Ok(())
}

/// All routes with what goes around them, for a server of one's own. Connections, the look at
/// the stores, what feeds event streams and the sweep of uploads belong to [`serve`].
pub fn router(services: Services) -> Router {
    let stopping = CancellationToken::new();
    routes(State::new(services, HttpOptions::default(), stopping))
}

fn routes(state: State) -> Router {
    let options = state.options.clone();
    let observed = |patience| {
        let state = state.clone();
        from_fn(move |request: Request, next: Next| {
            let state = state.clone();
            async move { observe::observe(&state.bounds, patience, request, next).await }
        })
    };
    // Its own clock, which sees whether the upload goes on, ends before this one.
    let upload_patience = options.upload_patience + Duration::from_secs(10);
    let (fast, _) = fast().split_for_parts();
    let fast = fast
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(route_not_found)
        .layer(observed(options.request_patience));
    let (slow, _) = slow().split_for_parts();
    let slow = slow
        .method_not_allowed_fallback(method_not_allowed)
        .layer(observed(upload_patience));
    let routes = fast.merge(slow);
    // Outside of everything: a browser reads an error only if it may, too.
    let routes = match cors::layer(&options.cors_origins) {
        Some(cors) => routes.layer(cors),
        None => routes,
    };
    routes.with_state(state)
}

/// The routes that answer soon.
fn fast() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(exposition::metrics))
        .routes(routes!(jobs::list, enqueue::one))
        .routes(routes!(bulk::many))
        .routes(routes!(flows::one))
        .routes(routes!(flow_view::show))
        .routes(routes!(stats::stats))
        .routes(routes!(stats::dashboard))
        .routes(routes!(actions::list, actions::start))
        .routes(routes!(actions::show))
        .routes(routes!(actions::stop))
        .routes(routes!(actions::undo))
        .routes(routes!(jobs::show, control::patch, control::delete))
        .routes(routes!(jobs::logs))
        .routes(routes!(control::retry))
        .routes(routes!(control::promote))
        .routes(routes!(reports::report))
        .routes(routes!(links::of_report, links::revoke_of_report))
        // Patience is for the beginning of an answer: a stream may go on.
        .routes(routes!(events::of_job))
        .routes(routes!(events::of_workspace))
        .routes(routes!(queues::list))
        .routes(routes!(queues::show, queue_control::patch))
        .routes(routes!(queue_control::drain))
        .routes(routes!(dead_letters::list))
        .routes(routes!(schedules::list))
        .routes(routes!(
            schedules::show,
            schedule_control::put,
            schedule_control::delete
        ))
        .routes(routes!(workers::list))
        .routes(routes!(rate_limits::list))
        .routes(routes!(quotas::list))
        .routes(routes!(quotas::put, quotas::delete))
        .routes(routes!(alerts::list))
        .routes(routes!(alerts::resolve))
        .routes(routes!(consistency::show))
        .routes(routes!(auth::me))
        .routes(routes!(sessions::show, sessions::open, sessions::end))
        .routes(routes!(limits::show))
        .routes(routes!(limits::change))
        .routes(routes!(api_keys::list, api_keys::create))
        .routes(routes!(api_keys::revoke))
        .routes(routes!(audit::list))
        .routes(routes!(data_changes::list))
        .routes(routes!(webhooks::list, webhooks::create))
        .routes(routes!(
            webhooks::show,
            webhook_control::patch,
            webhook_control::delete
        ))
        .routes(routes!(webhook_control::rotate))
        .routes(routes!(webhook_control::test))
        .routes(routes!(webhook_deliveries::list))
        .routes(routes!(webhook_deliveries::replay))
        .routes(routes!(connections::list, connections::create))
        .routes(routes!(
            connections::show,
            connection_control::patch,
            connection_control::delete
        ))
        .routes(routes!(retention::show, retention::put))
        .routes(routes!(sequences::list, sequences::create))
        .routes(routes!(sequences::show, sequences::patch))
        .routes(routes!(sequences::add_step))
        .routes(routes!(sequences::replace_step))
        .routes(routes!(suppressions::list, suppressions::create))
        .routes(routes!(suppressions::delete))
        .routes(routes!(email::sends))
        .routes(routes!(email::resolve))
        .routes(routes!(email::domains))
        .routes(routes!(email::change_domain))
        .routes(routes!(email_events::take_in))
        .routes(routes!(unsubscribe::look, unsubscribe::click))
        .routes(routes!(types::list, types::declare))
        .routes(routes!(imports::list))
        .routes(routes!(imports::show))
        .routes(routes!(imports::look))
        .routes(routes!(import_undo::undo))
        .routes(routes!(import_templates::list, import_templates::save))
        .routes(routes!(import_templates::delete))
        .routes(routes!(custom_fields::list, custom_fields::declare))
        .routes(routes!(custom_fields::delete))
        .routes(routes!(exports::list, exports::start))
        .routes(routes!(pipeline_reports::start))
        .routes(routes!(exports::show))
        .routes(routes!(exports::file))
        .routes(routes!(links::of_export, links::revoke_of_export))
        .routes(routes!(links::download))
        .routes(routes!(openapi::document))
        .routes(routes!(docs::page))
        .routes(routes!(docs::file))
}

/// The routes whose requests may take as long as an upload.
fn slow() -> OpenApiRouter<State> {
    OpenApiRouter::new().routes(routes!(uploads::upload))
}

/// The document of the API, `OpenAPI` 3.1 as JSON text: what `GET /api/openapi.json` answers.
pub fn openapi() -> String {
    let routes = fast().merge(slow()).into_openapi();
    // What can not be written is an empty document; a test reads this one.
    openapi::complete(routes)
        .to_pretty_json()
        .unwrap_or_default()
}

async fn route_not_found(uri: Uri) -> Problem {
    let detail = format!("there is no `{}` here", shortened(uri.path()));
    Problem::new(Code::RouteNotFound, detail)
}

async fn method_not_allowed(request: Request) -> Problem {
    let (method, path) = (request.method(), shortened(request.uri().path()));
    let detail = format!("`{path}` does not take {method}; the header `Allow` says what it takes");
    Problem::new(Code::MethodNotAllowed, detail)
}

/// At most so much of a stranger's text stands in an answer.
fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

fn start_duties(state: &State, duties: &Tasks) {
    let (keeping, tasks) = (state.clone(), duties.clone());
    duties.spawn("token keys", async move {
        keeping.callers.run(&tasks).await;
    });
    let probed = state.clone();
    every(duties, "http probe", PROBE_EVERY, move || {
        let state = probed.clone();
        async move {
            health::look(&state).await;
            Ok::<_, std::convert::Infallible>(Rest::Rest)
        }
    });
    if let Some(metrics) = &state.options.metrics {
        metrics.keep_small(duties);
        let gauges = Arc::new(tokio::sync::Mutex::new(Gauges::new(&state.services.broker)));
        let seen = state.clone();
        every(duties, "gauges", GAUGES_EVERY, move || {
            let (state, gauges) = (seen.clone(), gauges.clone());
            async move {
                gauges.lock().await.look(&state).await?;
                Ok::<_, ReconcileError>(Rest::Rest)
            }
        });
    }
    events::start(state, duties);
    let keeping = state.clone();
    every(duties, "unused allowance", GIVE_BACK_EVERY, move || {
        let state = keeping.clone();
        async move {
            let record = &state.services.record;
            state.allowances.give_back(record, false).await?;
            Ok::<_, RecordError>(Rest::Rest)
        }
    });
    let sweeping = state.clone();
    every(duties, "export sweep", SWEEP_EVERY, move || {
        let state = sweeping.clone();
        async move {
            let services = &state.services;
            let swept = export::sweep(&services.record, &services.data_dir).await?;
            if swept.removed > 0 {
                tracing::info!(removed = swept.removed, "files of old exports removed");
            }
            let next = if swept.is_more {
                Rest::Again
            } else {
                Rest::Rest
            };
            Ok::<_, SweepError>(next)
        }
    });
    let uploads = state.uploads.clone();
    every(duties, "upload sweep", SWEEP_EVERY, move || {
        let uploads = uploads.clone();
        async move {
            let removed = uploads.sweep().await?;
            if removed > 0 {
                tracing::info!(removed, "remains of unfinished uploads removed");
            }
            Ok::<_, std::io::Error>(Rest::Rest)
        }
    });
}
