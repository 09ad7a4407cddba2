//! What people do to queues: pause them, limit them, drain them.
//!
//! A queue is shared, so its settings are for those who run the installation; draining takes away
//! jobs of the caller's workspace alone.

use axum::extract::{FromRequestParts, Request};
use axum::{Extension, Json, extract};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::auth::Caller;
use super::body;
use super::control::reason;
use super::observe::RequestId;
use super::problem::{Code, Problem};
use super::queues::{self, InPath, OneQueue};
use super::state::State;
use crate::control::{self, Drained};
use crate::job::QueueChange;
use crate::record::access::Permission;
use crate::record::drain::Draining;

/// The largest body of a change.
const BODY_MAX: usize = 16 * 1024;
/// The largest concurrency and the most starts of a rate limit.
const COUNT_MAX: u64 = 1_000_000_000;
/// The longest window of a rate limit: 31 days.
const DURATION_MAX_MS: u64 = 31 * 86_400_000;

/// A change of a queue; what is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schema(as = QueueChange)]
struct Change {
    /// No job starts.
    #[serde(default)]
    paused: Option<bool>,
    /// Jobs that may run at a time, of all workers together; null: any number.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 1000000000)]
    concurrency: Option<Option<u64>>,
    /// Jobs that may start in which time, of all workers together; null: any number.
    #[serde(default, deserialize_with = "given", alias = "rate_limit")]
    #[schema(value_type = Option<Limit>)]
    rate_limit: Option<Option<Limit>>,
    /// Workspaces take turns, however many jobs each has.
    #[serde(default)]
    fair: Option<bool>,
    /// For the audit.
    #[serde(default)]
    #[schema(max_length = 500)]
    reason: Option<String>,
}

/// Starts in a window.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schema(as = NewRateLimit)]
struct Limit {
    #[schema(minimum = 1, maximum = 1000000000)]
    max: u64,
    #[serde(alias = "duration_ms")]
    #[schema(minimum = 1, maximum = 2678400000i64)]
    duration_ms: u64,
}

/// A field that is there, be it null.
fn given<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

impl Change {
    fn check(self) -> Result<(QueueChange, Option<String>), Problem> {
        let count = |pointer: &str, count: u64| match count {
            1..=COUNT_MAX => Ok(()),
            _ => Err(Problem::of_field(
                pointer,
                format!("must be a whole number from 1 to {COUNT_MAX}; to stop all, pause"),
            )),
        };
        if let Some(Some(concurrency)) = self.concurrency {
            count("/concurrency", concurrency)?;
        }
        if let Some(Some(limit)) = &self.rate_limit {
            count("/rateLimit/max", limit.max)?;
            if !(1..=DURATION_MAX_MS).contains(&limit.duration_ms) {
                let message = format!("must be from 1 to {DURATION_MAX_MS}, 31 days");
                return Err(Problem::of_field("/rateLimit/durationMs", message));
            }
        }
        let limit = |limit: Limit| (limit.max, limit.duration_ms);
        let change = QueueChange {
            is_paused: self.paused,
            concurrency: self.concurrency,
            rate_limit: self.rate_limit.map(|given| given.map(limit)),
            is_fair: self.fair,
        };
        if change == QueueChange::default() {
            let detail = "nothing is to be changed: give `paused`, `concurrency`, `rateLimit` or \
                          `fair`";
            return Err(Problem::new(Code::InvalidRequest, detail).with_error("", detail));
        }
        let reason = self.reason.map(|given| reason(Some(given))).transpose()?;
        Ok((change, reason))
    }
}

/// Change a queue
///
/// Pause it, let it go on, or limit it, for all workers and all workspaces. For those who run the
/// installation.
#[utoipa::path(patch, path = "/api/queues/{name}", operation_id = "changeQueue", tag = "queues",
    params(("name" = String, Path, description = "The queue; it need not exist yet")),
    request_body = Change,
    responses((status = 200, description = "What holds now", body = OneQueue)))]
pub(super) async fn patch(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<Json<OneQueue>, Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    let caller = caller.who_operates()?;
    let InPath(queue) = InPath::from_request_parts(&mut parts, &state).await?;
    body::expect_json(&parts.headers)?;
    let whole = body::read(&state, caller, &parts.headers, body, BODY_MAX).await?;
    let change: Change = body::object(&whole.bytes, &json!({}))?;
    let (change, reason) = change.check()?;
    let (app, by) = (&state.services, caller.by(&request_id));
    let noted = (&by, reason.as_deref());
    control::change_queue(&app.record, &app.broker, &queue, &change, noted).await?;
    let queue = queues::find(&state, caller, &queue).await?;
    Ok(Json(OneQueue { queue }))
}

/// What is drained.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DrainQueue)]
struct Wish {
    /// Also jobs that are not due yet, and parents that wait for their children.
    #[serde(default)]
    delayed: bool,
    /// For the audit and the logs of the jobs.
    #[serde(default)]
    #[schema(max_length = 500)]
    reason: Option<String>,
}

/// What a drain did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DrainedQueue)]
pub(super) struct DrainAnswer {
    cancelled: u64,
    /// There may be more: send the request again.
    more: bool,
}

/// Drain a queue
///
/// Cancels what waits in it of the caller's workspace, oldest first, 10,000 jobs at most. For
/// admins.
#[utoipa::path(post, path = "/api/queues/{name}/drain", operation_id = "drainQueue",
    tag = "queues",
    params(("name" = String, Path, description = "The queue")),
    request_body = Option<Wish>,
    responses((status = 200, description = "How many were cancelled", body = DrainAnswer)))]
pub(super) async fn drain(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<Json<DrainAnswer>, Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    let caller = caller.who_may(Permission::Admin)?;
    let InPath(queue) = InPath::from_request_parts(&mut parts, &state).await?;
    let whole = body::read(&state, caller, &parts.headers, body, BODY_MAX).await?;
    let wish = match body::is_absent(&whole.bytes) {
        true => Wish::default(),
        false => {
            body::expect_json(&parts.headers)?;
            body::object(&whole.bytes, &json!({}))?
        }
    };
    let reason = match wish.reason {
        Some(given) => reason(Some(given))?,
        None => format!("queue {queue} was drained"),
    };
    let draining = Draining {
        workspace_id: caller.workspace_id,
        queue: queue.as_str(),
        with_delayed: wish.delayed,
        reason: &reason,
    };
    let (app, by) = (&state.services, caller.by(&request_id));
    let Drained { cancelled, more } =
        control::drain(&app.record, &app.broker, &draining, &by).await?;
    Ok(Json(DrainAnswer { cancelled, more }))
}
