//! Bulk API 2.0: a table is uploaded, Salesforce works it off, results are fetched.
//!
//! Which job there works off a table is a step of ours, named by what the table says. Where the
//! process may die, and what the next attempt finds:
//!
//! | between | finds | does |
//! |---|---|---|
//! | the job there and the step | nothing | makes another; the first is empty, and ends by itself |
//! | the step and the end of the upload | an open job | aborts it: nothing of it was worked off |
//! | the end of the upload and the results | the job under way, or done | waits for that one |
//! | the results and what the engine does with them | the job done | fetches them again |
//!
//! So a table takes effect once; and if that were wrong, twice the same: records are upserted by
//! our id, or updated by theirs. While Salesforce works the job snoozes and holds no slot.
//!
//! Source: Bulk API 2.0 and Bulk API Developer Guide, "Bulk API 2.0 Ingest": states, `PUT
//! …/batches` once per job, results kept for seven days.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use uuid::Uuid;

use super::super::client::{CrmError, Entity, Outcome, Push};
use super::Salesforce;
use super::calls::{Request, refused, unconfirmed, unreadable};
use super::soql::object;
use super::table::{Results, Table, not_processed};
use crate::clock;
use crate::fault::{self, Point};
use crate::job::JobError;

/// How long an attempt looks before it comes back later, and how often.
const WATCHED: Duration = Duration::from_secs(15);
const LOOK_FIRST: Duration = Duration::from_millis(250);
const LOOK_MAX: Duration = Duration::from_secs(4);
const COME_BACK: Duration = Duration::from_secs(30);
/// What a job there has done is taken for this table's work so long.
const TRUSTED: chrono::TimeDelta = chrono::TimeDelta::hours(24);
/// Jobs there that one table may need.
const TURNS_MAX: usize = 10;
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(300);
const RESULTS_TIMEOUT: Duration = Duration::from_secs(300);
/// A table of results: what was sent, and what is said about it.
const RESULTS_MAX: usize = 48 * 1024 * 1024;
/// Until a full organization takes another job.
const FULL_WAIT: Duration = Duration::from_secs(900);

/// A job there, as our step keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Made {
    id: String,
    at: DateTime<Utc>,
}

/// A job that was made.
#[derive(Debug, Deserialize)]
struct Named {
    id: String,
}

/// What Salesforce says of a job.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct State {
    state: String,
    #[serde(default)]
    number_records_processed: u64,
    #[serde(default)]
    error_message: String,
}

impl State {
    fn is_over(&self) -> bool {
        matches!(self.state.as_str(), "JobComplete" | "Failed" | "Aborted")
    }

    /// It ended before it did anything.
    fn came_to_nothing(&self) -> bool {
        matches!(self.state.as_str(), "Failed" | "Aborted") && self.number_records_processed == 0
    }
}

impl Salesforce {
    /// Writes records that are all addressed the same way.
    pub(super) async fn bulk(
        &self,
        entity: Entity,
        pushes: &[&Push],
    ) -> Result<Vec<Outcome>, CrmError> {
        let is_update = pushes.first().is_some_and(|push| push.id.is_some());
        let mut request = json!({
            "object": object(entity),
            "operation": if is_update { "update" } else { "upsert" },
            "contentType": "CSV",
            "lineEnding": "LF",
            "columnDelimiter": "COMMA",
        });
        if !is_update {
            request["externalIdFieldName"] = json!(self.external_id);
        }
        let request = request.to_string();
        let mut parts = Vec::new();
        // All of them are under way before one is waited for.
        for table in self.tables(entity, pushes)? {
            let id = self.started(&request, &table).await?;
            parts.push((id, table.from, table.to));
        }
        let mut outcomes: BTreeMap<Uuid, Outcome> = BTreeMap::new();
        for (id, from, to) in parts {
            let state = self.over(&id).await?;
            if state.came_to_nothing() {
                return Err(nothing_came_of_it(&state));
            }
            let known = pushes[from..to].iter().map(|push| (push.local_id, *push));
            let known: BTreeMap<Uuid, &Push> = known.collect();
            for kind in Results::ALL {
                let path = format!("{}/jobs/ingest/{id}/{}", self.data, kind.path());
                let request = Request {
                    timeout: Some(RESULTS_TIMEOUT),
                    answer_max: RESULTS_MAX,
                    ..Request::get(path)
                };
                let answer = self.must(&request).await?;
                self.read_results(kind, &answer.bytes, &mut outcomes, &known)?;
            }
        }
        let outcome = |push: &&Push| {
            let outcome = outcomes.remove(&push.local_id);
            outcome.unwrap_or_else(|| not_processed("the bulk job has no result for this record"))
        };
        Ok(pushes.iter().map(outcome).collect())
    }

    /// The job there that works the table off.
    async fn started(&self, request: &str, table: &Table) -> Result<String, CrmError> {
        let mut digest = Sha256::new();
        digest.update(self.connection.id);
        digest.update(request);
        digest.update(&table.text);
        let digest = digest.finalize();
        let name: String = digest[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        for turn in 0..TURNS_MAX {
            let (mut fresh, mut failed) = (None, None);
            let step = format!("bulk {name} {turn}");
            let made = self
                .ctx
                .step(&step, async || match self.make(request).await {
                    Ok(id) => {
                        fresh = Some(id.clone());
                        let at = clock::now();
                        Ok(Made { id, at })
                    }
                    Err(error) => {
                        let why = error.to_string();
                        failed = Some(error);
                        Err(JobError::Retry(why))
                    }
                });
            let made: Result<Made, JobError> = made.await;
            if let Some(error) = failed {
                return Err(error);
            }
            let made = made?;
            if fresh.as_ref() == Some(&made.id) {
                fault::point(Point::AfterBulkMade);
                self.upload(&made.id, table).await?;
                fault::point(Point::AfterBulkUpload);
                return Ok(made.id);
            }
            if clock::now() - made.at > TRUSTED {
                continue;
            }
            match self.state(&made.id).await? {
                // How much of the table it has nobody knows; none of it was worked off.
                Some(state) if state.state == "Open" => self.set_state(&made.id, "Aborted").await?,
                Some(state) if !state.came_to_nothing() => return Ok(made.id),
                _ => {}
            }
        }
        Err(CrmError::PermanentRun(format!(
            "{TURNS_MAX} bulk jobs for the same records came to nothing: look at Bulk Data Load \
             Jobs in the setup of Salesforce"
        )))
    }

    async fn make(&self, request: &str) -> Result<String, CrmError> {
        let path = format!("{}/jobs/ingest", self.data);
        let request = Request::write(Method::POST, path, request.to_owned().into());
        let answer = self.must(&request).await?;
        let made: Option<Named> = serde_json::from_slice(&answer.bytes).ok();
        let made = made.filter(|made| super::log_in::is_id(&made.id));
        let made = made.ok_or_else(|| unconfirmed("a bulk job without an id"))?;
        Ok(made.id)
    }

    async fn upload(&self, id: &str, table: &Table) -> Result<(), CrmError> {
        let path = format!("{}/jobs/ingest/{id}/batches", self.data);
        let request = Request {
            content_type: "text/csv",
            timeout: Some(UPLOAD_TIMEOUT),
            ..Request::write(Method::PUT, path, table.text.clone().into())
        };
        let answer = self.must(&request).await?;
        // A page of a proxy has another status. The job stays open: who comes next aborts it.
        if answer.status != 201 {
            let what = format!("{} for a table", answer.status);
            return Err(unconfirmed(&what));
        }
        fault::point(Point::AfterBulkData);
        self.set_state(id, "UploadComplete").await
    }

    async fn set_state(&self, id: &str, state: &str) -> Result<(), CrmError> {
        let path = format!("{}/jobs/ingest/{id}", self.data);
        let wish = json!({ "state": state }).to_string();
        let request = Request::write(Method::PATCH, path, wish.into());
        let answer = self.must(&request).await?;
        let said: Result<State, _> = serde_json::from_slice(&answer.bytes);
        match said {
            Ok(_) => Ok(()),
            Err(_) => Err(unconfirmed("a bulk job without a state")),
        }
    }

    /// None: there is no such job (any more).
    async fn state(&self, id: &str) -> Result<Option<State>, CrmError> {
        let path = format!("{}/jobs/ingest/{id}", self.data);
        let answer = self.call(&Request::get(path)).await?;
        match answer.status {
            200..300 => {
                let state = serde_json::from_slice(&answer.bytes);
                Ok(Some(
                    state.map_err(|_| unreadable("a bulk job without a state"))?,
                ))
            }
            404 => Ok(None),
            _ => Err(refused(&answer)),
        }
    }

    /// Looks until the job there is over; after a while ours comes back later.
    async fn over(&self, id: &str) -> Result<State, CrmError> {
        let (began, mut pause) = (Instant::now(), LOOK_FIRST);
        loop {
            let state = self
                .state(id)
                .await?
                .ok_or_else(|| CrmError::Retryable(None, format!("the bulk job {id} is gone")))?;
            if state.is_over() {
                return Ok(state);
            }
            if began.elapsed() > WATCHED {
                let why = format!("salesforce works on the bulk job {id} ({})", state.state);
                return Err(JobError::Snooze(COME_BACK, why).into());
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.ctx.cancelled().cancelled() => {}
            }
            pause = (pause * 2).min(LOOK_MAX);
        }
    }
}

/// The next attempt makes another, unless that can not help.
fn nothing_came_of_it(state: &State) -> CrmError {
    let why = format!("the bulk job is {}: {}", state.state, state.error_message);
    match state.error_message.as_str() {
        text if text.contains("InvalidBatch") => CrmError::PermanentRun(why),
        text if text.contains("imit") => CrmError::Budget(FULL_WAIT, why),
        _ => CrmError::Retryable(None, why),
    }
}
