//! `POST /api/uploads`: a file, as it is or in a form, in constant memory.
//!
//! A client that leaves in the middle leaves nothing: axum drops this handler, and with it the
//! unfinished file.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request};
use axum::http::{HeaderMap, StatusCode};
use axum::{Json, extract};
use futures_util::StreamExt;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Caller;
use super::body;
use super::form::{self, Form};
use super::problem::{Code, Problem};
use super::query::Parameters;
use super::state::State;
use crate::record::access::Permission;
use crate::uploads::{Incoming, Upload};

/// What a body of parts calls itself.
const FORM: &str = "multipart/form-data";

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

/// A form with a file in it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "names the parts in the document")]
struct UploadForm {
    /// The file; its name is the part's.
    #[schema(value_type = String, format = Binary, min_length = 1)]
    file: Vec<u8>,
    /// Other parts are passed over.
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// Upload a file
///
/// For an import: the body is the file as it is, or a form with one part named `file`.
#[utoipa::path(post, path = "/api/uploads", operation_id = "uploadFile", tag = "jobs",
    params(("filename" = Option<String>, Query,
        description = "For people; never a path. In a form, the name of the part goes before it")),
    request_body(content((Vec<u8> = "application/octet-stream"),
            (UploadForm = "multipart/form-data")),
        description = "The file; whatever type it has"),
    responses(
        (status = 201, description = "The file is kept", body = Uploaded),
        (status = 507, description = "The server has no room for it: `storage_full`")))]
pub(super) async fn upload(
    extract::State(state): extract::State<State>,
    request: Request,
) -> Result<(StatusCode, Json<Uploaded>), Problem> {
    let (mut parts, body) = request.into_parts();
    let is_form = body::media_type(&parts.headers) == FORM;
    let opened = async {
        let caller = Caller::from_request_parts(&mut parts, &state).await?;
        let caller = caller.who_may(Permission::Write)?;
        let given = Parameters::parse(&parts.uri, &["filename"])?;
        let max = state.options.upload_max_bytes;
        let around = if is_form { form::AROUND_MAX } else { 0 };
        if body::announced(&parts.headers).is_some_and(|bytes| bytes > max + around) {
            return Err(body::too_large(max));
        }
        let turn = state.bounds.upload_turn(caller.workspace_id).await?;
        let file_name = given.text("filename").unwrap_or_default().to_owned();
        Ok((caller, file_name, turn))
    };
    let (caller, file_name, _turn) = match opened.await {
        Ok(opened) => opened,
        Err(problem) => return Err(body::refuse(&parts.headers, body, problem).await),
    };
    let receiving = Receiving {
        state: &state,
        workspace_id: caller.workspace_id,
        file_name: &file_name,
        patience: Patience {
            end: Instant::now() + state.options.upload_patience,
            pause_max: state.options.upload_pause_max,
        },
    };
    let upload = match is_form {
        true => receiving.form(&parts.headers, body).await?,
        false => receiving.body(body).await?,
    };
    let upload = Kept {
        id: upload.id,
        url: upload.url(),
        file_name: upload.file_name,
        bytes: upload.bytes,
        sha256: upload.sha256,
    };
    Ok((StatusCode::CREATED, Json(Uploaded { upload })))
}

/// A file that is on its way.
struct Receiving<'a> {
    state: &'a State,
    workspace_id: Uuid,
    /// What the query says.
    file_name: &'a str,
    patience: Patience,
}

impl Receiving<'_> {
    /// The body is the file.
    async fn body(&self, body: Body) -> Result<Upload, Problem> {
        let mut incoming = self.begin(self.file_name).await?;
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = self.patience.wait(chunks.next()).await? {
            let chunk = chunk.map_err(|_| body::broken())?;
            self.add(&mut incoming, &chunk).await?;
        }
        finish(
            incoming,
            "the body is empty; send the file itself as the body",
        )
        .await
    }

    /// The file is a part of the body.
    async fn form(&self, headers: &HeaderMap, body: Body) -> Result<Upload, Problem> {
        let mut form = Form::open(headers, body).await?;
        let mut file = None;
        while let Some(mut part) = form.next(&self.patience).await? {
            if !part.is_file()? {
                part.pass_over(&self.patience).await?;
                continue;
            }
            if file.is_some() {
                let detail = "the form has more than one part named `file`; nothing was kept: \
                    send one file at a time";
                return Err(form::wrong(detail));
            }
            let name = part.file_name().unwrap_or(self.file_name);
            let mut incoming = self.begin(name).await?;
            while let Some(chunk) = part.next(&self.patience).await? {
                self.add(&mut incoming, &chunk).await?;
            }
            file = Some(incoming);
        }
        let Some(incoming) = file else {
            let detail = "the form has no part named `file`; with curl: `-F file=@leads.csv`";
            return Err(form::wrong(detail));
        };
        finish(incoming, "the part `file` is empty").await
    }

    async fn begin(&self, file_name: &str) -> Result<Incoming, Problem> {
        let uploads = &self.state.uploads;
        let begun = uploads.begin(self.workspace_id, file_name).await;
        begun.map_err(|error| disk(&error))
    }

    async fn add(&self, incoming: &mut Incoming, chunk: &[u8]) -> Result<(), Problem> {
        let max = self.state.options.upload_max_bytes;
        if incoming.bytes() + chunk.len() as u64 > max {
            return Err(body::too_large(max));
        }
        incoming.write(chunk).await.map_err(|error| disk(&error))
    }
}

async fn finish(incoming: Incoming, empty: &str) -> Result<Upload, Problem> {
    if incoming.bytes() == 0 {
        return Err(Problem::new(Code::EmptyUpload, empty));
    }
    incoming.finish().await.map_err(|error| disk(&error))
}

/// A body must go on arriving, and end at some time.
pub(super) struct Patience {
    end: Instant,
    pause_max: Duration,
}

impl Patience {
    /// What comes next, if it comes in time.
    pub(super) async fn wait<T>(&self, coming: impl Future<Output = T>) -> Result<T, Problem> {
        let deadline = self.end.min(Instant::now() + self.pause_max);
        timeout_at(deadline, coming).await.map_err(|_| {
            let detail = "the upload stood still or took too long; nothing of it was kept";
            Problem::new(Code::Timeout, detail)
        })
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
