//! Sessions of browsers: a key or a token is shown once, and a cookie stands for it from then on.
//!
//! So a page keeps no key where a script could read it, and may use `EventSource`, which sends no
//! headers. What a session may do, and from where, see `auth::cookie`.

use axum::extract::Extension;
use axum::http::header::{CACHE_CONTROL, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Json, extract};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::{Caller, Me, cookie};
use super::observe::RequestId;
use super::problem::{Code, Problem};
use super::query::Parameters;
use super::state::State;
use crate::record::access::Actor;
use crate::record::sessions::{self, Ends};

/// A session as its page sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Session {
    /// Whose it is, and what it may do.
    #[serde(flatten)]
    me: Me,
    expires_at: DateTime<Utc>,
    /// What requests that change something send in `X-CSRF-Token`.
    csrf_token: String,
}

/// An answer that is a session.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OneSession {
    session: Session,
}

impl OneSession {
    fn new(caller: Caller, expires_at: DateTime<Utc>, token: &str) -> Self {
        Self {
            session: Session {
                me: Me::from(caller),
                expires_at,
                csrf_token: cookie::csrf_token(token),
            },
        }
    }
}

/// Open a session
///
/// For pages of this server, with the key or token in a header, as every route takes it. The answer
/// sets a cookie that scripts can not read: for twelve hours, or until the key or token ends. It is
/// of the workspace that the request names. With it, requests that change something must send
/// `X-CSRF-Token`.
#[utoipa::path(post, path = "/api/session", operation_id = "openSession", tag = "access",
    responses((status = 201, description = "The session", body = OneSession,
        headers(("Set-Cookie" = String, description = "The session")))))]
pub(super) async fn open(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    cookie::check_origin(&headers)?;
    if caller.has_session {
        let detail = "a session opens no other one: show the key or the token";
        return Err(Problem::new(Code::Forbidden, detail));
    }
    if !matches!(caller.actor, Actor::ApiKey(_) | Actor::User(_)) {
        let detail = "only a user or an API key has sessions, not the service role";
        return Err(Problem::new(Code::Forbidden, detail));
    }
    let (record, request_id) = (&state.services.record, Some(&*request_id));
    let (of, until) = (caller.workspace_id, caller.until);
    let opened = sessions::open(record, caller.actor, of, until, request_id).await?;
    let (token, expires_at) = opened.ok_or_else(|| {
        let detail = "the key, token or session of this request has just ended";
        Problem::new(Code::InvalidSession, detail)
    })?;
    let set = cookie::keep(&headers, &token, expires_at);
    let body = OneSession::new(caller, expires_at, &token);
    Ok((
        StatusCode::CREATED,
        private([(SET_COOKIE, set)]),
        Json(body),
    )
        .into_response())
}

/// Show the session
///
/// For a page that was loaded again: whose it is, and its token for requests that change something.
#[utoipa::path(get, path = "/api/session", operation_id = "getSession", tag = "access",
    responses(
        (status = 200, description = "The session of this request", body = OneSession),
        (status = 404, description = "The request has none, but a key or a token: \
            `session_not_found`")))]
pub(super) async fn show(caller: Caller, headers: HeaderMap) -> Result<Response, Problem> {
    let (token, until) = named(caller, &headers)?;
    let body = OneSession::new(caller, until, token);
    Ok((private([]), Json(body)).into_response())
}

/// End the session
///
/// Its cookie opens nothing any more; other servers notice within seconds. With `all=true` every
/// session of the same key or user in this workspace ends.
#[utoipa::path(delete, path = "/api/session", operation_id = "endSession", tag = "access",
    params(("all" = Option<bool>, Query, description = "Also those in other browsers")),
    responses(
        (status = 204, description = "It has ended",
            headers(("Set-Cookie" = String, description = "Nothing"))),
        (status = 404, description = "The request has none, but a key or a token: \
            `session_not_found`")))]
pub(super) async fn end(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    caller: Caller,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let given = Parameters::parse(&uri, &["all"])?;
    let all = given.parsed::<bool>("all")?.unwrap_or(false);
    let (token, _) = named(caller, &headers)?;
    let which = if all { Ends::All } else { Ends::One(token) };
    let (record, of) = (&state.services.record, caller.workspace_id);
    sessions::end(record, caller.actor, of, which, Some(&*request_id)).await?;
    state.callers.forget_sessions(caller.actor);
    let set = cookie::forget(&headers);
    Ok((StatusCode::NO_CONTENT, private([(SET_COOKIE, set)])).into_response())
}

/// The session by which the caller is known.
fn named(caller: Caller, headers: &HeaderMap) -> Result<(&str, DateTime<Utc>), Problem> {
    let token = cookie::session(headers).filter(|_| caller.has_session);
    token.zip(caller.until).ok_or_else(|| {
        let detail = "this request has a key or a token, and no session";
        Problem::new(Code::SessionNotFound, detail)
    })
}

/// Nobody keeps what stands for a person.
fn private<const N: usize>(headers: [(axum::http::HeaderName, HeaderValue); N]) -> HeaderMap {
    let mut all = HeaderMap::from_iter(headers);
    all.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    all
}
