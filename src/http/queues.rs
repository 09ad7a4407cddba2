//! `GET /api/queues` and `GET /api/queues/:name`: queues, with the jobs that the caller has there.
//!
//! Queues are shared by workspaces. A caller sees those that its workspace uses, with its own jobs,
//! counted in the record, and what holds for the queue as a whole. Only who may see all is shown
//! every queue, and what Redis knows of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::Uri;
use axum::http::request::Parts;
use axum::{Json, extract};
use chrono::TimeDelta;
use futures_util::StreamExt;
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::Caller;
use super::problem::{Code, Problem};
use super::query::Parameters;
use super::queue_figures::{self, QueueFigures};
use super::state::State;
use crate::job::{QueueName, QueueSettings};
use crate::record::access::Permission;
use crate::record::queues::{self, KnownQueue};
use crate::record::stats::{self, OPEN_MAX};
use crate::record::{dead_letters, rollups};

/// Queues of a page when nothing else is said, and at most.
const LIMIT: i64 = 50;
const LIMIT_MAX: i64 = 200;
/// Queues that Redis is asked about at once.
const ASKED_AT_ONCE: usize = 8;
/// How long Redis may take for all of them.
const PATIENCE: Duration = Duration::from_secs(3);
/// For how long a queue is a workspace's after its last job there has ended.
const REMEMBERED: TimeDelta = TimeDelta::hours(24);

/// Jobs of the caller's workspace in a queue, by status.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
#[schema(as = QueueJobs)]
pub(super) struct OwnJobs {
    pending: i64,
    processing: i64,
    /// Between two attempts.
    failed: i64,
    dead_letter: i64,
}

/// How many jobs may start in which time, of all workers together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct RateLimit {
    max: u64,
    duration_ms: u64,
}

impl RateLimit {
    pub(super) fn of(settings: &QueueSettings) -> Option<Self> {
        let (max, duration_ms) = settings.rate_max.zip(settings.rate_duration_ms)?;
        Some(Self { max, duration_ms })
    }
}

/// A queue.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Queue {
    name: String,
    paused: bool,
    /// Jobs that may run at a time, of all workers together; null: any number.
    concurrency: Option<u64>,
    rate_limit: Option<RateLimit>,
    /// Workspaces take turns, however many jobs each has.
    fair: bool,
    /// False: Redis is still to be told of the last change.
    settings_are_told: bool,
    jobs: OwnJobs,
    /// Jobs of whatever workspace, as Redis knows them; null: it does not tell right now, or the
    /// caller may not see all.
    redis: Option<QueueFigures>,
}

/// A page of queues, by name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Queues {
    queues: Vec<Queue>,
    /// False: there are more jobs than are counted.
    is_exact: bool,
    /// What to pass as `after` for the next page; null: this was the last.
    next: Option<String>,
}

/// One queue.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OneQueue {
    pub(super) queue: Queue,
}

/// The caller's jobs by queue, among them queues whose jobs ended lately.
struct Own {
    queues: BTreeMap<String, OwnJobs>,
    is_exact: bool,
}

impl Own {
    async fn count(state: &State, caller: Caller) -> Result<Self, Problem> {
        let mut view = state.view(caller).await?;
        let workspace_id = caller.workspace_id;
        let mut queues: BTreeMap<String, OwnJobs> = BTreeMap::new();
        for rollup in rollups::lately(&mut view, workspace_id, REMEMBERED)
            .await?
            .rollups
        {
            queues.entry(rollup.job_queue).or_default();
        }
        let (mut open, mut dead) = (0, 0);
        for count in stats::count_open(&mut view, workspace_id).await? {
            let jobs = queues.entry(count.job_queue).or_default();
            open += count.jobs;
            match count.status.as_str() {
                "processing" => jobs.processing += count.jobs,
                "failed" => jobs.failed += count.jobs,
                _ => jobs.pending += count.jobs,
            }
        }
        for (queue, jobs) in dead_letters::by_queue(&mut view, workspace_id).await? {
            dead += jobs;
            queues.entry(queue).or_default().dead_letter = jobs;
        }
        Ok(Self {
            queues,
            is_exact: open < OPEN_MAX && dead < dead_letters::LOOKED_AT_MAX,
        })
    }
}

/// List queues
///
/// Those that the workspace uses, with its own jobs; for those who may see all, every one that is
/// known.
#[utoipa::path(get, path = "/api/queues", operation_id = "listQueues", tag = "queues",
    params(
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200,
            description = "50 without it."),
        ("after" = Option<String>, Query, description = "The `next` of a page.")),
    responses((status = 200, description = "A page of queues, by name", body = Queues)))]
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Queues>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let given = Parameters::parse(&uri, &["limit", "after"])?;
    let limit = given.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT) as usize;
    let after = given.text("after").unwrap_or_default();
    let sees_all = caller.who_sees_all().is_ok();
    let (own, settings, names, has_more) = {
        let own = Own::count(&state, caller).await?;
        let _turn = state.read_turn(caller).await?;
        let (known, rest) = page_after(&state, after, sees_all).await?;
        let mut names: BTreeSet<String> = own.queues.keys().cloned().collect();
        if sees_all {
            names.extend(known.keys().cloned());
        }
        let mut names = names.into_iter().filter(|name| name.as_str() > after);
        let page: Vec<String> = names.by_ref().take(limit).collect();
        let has_more = names.next().is_some() || (rest && page.len() == limit);
        let settings = settings_of(&state, known, &page, sees_all).await?;
        (own, settings, page, has_more)
    };
    let mut sides = match sees_all {
        true => redis_sides(&state, &names).await,
        false => BTreeMap::new(),
    };
    let next = names.last().filter(|_| has_more).cloned();
    let queues = names.into_iter().map(|name| {
        let jobs = own.queues.get(&name).copied().unwrap_or_default();
        let redis = sides.remove(&name);
        queue(settings.get(&name), name, jobs, redis)
    });
    Ok(Json(Queues {
        queues: queues.collect(),
        is_exact: own.is_exact,
        next,
    }))
}

type Known = BTreeMap<String, KnownQueue>;

/// The queues that the record knows after this name, and whether there are more behind them.
async fn page_after(state: &State, after: &str, sees_all: bool) -> Result<(Known, bool), Problem> {
    if !sees_all {
        return Ok((BTreeMap::new(), false));
    }
    let (record, prefix) = (&state.services.record, state.services.broker.prefix());
    let (page, next) = queues::page(record, prefix, after).await?;
    let named = page
        .into_iter()
        .map(|known| (known.queue.to_string(), known));
    Ok((named.collect(), next.is_some()))
}

async fn settings_of(
    state: &State,
    known: Known,
    names: &[String],
    sees_all: bool,
) -> Result<Known, Problem> {
    if sees_all {
        return Ok(known);
    }
    let (record, prefix) = (&state.services.record, state.services.broker.prefix());
    let known = queues::known(record, prefix, names).await?;
    let named = known
        .into_iter()
        .map(|known| (known.queue.to_string(), known));
    Ok(named.collect())
}

async fn redis_sides(state: &State, names: &[String]) -> BTreeMap<String, QueueFigures> {
    let broker = &state.services.broker;
    let looking = async {
        let workers = queue_figures::workers(broker).await;
        let looks = names.iter().filter_map(|name| {
            let queue: QueueName = name.parse().ok()?;
            let workers = workers.as_ref();
            Some(async move {
                let figures = queue_figures::look(broker, &queue, workers).await;
                figures.map(|figures| (queue.to_string(), figures))
            })
        });
        let looks: Vec<_> = looks.collect();
        futures_util::stream::iter(looks)
            .buffer_unordered(ASKED_AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await
    };
    tokio::time::timeout(PATIENCE, looking)
        .await
        .unwrap_or_default()
}

fn queue(
    known: Option<&KnownQueue>,
    name: String,
    jobs: OwnJobs,
    redis: Option<QueueFigures>,
) -> Queue {
    let settings = known
        .map(|known| known.settings.clone())
        .unwrap_or_default();
    Queue {
        name,
        paused: settings.is_paused,
        concurrency: settings.concurrency,
        rate_limit: RateLimit::of(&settings),
        fair: settings.is_fair,
        settings_are_told: known.is_none_or(|known| known.is_told),
        jobs,
        redis,
    }
}

/// Show a queue
#[utoipa::path(get, path = "/api/queues/{name}", operation_id = "getQueue", tag = "queues",
    params(("name" = String, Path, description = "The queue")),
    responses((status = 200, description = "The queue", body = OneQueue)))]
pub(super) async fn show(
    extract::State(state): extract::State<State>,
    caller: Caller,
    InPath(name): InPath,
) -> Result<Json<OneQueue>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let queue = find(&state, caller, &name).await?;
    Ok(Json(OneQueue { queue }))
}

/// A queue as the caller sees it. One that its workspace does not use is as unknown as none.
pub(super) async fn find(
    state: &State,
    caller: Caller,
    name: &QueueName,
) -> Result<Queue, Problem> {
    let sees_all = caller.who_sees_all().is_ok();
    let (record, broker) = (&state.services.record, &state.services.broker);
    let own = Own::count(state, caller).await?;
    let jobs = own.queues.get(name.as_str()).copied();
    let turn = state.read_turn(caller).await?;
    let known = queues::get(record, broker.prefix(), name).await?;
    drop(turn); // Redis may be slow
    if jobs.is_none() && !(sees_all && known.is_some()) {
        let detail = format!("there is no queue `{name}` here");
        return Err(Problem::new(Code::QueueNotFound, detail));
    }
    let redis = match sees_all {
        true => {
            let name = name.to_string();
            let mut sides = redis_sides(state, std::slice::from_ref(&name)).await;
            sides.remove(&name)
        }
        false => None,
    };
    let (name, jobs) = (name.to_string(), jobs.unwrap_or_default());
    Ok(queue(known.as_ref(), name, jobs, redis))
}

/// The name of a queue in a path.
#[derive(Debug)]
pub(super) struct InPath(pub(super) QueueName);

impl FromRequestParts<State> for InPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let text = extract::Path::<String>::from_request_parts(parts, state).await;
        let text = text.map_or_else(|_| String::new(), |extract::Path(text)| text);
        queue_name(&text).map(Self)
    }
}

/// A queue of a path. The problem says what is wrong with the name.
pub(super) fn queue_name(text: &str) -> Result<QueueName, Problem> {
    text.parse().map_err(|error| {
        let text = super::shortened(text);
        Problem::new(Code::InvalidId, format!("`{text}` names no queue: {error}"))
    })
}
