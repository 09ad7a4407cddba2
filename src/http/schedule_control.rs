//! `PUT` and `DELETE /api/schedules/:queue/:id`: schedules are made, changed and ended.
//!
//! The record has it before Redis is told; whoever dies in between leaves that to upkeep. Doing it
//! again changes nothing, but for the audit.

use axum::extract::{FromRequestParts, Path, Request};
use axum::http::{StatusCode, Uri};
use axum::{Extension, Json, extract};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::auth::Caller;
use super::body;
use super::observe::RequestId;
use super::problem::{Code, Problem};
use super::query::Parameters;
use super::queues::queue_name;
use super::schedules::{self, OneSchedule, Owner};
use super::state::State;
use crate::clock;
use crate::control::{self, ScheduleError};
use crate::job::schedule::{Iteration, OWN_SCHEDULE_ID_MAX, Rhythm, StoredSchedule};
use crate::job::{InvalidSchedule, JobRequest, QueueName, Schedule, Template};
use crate::record::access::Permission;

/// The largest schedule: its job is measured without blanks, so this is more than one may be.
const BODY_MAX: usize = 4 * 1024 * 1024;
/// The most schedules of a workspace.
const SCHEDULES_MAX: i64 = 1000;
/// The shortest interval over HTTP: a job per millisecond would be no schedule.
const EVERY_MIN_MS: u64 = 1000;

/// What a schedule is to be: a cron pattern or an interval, and a job.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schema(as = NewSchedule)]
struct Wish {
    /// Five fields, or six with the seconds first.
    #[serde(default)]
    #[schema(example = "30 8 * * 1-5")]
    pattern: Option<String>,
    /// Of a pattern; UTC without it.
    #[serde(default)]
    zone: Option<String>,
    #[serde(default, alias = "every_ms")]
    #[schema(minimum = 1000)]
    every_ms: Option<u64>,
    #[serde(default, alias = "start_at")]
    start_at: Option<DateTime<Utc>>,
    #[serde(default, alias = "end_at")]
    end_at: Option<DateTime<Utc>>,
    /// Runs at most.
    #[serde(default)]
    #[schema(minimum = 1)]
    limit: Option<u64>,
    /// The first run of a pattern is due at once.
    #[serde(default)]
    immediately: bool,
    /// What each run is made of, as a job that is accepted; without queue, times and key.
    job: JobRequest,
}

impl Wish {
    fn schedule(&self) -> Result<Schedule, Problem> {
        let rhythm = match (&self.pattern, self.every_ms) {
            (Some(pattern), None) => Rhythm::Cron {
                pattern: pattern.clone(),
                // Named, so that each client that makes the next run has the same clock.
                zone: Some(self.zone.clone().unwrap_or_else(|| "UTC".to_owned())),
            },
            (None, Some(every_ms)) if every_ms >= EVERY_MIN_MS => Rhythm::Every {
                every_ms,
                offset_ms: None,
            },
            (None, Some(_)) => {
                let message = format!("must be at least {EVERY_MIN_MS}");
                return Err(Problem::of_field("/everyMs", message));
            }
            (Some(_), Some(_)) => return Err(refused(&InvalidSchedule::BothRhythms)),
            (None, None) => return Err(refused(&InvalidSchedule::NoRhythm)),
        };
        if self.zone.is_some() && self.pattern.is_none() {
            return Err(Problem::of_field("/zone", "goes with a `pattern` only"));
        }
        if self.limit == Some(0) {
            return Err(Problem::of_field("/limit", "must be at least 1"));
        }
        let schedule = Schedule {
            rhythm,
            start_ms: self.start_at.map(|at| at.timestamp_millis()),
            end_ms: self.end_at.map(|at| at.timestamp_millis()),
            limit: self.limit,
            immediately: self.immediately && self.pattern.is_some(),
        };
        schedule.check().map_err(|error| refused(&error))?;
        Ok(schedule)
    }

    /// What each run is made of, checked like a job that is enqueued.
    fn template(
        self,
        state: &State,
        queue: &QueueName,
        caller: Caller,
    ) -> Result<Template, Problem> {
        let mut request = self.job;
        let foreign = [
            ("/job/queue", request.queue.is_some()),
            ("/job/scheduledFor", request.scheduled_for.is_some()),
            ("/job/delayMs", request.delay_ms.is_some()),
            ("/job/idempotencyKey", request.idempotency_key.is_some()),
        ];
        if let Some((pointer, _)) = foreign.into_iter().find(|(_, is_given)| *is_given) {
            let message = "does not belong here: queue and times are the schedule's";
            return Err(Problem::of_field(pointer, message));
        }
        request.queue = Some(queue.to_string());
        request.workspace_id = Some(caller.workspace_id);
        let checked = state.services.enqueue.types().check(request);
        let job = checked.map_err(|refused| Problem::from(refused).within("/job"))?;
        Ok(Template::of(&job))
    }
}

fn refused(error: &InvalidSchedule) -> Problem {
    let pointer = match error {
        InvalidSchedule::Pattern(_) => "/pattern",
        InvalidSchedule::Zone(_) => "/zone",
        InvalidSchedule::Interval | InvalidSchedule::BothRhythms => "/everyMs",
        InvalidSchedule::ImmediatelyAndStart => "/immediately",
        InvalidSchedule::Ended => "/endAt",
        InvalidSchedule::Options => "/job",
        InvalidSchedule::NoRhythm | InvalidSchedule::Id => "",
    };
    let text = error.to_string();
    Problem::new(Code::InvalidRequest, text.clone()).with_error(pointer, text)
}

/// Put a schedule
///
/// Makes it, or replaces the one with this id. Its jobs are the workspace's.
#[utoipa::path(put, path = "/api/schedules/{queue}/{id}", operation_id = "putSchedule",
    tag = "schedules",
    params(
        ("queue" = String, Path, description = "The queue of its jobs"),
        ("id" = String, Path, description = "Chosen by the caller; 1 to 163 bytes, no colon")),
    request_body = Wish,
    responses(
        (status = 201, description = "A new schedule", body = OneSchedule),
        (status = 200, description = "It was replaced", body = OneSchedule),
        (status = 409, description = "`too_many_schedules`, or `schedule_busy`: try again")))]
pub(super) async fn put(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<(StatusCode, Json<OneSchedule>), Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    let caller = caller.who_may(Permission::Write)?;
    Parameters::parse(&parts.uri, &[])?;
    let (queue, id) = path(&mut parts, &state).await?;
    let owner = Owner::Workspace(caller.workspace_id);
    let name = owner.name_of(&id).ok_or_else(|| {
        let rule = "no colon, no blanks around it and nothing that controls";
        let detail = format!("the id of a schedule has 1 to {OWN_SCHEDULE_ID_MAX} bytes, {rule}");
        Problem::new(Code::InvalidId, detail)
    })?;
    body::expect_json(&parts.headers)?;
    let whole = body::read(&state, caller, &parts.headers, body, BODY_MAX).await?;
    let wish: Wish = body::object(&whole.bytes, &json!({ "job": { "jobType": "" } }))?;
    drop(whole);
    let schedule = wish.schedule()?;
    let template = wish.template(&state, &queue, caller)?;
    let first = Iteration::first(&name, &schedule, &template, clock::now_ms());
    if first.map_err(|error| refused(&error))?.is_none() {
        let detail = "this schedule has no run before its end";
        return Err(Problem::new(Code::InvalidRequest, detail).with_error("/endAt", detail));
    }

    let (record, broker) = (&state.services.record, &state.services.broker);
    let (by, most) = (caller.by(&request_id), (caller.workspace_id, SCHEDULES_MAX));
    let wanted = StoredSchedule::new(&name, &schedule, &template);
    let is_new = control::put_schedule(record, broker, &queue, wanted.clone(), &by, most)
        .await
        .map_err(not_taken)?;
    let known = schedules::find(&state, caller, &queue, owner, &id).await;
    let is_taken = |stored: &StoredSchedule| {
        let mut wanted = wanted
            .fields
            .iter()
            .filter(|(name, _)| *name != "immediately");
        wanted.all(|(name, value)| stored.fields.get(name) == Some(value))
    };
    // Redis may have refused: then the record says again what holds there.
    let known = known.ok().filter(|known| is_taken(&known.schedule));
    let known = known.ok_or_else(|| {
        let detail = "a run of this schedule is just beginning, or it was changed by someone else; \
            try again";
        Problem::new(Code::ScheduleBusy, detail)
    })?;
    let status = match is_new {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    Ok((status, Json(schedules::one(&state, caller, &known))))
}

async fn path(
    parts: &mut axum::http::request::Parts,
    state: &State,
) -> Result<(QueueName, String), Problem> {
    let path = Path::<(String, String)>::from_request_parts(parts, state).await;
    let (queue, id) = path.map_or_else(|_| Default::default(), |Path(path)| path);
    Ok((queue_name(&queue)?, id))
}

fn not_taken(error: ScheduleError) -> Problem {
    match error {
        ScheduleError::Invalid(error) => refused(&error),
        ScheduleError::TooMany => {
            let detail = format!("this workspace has {SCHEDULES_MAX} schedules, which is the most");
            Problem::new(Code::TooManySchedules, detail)
        }
        ScheduleError::Record(error) => error.into(),
    }
}

/// It was done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ScheduleDeleted)]
pub(super) struct Success {
    success: bool,
}

/// Delete a schedule
///
/// A run that is not due yet goes with it; one that waits or runs stays. Who may put a schedule may
/// end it, too: an end that is near would do the same.
#[utoipa::path(delete, path = "/api/schedules/{queue}/{id}", operation_id = "deleteSchedule",
    tag = "schedules",
    params(
        ("queue" = String, Path, description = "The queue of its jobs"),
        ("id" = String, Path, description = "The schedule"),
        ("owner" = Option<String>, Query, pattern = "^none$",
            description = "`none`: one that nobody owns.")),
    responses((status = 200, description = "It is gone", body = Success)))]
pub(super) async fn delete(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    caller: Caller,
    Path((queue, id)): Path<(String, String)>,
    uri: Uri,
) -> Result<Json<Success>, Problem> {
    let owner = Owner::of(caller, &Parameters::parse(&uri, &["owner"])?)?;
    let caller = match owner {
        // As for a change, which could end it as well.
        Owner::Workspace(_) => caller.who_may(Permission::Write)?,
        Owner::Nobody => caller.who_operates()?,
    };
    let queue = queue_name(&queue)?;
    let known = schedules::find(&state, caller, &queue, owner, &id).await?;
    let (app, by) = (&state.services, caller.by(&request_id));
    let name = &known.schedule.id;
    control::remove_schedule(&app.record, &app.broker, &queue, name, &by)
        .await
        .map_err(not_taken)?;
    Ok(Json(Success { success: true }))
}
