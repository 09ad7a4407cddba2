//! What happens around every request: its id, its time limit, its log line, its headers, and the
//! document when it ends in a problem.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::{FutureExt, StreamExt};
use tracing::Instrument;
use uuid::Uuid;

use super::bounds::{Bounds, Place};
use super::problem::{Code, Problem};
use crate::tasks::panic_text;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest request id that is taken over.
const REQUEST_ID_MAX: usize = 128;
/// Set unless a route says otherwise.
const HEADERS: [(HeaderName, &str); 9] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (CACHE_CONTROL, "no-store"),
    (REFERRER_POLICY, "no-referrer"),
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    // For browsers that do not know `frame-ancestors`.
    (X_FRAME_OPTIONS, "DENY"),
    (PERMISSIONS_POLICY, PERMISSIONS),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-embedder-policy"),
        "require-corp",
    ),
];
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
/// What no page of ours has any use for.
const PERMISSIONS: &str = "camera=(), display-capture=(), geolocation=(), microphone=(), midi=(), \
     payment=(), publickey-credentials-get=(), serial=(), usb=()";

/// The id of a request, for whoever writes down who did what.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) Arc<str>);

/// An answer that is larger needs room until it is read.
const ANSWER_FREE_BYTES: u64 = 64 * 1024;

/// Runs a request of at most `patience`.
pub(super) async fn observe(
    bounds: &Bounds,
    patience: Duration,
    mut request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let request_id = request_id(&request);
    let id = RequestId(request_id.as_str().into());
    let place = Place::default();
    request.extensions_mut().insert(id);
    request.extensions_mut().insert(place.clone());
    let method = request.method().clone();
    // The pattern, not the path: labels are a small closed set.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let span = tracing::info_span!("request", request_id, %method, route);

    let mut response = run(patience, &method, request, next)
        .instrument(span.clone())
        .await;
    let workspace_id = place.workspace_id();
    drop(place);
    response = held(bounds, workspace_id, method.is_safe(), response).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let document = problem.render(&request_id);
        let allow = response.headers_mut().remove(axum::http::header::ALLOW);
        response = document;
        if let Some(allow) = allow {
            response
                .headers_mut()
                .insert(axum::http::header::ALLOW, allow);
        }
    }
    let headers = response.headers_mut();
    // At once: the map would grow twice otherwise.
    headers.reserve(HEADERS.len() + 1);
    for (name, value) in HEADERS {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        headers.insert(REQUEST_ID, value);
    }
    let status = response.status().as_u16();
    let seconds = began.elapsed().as_secs_f64();
    metrics::histogram!("bullwark_http_request_seconds", "route" => route).record(seconds);
    metrics::counter!("bullwark_http_requests_total", "status" => status.to_string()).increment(1);
    tracing::debug!(parent: &span, status, seconds, "answered");
    response
}

async fn run(patience: Duration, method: &Method, request: Request, next: Next) -> Response {
    let answering = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(patience, answering).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => {
            let panic = panic_text(panic.as_ref());
            Problem::internal(&format_args!("panic: {panic}")).into_response()
        }
        Err(_) => {
            tracing::warn!(?patience, "request timed out");
            let outcome = match *method {
                Method::GET | Method::HEAD => "try again shortly",
                _ => {
                    "whether it took effect is unknown: look before you repeat it, or repeat it \
                      with the same Idempotency-Key"
                }
            };
            let detail = format!("no answer within {patience:?}; {outcome}");
            Problem::new(Code::Timeout, detail).into_response()
        }
    }
}

/// The client's own id, if it is one that may stand in a log; else a new one.
fn request_id(request: &Request) -> String {
    let given = request.headers().get(REQUEST_ID);
    let given = given.and_then(|value| value.to_str().ok());
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    match given {
        Some(id) if (1..=REQUEST_ID_MAX).contains(&id.len()) && id.chars().all(is_plain) => {
            id.to_owned()
        }
        _ => {
            // From the generator of this thread: the system's costs a call into the kernel.
            let now = crate::clock::now().timestamp_millis().unsigned_abs();
            let id = uuid::Builder::from_unix_timestamp_millis(now, &rand::random());
            id.into_uuid().to_string()
        }
    }
}

/// A large answer with the room that it takes until the client has read it, or has been cut off. So
/// clients that ask for much and read nothing do not fill the memory.
///
/// Only where nothing was done may there be no room: whoever is told "too many requests" asks
/// again. What was done is told in any case, and takes the room that there is.
async fn held(bounds: &Bounds, of: Option<Uuid>, may_refuse: bool, response: Response) -> Response {
    let bytes = response.body().size_hint().exact().unwrap_or_default();
    if bytes <= ANSWER_FREE_BYTES {
        return response;
    }
    let room = match may_refuse {
        true => match bounds.answer_room(of, bytes).await {
            Ok(room) => Some(room),
            Err(problem) => return problem.into_response(),
        },
        false => bounds.answer_room_at_once(of, bytes).await,
    };
    let (mut parts, body) = response.into_parts();
    // A stream does not know its length any more.
    parts.headers.insert(CONTENT_LENGTH, bytes.into());
    let chunks = body.into_data_stream().map(move |chunk| {
        let _held = &room;
        chunk
    });
    Response::from_parts(parts, Body::from_stream(chunks))
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use axum::Router;
    use axum::middleware::from_fn;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_util::sync::CancellationToken;

    use super::super::connection;
    use super::*;
    use crate::tasks::Tasks;

    async fn broken() -> &'static str {
        panic!("on purpose, with a secret")
    }

    /// What a server with routes that go wrong says to one request.
    async fn answer(start: &str) -> String {
        let router = Router::new()
            .route("/panic", get(broken))
            .route("/slow", get(pending::<()>).merge(post(pending::<()>)))
            .layer(from_fn(async |request: Request, next: Next| {
                observe(&Bounds::default(), Duration::from_millis(50), request, next).await
            }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tasks, stop) = (Tasks::new(), CancellationToken::new());
        let limit = Duration::from_secs(10);
        tasks.spawn(
            "server",
            connection::serve(router, listener, stop.clone(), limit, 100),
        );
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{start} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        stop.cancel();
        tasks.drained().await;
        text
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_without_its_words() {
        let text = answer("GET /panic").await;
        assert!(text.starts_with("HTTP/1.1 500 "), "{text}");
        assert!(text.contains("\"code\":\"internal_error\""), "{text}");
        assert!(text.contains("\"request_id\":"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }

    #[tokio::test]
    async fn large_answers_that_nobody_reads_leave_no_room_for_more_of_them() {
        let bounds = Bounds::with_patience(Duration::from_millis(50));
        let large = || Body::from(vec![b'x'; 100 * 1024]).into_response();
        let [one, other] = [1, 2].map(|n| Some(Uuid::from_u128(n)));
        let first = held(&bounds, one, true, large()).await;
        assert_eq!(first.headers()[CONTENT_LENGTH], "102400");
        let most = bounds.answer_room(one, u64::MAX);
        assert!(most.await.is_err(), "the first one holds its part");
        let read = axum::body::to_bytes(first.into_body(), usize::MAX)
            .await
            .unwrap();
        assert_eq!(read.len(), 100 * 1024);
        let share = bounds.answer_room(one, u64::MAX).await.unwrap();
        assert_eq!(held(&bounds, one, true, large()).await.status(), 429);
        let small = Body::from("small").into_response();
        assert_eq!(held(&bounds, one, true, small).await.status(), 200);
        // What was done is told all the same.
        assert_eq!(held(&bounds, one, false, large()).await.status(), 200);
        // Others have room beside it, until all of it is taken.
        assert_eq!(held(&bounds, other, true, large()).await.status(), 200);
        let rest = bounds.answer_room(other, u64::MAX).await.unwrap();
        assert_eq!(held(&bounds, None, true, large()).await.status(), 503);
        drop((share, rest));
        assert_eq!(held(&bounds, one, true, large()).await.status(), 200);
    }

    #[tokio::test]
    async fn a_request_that_takes_too_long_is_told_what_that_means() {
        let text = answer("GET /slow").await;
        assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
        assert!(text.contains("retry-after: 2"), "{text}");
        assert!(text.contains("\"code\":\"timeout\"") && text.contains("try again shortly"));
        let text = answer("POST /slow").await;
        assert!(text.contains("whether it took effect is unknown"), "{text}");
    }
}
