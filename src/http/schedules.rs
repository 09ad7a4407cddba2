//! `GET /api/schedules` and `GET /api/schedules/:queue/:id`: jobs that are made again and again.
//!
//! A workspace's schedules carry its id in their names (see [`ScheduleName`]), so it has names of
//! its own in queues that it shares. Those that nobody owns were made by BullMQ clients or by
//! programs; `owner=none` is for those who run the installation.

use axum::http::Uri;
use axum::{Json, extract};
use chrono::{DateTime, FixedOffset, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Caller;
use super::problem::{Code, Problem};
use super::query::{Parameters, invalid};
use super::queues::queue_name;
use super::state::{Reading, State};
use crate::clock;
use crate::job::schedule::{Rhythm, ScheduleName};
use crate::job::{Backoff, Priority, QueueName, Template, wire};
use crate::record::access::Permission;
use crate::record::schedules::{self, KnownSchedule};

/// Schedules of a page when nothing else is said, and at most.
const LIMIT: i64 = 50;
const LIMIT_MAX: i64 = 200;
/// Runs that are told in advance.
const NEXT_RUNS: usize = 5;

/// What each run of a schedule is made of.
#[derive(Debug, Serialize, ToSchema)]
struct ScheduledJob {
    job_type: String,
    /// Not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    payload: Option<Value>,
    priority: i32,
    max_attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    retry_delay_seconds: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    backoff: Option<Backoff>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    timeout_seconds: Option<u32>,
}

/// A schedule.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Schedule {
    queue: String,
    id: String,
    /// A cron pattern with its zone, or an interval. Neither: a client wrote what no one can read.
    pattern: Option<String>,
    zone: Option<String>,
    every_ms: Option<u64>,
    /// The rhythm in English; null: no words are known for it.
    words: Option<String>,
    start_at: Option<DateTime<Utc>>,
    end_at: Option<DateTime<Utc>>,
    /// Runs at most.
    limit: Option<u64>,
    /// Runs that were made, the next one included.
    runs: u64,
    /// On the clock of the zone. The first one may be due already.
    next_runs: Vec<DateTime<FixedOffset>>,
    job: ScheduledJob,
    /// False: Redis is still to be told of the last change.
    is_told: bool,
}

/// A page of schedules, by queue and id.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Schedules {
    schedules: Vec<Schedule>,
    /// What to pass as `after` for the next page; null: this was the last.
    next: Option<String>,
}

/// One schedule.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OneSchedule {
    pub(super) schedule: Schedule,
}

/// Whose schedules a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Workspace(Uuid),
    Nobody,
}

impl Owner {
    /// By the parameter `owner`.
    pub(super) fn of(caller: Caller, given: &Parameters) -> Result<Self, Problem> {
        match given.text("owner") {
            None => Ok(Self::Workspace(caller.workspace_id)),
            Some("none") => Ok(Self::Nobody),
            Some(other) => {
                let other = super::shortened(other);
                Err(invalid(&format!(
                    "`owner` is `{other}`; it can only be `none`"
                )))
            }
        }
    }

    /// The name in both stores; none: it can have no schedule with this id.
    pub(super) fn name_of(self, id: &str) -> Option<String> {
        match self {
            Self::Workspace(workspace_id) => {
                ScheduleName::new(id, workspace_id).map(|name| name.to_string())
            }
            Self::Nobody => ScheduleName::read(id).is_none().then(|| id.to_owned()),
        }
    }

    /// What nobody owns, no caller's own view shows.
    async fn view(self, state: &State, caller: Caller) -> Result<Reading, Problem> {
        match self {
            Self::Workspace(_) => state.view(caller).await,
            Self::Nobody => state.view_of_all(caller).await,
        }
    }

    fn id(self) -> Option<Uuid> {
        match self {
            Self::Workspace(id) => Some(id),
            Self::Nobody => None,
        }
    }
}

/// Whose schedules the caller may see.
fn seen_by(caller: Caller, given: &Parameters) -> Result<Owner, Problem> {
    let owner = Owner::of(caller, given)?;
    match owner {
        Owner::Workspace(_) => caller.who_may(Permission::Read)?,
        Owner::Nobody => caller.who_sees_all()?,
    };
    Ok(owner)
}

/// List schedules
///
/// Of the workspace; with `owner=none`, for those who may see all, those that programs and BullMQ
/// clients made. Without the payloads.
#[utoipa::path(get, path = "/api/schedules", operation_id = "listSchedules", tag = "schedules",
    params(
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200,
            description = "50 without it."),
        ("after" = Option<String>, Query, description = "The `next` of a page."),
        ("owner" = Option<String>, Query, pattern = "^none$",
            description = "`none`: those that nobody owns.")),
    responses((status = 200, description = "A page, by queue and id", body = Schedules)))]
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Schedules>, Problem> {
    let given = Parameters::parse(&uri, &["limit", "after", "owner"])?;
    let owner = seen_by(caller, &given)?;
    let limit = given.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT);
    let after = given.text("after").map(cursor).transpose()?;
    let after = after.unwrap_or_default();
    let prefix = state.services.broker.prefix();
    let mut view = owner.view(&state, caller).await?;
    // One more tells whether there is a next page.
    let after = (after.0.as_str(), after.1.as_str());
    let mut page = schedules::page_of(&mut view, prefix, owner.id(), after, limit + 1).await?;
    drop(view);
    let has_more = page.len() as i64 > limit;
    page.truncate(limit as usize);
    let next = page.last().filter(|_| has_more).map(cursor_of);
    let schedules = page.iter().map(|known| shown(known, false)).collect();
    Ok(Json(Schedules { schedules, next }))
}

fn cursor_of(known: &KnownSchedule) -> String {
    format!("{}:{}", known.queue, known.schedule.id)
}

/// Queues have no colon in their names.
fn cursor(text: &str) -> Result<(String, String), Problem> {
    let parts = text.split_once(':');
    let parts = parts.map(|(queue, name)| (queue.to_owned(), name.to_owned()));
    parts.ok_or_else(|| {
        let text = super::shortened(text);
        invalid(&format!(
            "`after` is `{text}`; it must be the `next` of a page"
        ))
    })
}

/// Show a schedule
#[utoipa::path(get, path = "/api/schedules/{queue}/{id}", operation_id = "getSchedule",
    tag = "schedules",
    params(
        ("queue" = String, Path, description = "The queue of its jobs"),
        ("id" = String, Path, description = "The schedule"),
        ("owner" = Option<String>, Query, pattern = "^none$",
            description = "`none`: one that nobody owns.")),
    responses((status = 200, description = "The schedule", body = OneSchedule)))]
pub(super) async fn show(
    extract::State(state): extract::State<State>,
    caller: Caller,
    extract::Path((queue, id)): extract::Path<(String, String)>,
    uri: Uri,
) -> Result<Json<OneSchedule>, Problem> {
    let owner = seen_by(caller, &Parameters::parse(&uri, &["owner"])?)?;
    let queue = queue_name(&queue)?;
    let schedule = find(&state, caller, &queue, owner, &id).await?;
    Ok(Json(one(&state, caller, &schedule)))
}

/// The answer about one schedule, with the payload of its job as this caller may see it.
pub(super) fn one(state: &State, caller: Caller, known: &KnownSchedule) -> OneSchedule {
    let mut schedule = shown(known, true);
    if let Some(payload) = &mut schedule.job.payload {
        state.redaction.show_part(caller, payload);
    }
    OneSchedule { schedule }
}

/// A schedule of an owner. One of somebody else is as unknown as one that never was.
pub(super) async fn find(
    state: &State,
    caller: Caller,
    queue: &QueueName,
    owner: Owner,
    id: &str,
) -> Result<KnownSchedule, Problem> {
    let prefix = state.services.broker.prefix();
    let mut view = owner.view(state, caller).await?;
    let known = match owner.name_of(id) {
        Some(name) => schedules::get(&mut view, prefix, queue, &name).await?,
        None => None,
    };
    known.ok_or_else(|| {
        let id = super::shortened(id);
        let detail = format!("there is no schedule `{id}` in queue `{queue}` here");
        Problem::new(Code::ScheduleNotFound, detail)
    })
}

/// A schedule as people see it.
pub(super) fn shown(known: &KnownSchedule, with_payload: bool) -> Schedule {
    let stored = &known.schedule;
    let read = stored.read();
    let (schedule, template) = read.unzip();
    let (pattern, zone, every_ms) = match schedule.as_ref().map(|schedule| &schedule.rhythm) {
        Some(Rhythm::Cron { pattern, zone }) => (Some(pattern.clone()), zone.clone(), None),
        Some(Rhythm::Every { every_ms, .. }) => (None, None, Some(*every_ms)),
        None => (None, None, None),
    };
    let time = |ms: Option<i64>| ms.and_then(DateTime::from_timestamp_millis);
    let template = template.unwrap_or_else(|| Template {
        name: stored.fields.get("name").cloned().unwrap_or_default(),
        data: "null".to_owned(),
        opts: "{}".to_owned(),
    });
    Schedule {
        queue: known.queue.to_string(),
        id: match ScheduleName::read(&stored.id) {
            Some(name) => name.id,
            None => stored.id.clone(),
        },
        pattern,
        zone,
        every_ms,
        words: schedule.as_ref().and_then(|schedule| schedule.words()),
        start_at: time(schedule.as_ref().and_then(|schedule| schedule.start_ms)),
        end_at: time(schedule.as_ref().and_then(|schedule| schedule.end_ms)),
        limit: schedule.as_ref().and_then(|schedule| schedule.limit),
        runs: stored
            .fields
            .get("ic")
            .and_then(|made| made.parse().ok())
            .unwrap_or_default(),
        next_runs: stored.next_runs(clock::now_ms(), NEXT_RUNS),
        job: job_of(&template, with_payload),
        is_told: known.is_told,
    }
}

fn job_of(template: &Template, with_payload: bool) -> ScheduledJob {
    let options = wire::read_options(&template.opts);
    let wire_priority = serde_json::from_str::<Value>(&template.opts)
        .ok()
        .and_then(|opts| opts.get("priority")?.as_u64());
    let wire_priority = u32::try_from(wire_priority.unwrap_or_default()).unwrap_or_default();
    let payload = || match serde_json::from_str(&template.data) {
        Ok(payload) => payload,
        Err(_) => Value::from(template.data.clone()),
    };
    let envelope = options.envelope.unwrap_or_default();
    ScheduledJob {
        job_type: template.name.clone(),
        payload: with_payload.then(payload),
        priority: Priority::from_wire(wire_priority).get(),
        max_attempts: options.max_attempts,
        retry_delay_seconds: envelope.retry_delay_seconds,
        backoff: envelope.backoff,
        timeout_seconds: envelope.timeout_seconds,
    }
}
