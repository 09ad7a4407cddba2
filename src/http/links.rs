//! Links that open one file without a key, for a while: made and revoked by those who may write,
//! used by whoever has one.
//!
//! Promises: a link opens its file and nothing else; it ends when its time is over, when it is
//! revoked, with its file, and with the key or the membership of who made it; links that do not
//! work look all the same. Its token is shown once, is kept as a hash, and goes into no log: those
//! have the pattern of a path and not the path.

use std::time::Duration;

use axum::extract::{FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use axum::{Extension, Json, extract};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Caller;
use super::jobs::{self, JobId};
use super::observe::RequestId;
use super::problem::{Code, Problem};
use super::state::State;
use super::{body, exports, reports};
use crate::record::access::Permission;
use crate::record::download_links::{self, Created, FileKind, LINKS_MAX, NewLink, Opened};

/// The largest request for a link.
const BODY_MAX: usize = 16 * 1024;
/// How long a link may work, in seconds: seven days, if not said and at most.
const SECONDS_MIN: u64 = 60;
const SECONDS_MAX: u64 = 604_800;

/// A link that is wished for.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewLink)]
struct Wish {
    /// How long it works; seven days if not said. It never works for longer than there is a file.
    #[serde(default, alias = "expiresInSeconds")]
    #[schema(minimum = 60, maximum = 604800)]
    expires_in_seconds: Option<u64>,
}

/// A link that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Link {
    /// On this server, and on every one of this installation. It is shown this once.
    #[schema(example = "/api/downloads/VTB5c2y1m…")]
    url: String,
    expires_at: DateTime<Utc>,
}

/// How many links were revoked.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Revoked {
    revoked: i64,
}

/// Make a link to an export
///
/// Whoever has it downloads the file, without a key.
#[utoipa::path(post, path = "/api/exports/{id}/links", operation_id = "createExportLink",
    tag = "exports", request_body = Option<Wish>,
    params(("id" = Uuid, Path, description = "The id of the export")),
    responses(
        (status = 201, description = "The link", body = Link),
        (status = 409, description = "There is no file, or not yet: `export_state`; or it has too \
            many links: `too_many_links`"),
        (status = 410, description = "The days of the file are over: `export_expired`")))]
pub(super) async fn of_export(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<(StatusCode, Json<Link>), Problem> {
    let asked = Asked::read(&state, request).await?;
    let export = exports::find(&state, asked.caller, asked.id).await?;
    exports::whole(&export)?;
    let kind = FileKind::Export;
    asked
        .make(&state, kind, export.expires_at, &request_id)
        .await
}

/// Make a link to a report
///
/// Whoever has it downloads the rows that the import could not take, without a key.
#[utoipa::path(post, path = "/api/jobs/{id}/report/links", operation_id = "createReportLink",
    tag = "imports", request_body = Option<Wish>,
    params(("id" = Uuid, Path, description = "The id of the import's job")),
    responses(
        (status = 201, description = "The link", body = Link),
        (status = 409, description = "It has too many links: `too_many_links`")))]
pub(super) async fn of_report(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<(StatusCode, Json<Link>), Problem> {
    let asked = Asked::read(&state, request).await?;
    reports::find(&state, asked.caller, asked.id).await?;
    asked
        .make(&state, FileKind::Report, None, &request_id)
        .await
}

/// Revoke the links to an export
///
/// All of them, from now on, on every server.
#[utoipa::path(delete, path = "/api/exports/{id}/links", operation_id = "revokeExportLinks",
    tag = "exports",
    params(("id" = Uuid, Path, description = "The id of the export")),
    responses((status = 200, description = "How many still worked", body = Revoked)))]
pub(super) async fn revoke_of_export(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    caller: Caller,
    JobId(id): JobId,
) -> Result<Json<Revoked>, Problem> {
    let caller = caller.who_may(Permission::Write)?;
    exports::find(&state, caller, id).await?;
    revoke(&state, caller, (id, FileKind::Export), &request_id).await
}

/// Revoke the links to a report
///
/// All of them, from now on, on every server.
#[utoipa::path(delete, path = "/api/jobs/{id}/report/links", operation_id = "revokeReportLinks",
    tag = "imports",
    params(("id" = Uuid, Path, description = "The id of the import's job")),
    responses((status = 200, description = "How many still worked", body = Revoked)))]
pub(super) async fn revoke_of_report(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    caller: Caller,
    JobId(id): JobId,
) -> Result<Json<Revoked>, Problem> {
    let caller = caller.who_may(Permission::Write)?;
    jobs::find(&mut state.view(caller).await?, id, caller).await?;
    revoke(&state, caller, (id, FileKind::Report), &request_id).await
}

/// Use a link
///
/// Without a key. A part of the file can be asked for with `Range`.
#[utoipa::path(get, path = "/api/downloads/{token}", operation_id = "download", tag = "exports",
    security(()),
    params(("token" = String, Path, description = "What the link ends in")),
    responses(
        (status = 200, description = "The file", body = String,
            content_type = "application/octet-stream",
            headers(("Content-Disposition" = String, description = "The name of the file"))),
        (status = 206, description = "A part of it", body = String,
            content_type = "application/octet-stream"),
        (status = 304, description = "It is still the same"),
        (status = 412, description = "`If-Match` names another file: `precondition_failed`"),
        (status = 416, description = "It has no such part: `range_not_satisfiable`")))]
pub(super) async fn download(
    extract::State(state): extract::State<State>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let token = Path::<String>::from_request_parts(&mut parts, &state).await;
    let token = token.map_or_else(|_| String::new(), |Path(token)| token);
    let opened = {
        let _turn = state.bounds.link_turn().await?;
        download_links::open(&state.services.record, &token).await?
    };
    sent(&state, &parts, opened).await
}

async fn sent(state: &State, request: &Parts, opened: Option<Opened>) -> Result<Response, Problem> {
    let sent = match opened {
        Some(Opened::Export(export)) => exports::send(state, request, &export).await?,
        Some(Opened::Report(id)) => reports::send(state, request, id).await?,
        None => None,
    };
    sent.ok_or_else(|| {
        let detail = "this link does not work: it is wrong, over, or was revoked";
        Problem::new(Code::LinkNotFound, detail)
    })
}

/// Who wants a link, to what, and for how long.
struct Asked {
    caller: Caller,
    id: Uuid,
    expires_in: Duration,
}

impl Asked {
    async fn read(state: &State, request: Request) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, state).await?;
        let caller = caller.who_may(Permission::Write)?;
        let JobId(id) = JobId::from_request_parts(&mut parts, state).await?;
        let whole = body::read(state, caller, &parts.headers, body, BODY_MAX).await?;
        let wish = match body::is_absent(&whole.bytes) {
            true => Wish::default(),
            false => {
                body::expect_json(&parts.headers)?;
                body::object(&whole.bytes, &json!({}))?
            }
        };
        let seconds = wish.expires_in_seconds.unwrap_or(SECONDS_MAX);
        if !(SECONDS_MIN..=SECONDS_MAX).contains(&seconds) {
            let message = format!("must be from {SECONDS_MIN} to {SECONDS_MAX}");
            return Err(Problem::of_field("/expires_in_seconds", message));
        }
        Ok(Self {
            caller,
            id,
            expires_in: Duration::from_secs(seconds),
        })
    }

    async fn make(
        self,
        state: &State,
        kind: FileKind,
        not_after: Option<DateTime<Utc>>,
        request_id: &str,
    ) -> Result<(StatusCode, Json<Link>), Problem> {
        let new = NewLink {
            workspace_id: self.caller.workspace_id,
            job_id: self.id,
            kind,
            expires_in: self.expires_in,
            not_after,
        };
        let by = self.caller.by(request_id);
        let made = download_links::create(&state.services.record, &new, &by).await?;
        let made = match made {
            Created::Made(made) => made,
            Created::Gone => return Err(jobs::unknown(self.id)),
            Created::TooMany => {
                let detail =
                    format!("this file has {LINKS_MAX} links, which is the most: revoke them");
                return Err(Problem::new(Code::TooManyLinks, detail));
            }
        };
        let link = Link {
            url: format!("/api/downloads/{}", made.token),
            expires_at: made.expires_at,
        };
        Ok((StatusCode::CREATED, Json(link)))
    }
}

async fn revoke(
    state: &State,
    caller: Caller,
    (id, kind): (Uuid, FileKind),
    request_id: &str,
) -> Result<Json<Revoked>, Problem> {
    let which = (caller.workspace_id, id, kind);
    let by = caller.by(request_id);
    let revoked = download_links::revoke(&state.services.record, which, &by).await?;
    Ok(Json(Revoked { revoked }))
}
