//! Problem documents (RFC 9457): the one form of every error that leaves the server.
//!
//! A problem has a stable `code` for machines, a `detail` for people and, where it is known, the
//! place of each mistake. It never carries SQL, stack traces or the words of a store: those go to
//! the log, under the same request id.

mod refusals;

use axum::Json;
use axum::http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::openapi::PROBLEM;
use crate::job;

/// When to come back after 503, in seconds.
const RETRY_AFTER_SECONDS: u32 = 2;

/// Why the server refuses, for machines.
// Every reason that the server gives. The texts are part of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ProblemCode)]
pub(super) enum Code {
    MalformedJson,
    MalformedBody,
    InvalidParameter,
    InvalidId,
    IdempotencyKeyMismatch,
    EmptyUpload,
    InvalidForm,
    InvalidWorkspace,
    WorkspaceRequired,
    MissingApiKey,
    InvalidApiKey,
    InvalidToken,
    InvalidSession,
    CsrfTokenRequired,
    Forbidden,
    ForeignOrigin,
    ForeignHost,
    RouteNotFound,
    JobNotFound,
    ReportNotFound,
    ImportNotFound,
    ImportTemplateNotFound,
    CustomFieldNotFound,
    ExportNotFound,
    LinkNotFound,
    FileNotFound,
    UploadNotFound,
    ApiKeyNotFound,
    SessionNotFound,
    FlowNotFound,
    ActionNotFound,
    QueueNotFound,
    ScheduleNotFound,
    AlertNotFound,
    WorkspaceNotFound,
    WebhookNotFound,
    QuotaNotFound,
    DeliveryNotFound,
    ConnectionNotFound,
    MethodNotAllowed,
    IdempotencyKeyReused,
    JobState,
    AmbiguousJob,
    BuiltinJobType,
    TooManyKeys,
    ActionState,
    TooManyActions,
    TooManySchedules,
    ScheduleBusy,
    ImportState,
    ExportState,
    ExportsFull,
    TooManyLinks,
    TooManyWebhooks,
    WebhookInactive,
    TooManyConnections,
    TooManyImportTemplates,
    TooManyCustomFields,
    ConnectionNameTaken,
    DeliveryState,
    JobGone,
    ExportExpired,
    PreconditionFailed,
    BodyTimeout,
    BodyTooLarge,
    PayloadTooLarge,
    TooManyJobs,
    UnsupportedMediaType,
    RangeNotSatisfiable,
    CreationLimit,
    TooManyRequests,
    InvalidRequest,
    UnknownPlan,
    UnknownJobType,
    RecordRefused,
    #[serde(rename = "internal_error")]
    Internal,
    RecordUnavailable,
    KeysUnavailable,
    Timeout,
    Overloaded,
    Stopping,
    StorageFull,
    TooManyStreams,
}

impl Code {
    pub(super) fn as_str(self) -> &'static str {
        self.parts().1
    }

    pub(super) fn status(self) -> StatusCode {
        self.parts().0
    }

    /// All of them, as the API's document lists them.
    pub(super) fn all() -> Vec<Self> {
        let RefOr::T(Schema::Object(listed)) = Self::schema() else {
            return Vec::new();
        };
        let listed = listed.enum_values.unwrap_or_default().into_iter();
        listed
            .filter_map(|code| serde_json::from_value(code).ok())
            .collect()
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
            Self::InvalidForm => (S::BAD_REQUEST, "invalid_form"),
            Self::InvalidWorkspace => (S::BAD_REQUEST, "invalid_workspace"),
            Self::WorkspaceRequired => (S::BAD_REQUEST, "workspace_required"),
            Self::MissingApiKey => (S::UNAUTHORIZED, "missing_api_key"),
            Self::InvalidApiKey => (S::UNAUTHORIZED, "invalid_api_key"),
            Self::InvalidToken => (S::UNAUTHORIZED, "invalid_token"),
            Self::InvalidSession => (S::UNAUTHORIZED, "invalid_session"),
            Self::CsrfTokenRequired => (S::FORBIDDEN, "csrf_token_required"),
            Self::Forbidden => (S::FORBIDDEN, "forbidden"),
            Self::ForeignOrigin => (S::FORBIDDEN, "foreign_origin"),
            Self::ForeignHost => (S::FORBIDDEN, "foreign_host"),
            Self::RouteNotFound => (S::NOT_FOUND, "route_not_found"),
            Self::JobNotFound => (S::NOT_FOUND, "job_not_found"),
            Self::ReportNotFound => (S::NOT_FOUND, "report_not_found"),
            Self::ImportNotFound => (S::NOT_FOUND, "import_not_found"),
            Self::ImportTemplateNotFound => (S::NOT_FOUND, "import_template_not_found"),
            Self::CustomFieldNotFound => (S::NOT_FOUND, "custom_field_not_found"),
            Self::ExportNotFound => (S::NOT_FOUND, "export_not_found"),
            Self::LinkNotFound => (S::NOT_FOUND, "link_not_found"),
            Self::FileNotFound => (S::NOT_FOUND, "file_not_found"),
            Self::UploadNotFound => (S::NOT_FOUND, "upload_not_found"),
            Self::ApiKeyNotFound => (S::NOT_FOUND, "api_key_not_found"),
            Self::SessionNotFound => (S::NOT_FOUND, "session_not_found"),
            Self::FlowNotFound => (S::NOT_FOUND, "flow_not_found"),
            Self::ActionNotFound => (S::NOT_FOUND, "action_not_found"),
            Self::QueueNotFound => (S::NOT_FOUND, "queue_not_found"),
            Self::ScheduleNotFound => (S::NOT_FOUND, "schedule_not_found"),
            Self::AlertNotFound => (S::NOT_FOUND, "alert_not_found"),
            Self::WorkspaceNotFound => (S::NOT_FOUND, "workspace_not_found"),
            Self::WebhookNotFound => (S::NOT_FOUND, "webhook_not_found"),
            Self::QuotaNotFound => (S::NOT_FOUND, "quota_not_found"),
            Self::DeliveryNotFound => (S::NOT_FOUND, "delivery_not_found"),
            Self::ConnectionNotFound => (S::NOT_FOUND, "connection_not_found"),
            Self::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::IdempotencyKeyReused => (S::CONFLICT, "idempotency_key_reused"),
            Self::JobState => (S::CONFLICT, "job_state"),
            Self::AmbiguousJob => (S::CONFLICT, "ambiguous_job"),
            Self::BuiltinJobType => (S::CONFLICT, "builtin_job_type"),
            Self::TooManyKeys => (S::CONFLICT, "too_many_keys"),
            Self::ActionState => (S::CONFLICT, "action_state"),
            Self::TooManyActions => (S::CONFLICT, "too_many_actions"),
            Self::TooManySchedules => (S::CONFLICT, "too_many_schedules"),
            Self::ScheduleBusy => (S::CONFLICT, "schedule_busy"),
            Self::ImportState => (S::CONFLICT, "import_state"),
            Self::ExportState => (S::CONFLICT, "export_state"),
            Self::ExportsFull => (S::CONFLICT, "exports_full"),
            Self::TooManyLinks => (S::CONFLICT, "too_many_links"),
            Self::TooManyWebhooks => (S::CONFLICT, "too_many_webhooks"),
            Self::WebhookInactive => (S::CONFLICT, "webhook_inactive"),
            Self::TooManyConnections => (S::CONFLICT, "too_many_connections"),
            Self::TooManyImportTemplates => (S::CONFLICT, "too_many_import_templates"),
            Self::TooManyCustomFields => (S::CONFLICT, "too_many_custom_fields"),
            Self::ConnectionNameTaken => (S::CONFLICT, "connection_name_taken"),
            Self::DeliveryState => (S::CONFLICT, "delivery_state"),
            Self::JobGone => (S::GONE, "job_gone"),
            Self::ExportExpired => (S::GONE, "export_expired"),
            Self::PreconditionFailed => (S::PRECONDITION_FAILED, "precondition_failed"),
            Self::BodyTimeout => (S::REQUEST_TIMEOUT, "body_timeout"),
            Self::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::PayloadTooLarge => (S::PAYLOAD_TOO_LARGE, "payload_too_large"),
            Self::TooManyJobs => (S::PAYLOAD_TOO_LARGE, "too_many_jobs"),
            Self::UnsupportedMediaType => (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Self::RangeNotSatisfiable => (S::RANGE_NOT_SATISFIABLE, "range_not_satisfiable"),
            Self::CreationLimit => (S::TOO_MANY_REQUESTS, "creation_limit"),
            Self::TooManyRequests => (S::TOO_MANY_REQUESTS, "too_many_requests"),
            Self::InvalidRequest => (S::UNPROCESSABLE_ENTITY, "invalid_request"),
            Self::UnknownPlan => (S::UNPROCESSABLE_ENTITY, "unknown_plan"),
            Self::UnknownJobType => (S::UNPROCESSABLE_ENTITY, "unknown_job_type"),
            Self::RecordRefused => (S::UNPROCESSABLE_ENTITY, "record_refused"),
            Self::TooManyStreams => (S::TOO_MANY_REQUESTS, "too_many_streams"),
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
