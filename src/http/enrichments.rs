//! Enrichments of all records that match: begun, estimated, and looked at while they run.

use std::collections::BTreeMap;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use axum::{Json, extract};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::allowance::Grant;
use super::auth::Caller;
use super::jobs::JobId;
use super::problem::{Code, Problem};
use super::state::State;
use super::{body, enqueue};
use crate::enqueue::EnqueueError;
use crate::handlers::enrich_records::{EnrichPage, EnrichRecords, PAGE_RECORDS, RECORDS_MAX};
use crate::handlers::import_csv::payload::EntityType;
use crate::job::flow::{FlowRequest, OnFailure};
use crate::job::{self, JobRequest};
use crate::record::access::Permission;
use crate::record::connections;
use crate::record::creations;
use crate::record::enrichment_items::{self, Sums};
use crate::record::exports::read::Selection;
use crate::record::jobs::{self, JobRow};

/// The largest request.
const BODY_MAX: usize = 256 * 1024;
/// Records that one statement looks for.
const LOOK: i64 = 5000;
/// The job type of the whole.
const JOB_TYPE: &str = "enrich_records";

/// An enrichment.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Enrichment {
    /// That of its job, which cancels it.
    id: Uuid,
    /// `pending` as long as records are enriched.
    #[schema(value_type = crate::job::Status)]
    status: String,
    /// What became of its records: so far, or for good when it is `completed`.
    summary: Sums,
}

/// One enrichment.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OneEnrichment {
    enrichment: Enrichment,
}

/// What an enrichment would come to.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Estimate {
    /// Records that match.
    matched: usize,
    /// Jobs that it would be.
    jobs: usize,
    /// By provider, for how many of them its answer is there already.
    cached: BTreeMap<String, u64>,
    /// By provider, the most that it can cost: if each record is asked for, and each is known.
    credits_at_most: BTreeMap<String, u64>,
}

/// The answer to a dry run.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OneEstimate {
    estimate: Estimate,
}

/// Enrich all records that match
///
/// One job of the type `enrich_records`, and one for each hundred records, in one commit: at most
/// 50,000 records. With `dry_run` it tells how many match and what it may cost, and does nothing.
#[utoipa::path(post, path = "/api/enrichments", operation_id = "startEnrichment", tag = "jobs",
    params(("Idempotency-Key" = Option<String>, Header, nullable = false,
        min_length = 1, max_length = 255,
        description = "The same request with the same key gives the same enrichment back.")),
    request_body = EnrichRecords,
    responses(
        (status = 201, description = "It is accepted", body = OneEnrichment,
            headers(("Location" = String, description = "Where it is shown"))),
        (status = 202, description = "It is accepted, and begins when Redis is back",
            body = OneEnrichment,
            headers(("Location" = String, description = "Where it is shown"))),
        (status = 200, description = "What a dry run found; or the enrichment that this key made",
            body = OneEstimate),
        (status = 409,
            description = "The key was used for another request: `idempotency_key_reused`"),
        (status = 410, description = "The key's job has been removed since: `job_gone`")))]
pub(super) async fn start(
    extract::State(state): extract::State<State>,
    request: Request,
) -> Result<Response, Problem> {
    let (caller, headers, body) = enqueue::open(&state, request, body::expect_json).await?;
    let whole = body::read(&state, caller, &headers, body, BODY_MAX).await?;
    let minimal = json!({ "entity_type": "accounts", "how": {} });
    let mut payload: EnrichRecords = body::object(&whole.bytes, &minimal)?;
    drop(whole);
    if payload.matched.is_some() {
        let message = "is said by the server, not by the request".to_owned();
        return Err(wrong("/matched", message));
    }
    let selection = payload.selection(caller.workspace_id);
    let selection = selection.map_err(Problem::of_fields)?;
    let key = enqueue::key(&headers)?.filter(|_| !payload.dry_run);
    // Before anything is looked for: what matches, and who can be asked, may be others by now.
    if let Some(key) = &key
        && let Some(made) = made_with(&state, caller, key, &payload).await?
    {
        let grant = state
            .allowances
            .whole(&state.services.record, caller.workspace_id, 0, None);
        return Ok(answer(StatusCode::OK, made, &grant.await?));
    }
    check_connections(&state, caller, &payload).await?;
    let ids = matching(&state, &selection).await?;
    if payload.dry_run {
        let estimate = estimate(&state, caller, &payload, &ids).await?;
        return Ok(Json(OneEstimate { estimate }).into_response());
    }
    payload.matched = Some(ids.len() as u64);
    let mut flow = flow(&payload, &ids);
    flow.job.idempotency_key.clone_from(&key);
    for job in
        std::iter::once(&mut flow.job).chain(flow.children.iter_mut().map(|one| &mut one.job))
    {
        job.workspace_id = Some(caller.workspace_id);
        job.created_by = caller.user_id();
    }
    let jobs = 1 + flow.children.len() as u64;
    let record = &state.services.record;
    let taken = state
        .allowances
        .whole(record, caller.workspace_id, jobs, key.as_deref());
    let mut grant = taken.await?;
    let accepted = state.services.enqueue.enqueue_flow(flow).await;
    let created = match &accepted {
        Ok(flow) if flow.root.is_new => jobs,
        Err(error) if error.is_unavailable() => u64::MAX,
        Ok(_) | Err(_) => 0,
    };
    grant.used(created).await;
    let root = match (accepted, &key) {
        (Ok(flow), _) => flow.root,
        // The same request was under way, and found other records.
        (Err(error @ EnqueueError::KeyReused { .. }), Some(key)) => {
            let made = made_with(&state, caller, key, &payload).await?;
            return Ok(answer(StatusCode::OK, made.ok_or(error)?, &grant));
        }
        (Err(error), _) => return Err(error.into()),
    };
    let (status, enrichment) = match (root.is_new, state.is_redis_well()) {
        (true, is_well) => {
            let summary = Sums {
                matched: ids.len() as u64,
                not_done: ids.len() as u64,
                ..Sums::default()
            };
            let enrichment = Enrichment {
                id: root.id,
                status: "pending".to_owned(),
                summary,
            };
            let status = match is_well {
                true => StatusCode::CREATED,
                false => StatusCode::ACCEPTED,
            };
            (status, enrichment)
        }
        (false, _) => {
            let found = find(&state, caller, root.id).await?;
            (StatusCode::OK, found.ok_or_else(|| enqueue::gone(&root))?)
        }
    };
    Ok(answer(status, enrichment, &grant))
}

fn answer(status: StatusCode, enrichment: Enrichment, grant: &Grant) -> Response {
    let location = [(LOCATION, format!("/api/enrichments/{}", enrichment.id))];
    let answer = (status, location, Json(OneEnrichment { enrichment }));
    enqueue::with_standing(answer, grant)
}

/// The enrichment that this key made, if that was asked for with the same words: how many matched
/// then is no part of them.
async fn made_with(
    state: &State,
    caller: Caller,
    key: &str,
    asked: &EnrichRecords,
) -> Result<Option<Enrichment>, Problem> {
    let record = &state.services.record;
    let Some(id) = creations::made_with_key(record, caller.workspace_id, key).await? else {
        return Ok(None);
    };
    let Some(row) = row(state, caller, id).await? else {
        return Ok(None);
    };
    let made = serde_json::from_value::<EnrichRecords>(row.payload.clone());
    let words = |wish: EnrichRecords| {
        json!(EnrichRecords {
            matched: None,
            ..wish
        })
    };
    match made.is_ok_and(|made| made.matched.is_some() && words(made) == words(asked.clone())) {
        true => shown(state, caller, row).await.map(Some),
        false => Ok(None),
    }
}

/// Show an enrichment
///
/// Its sums so far, while its pages run.
#[utoipa::path(get, path = "/api/enrichments/{id}", operation_id = "getEnrichment", tag = "jobs",
    params(("id" = Uuid, Path, description = "The id of its job")),
    responses((status = 200, description = "The enrichment", body = OneEnrichment)))]
pub(super) async fn show(
    extract::State(state): extract::State<State>,
    caller: Caller,
    JobId(id): JobId,
) -> Result<Json<OneEnrichment>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let enrichment = find(&state, caller, id).await?.ok_or_else(|| {
        let detail = format!("there is no enrichment {id}");
        Problem::new(Code::JobNotFound, detail)
    })?;
    Ok(Json(OneEnrichment { enrichment }))
}

async fn find(state: &State, caller: Caller, id: Uuid) -> Result<Option<Enrichment>, Problem> {
    match row(state, caller, id).await? {
        Some(row) => shown(state, caller, row).await.map(Some),
        None => Ok(None),
    }
}

async fn row(state: &State, caller: Caller, id: Uuid) -> Result<Option<JobRow>, Problem> {
    let mut view = state.view(caller).await?;
    let row = jobs::get(&mut view, id, Some(caller.workspace_id)).await?;
    Ok(row.filter(|row| row.job_type == JOB_TYPE))
}

async fn shown(state: &State, caller: Caller, row: JobRow) -> Result<Enrichment, Problem> {
    let JobRow {
        id,
        payload,
        result,
        status,
        ..
    } = row;
    let kept = result.and_then(|result| serde_json::from_value(result).ok());
    let summary = match kept {
        Some(sums) => sums,
        None => {
            let matched = payload.get("matched").and_then(serde_json::Value::as_u64);
            let mut view = state.view(caller).await?;
            enrichment_items::seen(&mut view, id, matched.unwrap_or_default()).await?
        }
    };
    Ok(Enrichment {
        id,
        status,
        summary,
    })
}

/// The job of the whole, and those of its pages. A page that fails for good stops nothing.
fn flow(payload: &EnrichRecords, ids: &[Uuid]) -> FlowRequest {
    let page = |ids: &[Uuid]| {
        let page = EnrichPage {
            entity_type: payload.entity_type,
            record_ids: ids.to_vec(),
            how: payload.how.clone(),
        };
        FlowRequest {
            job: JobRequest::new("enrich_page", json!(page)),
            on_failure: OnFailure::IgnoreDependency,
            children: Vec::new(),
        }
    };
    FlowRequest {
        job: JobRequest::new(JOB_TYPE, json!(payload)),
        on_failure: OnFailure::default(),
        children: ids.chunks(PAGE_RECORDS).map(page).collect(),
    }
}

/// The records that match now.
async fn matching(state: &State, selection: &Selection) -> Result<Vec<Uuid>, Problem> {
    let record = &state.services.record;
    let mut ids = Vec::new();
    let Some(until) = selection.newest(record).await? else {
        return Ok(ids);
    };
    let mut after = Uuid::nil();
    loop {
        let (some, next) = selection.ids(record, (after, until), LOOK).await?;
        ids.extend(some);
        if ids.len() > RECORDS_MAX {
            let message = format!(
                "more than {RECORDS_MAX} records match: narrow the filters, for example by \
                 `created_at`, and begin several enrichments"
            );
            return Err(wrong("/filters", message));
        }
        match next {
            Some(next) => after = next,
            None => return Ok(ids),
        }
    }
}

/// A provider that nobody could call is told of now, and not by each record.
async fn check_connections(
    state: &State,
    caller: Caller,
    payload: &EnrichRecords,
) -> Result<(), Problem> {
    for source in payload.sources() {
        let (workspace_id, provider) = (caller.workspace_id, source.provider());
        let row = connections::for_use(&state.services.record, workspace_id, provider, None);
        if row.await?.is_none() {
            let message = format!(
                "this workspace has no connection to {provider}: an admin makes one with `POST \
                 /api/connections`"
            );
            return Err(wrong("/how/provider", message));
        }
    }
    Ok(())
}

async fn estimate(
    state: &State,
    caller: Caller,
    payload: &EnrichRecords,
    ids: &[Uuid],
) -> Result<Estimate, Problem> {
    let sources = payload.sources();
    let names: Vec<&str> = sources.iter().map(|source| source.as_str()).collect();
    let mut cached: BTreeMap<String, u64> =
        names.iter().map(|name| ((*name).to_owned(), 0)).collect();
    let is_people = payload.entity_type == EntityType::Contacts;
    for some in ids.chunks(LOOK as usize) {
        let kept = enrichment_items::kept_answers(
            &state.services.record,
            caller.workspace_id,
            (is_people, some),
            (&names, payload.how.max_age_days),
        );
        for (name, count) in kept.await? {
            *cached.entry(name).or_default() += count;
        }
    }
    let matched = ids.len() as u64;
    let at_most = |(name, kept): (&String, &u64)| (name.clone(), matched.saturating_sub(*kept));
    Ok(Estimate {
        matched: ids.len(),
        jobs: 1 + ids.len().div_ceil(PAGE_RECORDS),
        credits_at_most: cached.iter().map(at_most).collect(),
        cached,
    })
}

fn wrong(pointer: &str, message: String) -> Problem {
    let pointer = pointer.to_owned();
    Problem::of_fields(vec![job::Problem { pointer, message }])
}
