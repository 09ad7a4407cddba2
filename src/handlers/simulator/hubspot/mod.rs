//! `HubSpot`'s CRM as one small HTTP server, for tests and for trying things out: companies,
//! contacts and deals in memory, by the shapes that its API reference documents.
//!
//! It keeps what it is given, orders by the moments of changes, archives, associates, and refuses:
//! tokens that it does not know, values that it is told are bad (`207` for some of a batch, or
//! `400` for all of it), and whatever is scripted for the next calls.

mod links;
mod routes;
mod store;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::answers::PAGE;
use crate::tasks::Tasks;
use store::Store;
pub use store::{Kept, Seen};

/// The largest body, in bytes.
const BODY_MAX: usize = 16 * 1024 * 1024;
/// Connections at a time.
const CONNECTIONS_MAX: usize = 64;
/// The token that it takes.
pub const TOKEN: &str = "pat-hush";

/// What is answered in place of the next call to a path.
#[derive(Debug, Clone)]
pub struct Instead {
    /// A part of the path.
    pub path: &'static str,
    /// So many calls to it are let through before.
    pub after: usize,
    pub status: u16,
    pub body: Value,
    pub headers: Vec<(&'static str, String)>,
    /// The call is done all the same: only its answer is lost.
    pub is_done: bool,
}

/// How an answer does not come as it should; the call is done all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoiled {
    /// 200, with a page for people.
    Nonsense,
    /// Half of it, and the connection ends.
    CutOff,
    /// Nothing comes, for as long as somebody waits.
    Silence,
}

/// A running `HubSpot`. Clones are the same one.
#[derive(Debug, Clone)]
pub struct HubspotSimulator {
    pub addr: SocketAddr,
    store: Arc<Mutex<Store>>,
}

/// An answer.
struct Said {
    status: u16,
    body: Value,
    headers: Vec<(&'static str, String)>,
    spoiled: Option<Spoiled>,
}

type Body = BoxBody<Bytes, io::Error>;

impl HubspotSimulator {
    /// Listens until the tasks stop.
    pub async fn start(addr: SocketAddr, tasks: &Tasks) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let simulator = Self {
            addr: listener.local_addr()?,
            store: Arc::default(),
        };
        let (shared, all) = (simulator.clone(), tasks.clone());
        let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        tasks.spawn("hubspot simulator", async move {
            loop {
                let Ok(seat) = Arc::clone(&seats).acquire_owned().await else {
                    break;
                };
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = all.stopping().cancelled() => break,
                };
                let Ok((stream, _)) = accepted else {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                    continue;
                };
                let (shared, stopping) = (shared.clone(), all.stopping().clone());
                all.spawn("hubspot simulator client", async move {
                    let service = service_fn(move |request| {
                        let shared = shared.clone();
                        async move { Ok::<_, Infallible>(shared.respond(request).await) }
                    });
                    let connection =
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    tokio::select! {
                        // Clients leave as they like.
                        _ = connection => {}
                        () = stopping.cancelled() => {}
                    }
                    drop(seat);
                });
            }
        });
        Ok(simulator)
    }

    /// What a connection has as its `baseUrl`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Somebody there makes a record; its id.
    pub fn make(&self, object: &str, properties: Value) -> String {
        self.store().make(object, &properties)
    }

    /// Somebody there changes a record.
    pub fn change(&self, object: &str, id: &str, properties: Value) {
        self.store().change(object, id, &properties);
    }

    /// Somebody there makes a company the primary one of a record.
    pub fn associate(&self, object: &str, id: &str, company: &str) {
        self.store().associate(object, id, company, true);
    }

    /// Somebody there archives a record.
    pub fn archive(&self, object: &str, id: &str) {
        self.store().archive(object, id);
    }

    /// The records that are there, by id.
    pub fn records(&self, object: &str) -> Vec<Kept> {
        self.store().records(object)
    }

    /// A record with this value is refused: in a `207`, or, `whole`, its whole batch with `400`.
    pub fn refuse_value(&self, value: &str, whole: bool) {
        self.store().bad.push((value.to_owned(), whole));
    }

    /// A record may not be archived, nor lose its company: it is named in a `207`, or, `whole`, its
    /// whole batch is refused with `400`.
    pub fn hold_fast(&self, id: &str, whole: bool) {
        self.store().fast.push((id.to_owned(), whole));
    }

    /// Nothing is bad any more, and nothing held fast.
    pub fn take_all(&self) {
        let mut store = self.store();
        store.bad.clear();
        store.fast.clear();
    }

    /// Objects do not have this property, until it is made.
    pub fn take_property(&self, property: &str) {
        self.store().missing.insert(property.to_owned());
    }

    pub fn make_property(&self, property: &str) {
        self.store().missing.remove(property);
    }

    /// A record that searches for values do not find yet: they lag behind.
    pub fn hide_from_search(&self, id: &str) {
        self.store().hidden.insert(id.to_owned());
    }

    /// Objects have this property, too.
    pub fn describe_also(&self, property: &str) {
        self.store().properties.push(property.to_owned());
    }

    /// Takes log-ins of this client with this refresh token; each gives a new token, and ends the
    /// one before.
    pub fn grant(&self, client_id: &str, client_secret: &str, refresh_token: &str) {
        let grant = [client_id, client_secret, refresh_token].map(str::to_owned);
        self.store().grants.insert(grant);
    }

    /// Log-ins that were taken.
    pub fn log_ins(&self) -> usize {
        self.store().log_ins
    }

    /// Answers that instead, once.
    pub fn instead(&self, instead: Instead) {
        self.store().script.push(instead);
    }

    /// Spoils one answer: after so many calls, of the next one to a path that ends like this.
    pub fn spoil(&self, path: &'static str, after: usize, spoiled: Spoiled) {
        self.store().spoiled.push((path, after, spoiled));
    }

    /// Calls that came, oldest first.
    pub fn seen(&self) -> Vec<Seen> {
        self.store().seen.clone()
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, BODY_MAX).collect().await;
        let bytes = body
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        let bearer = head
            .headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let bearer = bearer.and_then(|text| text.strip_prefix("Bearer "));
        let said = {
            let mut store = self.store();
            let path = head.uri.path().to_owned();
            let query = head.uri.query().unwrap_or_default();
            store.answer(head.method.as_str(), (&path, query), bearer, &bytes)
        };
        if said.spoiled == Some(Spoiled::Silence) {
            // Until the client leaves, or all of this ends.
            std::future::pending::<()>().await;
        }
        sent(said)
    }
}

fn sent(said: Said) -> Response<Body> {
    let (status, text) = match (said.status, said.spoiled) {
        (_, Some(Spoiled::Nonsense)) => (200, PAGE.to_owned()),
        (204, _) => (204, String::new()),
        (status, _) => (status, said.body.to_string()),
    };
    let mut response = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json");
    for (name, value) in said.headers {
        response = response.header(name, value);
    }
    let bytes = Bytes::from(text);
    let half = Ok(Frame::data(bytes.slice(..bytes.len() / 2)));
    let end = match said.spoiled {
        Some(Spoiled::CutOff) => Err(io::Error::other("cut off")),
        _ => Ok(Frame::data(bytes.slice(bytes.len() / 2..))),
    };
    let body = |parts| BodyExt::boxed(StreamBody::new(stream::iter::<Vec<_>>(parts)));
    response
        .body(body(vec![half, end]))
        .unwrap_or_else(|_| Response::new(body(Vec::new())))
}
