//! The load: enqueues through the HTTP API, one job per call or many, and keeps asking with the
//! same keys until each job is acknowledged.
//!
//! What is acknowledged goes to the ledger. A number is done when the ledger has it; a run that was
//! ended and goes on begins again at the lowest number that is not done, which repeats some
//! requests: their keys give the same jobs back.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::try_join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ledger::Ledger;
use super::line::Line;
use super::plan::Plan;
use super::space::{FAMILY, Space};

/// Callers of the main part at once, and how many jobs each sends per call.
pub(super) const LANES: &[u64] = &[1, 1, 20, 50, 100, 200, 200, 200];
/// How long a call may take before it is sent again: while a network loses answers every caller
/// waits for so long, and nothing else comes in.
const PATIENCE: Duration = Duration::from_secs(6);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);
/// Open jobs from which on nothing more is sent.
const OPEN_MAX: u64 = 10_000;
/// Between two looks at whether more may be sent.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What one generator sends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) space: Space,
    /// Which job of its part comes next.
    pub(super) next: u64,
    /// None from this one on is sent.
    pub(super) end: u64,
    /// Jobs per second; 0: as fast as the answers come.
    pub(super) rate: u64,
    /// Callers at once, and how many jobs each sends per call.
    pub(super) lanes: &'static [u64],
}

/// The server, and as whom it is asked.
#[derive(Debug)]
pub(super) struct Place {
    http: reqwest::Client,
    base: String,
    key: String,
}

impl Place {
    pub(super) fn new(base: &str, key: &str) -> anyhow::Result<Self> {
        Ok(Self {
            http: reqwest::Client::builder().timeout(PATIENCE).build()?,
            base: base.to_owned(),
            key: key.to_owned(),
        })
    }
}

/// The generator of a part of the load; its lanes share it.
#[derive(Debug)]
pub(super) struct Generator {
    place: Place,
    plan: Plan,
    ledger: Ledger,
    load: Load,
    numbers: Mutex<Numbers>,
    began: Instant,
    /// Open jobs of all parts, as the watch saw them last.
    open: Arc<AtomicU64>,
    pub(super) repeated_calls: AtomicU64,
}

#[derive(Debug, Default)]
struct Numbers {
    next: u64,
    in_flight: BTreeSet<u64>,
}

impl Generator {
    pub(super) fn new(
        place: Place,
        plan: Plan,
        ledger: Ledger,
        load: Load,
        open: Arc<AtomicU64>,
    ) -> Self {
        Self {
            place,
            plan,
            ledger,
            load,
            numbers: Mutex::new(Numbers {
                next: load.next,
                in_flight: BTreeSet::new(),
            }),
            began: Instant::now(),
            open,
            repeated_calls: AtomicU64::new(0),
        }
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every number below is acknowledged, and in the ledger.
    pub(super) fn low_water(&self) -> u64 {
        let numbers = self.numbers();
        let first = numbers.in_flight.first().copied();
        first.unwrap_or(numbers.next)
    }

    /// The next numbers; none when there is no more to do.
    fn take(&self, count: u64) -> Option<std::ops::Range<u64>> {
        let mut numbers = self.numbers();
        let first = numbers.next;
        let after = first.saturating_add(count).min(self.load.end);
        if first >= after {
            return None;
        }
        numbers.next = after;
        numbers.in_flight.insert(first);
        Some(first..after)
    }

    fn may_send(&self) -> bool {
        if self.open.load(Ordering::Relaxed) > OPEN_MAX {
            return false;
        }
        let due = self.began.elapsed().as_millis() as u64 * self.load.rate / 1000;
        self.load.rate == 0 || self.numbers().next - self.load.next <= due
    }

    /// Sends until the last number or `stop`. What is under way is brought to its end.
    pub(super) async fn send(&self, stop: &CancellationToken) -> anyhow::Result<()> {
        let lanes = self.load.lanes.iter();
        let lanes = lanes.map(|size| Box::pin(self.lane(*size, stop)));
        try_join_all(lanes).await.map(drop)
    }

    async fn lane(&self, size: u64, stop: &CancellationToken) -> anyhow::Result<()> {
        while !stop.is_cancelled() {
            if !self.may_send() {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            let Some(numbers) = self.take(size) else {
                return Ok(());
            };
            let first = numbers.start;
            self.send_until_accepted(numbers).await?;
            self.numbers().in_flight.remove(&first);
        }
        Ok(())
    }

    async fn send_until_accepted(&self, numbers: std::ops::Range<u64>) -> anyhow::Result<()> {
        let from = self.load.space.from();
        let numbers = from + numbers.start..from + numbers.end;
        let ids = match self.load.space {
            Space::Flows => {
                let flow = self.plan.flow(numbers.start);
                self.insist(async || self.send_flow(&flow).await).await?
            }
            _ => {
                let requests: Vec<Value> = numbers.clone().map(|n| self.plan.request(n)).collect();
                self.until_accepted(&requests).await?
            }
        };
        let accepted: Vec<Line> = numbers
            .zip(ids)
            .map(|(seq, id)| Line::Accepted { seq, id })
            .collect();
        Ok(self.ledger.write(&accepted).await?)
    }

    /// Sends these again and again until all of them are acknowledged.
    pub(super) async fn until_accepted(&self, requests: &[Value]) -> anyhow::Result<Vec<Uuid>> {
        let call = async || match requests {
            [one] => self.send_one(one).await,
            many => self.send_many(many).await,
        };
        self.insist(call).await
    }

    async fn insist(
        &self,
        call: impl AsyncFn() -> anyhow::Result<Option<Vec<Uuid>>>,
    ) -> anyhow::Result<Vec<Uuid>> {
        loop {
            if let Some(ids) = call().await? {
                return Ok(ids);
            }
            self.repeated_calls.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// None: nobody knows what became of it; ask again.
    async fn send_one(&self, request: &Value) -> anyhow::Result<Option<Vec<Uuid>>> {
        let Some((status, answer)) = self.post("/api/jobs", request).await else {
            return Ok(None);
        };
        match status.is_success() {
            true => Ok(Some(vec![id(&answer["job"])?])),
            false => may_ask_again(&answer),
        }
    }

    /// A flow that was there before tells the id of its parent only; the others are nil.
    async fn send_flow(&self, flow: &Value) -> anyhow::Result<Option<Vec<Uuid>>> {
        let Some((status, answer)) = self.post("/api/flows", flow).await else {
            return Ok(None);
        };
        if !status.is_success() {
            return may_ask_again(&answer);
        }
        let ids = answer["flow"]["ids"].as_array().context("no ids")?;
        let ids = ids.iter().map(|id| id.as_str().unwrap_or_default().parse());
        let mut ids = ids.collect::<Result<Vec<Uuid>, _>>()?;
        ids.resize(FAMILY as usize, Uuid::nil());
        Ok(Some(ids))
    }

    async fn send_many(&self, requests: &[Value]) -> anyhow::Result<Option<Vec<Uuid>>> {
        let body = json!({ "jobs": requests });
        let Some((status, answer)) = self.post("/api/jobs/bulk", &body).await else {
            return Ok(None);
        };
        if !status.is_success() {
            return may_ask_again(&answer);
        }
        let results = answer["results"].as_array().context("no results")?;
        let mut ids = Vec::with_capacity(results.len());
        for result in results {
            match result.get("problem") {
                Some(problem) => return may_ask_again(problem),
                None => ids.push(id(result)?),
            }
        }
        match ids.len() == requests.len() {
            true => Ok(Some(ids)),
            false => bail!("{} answers to {} jobs", ids.len(), requests.len()),
        }
    }

    async fn post(&self, path: &str, body: &Value) -> Option<(StatusCode, Value)> {
        let place = &self.place;
        let request = place.http.post(format!("{}{path}", place.base));
        let answer = request
            .bearer_auth(&place.key)
            .json(body)
            .send()
            .await
            .ok()?;
        let status = answer.status();
        let body = answer.json().await.ok()?;
        Some((status, body))
    }
}

fn id(job: &Value) -> anyhow::Result<Uuid> {
    let id = job["id"].as_str().context("an answer without an id")?;
    Ok(id.parse()?)
}

/// What the server can not do now it may do later; any other refusal is an error of the run.
fn may_ask_again<T>(problem: &Value) -> anyhow::Result<Option<T>> {
    match problem["status"].as_u64() {
        Some(500..=599 | 429) => Ok(None),
        _ => bail!("the server refused a job: {problem}"),
    }
}
