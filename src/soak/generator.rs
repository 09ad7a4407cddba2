//! The load: enqueues through the HTTP API, one job per call or many, and keeps asking with the
//! same keys until each job is acknowledged.
//!
//! What is acknowledged goes to the ledger. A number is done when the ledger has it; a run that was
//! ended and goes on begins again at the lowest number that is not done, which repeats some
//! requests: their keys give the same jobs back.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ledger::Ledger;
use super::line::Line;
use super::plan::Plan;

/// Callers at once, and how many jobs each sends per call.
pub(super) const LANES: [u64; 8] = [1, 1, 20, 50, 100, 200, 200, 200];
/// How long a call may take before it is sent again.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);
/// Open jobs from which on nothing more is sent.
const OPEN_MAX: u64 = 10_000;
/// Between two looks at whether more may be sent.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The generator of a run; its lanes share it.
#[derive(Debug)]
pub(super) struct Generator {
    http: reqwest::Client,
    base: String,
    key: String,
    plan: Plan,
    ledger: Ledger,
    places: Mutex<Places>,
    /// No number from here on is sent.
    end: u64,
    /// Jobs per second; 0: as fast as the answers come.
    rate: u64,
    began: Instant,
    first: u64,
    /// Open jobs, as the watch saw them last.
    pub(super) open: AtomicU64,
    pub(super) repeated_calls: AtomicU64,
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    in_flight: BTreeSet<u64>,
}

impl Generator {
    pub(super) fn new(
        (base, key): (String, String),
        plan: Plan,
        ledger: Ledger,
        (first, end): (u64, u64),
        rate: u64,
    ) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(PATIENCE).build()?;
        Ok(Self {
            http,
            base,
            key,
            plan,
            ledger,
            places: Mutex::new(Places {
                next: first,
                in_flight: BTreeSet::new(),
            }),
            end,
            rate,
            began: Instant::now(),
            first,
            open: AtomicU64::new(0),
            repeated_calls: AtomicU64::new(0),
        })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every number below is acknowledged, and in the ledger.
    pub(super) fn low_water(&self) -> u64 {
        let places = self.places();
        places.in_flight.first().copied().unwrap_or(places.next)
    }

    /// The next numbers; none when there is no more to do.
    fn take(&self, count: u64) -> Option<std::ops::Range<u64>> {
        let mut places = self.places();
        let first = places.next;
        let after = first.saturating_add(count).min(self.end);
        if first >= after {
            return None;
        }
        places.next = after;
        places.in_flight.insert(first);
        Some(first..after)
    }

    fn may_send(&self) -> bool {
        if self.open.load(Ordering::Relaxed) > OPEN_MAX {
            return false;
        }
        let due = self.began.elapsed().as_millis() as u64 * self.rate / 1000;
        self.rate == 0 || self.places().next - self.first <= due
    }

    /// Sends until the last number or `stop`. What is under way is brought to its end.
    pub(super) async fn lane(&self, size: u64, stop: &CancellationToken) -> anyhow::Result<()> {
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
            self.places().in_flight.remove(&first);
        }
        Ok(())
    }

    async fn send_until_accepted(&self, numbers: std::ops::Range<u64>) -> anyhow::Result<()> {
        let requests: Vec<Value> = numbers.clone().map(|n| self.plan.request(n)).collect();
        let ids = self.until_accepted(&requests).await?;
        let accepted: Vec<Line> = numbers
            .zip(ids)
            .map(|(seq, id)| Line::Accepted { seq, id })
            .collect();
        Ok(self.ledger.write(&accepted).await?)
    }

    /// Sends these again and again until all of them are acknowledged.
    pub(super) async fn until_accepted(&self, requests: &[Value]) -> anyhow::Result<Vec<Uuid>> {
        loop {
            let ids = match requests {
                [one] => self.send_one(one).await?,
                many => self.send_many(many).await?,
            };
            if let Some(ids) = ids {
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
        let request = self.http.post(format!("{}{path}", self.base));
        let answer = request
            .bearer_auth(&self.key)
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
