//! Files that jobs left, as an answer: streamed, in parts where a client asks for a part, and never
//! as something that a browser would show or run.

mod object;

use std::io;
use std::path::Path;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_RANGE, CONTENT_TYPE, IF_RANGE, RANGE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tower_http::services::ServeFile;

use super::problem::{Code, Problem};
use crate::storage::{Objects, StorageError};

/// Bytes that are read from a file at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// What stands as it is in a name of RFC 8187.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Where a file is.
pub(super) enum At<'a> {
    Here(&'a Path),
    /// In the bucket, under this key.
    Object(&'a Objects, &'a str),
}

/// A file to be sent.
pub(super) struct Sent<'a> {
    pub(super) at: At<'a>,
    pub(super) content_type: &'static str,
    /// What it is called where it arrives.
    pub(super) name: &'a str,
}

/// The file as the request wants it; none: it is not there.
pub(super) async fn send(request: &Parts, sent: Sent<'_>) -> Result<Option<Response>, Problem> {
    let mut headers = request.headers.clone();
    if headers.remove(IF_RANGE).is_some() {
        // Whether it is still the same file is not looked at: all of it is always right.
        headers.remove(RANGE);
    }
    let response = match sent.at {
        At::Here(path) => here(path, (&request.method, headers)).await?,
        At::Object(objects, key) => {
            object::response(objects, key, (&request.method, &headers)).await?
        }
    };
    let Some(response) = response else {
        return Ok(None);
    };
    // As a stream, so that a large file does not wait for room as if it were in memory.
    let (mut parts, body) = response.into_parts();
    let headers = &mut parts.headers;
    match parts.status {
        StatusCode::RANGE_NOT_SATISFIABLE => {
            let detail = "the file has no such part; one part can be asked for at a time";
            let problem = Problem::new(Code::RangeNotSatisfiable, detail);
            return Err(match headers.remove(CONTENT_RANGE) {
                Some(range) => problem.with_header(CONTENT_RANGE, range),
                None => problem,
            });
        }
        StatusCode::PRECONDITION_FAILED => {
            let detail = "the file is not the one that the request is about";
            return Err(Problem::new(Code::PreconditionFailed, detail));
        }
        _ => {}
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    if parts.status != StatusCode::NOT_MODIFIED {
        let content_type = HeaderValue::from_static(sent.content_type);
        headers.insert(CONTENT_TYPE, content_type);
        let attachment = HeaderValue::from_str(&attachment(sent.name));
        let attachment = attachment.unwrap_or(HeaderValue::from_static("attachment"));
        headers.insert(CONTENT_DISPOSITION, attachment);
    }
    let content = Body::from_stream(Body::new(body).into_data_stream());
    Ok(Some(Response::from_parts(parts, content)))
}

async fn here(
    path: &Path,
    (method, headers): (&Method, HeaderMap),
) -> Result<Option<Response>, Problem> {
    let mut asked = Request::new(Body::empty());
    *asked.method_mut() = method.clone();
    *asked.headers_mut() = headers;
    let mut service = ServeFile::new(path).with_buf_chunk_size(CHUNK_BYTES);
    match service.try_call(asked).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Ok(response) => Ok(Some(response.map(Body::new))),
        Err(error) => Err(Problem::internal(&error)),
    }
}

/// The bucket can not be reached, or does not let us in. Its words go to the log.
pub(super) fn away(error: &StorageError) -> Problem {
    tracing::error!(%error, "a file can not be read");
    let detail = "the storage of files does not answer as it should; try again later";
    Problem::new(Code::StorageUnavailable, detail)
}

/// How the header names a file: in letters that every client knows, and as it is called (RFC 6266).
fn attachment(name: &str) -> String {
    let plain = |c: char| match c {
        ' '..='~' if !matches!(c, '"' | '\\' | '%') => c,
        _ => '_',
    };
    let short: String = name.chars().map(plain).collect();
    match short == name {
        true => format!("attachment; filename=\"{name}\""),
        false => format!(
            "attachment; filename=\"{short}\"; filename*=UTF-8''{}",
            utf8_percent_encode(name, PLAIN)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_to_every_client() {
        for (name, told) in [
            ("accounts.csv", "attachment; filename=\"accounts.csv\""),
            (
                "Zoë \"x\".csv",
                "attachment; filename=\"Zo_ _x_.csv\"; filename*=UTF-8''Zo%C3%AB%20%22x%22.csv",
            ),
            (
                "a\r\nSet-Cookie: x",
                "attachment; filename=\"a__Set-Cookie: x\"; \
                 filename*=UTF-8''a%0D%0ASet-Cookie%3A%20x",
            ),
        ] {
            assert_eq!(attachment(name), told);
        }
    }
}
