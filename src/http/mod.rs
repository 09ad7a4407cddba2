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
mod crm;
mod custom_fields;
mod data_changes;
mod dead_letters;
mod docs;
mod duties;
mod email;
mod email_events;
mod enqueue;
mod enrichments;
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
mod routes;
mod schedule_control;
mod schedules;
mod sealing;
mod sequences;
mod ses_events;
mod sessions;
mod sns;
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

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use axum::middleware::{Next, from_fn};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::enqueue::Enqueue;
use crate::job::JobTypes;
use crate::record::Record;
use crate::sealed::Sealer;
pub use crate::secret::Secret;
use crate::storage::Storage;
use crate::tasks::Names;
pub use auth::{AUDIENCE, TokenOptions};
pub use exposition::Exposition;
pub use options::HttpOptions;
use problem::{Code, Problem};
use state::State;
pub use steering::{WorkerAdmin, serve_worker};

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
    /// Uploads, exports and reports are there.
    pub storage: Storage,
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
    duties::start(&state, &duties);
    let connections_max = state.options.connections_max;
    let router = assemble(state.clone());
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
    assemble(State::new(services, HttpOptions::default(), stopping))
}

/// The document of the API, `OpenAPI` 3.1 as JSON text: what `GET /api/openapi.json` answers.
pub fn openapi() -> String {
    let routes = routes::fast().merge(routes::slow()).into_openapi();
    // What can not be written is an empty document; a test reads this one.
    openapi::complete(routes)
        .to_pretty_json()
        .unwrap_or_default()
}

/// The routes with what goes around them.
fn assemble(state: State) -> Router {
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
    let (fast, _) = routes::fast().split_for_parts();
    let fast = fast
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(route_not_found)
        .layer(observed(options.request_patience));
    let (slow, _) = routes::slow().split_for_parts();
    let slow = slow
        .method_not_allowed_fallback(method_not_allowed)
        .layer(observed(upload_patience));
    let router = fast.merge(slow);
    // Outside of everything: a browser reads an error only if it may, too.
    let router = match cors::layer(&options.cors_origins) {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router.with_state(state)
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
