//! A file in a form: `multipart/form-data` with one part named `file`, read part by part.
//!
//! Promises: memory does not grow with the form. The parser keeps what it can not make sense of
//! yet, so it is given one chunk at a time, and no more of them while it gives nothing back.
//! Refuses: a second file, a file under another name, and more beside the file than a page's form
//! has.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use axum::body::{Body, Bytes};
use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use futures_util::{Stream, StreamExt, stream};

use super::problem::{Code, Problem};
use super::uploads::Patience;

/// The part that is the file.
const FILE: &str = "file";
/// Parts of a form.
const PARTS_MAX: usize = 16;
/// Bytes of all parts that are no file.
const OTHERS_MAX: usize = 64 * 1024;
/// Bytes that the parser may keep while it gives nothing back: the head of a part.
const KEPT_MAX: usize = 256 * 1024;
/// What a form may have in addition to its file.
pub(super) const AROUND_MAX: u64 = 1024 * 1024;

/// A form, as far as it was read.
pub(super) struct Form {
    parts: Multipart,
    kept: Arc<AtomicUsize>,
    count: usize,
    others: usize,
}

/// A part of a form.
pub(super) struct Part<'a> {
    field: Field<'a>,
    kept: &'a AtomicUsize,
    others: &'a mut usize,
}

impl Form {
    /// The form that is this body, if its head says what divides the parts.
    pub(super) async fn open(headers: &HeaderMap, body: Body) -> Result<Self, Problem> {
        let kept = Arc::new(AtomicUsize::new(0));
        let mut request = Request::new(Body::from_stream(guarded(body, kept.clone())));
        if let Some(value) = headers.get(CONTENT_TYPE) {
            request.headers_mut().insert(CONTENT_TYPE, value.clone());
        }
        // The file has a limit of its own, and so has what is beside it.
        DefaultBodyLimit::disable().apply(&mut request);
        let parts = Multipart::from_request(request, &()).await.map_err(|_| {
            wrong("the Content-Type must name the boundary: `multipart/form-data; boundary=…`")
        })?;
        Ok(Self {
            parts,
            kept,
            count: 0,
            others: 0,
        })
    }

    /// The next part, once the one before was read.
    pub(super) async fn next(&mut self, patience: &Patience) -> Result<Option<Part<'_>>, Problem> {
        let field = patience.wait(self.parts.next_field()).await?;
        let Some(field) = field.map_err(|error| unreadable(&error))? else {
            return Ok(None);
        };
        self.kept.store(0, Ordering::Relaxed);
        self.count += 1;
        if self.count > PARTS_MAX {
            return Err(wrong(&format!("the form has more than {PARTS_MAX} parts")));
        }
        Ok(Some(Part {
            field,
            kept: &self.kept,
            others: &mut self.others,
        }))
    }
}

impl Part<'_> {
    /// Whether it is the file. A file under another name is a mistake that should be told.
    pub(super) fn is_file(&self) -> Result<bool, Problem> {
        match (self.field.name(), self.field.file_name()) {
            (Some(FILE), _) => Ok(true),
            (Some(name), Some(_)) => {
                let name: String = name.chars().take(100).collect();
                let detail = format!("the part `{name}` is a file: its name must be `file`");
                Err(wrong(&detail))
            }
            _ => Ok(false),
        }
    }

    /// The name that the client has for the file.
    pub(super) fn file_name(&self) -> Option<&str> {
        self.field.file_name().filter(|name| !name.is_empty())
    }

    /// The next bytes of it.
    pub(super) async fn next(&mut self, patience: &Patience) -> Result<Option<Bytes>, Problem> {
        let chunk = patience.wait(self.field.chunk()).await?;
        self.kept.store(0, Ordering::Relaxed);
        chunk.map_err(|error| unreadable(&error))
    }

    /// Reads it to its end, for nothing.
    pub(super) async fn pass_over(mut self, patience: &Patience) -> Result<(), Problem> {
        while let Some(chunk) = self.next(patience).await? {
            *self.others += chunk.len();
            if *self.others > OTHERS_MAX {
                let detail = format!("beside the file a form may have {OTHERS_MAX} bytes");
                return Err(wrong(&detail));
            }
        }
        Ok(())
    }
}

/// The body, one chunk per turn: the parser takes whatever is there at once, and would hold all
/// that a fast client sends before it looks at it. While it gives nothing back it gets no more
/// than it needs for the head of a part.
fn guarded(body: Body, kept: Arc<AtomicUsize>) -> impl Stream<Item = io::Result<Bytes>> {
    let mut chunks = body.into_data_stream();
    let mut has_given = false;
    stream::poll_fn(move |context| {
        if std::mem::take(&mut has_given) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if kept.load(Ordering::Relaxed) > KEPT_MAX {
            let error = "the head of a part is too long, or the boundary does not come";
            return Poll::Ready(Some(Err(io::Error::other(error))));
        }
        let chunk = futures_util::ready!(chunks.poll_next_unpin(context));
        has_given = true;
        Poll::Ready(chunk.map(|chunk| {
            let chunk = chunk.map_err(io::Error::other)?;
            kept.fetch_add(chunk.len(), Ordering::Relaxed);
            Ok(chunk)
        }))
    })
}

fn unreadable(error: &MultipartError) -> Problem {
    wrong(&format!("the form can not be read: {}", error.body_text()))
}

pub(super) fn wrong(detail: &str) -> Problem {
    Problem::new(Code::InvalidForm, detail)
}
