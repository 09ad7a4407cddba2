//! Problem documents (RFC 9457): the one form of every error that leaves the server.
//!
//! A problem has a stable `code` for machines, a `detail` for people and, where it is known, the
//! place of each mistake. It never carries SQL, stack traces or the words of a store: those go to
//! the log, under the same request id.

mod code;
mod refusals;

use axum::Json;
use axum::http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::openapi::PROBLEM;
use crate::job;
pub(super) use code::Code;

/// When to come back after 503, in seconds.
const RETRY_AFTER_SECONDS: u32 = 2;

/// A problem as it leaves the server (RFC 9457). Some have members of their own: `job_id`,
/// `job_status`, `known_types`, `needed`, `line` and `column`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Document {
    /// `urn:bullwark:problem:` and the code.
    #[schema(pattern = "^urn:bullwark:problem:[a-z_]+$")]
    r#type: String,
    /// The words of HTTP for the status.
    title: &'static str,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    code: Code,
    /// What is wrong, for people.
    detail: String,
    /// The place of each mistake, where it is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<job::Problem>,
    /// Under this id the server's log tells more. Entries of a bulk answer have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    request_id: Option<String>,
    /// What only this kind of problem has.
    #[serde(flatten)]
    members: Map<String, Value>,
}

/// An error on its way to a client.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    code: Code,
    detail: String,
    errors: Vec<job::Problem>,
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(super) fn code(&self) -> Code {
        self.code
    }

    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            members: Map::new(),
            headers: Vec::new(),
        }
    }

    /// A field of the request that is wrong, by its JSON pointer.
    pub(super) fn of_field(pointer: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let detail = format!("`{}` {message}", &pointer[1..]);
        Self::new(Code::InvalidRequest, detail).with_error(pointer, message)
    }

    /// All that is wrong with a request.
    pub(super) fn of_fields(errors: Vec<job::Problem>) -> Self {
        let text = |error: &job::Problem| match error.pointer.as_str() {
            "" => error.message.clone(),
            pointer => format!("{pointer}: {}", error.message),
        };
        let texts: Vec<String> = errors.iter().map(text).collect();
        let detail = format!("the request is invalid: {}", texts.join("; "));
        Self::new(Code::InvalidRequest, detail).with_errors(errors)
    }

    /// The same problem of a part of the request.
    pub(super) fn within(mut self, part: &str) -> Self {
        for error in &mut self.errors {
            error.pointer.insert_str(0, part);
        }
        self
    }

    pub(super) fn with_errors(mut self, errors: Vec<job::Problem>) -> Self {
        self.errors = errors;
        self
    }

    pub(super) fn with_error(mut self, pointer: &str, message: impl Into<String>) -> Self {
        self.errors.push(job::Problem {
            pointer: pointer.to_owned(),
            message: message.into(),
        });
        self
    }

    /// Adds a member of this kind of problem, such as the known job types.
    pub(super) fn with_member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Says when to come back, in the document, too: in a bulk answer it is all that there is.
    pub(super) fn with_retry_after(self, seconds: u64) -> Self {
        self.with_member("retry_after_seconds", seconds)
            .with_header(RETRY_AFTER, seconds.into())
    }

    pub(super) fn errors(&self) -> &[job::Problem] {
        &self.errors
    }

    /// Whether it is the request's fault, and not that of a store or of the server.
    pub(super) fn is_refusal(&self) -> bool {
        self.code.status().is_client_error()
    }

    /// The document; in a bulk answer it has no request id of its own.
    pub(super) fn describe(&self, request_id: Option<&str>) -> Document {
        let status = self.code.status();
        Document {
            r#type: format!("urn:bullwark:problem:{}", self.code.as_str()),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code: self.code,
            detail: self.detail.clone(),
            errors: self.errors.clone(),
            request_id: request_id.map(str::to_owned),
            members: self.members.clone(),
        }
    }

    #[cfg(test)]
    pub(super) fn document(&self) -> Value {
        serde_json::to_value(self.describe(None)).unwrap()
    }

    /// The whole answer, with the id under which the log tells more.
    pub(super) fn render(&self, request_id: &str) -> Response {
        let document = self.describe(Some(request_id));
        let mut response = (self.code.status(), Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
        if self.code.status() == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        }
        headers.extend(self.headers.iter().cloned());
        response
    }
}

/// Only marks the response: `observe` writes the document, because it knows the request id.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl Problem {
    /// A mistake of ours, or damage: the log has the words, the client gets the request id.
    pub(super) fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "request failed");
        let detail = "the server met an error of its own; its log has more under this request id";
        Self::new(Code::Internal, detail)
    }
}

#[cfg(test)]
mod tests;
