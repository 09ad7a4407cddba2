//! `/u/{token}`: where the links to unsubscribe of mails lead. Without a key.
//!
//! Promises: looking at the page changes nothing, for programs look at every link of a mail before
//! its reader does; one `POST` unsubscribes, as mail programs send it (RFC 8058) and as the button
//! of the page does; whoever has a token can unsubscribe one address and learn nothing else. Links
//! that do not work look all the same.

use axum::extract;
use axum::extract::{Path, Request};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::state::State;
use crate::record::suppressions;

const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; \
    base-uri 'none'; frame-ancestors 'none'";

/// Look at a link to unsubscribe
///
/// A page with a button. It changes nothing.
#[utoipa::path(get, path = "/u/{token}", operation_id = "getUnsubscribe", tag = "email",
    security(()), params(("token" = String, Path, description = "What the link ends in")),
    responses(
        (status = 200, description = "The page", body = String, content_type = "text/html"),
        (status = 404, description = "The link does not work", body = String,
            content_type = "text/html")))]
pub(super) async fn look(
    extract::State(state): extract::State<State>,
    Path(token): Path<String>,
) -> Result<Response, Problem> {
    let _turn = state.bounds.link_turn().await?;
    let who = suppressions::who_has(&state.services.record, &token).await?;
    Ok(match who {
        None => without_link(),
        Some(_) => {
            // Without an address: whoever was forwarded the mail need not know it.
            let form = "<form method=\"post\"><button type=\"submit\">Unsubscribe</button></form>";
            page(
                StatusCode::OK,
                "Unsubscribe",
                &format!("<p>No further mails?</p>{form}"),
            )
        }
    })
}

/// Unsubscribe
///
/// What mail programs send when their reader clicks "unsubscribe". Safe to repeat.
#[utoipa::path(post, path = "/u/{token}", operation_id = "unsubscribe", tag = "email",
    security(()), params(("token" = String, Path, description = "What the link ends in")),
    responses(
        (status = 200, description = "It is done", body = String, content_type = "text/html"),
        (status = 404, description = "The link does not work", body = String,
            content_type = "text/html")))]
pub(super) async fn click(
    extract::State(state): extract::State<State>,
    Path(token): Path<String>,
    _request: Request,
) -> Result<Response, Problem> {
    let _turn = state.bounds.link_turn().await?;
    let is_done = suppressions::unsubscribe(&state.services.record, &token).await?;
    Ok(match is_done {
        true => page(
            StatusCode::OK,
            "Unsubscribed",
            "<p>You will get no further mails.</p>",
        ),
        false => without_link(),
    })
}

fn without_link() -> Response {
    let words = "<p>This link does not work. Take it from the mail once more.</p>";
    page(StatusCode::NOT_FOUND, "Not found", words)
}

fn page(status: StatusCode, title: &str, words: &str) -> Response {
    let text = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"robots\" content=\"noindex\"><title>{title}</title>\
         <style>body{{font:1.1rem sans-serif;max-width:30rem;margin:4rem auto;padding:0 1rem}}\
         button{{font:inherit;padding:.6rem 1.2rem}}</style><h1>{title}</h1>{words}</html>"
    );
    let fixed = |name: HeaderName, value: &'static str| (name, HeaderValue::from_static(value));
    let headers = [
        fixed(CONTENT_TYPE, "text/html; charset=utf-8"),
        fixed(CONTENT_SECURITY_POLICY, POLICY),
        fixed(CACHE_CONTROL, "no-store"),
        fixed(REFERRER_POLICY, "no-referrer"),
    ];
    (status, headers, text).into_response()
}
