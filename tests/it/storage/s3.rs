//! A server that speaks the part of S3 that files need, and is strict about it: it verifies every
//! signature (AWS Signature Version 4, in headers and in addresses) and the sum of every body,
//! takes no small part but the last, and makes objects of parts that it knows only.
//!
//! As in Amazon's "Signature Version 4" and "API Reference" of S3.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use bullwark::tasks::Tasks;
use chrono::{DateTime, Utc};
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::signature::check;

pub(crate) const BUCKET: &str = "files";
pub(crate) const KEY_ID: &str = "AKIDEXAMPLE";
pub(crate) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const PART_MIN: usize = 5 * 1024 * 1024;
const BODY_MAX: usize = 64 * 1024 * 1024;

#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) content: Vec<u8>,
    pub(super) tag: String,
    pub(crate) modified: DateTime<Utc>,
}

#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) key: String,
    parts: BTreeMap<u32, (Vec<u8>, String)>,
    pub(crate) begun: DateTime<Utc>,
}

#[derive(Debug, Default)]
pub(crate) struct Bucket {
    pub(crate) objects: BTreeMap<String, Stored>,
    pub(crate) uploads: BTreeMap<String, Upload>,
    /// Method, key and query of every request that was let in.
    pub(crate) requests: Vec<String>,
    pub(crate) refused: usize,
    pub(crate) is_gone: bool,
    /// Neither of these is removed for anybody: objects by their keys, uploads by their ids.
    pub(crate) locked: BTreeSet<String>,
    /// A request with this in its query stands still.
    pub(crate) held: Option<String>,
    made: u32,
}

#[derive(Clone)]
pub(crate) struct S3 {
    pub(crate) endpoint: String,
    bucket: Arc<Mutex<Bucket>>,
    pub(crate) is_held: Arc<Notify>,
    released: Arc<Notify>,
    _tasks: Tasks,
}

/// What the server says instead.
pub(super) struct Refusal(pub(super) StatusCode, pub(super) &'static str);

type Answer = Result<Response, Refusal>;

const DENIED: Refusal = Refusal(StatusCode::FORBIDDEN, "AccessDenied");

impl S3 {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let s3 = Self {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            bucket: Arc::default(),
            is_held: Arc::default(),
            released: Arc::default(),
            _tasks: Tasks::new(),
        };
        let router = Router::new().fallback(answer).with_state(s3.clone());
        s3._tasks.spawn("s3", async move {
            axum::serve(listener, router).await.unwrap();
        });
        s3
    }

    pub(crate) fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap()
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.bucket().objects.keys().cloned().collect()
    }

    /// How many requests with this in them were let in.
    pub(crate) fn count(&self, text: &str) -> usize {
        let bucket = self.bucket();
        bucket.requests.iter().filter(|r| r.contains(text)).count()
    }

    /// Puts something there that nobody sent.
    pub(crate) fn put(&self, key: &str, content: &[u8]) {
        let stored = stored(content.to_vec());
        self.bucket().objects.insert(key.to_owned(), stored);
    }

    /// Makes everything look a day older.
    pub(crate) fn age(&self) {
        let day = chrono::Duration::hours(25);
        let mut bucket = self.bucket();
        bucket.objects.values_mut().for_each(|o| o.modified -= day);
        bucket.uploads.values_mut().for_each(|u| u.begun -= day);
    }

    pub(crate) fn hold(&self, query: &str) {
        self.bucket().held = Some(query.to_owned());
    }

    pub(crate) fn release(&self) {
        self.bucket().held = None;
        self.released.notify_waiters();
    }
}

fn stored(content: Vec<u8>) -> Stored {
    Stored {
        tag: tag(&content),
        content,
        modified: bullwark::clock::now(),
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn sum(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

fn tag(content: &[u8]) -> String {
    format!("\"{}\"", &sum(content)[..32])
}

/// The pairs of a query as they came, sorted.
pub(super) fn pairs(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<(String, String)> = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    pairs.sort();
    pairs
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8().unwrap().into_owned()
}

pub(super) fn find(pairs: &[(String, String)], name: &str) -> Option<String> {
    let found = pairs.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| decoded(value))
}

async fn answer(State(s3): State<S3>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, BODY_MAX).await.unwrap_or_default();
    let request = Request::from_parts(parts, ());
    let answered = match check(&request, &body) {
        Ok(()) => serve(&s3, &request, &body).await,
        Err(refusal) => {
            s3.bucket().refused += 1;
            Err(refusal)
        }
    };
    answered.unwrap_or_else(|Refusal(status, code)| {
        let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
        plain(status, text.into_bytes(), &[])
    })
}

pub(super) fn plain(status: StatusCode, content: Vec<u8>, headers: &[(&str, &str)]) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Body::from(content)).unwrap()
}

async fn serve(s3: &S3, request: &Request<()>, body: &[u8]) -> Answer {
    let uri = request.uri();
    let path = decoded(uri.path().trim_start_matches('/'));
    let (bucket_name, key) = path.split_once('/').unwrap_or((&path, ""));
    let query = pairs(uri.query().unwrap_or_default());
    let line = format!(
        "{} {key}?{}",
        request.method(),
        uri.query().unwrap_or_default()
    );
    let is_held = {
        let mut bucket = s3.bucket();
        bucket.requests.push(line.clone());
        bucket.held.as_ref().is_some_and(|held| line.contains(held))
    };
    if is_held {
        let released = s3.released.notified();
        s3.is_held.notify_one();
        released.await;
    }
    let mut bucket = s3.bucket();
    if bucket_name != BUCKET || bucket.is_gone {
        return Err(Refusal(StatusCode::NOT_FOUND, "NoSuchBucket"));
    }
    let has = |name: &str| query.iter().any(|(key, _)| key == name);
    let upload = find(&query, "uploadId");
    match (request.method().as_str(), key, upload) {
        ("GET", "", _) if has("uploads") => Ok(bucket.list_uploads(&query)),
        ("GET", "", _) => Ok(bucket.list(&query)),
        ("POST", _, None) if has("uploads") => Ok(bucket.begin(key)),
        ("PUT", _, Some(id)) => {
            let number = find(&query, "partNumber").unwrap().parse().unwrap();
            bucket.part(&id, number, body)
        }
        ("POST", _, Some(id)) => bucket.complete(&id, body),
        ("DELETE", _, Some(id)) if bucket.locked.contains(&id) => Err(DENIED),
        ("DELETE", _, None) if bucket.locked.contains(key) => Err(DENIED),
        ("DELETE", _, Some(id)) => match bucket.uploads.remove(&id) {
            Some(_) => Ok(plain(StatusCode::NO_CONTENT, Vec::new(), &[])),
            None => Err(Refusal(StatusCode::NOT_FOUND, "NoSuchUpload")),
        },
        ("PUT", _, None) => {
            let stored = stored(body.to_vec());
            let response = plain(StatusCode::OK, Vec::new(), &[("etag", &stored.tag)]);
            bucket.objects.insert(key.to_owned(), stored);
            Ok(response)
        }
        ("DELETE", _, None) => {
            bucket.objects.remove(key);
            Ok(plain(StatusCode::NO_CONTENT, Vec::new(), &[]))
        }
        ("GET" | "HEAD", _, None) => bucket.get(request.method(), key, request.headers()),
        _ => Err(Refusal(StatusCode::NOT_IMPLEMENTED, "NotImplemented")),
    }
}

impl Bucket {
    pub(crate) fn begin(&mut self, key: &str) -> Response {
        self.made += 1;
        let id = format!("upload-{}", self.made);
        let upload = Upload {
            key: key.to_owned(),
            parts: BTreeMap::new(),
            begun: bullwark::clock::now(),
        };
        self.uploads.insert(id.clone(), upload);
        let text = format!(
            "<InitiateMultipartUploadResult><UploadId>{id}</UploadId>\
             </InitiateMultipartUploadResult>"
        );
        plain(StatusCode::OK, text.into_bytes(), &[])
    }

    fn part(&mut self, id: &str, number: u32, body: &[u8]) -> Answer {
        let missing = Refusal(StatusCode::NOT_FOUND, "NoSuchUpload");
        let upload = self.uploads.get_mut(id).ok_or(missing)?;
        let tag = tag(body);
        let response = plain(StatusCode::OK, Vec::new(), &[("etag", &tag)]);
        upload.parts.insert(number, (body.to_vec(), tag));
        Ok(response)
    }

    fn complete(&mut self, id: &str, body: &[u8]) -> Answer {
        let missing = Refusal(StatusCode::NOT_FOUND, "NoSuchUpload");
        let upload = self.uploads.get(id).ok_or(missing)?;
        let text = String::from_utf8(body.to_vec())
            .unwrap()
            .replace("&quot;", "\"");
        let inner = |text: &str, name: &str| {
            let (_, rest) = text.split_once(&format!("<{name}>"))?;
            Some(rest.split_once("</")?.0.to_owned())
        };
        let listed: Vec<&str> = text.split("<Part>").skip(1).collect();
        let mut content = Vec::new();
        for (nth, part) in listed.iter().enumerate() {
            let invalid = || Refusal(StatusCode::BAD_REQUEST, "InvalidPart");
            let number: u32 = inner(part, "PartNumber").unwrap().parse().unwrap();
            let (bytes, tag) = upload.parts.get(&number).ok_or_else(invalid)?;
            if number as usize != nth + 1 || inner(part, "ETag").as_ref() != Some(tag) {
                return Err(invalid());
            }
            if nth + 1 < listed.len() && bytes.len() < PART_MIN {
                return Err(Refusal(StatusCode::BAD_REQUEST, "EntityTooSmall"));
            }
            content.extend_from_slice(bytes);
        }
        let upload = self.uploads.remove(id).unwrap();
        let stored = stored(content);
        let text = format!(
            "<CompleteMultipartUploadResult><ETag>{}</ETag></CompleteMultipartUploadResult>",
            stored.tag.replace('"', "&quot;")
        );
        self.objects.insert(upload.key, stored);
        Ok(plain(StatusCode::OK, text.into_bytes(), &[]))
    }

    fn get(&self, method: &Method, key: &str, headers: &HeaderMap) -> Answer {
        let missing = Refusal(StatusCode::NOT_FOUND, "NoSuchKey");
        let object = self.objects.get(key).ok_or(missing)?;
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if header("if-match").is_some_and(|tag| tag != object.tag) {
            return Err(Refusal(
                StatusCode::PRECONDITION_FAILED,
                "PreconditionFailed",
            ));
        }
        let all = object.content.len();
        let range = header("range").and_then(|range| {
            let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
            Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?))
        });
        let modified = object
            .modified
            .format("%a, %d %b %Y %H:%M:%S GMT")
            .to_string();
        let (status, content, place) = match range {
            Some((first, last)) => {
                let last = last.min(all - 1);
                let place = format!("bytes {first}-{last}/{all}");
                let content = object.content[first..=last].to_vec();
                (StatusCode::PARTIAL_CONTENT, content, Some(place))
            }
            None => (StatusCode::OK, object.content.clone(), None),
        };
        let length = content.len().to_string();
        let mut answer = vec![
            ("etag", object.tag.as_str()),
            ("last-modified", &modified),
            ("content-length", &length),
        ];
        if let Some(place) = &place {
            answer.push(("content-range", place));
        }
        let content = if method == Method::HEAD {
            Vec::new()
        } else {
            content
        };
        Ok(plain(status, content, &answer))
    }
}
