//! `GET /api/rate-limits`: the rate limits of queues, and the windows that are open now.

use std::time::Duration;

use axum::http::Uri;
use axum::{Json, extract};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::StreamExt;
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::Caller;
use super::problem::Problem;
use super::query::Parameters;
use super::queues::RateLimit;
use super::state::State;
use crate::broker::Broker;
use crate::clock;
use crate::record::queues::{self, KnownQueue};

/// Queues that Redis is asked about at once.
const ASKED_AT_ONCE: usize = 8;
/// How long Redis may take for all of them.
const PATIENCE: Duration = Duration::from_secs(5);

/// A queue with a limit, or with a window that was closed by hand.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QueueRateLimit)]
struct Limited {
    queue: String,
    rate_limit: Option<RateLimit>,
    /// Null: none is open.
    window: Option<Window>,
}

/// An open window.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RateLimitWindow)]
struct Window {
    /// Jobs that started in it; null: it was closed by hand, and nothing starts.
    started: Option<u64>,
    /// Nothing starts until it ends.
    is_closed: bool,
    ends_at: DateTime<Utc>,
    left_ms: u64,
}

/// Limits of queues, by name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RateLimits {
    rate_limits: Vec<Limited>,
    /// False: Redis does not tell of windows right now.
    windows_are_known: bool,
    /// What to pass as `after` for further queues; null: these were all.
    next: Option<String>,
}

/// List rate limits
///
/// Of queues, with the windows that are open now; of a thousand queues at a time. For those who may
/// see all workspaces.
#[utoipa::path(get, path = "/api/rate-limits", operation_id = "listRateLimits", tag = "operations",
    params(("after" = Option<String>, Query, description = "The `next` of a page.")),
    responses((status = 200, description = "Limits, by queue", body = RateLimits)))]
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<RateLimits>, Problem> {
    caller.who_sees_all()?;
    let given = Parameters::parse(&uri, &["after"])?;
    let after = given.text("after").unwrap_or_default();
    let (record, broker) = (&state.services.record, &state.services.broker);
    let turn = state.read_turn(caller).await?;
    let (known, next) = queues::page(record, broker.prefix(), after).await?;
    drop(turn); // Redis may be slow
    let looking = tokio::time::timeout(PATIENCE, windows(broker, &known));
    let windows = looking.await.ok().flatten();
    let windows_are_known = windows.is_some();
    let mut windows = windows.unwrap_or_default().into_iter();
    let limited = known.into_iter().map(|known| Limited {
        rate_limit: RateLimit::of(&known.settings),
        window: windows.next().flatten(),
        queue: known.queue.into(),
    });
    let is_limited = |limited: &Limited| limited.rate_limit.is_some() || limited.window.is_some();
    Ok(Json(RateLimits {
        rate_limits: limited.filter(is_limited).collect(),
        windows_are_known,
        next,
    }))
}

/// The windows of these queues, in their order; none: Redis does not tell.
async fn windows(broker: &Broker, known: &[KnownQueue]) -> Option<Vec<Option<Window>>> {
    let looks = known.iter().map(|known| async move {
        let max = known.settings.rate_max;
        let window = broker.rate_window(&known.queue).await;
        let window = window
            .inspect_err(|error| tracing::debug!(%error, queue = %known.queue, "not seen"))
            .ok()?;
        Some(window.map(|window| Window {
            started: window.started,
            is_closed: match (window.started, max) {
                (None, _) => true,
                (Some(started), Some(max)) => started >= max,
                (Some(_), None) => false,
            },
            ends_at: clock::now() + TimeDelta::from_std(window.left).unwrap_or_default(),
            left_ms: window.left.as_millis() as u64,
        }))
    });
    let looks: Vec<_> = looks.collect();
    let seen: Vec<Option<Option<Window>>> = futures_util::stream::iter(looks)
        .buffered(ASKED_AT_ONCE)
        .collect()
        .await;
    seen.into_iter().collect()
}
