//! `GET /api/workers`: who works, as Redis sees it by the names of connections, and as the record
//! knows it by heartbeats.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::{Json, extract};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::Caller;
use super::problem::Problem;
use super::queue_figures;
use super::state::State;
use crate::record::roster::{self, Present};
use crate::record::workers::{self, RUNNING_MAX};

/// How long Redis may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// A connection that waits for jobs of a queue.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConnectedWorker)]
struct Connected {
    queue: String,
    /// Null: its worker has no name.
    name: Option<String>,
    connection_id: u64,
    address: String,
    age_seconds: u64,
    idle_seconds: u64,
}

/// A worker with running jobs.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = RunningWorker)]
struct Running {
    id: String,
    /// Running jobs by queue.
    queues: BTreeMap<String, i64>,
    running: i64,
    /// Null: it sends none, as workers of BullMQ clients.
    last_heartbeat_at: Option<DateTime<Utc>>,
    oldest_started_at: Option<DateTime<Utc>>,
}

/// A worker of Bullwark that works, whether it has something to do or not.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PresentWorker)]
struct Here {
    id: String,
    /// In the order in which it looks at them.
    queues: Vec<String>,
    /// Null: whatever comes.
    job_types: Option<Vec<String>>,
    slots: i32,
    is_paused: bool,
    version: String,
    started_at: DateTime<Utc>,
    /// When it last said that it works, which it does every fifteen seconds.
    seen_at: DateTime<Utc>,
}

impl From<Present> for Here {
    fn from(worker: Present) -> Self {
        Self {
            id: worker.worker_id,
            queues: worker.queues,
            job_types: worker.job_types,
            slots: worker.slots,
            is_paused: worker.is_paused,
            version: worker.version,
            started_at: worker.started_at,
            seen_at: worker.seen_at,
        }
    }
}

/// Who works.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Workers {
    /// Null: Redis does not tell right now.
    connected: Option<Vec<Connected>>,
    running: Vec<Running>,
    present: Vec<Here>,
    /// False: more jobs run than are looked at.
    is_exact: bool,
}

/// List workers
///
/// Those that wait for jobs, by their connections to Redis; those that run jobs, by their
/// heartbeats; and Bullwark's own, by what they say of themselves. For those who may see all
/// workspaces.
#[utoipa::path(get, path = "/api/workers", operation_id = "listWorkers", tag = "operations",
    responses((status = 200, description = "Who works", body = Workers)))]
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
) -> Result<Json<Workers>, Problem> {
    caller.who_sees_all()?;
    let (rows, present) = {
        let mut view = state.view_of_all(caller).await?;
        let rows = workers::running(&mut view).await?;
        let prefix = state.services.broker.prefix();
        (rows, roster::present(&mut view, prefix).await?)
    };
    let jobs: i64 = rows.iter().map(|row| row.running).sum();
    let mut running: BTreeMap<String, Running> = BTreeMap::new();
    for row in rows {
        let worker = running.entry(row.worker_id.clone()).or_default();
        worker.id = row.worker_id;
        worker.running += row.running;
        worker.last_heartbeat_at = worker.last_heartbeat_at.max(row.last_heartbeat_at);
        let starts = [worker.oldest_started_at, row.oldest_started_at];
        worker.oldest_started_at = starts.into_iter().flatten().min();
        worker.queues.insert(row.job_queue, row.running);
    }
    let looking = queue_figures::workers(&state.services.broker);
    let seen = tokio::time::timeout(PATIENCE, looking).await.ok().flatten();
    let connected = seen.map(|queues| {
        let all = queues.into_iter().flat_map(|(queue, workers)| {
            workers.into_iter().map(move |worker| Connected {
                queue: queue.to_string(),
                name: worker.name,
                connection_id: worker.connection_id,
                address: worker.address,
                age_seconds: worker.age_seconds,
                idle_seconds: worker.idle_seconds,
            })
        });
        all.collect()
    });
    Ok(Json(Workers {
        connected,
        running: running.into_values().collect(),
        present: present.into_iter().map(Here::from).collect(),
        is_exact: jobs < RUNNING_MAX,
    }))
}
