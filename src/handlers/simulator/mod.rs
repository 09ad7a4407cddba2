//! The providers of this crate as one small HTTP server, for tests and for trying things out: no
//! account, no credits, no network.
//!
//! It speaks the shapes that the providers document, keeps to their published limits, says what is
//! left in their headers, takes their credits, and counts who calls above a limit. [`Turn`]s script
//! what else happens out there: refusals, failures, answers that are slow, cut off or nonsense.
//!
//! It knows every company and person but those whose domain, address, page or name begins with
//! `unknown`. What it tells is made up from that, so that it is the same each time.

mod answers;
pub mod hubspot;
mod questions;
mod salesforce;
mod state;
mod windows;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::providers::DataSource;
use crate::tasks::Tasks;
use answers::Said;
use salesforce::Asked;
pub use salesforce::{SalesforceSide, SalesforceTurn, Signer};
use state::State;
pub use state::{Seen, Style, Turn};

/// The largest question, in bytes.
const QUESTION_MAX: usize = 64 * 1024;
/// Connections at a time.
const CONNECTIONS_MAX: usize = 256;
/// How long a client may take for its headers.
const HEADERS_PATIENCE: Duration = Duration::from_secs(30);

/// A running simulator. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Simulator {
    pub addr: SocketAddr,
    state: Arc<State>,
    salesforce: SalesforceSide,
}

type Body = BoxBody<Bytes, io::Error>;

impl Simulator {
    /// Listens until the tasks stop.
    pub async fn start(addr: SocketAddr, tasks: &Tasks) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let simulator = Self {
            addr: listener.local_addr()?,
            state: Arc::default(),
            salesforce: SalesforceSide::default(),
        };
        let salesforce = simulator.salesforce.clone();
        let origin: Arc<str> = simulator.url().into();
        let (state, all) = (Arc::clone(&simulator.state), tasks.clone());
        let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        tasks.spawn("simulator", async move {
            loop {
                let Ok(seat) = Arc::clone(&seats).acquire_owned().await else {
                    break;
                };
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = all.stopping().cancelled() => break,
                };
                let Ok((stream, _)) = accepted else {
                    // Out of descriptors, or the client is gone.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                let (state, stopping) = (Arc::clone(&state), all.stopping().clone());
                let (salesforce, origin) = (salesforce.clone(), Arc::clone(&origin));
                all.spawn("simulator client", async move {
                    let service = service_fn(move |request| {
                        let (state, salesforce) = (Arc::clone(&state), salesforce.clone());
                        let origin = Arc::clone(&origin);
                        async move {
                            let is_salesforce = request.uri().path().starts_with("/services/");
                            Ok::<_, Infallible>(match is_salesforce {
                                true => at_salesforce(&salesforce, &origin, request).await,
                                false => respond(&state, request).await,
                            })
                        }
                    });
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEADERS_PATIENCE)
                        .serve_connection(TokioIo::new(stream), service);
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

    /// The side of it that is Salesforce.
    pub fn salesforce(&self) -> &SalesforceSide {
        &self.salesforce
    }

    /// What happens at the next questions to a provider, one after the other; then all is well.
    pub fn script(&self, source: DataSource, turns: impl IntoIterator<Item = Turn>) {
        self.state.script(source, turns);
    }

    /// From now on, so many calls in each stretch of this length. Nobody publishes such a limit, so
    /// its answers say nothing of it.
    pub fn limit(&self, source: DataSource, max: usize, per: Duration) {
        self.state.limit(source, max, per);
    }

    /// From now on there are so many credits; one is taken per company or person that is found.
    pub fn credits(&self, source: DataSource, credits: u64) {
        self.state.set_credits(source, credits);
    }

    /// Credits that were taken, one per company or person that was found.
    pub fn spent(&self, source: DataSource) -> u64 {
        self.state.spent(source)
    }

    /// From now on it answers 503 to whatever it is asked; until it is well again.
    pub fn set_down(&self, source: DataSource, is_down: bool) {
        self.state.set_down(source, is_down);
    }

    /// What this key, user or client is called is refused from now on.
    pub fn refuse(&self, credential: &str) {
        self.state.refuse(credential);
    }

    /// Questions about these companies and people, alone or among others, are refused from now on
    /// (422): a domain, or what a person is asked by, such as `email:ann@acme.com`.
    pub fn refuse_about<'a>(&self, keys: impl IntoIterator<Item = &'a str>) {
        self.state.refuse_about(keys.into_iter().map(str::to_owned));
    }

    /// Every token that was given ends.
    pub fn end_tokens(&self) {
        self.state.end_tokens();
    }

    /// Questions that came, oldest first, with how they were answered. Log-ins are none.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen()
    }

    /// How often a provider answered each status.
    pub fn answers(&self, source: DataSource) -> BTreeMap<u16, u64> {
        self.state.answers(source)
    }

    /// Log-ins that came.
    pub fn log_ins(&self) -> usize {
        self.state.log_ins()
    }

    /// Questions above a limit.
    pub fn violations(&self) -> usize {
        self.state.violations()
    }
}

async fn at_salesforce(
    salesforce: &SalesforceSide,
    origin: &str,
    request: Request<Incoming>,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, salesforce::QUESTION_MAX).collect().await else {
        return sent(Said::error(413, "the question is too long"));
    };
    let bearer = head.headers.get(AUTHORIZATION);
    let bearer = bearer.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let said = salesforce.answer(&Asked {
        method: &head.method,
        path: head.uri.path(),
        query: head.uri.query().unwrap_or_default(),
        bearer,
        body: &body.to_bytes(),
        origin,
    });
    if said.is_silent {
        // Until the client leaves, or all of this ends.
        std::future::pending::<()>().await;
    }
    sent(said)
}

async fn respond(state: &State, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, QUESTION_MAX).collect().await else {
        return sent(Said::error(413, "the question is too long"));
    };
    let body = serde_json::from_slice::<Value>(&body.to_bytes()).unwrap_or_default();
    let header = |name: &str| head.headers.get(name)?.to_str().ok().map(str::to_owned);
    let bearer = header(AUTHORIZATION.as_str());
    let bearer = bearer
        .as_deref()
        .and_then(|text| text.strip_prefix("Bearer "));
    if (&head.method, head.uri.path()) == (&Method::POST, "/authenticate") {
        return sent(state.log_in(&body, bearer));
    }
    if let Some(topics) = questions::read_many(&head.method, &head.uri, &body) {
        return sent(state.answer_many(header("x-api-key").as_deref(), &topics));
    }
    let Some((source, topic)) = questions::read(&head.method, &head.uri, &body) else {
        return sent(Said::error(404, "there is no such route"));
    };
    let key = match source {
        DataSource::Apollo => header("x-api-key"),
        DataSource::Clearbit | DataSource::Zoominfo => bearer.map(str::to_owned),
    };
    let Some(topic) = topic else {
        return sent(Said::error(422, "it does not say about whom"));
    };
    sent(state.answer(source, key.as_deref(), &topic))
}

/// Sends an answer as it is to come: at once, in parts, or not to its end.
fn sent(said: Said) -> Response<Body> {
    let bytes = Bytes::from(said.body);
    let half = bytes.len() / 2;
    let (first, second) = (bytes.slice(..half), bytes.slice(half..));
    let (pause, is_cut) = (said.pause, said.is_cut);
    let parts = stream::unfold(0_u8, move |part| {
        let (first, second) = (first.clone(), second.clone());
        async move {
            match part {
                0 => Some((Ok(Frame::data(first)), 1)),
                1 => {
                    tokio::time::sleep(pause).await;
                    match is_cut {
                        true => Some((Err(io::Error::other("cut off")), 2)),
                        false => Some((Ok(Frame::data(second)), 2)),
                    }
                }
                _ => None,
            }
        }
    });
    let mut response = Response::builder().status(said.status);
    if !said
        .headers
        .iter()
        .any(|(name, _)| *name == CONTENT_TYPE.as_str())
    {
        response = response.header(CONTENT_TYPE, "application/json");
    }
    for (name, value) in said.headers {
        response = response.header(name, value);
    }
    let body = BodyExt::boxed(StreamBody::new(parts));
    response.body(body).unwrap_or_else(|_| {
        let nothing = stream::empty::<Result<Frame<Bytes>, io::Error>>();
        Response::new(BodyExt::boxed(StreamBody::new(nothing)))
    })
}
