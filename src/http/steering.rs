//! The admin port of a worker process: what it does can be watched and steered there.
//!
//! `docs/forward.md` lists the routes. It is meant for loopback or a private network: whatever
//! program reaches it may pause or close the worker. Pages of other sites may not.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::bounds::Bounds;
use super::observe::observe;
use super::own_origin::refuse_pages;
use super::problem::{Code, Problem};
use super::{Exposition, connection, method_not_allowed, route_not_found};
use crate::tasks::Tasks;
use crate::worker::{Cancelled, Events, SLOTS_MAX, Steering, WorkerEvent};

/// How long a pause may wait for the jobs that run.
const PAUSE_PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// How long requests in flight may take to end when the worker has ended: the answer to `/close`.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// What the admin port works on.
#[derive(Clone)]
pub struct WorkerAdmin {
    pub steering: Steering,
    pub events: Events,
    pub metrics: Exposition,
    /// For what goes on when its caller has hung up.
    pub tasks: Tasks,
}

impl std::fmt::Debug for WorkerAdmin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerAdmin").finish_non_exhaustive()
    }
}

/// Serves until `shutdown`; then requests in flight get their answers.
pub async fn serve_worker(admin: WorkerAdmin, listener: TcpListener, shutdown: CancellationToken) {
    let bound = listener.local_addr().ok();
    let bounds = Arc::new(Bounds::default());
    let router = Router::new()
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .route("/pause", post(pause))
        .route("/resume", post(resume))
        .route("/concurrency", post(concurrency))
        .route("/cancel", post(cancel))
        .route("/close", post(close))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(route_not_found)
        .layer(from_fn(move |request: Request, next: Next| {
            refuse_pages(bound, request, next)
        }))
        .layer(from_fn(move |request: Request, next: Next| {
            let bounds = bounds.clone();
            async move { observe(&bounds, PAUSE_PATIENCE, request, next).await }
        }))
        .with_state(admin);
    let places = connection::CONNECTIONS_MAX;
    connection::serve(router, listener, shutdown, STOP_LIMIT, places).await;
}

/// A JSON body; an empty one counts as `{}`.
struct Body<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let refuse = |why: String| Problem::new(Code::MalformedBody, why);
        let bytes = axum::body::Bytes::from_request(request, state)
            .await
            .map_err(|error| refuse(error.to_string()))?;
        let text = if bytes.is_empty() {
            b"{}"
        } else {
            bytes.as_ref()
        };
        Json::from_bytes(text)
            .map(|Json(body)| Self(body))
            .map_err(|error: JsonRejection| refuse(error.body_text()))
    }
}

#[derive(Deserialize)]
#[serde(default)]
struct Pause {
    wait: bool,
}

impl Default for Pause {
    fn default() -> Self {
        Self { wait: true }
    }
}

#[derive(Deserialize)]
struct Concurrency {
    n: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cancel {
    job_id: String,
    #[serde(default)]
    queue: Option<String>,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Close {
    force: bool,
}

async fn health(State(admin): State<WorkerAdmin>) -> Json<Value> {
    Json(json!({
        "status": "ok",
        "paused": admin.steering.is_paused(),
        "running": admin.steering.running(),
        "concurrency": admin.steering.size(),
    }))
}

async fn metrics(State(admin): State<WorkerAdmin>) -> Response {
    admin.metrics.answer()
}

async fn pause(State(admin): State<WorkerAdmin>, Body(pause): Body<Pause>) -> Json<Value> {
    if !admin.steering.begin_pause() {
        let is_paused = admin.steering.until_still(pause.wait).await;
        return Json(json!({ "paused": is_paused }));
    }
    // A task of its own: the worker is paused, also when the caller hangs up while it waits.
    let (steering, events) = (admin.steering.clone(), admin.events.clone());
    let (answer, answered) = oneshot::channel();
    admin.tasks.spawn("pause", async move {
        let is_paused = tokio::select! {
            is_paused = steering.until_still(pause.wait) => is_paused,
            () = steering.closing().cancelled() => false,
        };
        if is_paused {
            events.tell(WorkerEvent::Paused);
        }
        answer.send(is_paused).ok();
    });
    // Without an answer the task has panicked: then it is as it looks now.
    let is_paused = answered
        .await
        .unwrap_or_else(|_| admin.steering.is_paused());
    Json(json!({ "paused": is_paused }))
}

async fn resume(State(admin): State<WorkerAdmin>) -> Json<Value> {
    // One that was started paused begins now, which is no resumption.
    if admin.steering.resume() {
        admin.events.tell(WorkerEvent::Resumed);
    }
    Json(json!({ "paused": false }))
}

async fn concurrency(
    State(admin): State<WorkerAdmin>,
    Body(concurrency): Body<Concurrency>,
) -> Result<Json<Value>, Problem> {
    let n = concurrency.n;
    if !(1..=SLOTS_MAX).contains(&n) {
        let why = format!("`n` is {n}, it must be from 1 to {SLOTS_MAX}");
        return Err(Problem::new(Code::MalformedBody, why));
    }
    admin.steering.set_slots(n);
    Ok(Json(json!({ "concurrency": n })))
}

async fn cancel(
    State(admin): State<WorkerAdmin>,
    Body(cancel): Body<Cancel>,
) -> Result<Json<Value>, Problem> {
    let (id, queue) = (&cancel.job_id, cancel.queue.as_deref());
    let refuse = |code, why: &str| Err(Problem::new(code, format!("job `{id}` {why}")));
    match admin.steering.cancel(id, queue, cancel.reason.as_deref()) {
        Cancelled::Told => Ok(Json(json!({ "cancelled": true }))),
        Cancelled::NotHeld => refuse(Code::JobNotFound, "is not running in this worker"),
        Cancelled::NotBegun => refuse(Code::JobState, "is not delivered yet; ask again"),
        Cancelled::Over => refuse(Code::JobState, "is over; its outcome is on its way"),
        Cancelled::Ambiguous => refuse(
            Code::AmbiguousJob,
            "runs in several queues: name the `queue`, too",
        ),
    }
}

async fn close(State(admin): State<WorkerAdmin>, Body(close): Body<Close>) -> Json<Value> {
    if close.force {
        admin.steering.abandon();
    }
    admin.steering.close().await;
    Json(json!({ "closed": true }))
}
