//! `POST /api/uploads`: a file, as it is, in constant memory.
//!
//! A client that leaves in the middle leaves nothing: axum drops this handler, and with it the
//! unfinished file.

use std::io;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{FromRequestParts, Request};
use axum::http::{HeaderMap, StatusCode};
use axum::{Json, extract};
use futures_util::StreamExt;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Caller;
use super::body;
use super::problem::{Code, Problem};
use super::query::Parameters;
use super::state::State;
use crate::record::access::Permission;
use crate::uploads::Upload;

/// A file that was uploaded.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Upload)]
struct Kept {
    id: Uuid,
    /// What the payload of an import says to name it.
    url: String,
    file_name: String,
    bytes: u64,
    /// Of the content, in hexadecimal digits.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    sha256: String,
}

/// An answer that is an upload.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Uploaded {
    upload: Kept,
}

/// Upload a file
///
/// For an import, as it is: the body is the file.
#[utoipa::path(post, path = "/api/uploads", operation_id = "uploadFile", tag = "jobs",
    params(("filename" = Option<String>, Query, description = "For people; never a path")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream",
        description = "The file; whatever type it has"),
    responses(
        (status = 201, description = "The file is kept", body = Uploaded),
        (status = 507, description = "The server has no room for it: `storage_full`")))]
pub(super) async fn upload(
    extract::State(state): extract::State<State>,
    request: Request,
) -> Result<(StatusCode, Json<Uploaded>), Problem> {
    let (mut parts, body) = request.into_parts();
    let opened = async {
        let caller = Caller::from_request_parts(&mut parts, &state).await?;
        let caller = caller.who_may(Permission::Write)?;
        let given = Parameters::parse(&parts.uri, &["filename"])?;
        let max = state.options.upload_max_bytes;
        if body::announced(&parts.headers).is_some_and(|bytes| bytes > max) {
            return Err(body::too_large(max));
        }
        let file_name = given.text("filename").unwrap_or_default().to_owned();
        Ok((caller, file_name))
    };
    let (caller, file_name) = match opened.await {
        Ok(opened) => opened,
        Err(problem) => return Err(body::refuse(&parts.headers, body, problem).await),
    };
    let upload = receive(&state, caller, &file_name, &parts.headers, body).await?;
    let upload = Kept {
        id: upload.id,
        url: upload.url(),
        file_name: upload.file_name,
        bytes: upload.bytes,
        sha256: upload.sha256,
    };
    Ok((StatusCode::CREATED, Json(Uploaded { upload })))
}

async fn receive(
    state: &State,
    caller: Caller,
    file_name: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Upload, Problem> {
    let _turn = match state.bounds.upload_turn().await {
        Ok(turn) => turn,
        Err(problem) => return Err(body::refuse(headers, body, problem).await),
    };
    let begun = state.uploads.begin(caller.workspace_id, file_name).await;
    let mut incoming = begun.map_err(|error| disk(&error))?;
    let mut chunks = Chunks {
        stream: body.into_data_stream(),
        end: Instant::now() + state.options.upload_patience,
        pause_max: state.options.upload_pause_max,
    };
    let max = state.options.upload_max_bytes;
    while let Some(chunk) = chunks.next().await? {
        if incoming.bytes() + chunk.len() as u64 > max {
            return Err(body::too_large(max));
        }
        incoming.write(&chunk).await.map_err(|error| disk(&error))?;
    }
    if incoming.bytes() == 0 {
        let detail = "the body is empty; send the file itself as the body";
        return Err(Problem::new(Code::EmptyUpload, detail));
    }
    incoming.finish().await.map_err(|error| disk(&error))
}

/// A body that must go on arriving, and end at some time.
struct Chunks {
    stream: BodyDataStream,
    end: Instant,
    pause_max: Duration,
}

impl Chunks {
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let deadline = self.end.min(Instant::now() + self.pause_max);
        match timeout_at(deadline, self.stream.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
            Ok(Some(Err(_))) => Err(body::broken()),
            Err(_) => {
                let detail = "the upload stood still or took too long; nothing of it was kept";
                Err(Problem::new(Code::Timeout, detail))
            }
        }
    }
}

fn disk(error: &io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            tracing::error!(%error, "no room for an upload");
            let detail = "the server has no room for this file; nothing of it was kept";
            Problem::new(Code::StorageFull, detail)
        }
        _ => Problem::internal(error),
    }
}
