//! `GET /api/docs`: the API's document as pages, for people with a browser.
//!
//! What the pages need is in the program: they load nothing from elsewhere, and their policy lets
//! them load nothing from elsewhere, run no script that is not one of these files, and stand in no
//! frame. They keep no key: whoever tries a route in them gives one each time the page is opened.

use std::sync::{Arc, LazyLock};

use axum::extract::Path;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use utoipa_swagger_ui::Config;

use super::problem::{Code, Problem};
use super::shortened;

/// Pictures in its style sheet are `data:`.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";
/// The files change with the program only.
const CACHED: &str = "private, max-age=3600";

static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    // As seen from the page, so that it may stand below whatever path a proxy gives it. No layout
    // with an address bar, and no service that checks documents: neither would be allowed out.
    let config = Config::from("openapi.json")
        .use_base_layout()
        .validator_url("none")
        .doc_expansion("list")
        .deep_linking(true)
        .display_operation_id(true)
        .filter(true);
    Arc::new(config)
});

/// Browse this document
///
/// As pages, in which routes can be tried.
#[utoipa::path(get, path = "/api/docs", operation_id = "getDocs", tag = "server", security(()),
    responses((status = 200, description = "The page", body = String, content_type = "text/html")))]
pub(super) async fn page() -> Result<Response, Problem> {
    let (_, page) = file_of("index.html")?;
    let page = String::from_utf8_lossy(&page)
        .replace("=\"./", "=\"docs/")
        .replace("href=\"index.css", "href=\"docs/index.css")
        .replace("<title>Swagger UI<", "<title>Bullwark API<");
    let headers = [
        (
            CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        ),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    ];
    Ok((headers, page).into_response())
}

/// Load a file of these pages
#[utoipa::path(get, path = "/api/docs/{file}", operation_id = "getDocsFile", tag = "server",
    security(()), params(("file" = String, Path, example = "swagger-ui.css")),
    responses((status = 200, description = "The file", content(
        (String = "text/css"), (String = "text/javascript"), (String = "text/html"),
        (Vec<u8> = "image/png")))))]
pub(super) async fn file(Path(name): Path<String>) -> Result<Response, Problem> {
    let (content_type, bytes) = file_of(&name)?;
    let headers = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, HeaderValue::from_static(CACHED)),
    ];
    Ok((headers, bytes).into_response())
}

fn file_of(name: &str) -> Result<(HeaderValue, Vec<u8>), Problem> {
    let found = utoipa_swagger_ui::serve(name, CONFIG.clone());
    let found = found.map_err(|error| Problem::internal(&error))?;
    let file = found.ok_or_else(|| {
        let detail = format!("there is no `{}` here", shortened(name));
        Problem::new(Code::RouteNotFound, detail)
    })?;
    let content_type = HeaderValue::from_str(&file.content_type);
    let content_type = content_type.map_err(|error| Problem::internal(&error))?;
    Ok((content_type, file.bytes.into_owned()))
}
