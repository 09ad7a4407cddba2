//! Quotas of services outside: what a workspace may use, what is left, and limits that admins set.
//!
//! `GET /api/rate-limits` is about queues, and for operators; these are a workspace's own.

use axum::extract::{FromRequestParts, Path, Request};
use axum::http::Uri;
use axum::{Extension, Json, extract};
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::auth::Caller;
use super::body;
use super::observe::RequestId;
use super::problem::{Code, Problem};
use super::query::Parameters;
use super::state::State;
use crate::broker::Broker;
use crate::quota::{InvalidLimits, Limits, QuotaKey, QuotaView, QuotaWindow, shortest};
use crate::record::access::Permission;
use crate::record::quotas::{self, PAGE_MAX, QuotaRow};

/// The largest request.
const BODY_MAX: usize = 64 * 1024;
/// Quotas that Redis is asked about at once, and how long it may take for all of them.
const ASKED_AT_ONCE: usize = 8;
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// A quota of the workspace.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Quota)]
struct OneQuota {
    /// `{service}:{workspace}` or `{service}:{workspace}:{user}`.
    key: String,
    service: String,
    /// What holds: what an admin set, else what the service is known for.
    limits: Option<Value>,
    /// An admin set it.
    is_set: bool,
    /// Now; null: nothing was used lately, or Redis does not tell.
    now: Option<QuotaView>,
    closed_until: Option<DateTime<Utc>>,
    last_request_at: Option<DateTime<Utc>>,
    /// What `check_rate_limit` counts in SQL; null: nobody calls it.
    sql: Option<SqlWindow>,
}

/// The window that SQL counts in.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QuotaSqlWindow)]
struct SqlWindow {
    requests: i32,
    max_requests: i32,
    window_start: DateTime<Utc>,
    window_seconds: f64,
}

/// Quotas by key.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Quotas {
    quotas: Vec<OneQuota>,
    /// False: Redis does not tell what is left right now.
    is_known: bool,
    /// What to pass as `after` for further ones; null: these were all.
    next: Option<String>,
}

/// List quotas
///
/// Of services outside, with what is left of each; 200 at a time.
#[utoipa::path(get, path = "/api/quotas", operation_id = "listQuotas", tag = "operations",
    params(("after" = Option<String>, Query, description = "The `next` of a page.")),
    responses((status = 200, description = "Quotas, by key", body = Quotas)))]
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Quotas>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let given = Parameters::parse(&uri, &["after"])?;
    let after = given.text("after").unwrap_or_default();
    let mut view = state.view(caller).await?;
    let rows = quotas::page(&mut view, caller.workspace_id, after).await?;
    drop(view); // Redis may be slow
    let next = match rows.len() as i64 >= PAGE_MAX {
        true => rows.last().map(|row| row.key.clone()),
        false => None,
    };
    let broker = &state.services.broker;
    let looks: Vec<_> = rows.iter().map(|row| look(broker, row)).collect();
    let looking = futures_util::stream::iter(looks)
        .buffered(ASKED_AT_ONCE)
        .collect::<Vec<_>>();
    let seen = tokio::time::timeout(PATIENCE, looking).await;
    let seen: Option<Vec<_>> = seen.ok().and_then(|seen| seen.into_iter().collect());
    let is_known = seen.is_some();
    let mut seen = seen.unwrap_or_default().into_iter();
    let one = |row: QuotaRow| OneQuota {
        service: row.key.split(':').next().unwrap_or_default().to_owned(),
        now: seen.next().flatten(),
        is_set: row.limits.is_some(),
        limits: row.limits.or(row.usual),
        closed_until: row.closed_until,
        last_request_at: row.last_request_at,
        sql: row.is_counted_in_sql.then_some(SqlWindow {
            requests: row.requests,
            max_requests: row.max_requests,
            window_start: row.window_start,
            window_seconds: row.window_seconds,
        }),
        key: row.key,
    };
    Ok(Json(Quotas {
        quotas: rows.into_iter().map(one).collect(),
        is_known,
        next,
    }))
}

/// What is left; the outer none: Redis does not tell.
async fn look(broker: &Broker, row: &QuotaRow) -> Option<Option<QuotaView>> {
    let said = row.limits.as_ref().or(row.usual.as_ref());
    let limits = said.and_then(|said| serde_json::from_value(said.clone()).ok());
    let limits: Limits = limits.unwrap_or_default();
    QuotaView::of(broker, &row.key, &limits)
        .await
        .inspect_err(|error| tracing::debug!(%error, key = row.key, "quota not seen"))
        .ok()
}

/// What a workspace may use of a service.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schema(as = QuotaLimits)]
struct Wish {
    /// A call must fit into all of them.
    #[schema(max_items = 8)]
    windows: Vec<WindowWish>,
    /// Calls at a time; as many as like without it.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 10_000)]
    concurrency: Option<u32>,
    /// So many percent of each window are kept for interactive work.
    #[serde(default, alias = "reserve_percent")]
    #[schema(maximum = 90)]
    reserve_percent: u8,
    /// Whether limits that the service names take the place of these; false: they can only make
    /// them smaller.
    #[serde(default)]
    learns: bool,
}

/// One window. Numbers are units of cost: calls, or records of a batch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[schema(as = QuotaWindow)]
enum WindowWish {
    /// `capacity` at once, and `refill` more in each period, evenly.
    Bucket {
        #[schema(minimum = 1)]
        capacity: u32,
        #[schema(minimum = 1)]
        refill: u32,
        #[serde(rename = "perMs", alias = "per_ms")]
        #[schema(minimum = 10)]
        per_ms: u64,
    },
    /// Opens with the first call.
    Fixed {
        #[schema(minimum = 1)]
        max: u32,
        #[serde(rename = "perMs", alias = "per_ms")]
        #[schema(minimum = 10)]
        per_ms: u64,
    },
    /// No stretch of this length has more.
    Sliding {
        #[schema(minimum = 1)]
        max: u32,
        #[serde(rename = "perMs", alias = "per_ms")]
        #[schema(minimum = 10)]
        per_ms: u64,
    },
    /// From midnight to midnight in a time zone.
    Daily {
        #[schema(minimum = 1)]
        max: u32,
        #[schema(example = "Europe/Berlin")]
        zone: String,
    },
}

impl From<Wish> for Limits {
    fn from(wish: Wish) -> Self {
        let window = |window| match window {
            WindowWish::Bucket {
                capacity,
                refill,
                per_ms,
            } => QuotaWindow::Bucket {
                capacity,
                refill,
                per_ms,
            },
            WindowWish::Fixed { max, per_ms } => QuotaWindow::Fixed { max, per_ms },
            WindowWish::Sliding { max, per_ms } => QuotaWindow::Sliding { max, per_ms },
            WindowWish::Daily { max, zone } => QuotaWindow::Daily { max, zone },
        };
        Self {
            windows: wish.windows.into_iter().map(window).collect(),
            concurrency: wish.concurrency,
            reserve_percent: wish.reserve_percent,
            learns: wish.learns,
        }
    }
}

/// It was done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QuotaChanged)]
pub(super) struct Success {
    success: bool,
}

/// Set the quota of a service
///
/// For admins. Holds for the whole workspace within seconds; what was used counts on.
#[utoipa::path(put, path = "/api/quotas/{service}", operation_id = "putQuota", tag = "operations",
    params(("service" = String, Path, description = "Such as `apollo`")),
    request_body = Wish,
    responses((status = 200, description = "It holds", body = Success)))]
pub(super) async fn put(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<Json<Success>, Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    let caller = caller.who_may(Permission::Admin)?;
    Parameters::parse(&parts.uri, &[])?;
    let path = Path::<String>::from_request_parts(&mut parts, &state).await;
    let service = path.map(|Path(path)| path).unwrap_or_default();
    let key = QuotaKey::new(&service, caller.workspace_id).map_err(|why| refused(&why))?;
    body::expect_json(&parts.headers)?;
    let whole = body::read(&state, caller, &parts.headers, body, BODY_MAX).await?;
    let wish: Wish = body::object(&whole.bytes, &json!({ "windows": [] }))?;
    let limits = Limits::from(wish);
    limits.check().map_err(|why| refused(&why))?;
    let said = serde_json::to_value(&limits).map_err(|error| Problem::internal(&error))?;
    let key = key.to_string();
    let place = (caller.workspace_id, key.as_str());
    let by = caller.by(&request_id);
    let record = &state.services.record;
    quotas::set_limits(record, place, Some(&said), shortest(&limits), &by).await?;
    Ok(Json(Success { success: true }))
}

/// Take the set quota of a service away
///
/// For admins. What the service is known for holds again.
#[utoipa::path(delete, path = "/api/quotas/{service}", operation_id = "deleteQuota",
    tag = "operations",
    params(("service" = String, Path, description = "Such as `apollo`")),
    responses((status = 200, description = "It is gone", body = Success)))]
pub(super) async fn delete(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    caller: Caller,
    Path(service): Path<String>,
) -> Result<Json<Success>, Problem> {
    let caller = caller.who_may(Permission::Admin)?;
    let unknown = || {
        let detail = "no quota of this service was set here";
        Problem::new(Code::QuotaNotFound, detail)
    };
    let key = QuotaKey::new(&service, caller.workspace_id).map_err(|_| unknown())?;
    let key = key.to_string();
    let place = (caller.workspace_id, key.as_str());
    let nothing = shortest(&Limits::default());
    let by = caller.by(&request_id);
    match quotas::set_limits(&state.services.record, place, None, nothing, &by).await? {
        true => Ok(Json(Success { success: true })),
        false => Err(unknown()),
    }
}

fn refused(why: &InvalidLimits) -> Problem {
    let pointer = match why {
        InvalidLimits::Service => "",
        InvalidLimits::Windows
        | InvalidLimits::Twice(_)
        | InvalidLimits::Units(_)
        | InvalidLimits::Period(_)
        | InvalidLimits::Zone(_) => "/windows",
        InvalidLimits::Concurrency => "/concurrency",
        InvalidLimits::Reserve => "/reservePercent",
    };
    let text = why.to_string();
    Problem::new(Code::InvalidRequest, text.clone()).with_error(pointer, text)
}
