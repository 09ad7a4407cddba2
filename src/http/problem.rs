//! Problem documents (RFC 9457): the one form of every error that leaves the server.
//!
//! A problem has a stable `code` for machines, a `detail` for people and, where it is known, the
//! place of each mistake. It never carries SQL, stack traces or the words of a store: those go to
//! the log, under the same request id.

use axum::http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::enqueue::EnqueueError;
use crate::job::{self, Refused};
use crate::record::RecordError;

/// When to come back after 503, in seconds.
const RETRY_AFTER_SECONDS: u32 = 2;

/// Every reason that the server gives. The texts are part of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    MalformedJson,
    MalformedBody,
    InvalidParameter,
    InvalidId,
    IdempotencyKeyMismatch,
    EmptyUpload,
    InvalidWorkspace,
    WorkspaceRequired,
    MissingApiKey,
    InvalidApiKey,
    InvalidToken,
    Forbidden,
    ForeignOrigin,
    ForeignHost,
    RouteNotFound,
    JobNotFound,
    ReportNotFound,
    ApiKeyNotFound,
    MethodNotAllowed,
    IdempotencyKeyReused,
    JobState,
    AmbiguousJob,
    BuiltinJobType,
    TooManyKeys,
    JobGone,
    BodyTooLarge,
    PayloadTooLarge,
    TooManyJobs,
    UnsupportedMediaType,
    InvalidRequest,
    UnknownJobType,
    RecordRefused,
    Internal,
    RecordUnavailable,
    KeysUnavailable,
    Timeout,
    Overloaded,
    Stopping,
    StorageFull,
}

impl Code {
    pub(super) fn as_str(self) -> &'static str {
        self.parts().1
    }

    fn status(self) -> StatusCode {
        self.parts().0
    }

    fn parts(self) -> (StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::MalformedJson => (S::BAD_REQUEST, "malformed_json"),
            Self::MalformedBody => (S::BAD_REQUEST, "malformed_body"),
            Self::InvalidParameter => (S::BAD_REQUEST, "invalid_parameter"),
            Self::InvalidId => (S::BAD_REQUEST, "invalid_id"),
            Self::IdempotencyKeyMismatch => (S::BAD_REQUEST, "idempotency_key_mismatch"),
            Self::EmptyUpload => (S::BAD_REQUEST, "empty_upload"),
            Self::InvalidWorkspace => (S::BAD_REQUEST, "invalid_workspace"),
            Self::WorkspaceRequired => (S::BAD_REQUEST, "workspace_required"),
            Self::MissingApiKey => (S::UNAUTHORIZED, "missing_api_key"),
            Self::InvalidApiKey => (S::UNAUTHORIZED, "invalid_api_key"),
            Self::InvalidToken => (S::UNAUTHORIZED, "invalid_token"),
            Self::Forbidden => (S::FORBIDDEN, "forbidden"),
            Self::ForeignOrigin => (S::FORBIDDEN, "foreign_origin"),
            Self::ForeignHost => (S::FORBIDDEN, "foreign_host"),
            Self::RouteNotFound => (S::NOT_FOUND, "route_not_found"),
            Self::JobNotFound => (S::NOT_FOUND, "job_not_found"),
            Self::ReportNotFound => (S::NOT_FOUND, "report_not_found"),
            Self::ApiKeyNotFound => (S::NOT_FOUND, "api_key_not_found"),
            Self::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::IdempotencyKeyReused => (S::CONFLICT, "idempotency_key_reused"),
            Self::JobState => (S::CONFLICT, "job_state"),
            Self::AmbiguousJob => (S::CONFLICT, "ambiguous_job"),
            Self::BuiltinJobType => (S::CONFLICT, "builtin_job_type"),
            Self::TooManyKeys => (S::CONFLICT, "too_many_keys"),
            Self::JobGone => (S::GONE, "job_gone"),
            Self::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::PayloadTooLarge => (S::PAYLOAD_TOO_LARGE, "payload_too_large"),
            Self::TooManyJobs => (S::PAYLOAD_TOO_LARGE, "too_many_jobs"),
            Self::UnsupportedMediaType => (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Self::InvalidRequest => (S::UNPROCESSABLE_ENTITY, "invalid_request"),
            Self::UnknownJobType => (S::UNPROCESSABLE_ENTITY, "unknown_job_type"),
            Self::RecordRefused => (S::UNPROCESSABLE_ENTITY, "record_refused"),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal_error"),
            Self::RecordUnavailable => (S::SERVICE_UNAVAILABLE, "record_unavailable"),
            Self::KeysUnavailable => (S::SERVICE_UNAVAILABLE, "keys_unavailable"),
            Self::Timeout => (S::SERVICE_UNAVAILABLE, "timeout"),
            Self::Overloaded => (S::SERVICE_UNAVAILABLE, "overloaded"),
            Self::Stopping => (S::SERVICE_UNAVAILABLE, "stopping"),
            Self::StorageFull => (S::INSUFFICIENT_STORAGE, "storage_full"),
        }
    }
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
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            members: Map::new(),
            headers: Vec::new(),
        }
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

    pub(super) fn with_header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, HeaderValue::from_static(value)));
        self
    }

    /// The document, as it stands in a bulk answer.
    pub(super) fn document(&self) -> Value {
        let status = self.code.status();
        let mut document = json!({
            "type": format!("urn:bullwark:problem:{}", self.code.as_str()),
            "title": status.canonical_reason().unwrap_or("Error"),
            "status": status.as_u16(),
            "code": self.code.as_str(),
            "detail": self.detail,
        });
        if let Value::Object(members) = &mut document {
            if !self.errors.is_empty() {
                members.insert("errors".to_owned(), json!(self.errors));
            }
            for (name, value) in &self.members {
                // The members that every problem has are not replaced.
                members.entry(name).or_insert_with(|| value.clone());
            }
        }
        document
    }

    /// The whole answer, with the id under which the log tells more.
    pub(super) fn render(&self, request_id: &str) -> Response {
        let mut document = self.document();
        document["request_id"] = request_id.into();
        let mut response = (self.code.status(), document.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
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

impl From<RecordError> for Problem {
    fn from(error: RecordError) -> Self {
        Self::from(&error)
    }
}

impl From<&RecordError> for Problem {
    fn from(error: &RecordError) -> Self {
        match error {
            RecordError::Unavailable(..) => {
                // Not louder: an outage refuses every request, and the probe reports it once.
                tracing::debug!(%error, "request refused");
                let detail = "the record (PostgreSQL) does not answer right now; try again shortly";
                Self::new(Code::RecordUnavailable, detail)
            }
            RecordError::Refused { .. } => {
                tracing::warn!(%error, "request refused");
                let detail = "the record can not store these values; the server's log says why";
                Self::new(Code::RecordRefused, detail)
            }
            RecordError::Address(_) | RecordError::Schema(_) | RecordError::Corrupt(_) => {
                Self::internal(error)
            }
        }
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

impl From<EnqueueError> for Problem {
    fn from(error: EnqueueError) -> Self {
        let text = error.to_string();
        match error {
            EnqueueError::Refused(refused) => refused.into(),
            EnqueueError::KeyReused { id } => {
                Self::new(Code::IdempotencyKeyReused, text).with_member("job_id", id.to_string())
            }
            EnqueueError::TooMany { .. } => Self::new(Code::TooManyJobs, text),
            EnqueueError::Record(error) => {
                let mut problem = Self::from(error.as_ref());
                if problem.code == Code::RecordUnavailable {
                    // Not "it was not stored": when the answer to a commit is lost, nobody knows.
                    problem.detail = "the record (PostgreSQL) does not answer, so the job is not \
                        confirmed; send it again, with an Idempotency-Key so that it can not be \
                        enqueued twice"
                        .to_owned();
                }
                problem
            }
            EnqueueError::Stopping => Self::new(Code::Stopping, "this server is stopping"),
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let text = refused.to_string();
        match refused {
            Refused::UnknownType { known, .. } => Self::new(Code::UnknownJobType, text)
                .with_error("/jobType", "is no known job type")
                .with_member("known_types", known),
            Refused::PayloadTooLarge { .. } => {
                Self::new(Code::PayloadTooLarge, text).with_error("/payload", "is too large")
            }
            Refused::Invalid { problems } => {
                Self::new(Code::InvalidRequest, text).with_errors(problems)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::Trouble;

    #[test]
    fn what_a_store_said_stays_inside() {
        let secret = "relation \"jobs\" of host 10.0.0.7";
        for error in [
            RecordError::Unavailable(Trouble::Away, secret.to_owned()),
            RecordError::Corrupt(secret.to_owned()),
            RecordError::Schema(secret.to_owned()),
            RecordError::Refused {
                constraint: None,
                message: secret.to_owned(),
            },
        ] {
            let document = Problem::from(EnqueueError::Record(Arc::new(error))).document();
            assert!(!document.to_string().contains("10.0.0.7"), "{document}");
        }
    }

    #[test]
    fn codes_agree_with_those_of_enqueue() {
        let away = || Arc::new(RecordError::Unavailable(Trouble::Away, String::new()));
        for error in [
            EnqueueError::Refused(Refused::PayloadTooLarge { bytes: 1 }),
            EnqueueError::Refused(Refused::Invalid { problems: vec![] }),
            EnqueueError::KeyReused {
                id: uuid::Uuid::nil(),
            },
            EnqueueError::TooMany { given: 1 },
            EnqueueError::Record(away()),
            EnqueueError::Stopping,
        ] {
            let code = error.code();
            assert_eq!(Problem::from(error).code.as_str(), code);
        }
    }
}
