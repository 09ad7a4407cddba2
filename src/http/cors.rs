//! Pages of other origins that may use the API from a browser: those of the settings, else none.
//!
//! A caller proves who it is by a header that its own code sets, never by what a browser sends by
//! itself, so no credentials are allowed to any origin, and `*` gives nobody's rights away.

use std::time::Duration;

use axum::http::header::{
    ACCEPT_RANGES, AUTHORIZATION, CONTENT_DISPOSITION, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    HeaderName, IF_MATCH, IF_NONE_MATCH, IF_RANGE, LOCATION, RANGE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderValue, Method};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::allowance::{RATE_LIMIT, RATE_LIMIT_POLICY};

/// How long a browser may remember what it was told.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// None: pages of other origins are told nothing, so browsers keep the answers from them.
pub(super) fn layer(origins: &[String]) -> Option<CorsLayer> {
    let named = |name| HeaderName::from_static(name);
    let allowed = match origins {
        [] => return None,
        all if all.iter().any(|origin| origin == "*") => AllowOrigin::any(),
        some => {
            let values = some.iter().map(|origin| HeaderValue::from_str(origin));
            AllowOrigin::list(values.filter_map(Result::ok))
        }
    };
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers([
            AUTHORIZATION,
            CONTENT_TYPE,
            named("x-api-key"),
            named("x-workspace-id"),
            named("x-request-id"),
            named("idempotency-key"),
            named("last-event-id"),
            // Of files.
            RANGE,
            IF_RANGE,
            IF_MATCH,
            IF_NONE_MATCH,
        ])
        .expose_headers([
            LOCATION,
            RETRY_AFTER,
            WWW_AUTHENTICATE,
            RATE_LIMIT,
            RATE_LIMIT_POLICY,
            named("x-request-id"),
            // Of files.
            ACCEPT_RANGES,
            CONTENT_DISPOSITION,
            CONTENT_RANGE,
            ETAG,
        ])
        .max_age(REMEMBERED);
    Some(layer)
}
