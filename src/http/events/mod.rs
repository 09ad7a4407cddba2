//! Live updates: `GET /api/events` and `GET /api/jobs/{id}/events`, as Server-Sent Events.
//!
//! ```text
//! Redis: events of queues ─ tail ──┐
//! record: new jobs, audit ─────────┴─► hints ─► look (record) ─► ring per topic ─► streams
//! ```
//!
//! Promises: what is told of a job is what the record says of it at that moment, and goes to its
//! workspace only; a client that comes back with the id of its last event misses nothing that the
//! ring still has, and begins with a snapshot if something is gone; whoever reads slowly costs
//! nothing and holds up nobody; a stream ends soon after the right to it, and at the stop of the
//! server. While nobody listens, nothing is read. Refuses: more streams than were agreed upon.

mod counts;
mod feed;
mod flood;
mod hints;
mod kinds;
mod known;
mod life;
mod look;
mod ring;
mod snapshot;
mod stream;
mod tail;
mod watch;

use std::sync::Arc;

use axum::extract;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use tokio::sync::Mutex;

use super::auth::Caller;
use super::jobs::{self, JobId};
use super::problem::Problem;
use super::query::Parameters;
use super::state::State;
use crate::periodic::every;
use crate::record::access::Permission;
use crate::record::events;
use crate::tasks::Tasks;
use counts::Counter;
pub(super) use feed::Feed;
use feed::{Place, Topic};
use kinds::LiveEvent;
use life::Stood;
use look::Looker;
use tail::Tail;

/// Tells proxies not to hold events back.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const LAST_EVENT_ID: &str = "last-event-id";
const LAST_EVENT_ID_PARAMETER: &str = "lastEventId";

/// Follow the jobs of the workspace
///
/// Server-Sent Events; the data of each is a `LiveEvent`. It begins with a `snapshot`, or after the
/// event with the id in `Last-Event-ID`. What is too much to be told one by one is summed up in
/// `changed`.
#[utoipa::path(get, path = "/api/events", operation_id = "followJobs", tag = "jobs",
    params(
        ("Last-Event-ID" = Option<String>, Header, description = "The event that was seen last"),
        ("lastEventId" = Option<String>, Query,
            description = "The same, for clients that can not send the header")),
    responses(
        (status = 200, description = "A stream without an end", body = LiveEvent<'static>,
            content_type = "text/event-stream"),
        (status = 429, description = "`too_many_streams`")))]
pub(super) async fn of_workspace(
    extract::State(state): extract::State<State>,
    caller: Caller,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let last = last_event_id(&headers, &uri)?;
    let topic = Topic::Workspace(caller.workspace_id);
    let place = Place::take(&state, topic, None)?;
    Ok(streamed(&state, place, headers, last.as_deref()))
}

/// Follow one job
///
/// As Server-Sent Events, with its log, up to its end, which the event `end` tells. Nothing that
/// happens to it is left out.
#[utoipa::path(get, path = "/api/jobs/{id}/events", operation_id = "followJob", tag = "jobs",
    params(("id" = Uuid, Path, description = "The job"),
        ("Last-Event-ID" = Option<String>, Header, description = "The event that was seen last"),
        ("lastEventId" = Option<String>, Query,
            description = "The same, for clients that can not send the header")),
    responses(
        (status = 200, description = "A stream that ends with the job",
            body = LiveEvent<'static>, content_type = "text/event-stream"),
        (status = 204, description = "The client has seen the end: there is nothing to come back \
            for, which is how an `EventSource` is told"),
        (status = 429, description = "`too_many_streams`")))]
pub(super) async fn of_job(
    extract::State(state): extract::State<State>,
    caller: Caller,
    JobId(id): JobId,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let last = last_event_id(&headers, &uri)?;
    let workspace_id = caller.workspace_id;
    let mut view = state.view(caller).await?;
    let job = events::job_of(&mut view, workspace_id, id).await?;
    drop(view);
    let job = job.ok_or_else(|| jobs::unknown(id))?;
    let Some(stood) = Stood::of(&job) else {
        let detail = format!("job {id} has the status `{}`", job.status);
        return Err(Problem::internal(&detail));
    };
    if stood.is_over() && last.as_deref() == Some(watch::end_id(job.attempt).as_str()) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let topic = Topic::Job { workspace_id, id };
    let place = Place::take(&state, topic, Some((stood, job.read_at)))?;
    Ok(streamed(&state, place, headers, last.as_deref()))
}

/// The id of the event that the client saw last: an `EventSource` that comes back says it in a
/// header, others may say it in the query.
fn last_event_id(headers: &HeaderMap, uri: &Uri) -> Result<Option<String>, Problem> {
    let given = Parameters::parse(uri, &[LAST_EVENT_ID_PARAMETER])?;
    let header = headers.get(LAST_EVENT_ID);
    let header = header.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let header = header.filter(|id| !id.is_empty());
    Ok(header.or_else(|| given.text(LAST_EVENT_ID_PARAMETER).map(str::to_owned)))
}

fn streamed(state: &State, place: Place, headers: HeaderMap, last: Option<&str>) -> Response {
    let events = stream::follow(place, headers, last);
    let heartbeat = KeepAlive::new().interval(state.options.heartbeat_every);
    let stream = Sse::new(events).keep_alive(heartbeat.text("heartbeat"));
    let headers = [(X_ACCEL_BUFFERING, "no"), (CACHE_CONTROL, "no-store")];
    (headers, stream).into_response()
}

/// Starts what feeds the streams; it rests while nobody listens.
pub(super) fn start(state: &State, duties: &Tasks) {
    let tail = Arc::new(Mutex::new(Tail::new(state.clone())));
    every(duties, "event tail", tail::REST, move || {
        let tail = tail.clone();
        async move { tail.lock().await.step().await }
    });
    let looker = Arc::new(Mutex::new(Looker::new(state.clone())));
    every(duties, "event looks", look::ROUND, move || {
        let looker = looker.clone();
        async move { looker.lock().await.step().await }
    });
    let counter = Arc::new(Mutex::new(Counter::new(state.clone())));
    every(duties, "event counts", counts::ROUND, move || {
        let counter = counter.clone();
        async move { counter.lock().await.step().await }
    });
}
