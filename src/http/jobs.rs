//! Reading jobs: lists, one job, its log.

use axum::extract::FromRequestParts;
use axum::http::Uri;
use axum::http::request::Parts;
use axum::{Json, extract};
use serde::Serialize;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::auth::Caller;
use super::job_filter::{self, PATHS_MAX};
use super::job_page::{JobPage, Jobs, Pagination, PayloadPaths};
use super::openapi::uuid_parameter;
use super::problem::{Code, Problem};
use super::query::{Parameters, invalid};
use super::standing::{self, Family, Reason, Stores};
use super::state::{Reading, State};
use crate::job::{QueueName, Status};
use crate::record::access::Permission;
use crate::record::jobs::{self, FailureRow, JobRow};
use crate::record::list::{self, JobFilter, Search};
use crate::record::logs::{self, LOG_PAGE_MAX, LogRow};
use crate::record::timeline::{self, Moment};

/// Jobs of a page when nothing else is said.
const LIMIT: i64 = 50;
/// The most jobs of a page.
const LIMIT_MAX: i64 = 200;
/// The most jobs of a page with payloads and results, which may have a megabyte each.
const LIMIT_WITH_PAYLOAD_MAX: i64 = 25;
/// How far `page` goes: pages are counted through, so later ones cost more. `before` has no end.
const PAGES_MAX: i64 = 100;
const PARAMETERS: [&str; 15] = [
    "status",
    "jobType",
    "job_type",
    "queue",
    "created_from",
    "created_to",
    "attempts_min",
    "fingerprint",
    "error",
    "q",
    "payload.*",
    "page",
    "limit",
    "before",
    "include",
];
/// Lines of the log beside a job.
const LOGS: i64 = 200;

/// List jobs
///
/// A page, newest first. `before` goes on where a page ended, and so does `page` for the first
/// hundred. `q`, `error`, `attempts_min` and `payload.PATH` look at 5,000 jobs at most, so a page
/// may be short while `hasMore` is true: go on with `before`.
#[utoipa::path(get, path = "/api/jobs", operation_id = "listJobs", tag = "jobs",
    params(
        ("status" = Option<Status>, Query),
        ("jobType" = Option<String>, Query),
        ("job_type" = Option<String>, Query, description = "The same as `jobType`"),
        ("queue" = Option<String>, Query, min_length = 1, max_length = 255,
            pattern = r"^[^:\s\x00-\x1f\x7f-\x9f]+$"),
        ("created_from" = Option<DateTime<Utc>>, Query, description = "From this moment on"),
        ("created_to" = Option<DateTime<Utc>>, Query, description = "Before this moment"),
        ("attempts_min" = Option<i32>, Query, minimum = 1, maximum = 2147483647,
            description = "At least so many attempts"),
        ("fingerprint" = Option<Uuid>, Query,
            description = "Dead letters of this cause, a group of `GET /api/dead-letters`"),
        ("error" = Option<String>, Query, max_length = 200,
            description = "In the error message, in whatever case"),
        ("q" = Option<String>, Query, max_length = 200,
            description = "In the payload or the error message, in whatever case"),
        ("page" = Option<i64>, Query, minimum = 1, maximum = 100,
            description = "Not together with `before`; a search goes on with `before` only"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200,
            description = "Jobs of the page; 50 if none, at most 25 with `include=payload`"),
        ("before" = Option<Uuid>, Query, description = "The `next` of the page before"),
        ("include" = Option<String>, Query, pattern = "^payload$",
            description = "`payload`: whole jobs, with payload and result"),
        PayloadPaths,
    ),
    responses((status = 200, description = "A page of jobs", body = JobPage)))]
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<JobPage>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let given = Parameters::parse(&uri, &PARAMETERS)?;
    let with_payload = match given.text("include") {
        None => false,
        Some("payload") => true,
        Some(other) => {
            let other = super::shortened(other);
            return Err(invalid(&format!(
                "`include` is `{other}`; only `payload` is known (payload and result)"
            )));
        }
    };
    let limit_max = match with_payload {
        true => LIMIT_WITH_PAYLOAD_MAX,
        false => LIMIT_MAX,
    };
    let limit = given.number("limit", 1, limit_max)?;
    let limit = limit.unwrap_or(LIMIT.min(limit_max));
    let page = given.number("page", 1, PAGES_MAX)?;
    let before = given.text("before").map(cursor).transpose()?;
    if page.is_some() && before.is_some() {
        return Err(invalid("give `page` or `before`, not both"));
    }
    let mut search = search(&given)?;
    state.redaction.permit(caller, &mut search)?;
    let is_search = search != Search::default() || given.text("fingerprint").is_some();
    if page.is_some_and(|page| page > 1) && is_search {
        return Err(invalid("a search goes on with `before`, not with `page`"));
    }
    let filter = JobFilter {
        workspace_id: Some(caller.workspace_id),
        status: given.parsed::<Status>("status")?,
        job_type: given
            .text("jobType")
            .or(given.text("job_type"))
            .map(str::to_owned),
        queue: given.parsed::<QueueName>("queue")?.map(String::from),
        ids: None,
        before,
        fingerprint: given.parsed::<Uuid>("fingerprint")?,
        created_from: given.time("created_from")?,
        created_to: given.time("created_to")?,
        search,
        // One more tells whether there is a next page.
        limit: limit + 1,
    };
    let offset = (page.unwrap_or(1) - 1) * limit;
    let mut view = state.view(caller).await?;
    let (jobs, last, has_more) = if with_payload {
        let mut rows = list::list_page_at(&mut view, &filter, offset).await?;
        rows.iter_mut()
            .for_each(|row| state.redaction.show(caller, row));
        let (rows, last, has_more) = cut(rows, limit, |row| row.id);
        (Jobs::Whole(rows), last, has_more)
    } else {
        let mut rows = list::list_heads(&mut view, &filter, offset).await?;
        let progress = rows.iter_mut().filter_map(|row| row.progress.as_mut());
        progress.for_each(|progress| state.redaction.show_part(caller, progress));
        let (rows, last, has_more) = cut(rows, limit, |row| row.id);
        (Jobs::Heads(rows), last, has_more)
    };
    let mut pagination = Pagination {
        limit,
        next: last.filter(|_| has_more),
        has_more,
        page,
    };
    if pagination.next.is_none()
        && let Some(upto) = list::search_end(&mut view, &filter).await?
    {
        pagination.next = Some(upto);
        pagination.has_more = true;
    }
    Ok(Json(JobPage { jobs, pagination }))
}

/// The rows of the page, the id of the last of them, and whether there were more.
fn cut<T>(mut rows: Vec<T>, limit: i64, id: fn(&T) -> Uuid) -> (Vec<T>, Option<Uuid>, bool) {
    let has_more = rows.len() as i64 > limit;
    rows.truncate(limit as usize);
    let last = rows.last().map(id);
    (rows, last, has_more)
}

/// What each job must be looked at for.
fn search(given: &Parameters) -> Result<Search, Problem> {
    let text = |name: &str| {
        let text = given.text(name).map(job_filter::searched).transpose();
        text.map_err(|must| invalid(&format!("`{name}` {must}")))
    };
    let mut payload = Vec::new();
    for (path, value) in given.all_of("payload.") {
        let place = job_filter::at_path(path, value).map_err(|must| {
            let name = format!("payload.{path}");
            let name = super::shortened(&name);
            invalid(&format!("`{name}`: {must}"))
        })?;
        payload.push(place);
    }
    if payload.len() > PATHS_MAX {
        return Err(invalid(&format!(
            "at most {PATHS_MAX} paths of the payload"
        )));
    }
    let attempts_min = given.number("attempts_min", 1, i64::from(i32::MAX))?;
    Ok(Search {
        attempts_min: attempts_min.and_then(|min| i32::try_from(min).ok()),
        error: text("error")?,
        text: text("q")?,
        hidden: Vec::new(),
        payload,
    })
}

fn cursor(text: &str) -> Result<Uuid, Problem> {
    Uuid::parse_str(text).map_err(|_| {
        let text = super::shortened(text);
        invalid(&format!(
            "`before` is `{text}`; it must be the `next` of a page, which is a job id"
        ))
    })
}

/// A job and all that is known of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobDetails {
    job: JobRow,
    /// The newest lines of its log, oldest of them first.
    logs: Vec<LogRow>,
    /// The attempts that failed, oldest first.
    failures: Vec<FailureRow>,
    /// All that became of it, oldest first.
    timeline: Vec<Moment>,
    /// None: it is in no flow that Bullwark accepted.
    flow: Option<Family>,
    stores: Stores,
    /// Everything that keeps it from starting.
    waits_for: Vec<Reason>,
}

/// Show a job
///
/// With its log, the attempts that failed, all that became of it, its relatives, where it stands in
/// both stores, and what it waits for.
#[utoipa::path(get, path = "/api/jobs/{id}", operation_id = "getJob", tag = "jobs", params(JobId),
    responses((status = 200, description = "The job", body = JobDetails)))]
pub(super) async fn show(
    extract::State(state): extract::State<State>,
    caller: Caller,
    JobId(id): JobId,
) -> Result<Json<JobDetails>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let mut view = state.view(caller).await?;
    let job = find(&mut view, id, caller).await?;
    let logs = logs::of_job(&mut view, id, LOGS).await?;
    let failures = jobs::failures(&mut view, id).await?;
    let mut moments = timeline::timeline(&mut view, id).await?;
    if caller.who_may(Permission::Admin).is_err() {
        // As the audit, which is for admins: that it was a person is no secret, who it was is.
        moments.iter_mut().for_each(|moment| moment.actor_id = None);
    }
    let ties = timeline::ties(&mut view, id)
        .await?
        .ok_or_else(|| unknown(id))?;
    drop(view); // Redis may be slow
    let (stores, waits) = standing::standing(&state, caller, &job, &ties).await;
    Ok(Json(JobDetails {
        job,
        logs,
        failures,
        timeline: moments,
        flow: ties.flow.as_ref().map(standing::family),
        stores,
        waits_for: waits,
    }))
}

/// Lines of a job's log.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobLogs {
    logs: Vec<LogRow>,
}

/// Show a job's log
///
/// The newest lines, oldest of them first.
#[utoipa::path(get, path = "/api/jobs/{id}/logs", operation_id = "getJobLogs", tag = "jobs",
    params(JobId, ("limit" = Option<i64>, Query, minimum = 1, maximum = 1000,
        description = "Lines; 200 if none")),
    responses((status = 200, description = "Its lines", body = JobLogs)))]
pub(super) async fn logs(
    extract::State(state): extract::State<State>,
    caller: Caller,
    JobId(id): JobId,
    uri: Uri,
) -> Result<Json<JobLogs>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let given = Parameters::parse(&uri, &["limit"])?;
    let limit = given.number("limit", 1, LOG_PAGE_MAX)?;
    let mut view = state.view(caller).await?;
    find(&mut view, id, caller).await?;
    let logs = logs::of_job(&mut view, id, limit.unwrap_or(LOGS)).await?;
    Ok(Json(JobLogs { logs }))
}

/// An answer that is a job.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OneJob {
    pub(super) job: JobRow,
}

/// A job of the caller. One of another workspace is as unknown as one that never was.
pub(super) async fn find(view: &mut Reading, id: Uuid, caller: Caller) -> Result<JobRow, Problem> {
    let job = jobs::get(view, id, Some(caller.workspace_id)).await?;
    let mut job = job.ok_or_else(|| unknown(id))?;
    view.redaction.show(caller, &mut job);
    Ok(job)
}

pub(super) fn unknown(id: Uuid) -> Problem {
    Problem::new(Code::JobNotFound, format!("there is no job {id}"))
}

/// The job id in a path.
#[derive(Debug, Clone, Copy)]
pub(super) struct JobId(pub(super) Uuid);

impl IntoParams for JobId {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let about = "The id of the job";
        vec![uuid_parameter("id", ParameterIn::Path, about)]
    }
}

impl FromRequestParts<State> for JobId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let text = extract::Path::<String>::from_request_parts(parts, state).await;
        let text = text.map_or_else(|_| String::new(), |extract::Path(text)| text);
        Uuid::parse_str(&text).map(Self).map_err(|_| {
            let text = super::shortened(&text);
            let example = "0192f5a1-7c3e-7d00-8000-3b9aca000000";
            let detail = format!("`{text}` is no job id; one looks like {example}");
            Problem::new(Code::InvalidId, detail)
        })
    }
}
