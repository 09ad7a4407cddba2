//! `GET /api/consistency`: whether both stores agree, and what was done so that they do.

use std::time::Duration;

use axum::{Json, extract};
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::Caller;
use super::problem::Problem;
use super::state::State;
use crate::broker::{Broker, BrokerError};
use crate::job::QueueName;
use crate::record::Record;
use crate::record::passes::{self, Agreement, OPEN_MAX, PASSES_MAX, PassRow, UNTOLD_MAX};
use crate::record::queues;

/// How long Redis may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Queues that Redis is asked about at once.
const ASKED_AT_ONCE: usize = 8;

/// Which memory of Redis is worked with.
#[derive(Debug, Serialize, ToSchema)]
struct Epoch {
    /// The memory that answers; null: Redis does not answer.
    redis: Option<String>,
    /// The one that was compared with the record last.
    compared: Option<String>,
    compared_at: Option<DateTime<Utc>>,
    /// Both are the same: jobs are claimed.
    agree: bool,
}

/// What differs now. Jobs move while they are counted, so a small difference is none.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Drift {
    /// Jobs of which Redis is still to be told.
    untold: i64,
    /// Open jobs of the record; null: more than are counted.
    open_in_record: Option<i64>,
    /// Jobs of Redis that wait or run; null: Redis does not tell, or there are too many queues.
    live_in_redis: Option<i64>,
    /// How far the two are apart.
    jobs: Option<i64>,
}

/// Whether both stores agree.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Consistency {
    epoch: Epoch,
    /// A memory of Redis is being made to agree, or a record gets its tail back.
    recovery_is_running: bool,
    drift: Drift,
    /// The last pass of each kind; it repaired `added`, `copied`, `ended` and `settings`.
    passes: Vec<PassRow>,
    /// False: there are more passes than are shown.
    passes_are_all: bool,
}

/// Show the consistency of both stores
///
/// Whether they agree, and what was done so that they do. For those who may see all workspaces.
#[utoipa::path(get, path = "/api/consistency", operation_id = "getConsistency", tag = "operations",
    responses((status = 200, description = "How the stores stand", body = Consistency)))]
pub(super) async fn show(
    extract::State(state): extract::State<State>,
    caller: Caller,
) -> Result<Json<Consistency>, Problem> {
    caller.who_sees_all()?;
    let (record, broker) = (&state.services.record, &state.services.broker);
    let mut view = state.view_of_all(caller).await?;
    let passes = passes::list(&mut view, broker.prefix()).await?;
    let agreement = passes::agreement(&mut view, broker.prefix()).await?;
    drop(view);
    let turn = state.read_turn(caller).await?;
    let names = first_names(record, broker).await?;
    drop(turn); // Redis may be slow
    let looking = async { tokio::join!(broker.epoch(), live(broker, &names)) };
    let seen = tokio::time::timeout(PATIENCE, looking).await.ok();
    let told = |error: &BrokerError| tracing::debug!(%error, "not seen");
    let (epoch, live) = seen.unzip();
    let redis = epoch.and_then(|epoch| epoch.inspect_err(told).ok());
    let live = live.and_then(|live| live.inspect_err(told).ok());
    Ok(Json(Consistency {
        drift: Drift::of(
            &agreement,
            live.filter(|_| names.len() < queues::QUEUES_PAGE as usize),
        ),
        recovery_is_running: agreement.is_rebuilding,
        epoch: Epoch {
            agree: redis.is_some() && redis == agreement.epoch,
            redis,
            compared: agreement.epoch,
            compared_at: agreement.compared_at,
        },
        passes_are_all: (passes.len() as i64) < PASSES_MAX,
        passes,
    }))
}

impl Drift {
    fn of(agreement: &Agreement, live: Option<i64>) -> Self {
        let open = Some(agreement.open).filter(|open| *open < OPEN_MAX);
        Self {
            untold: agreement.untold.min(UNTOLD_MAX),
            open_in_record: open,
            live_in_redis: live,
            jobs: open.zip(live).map(|(open, live)| (open - live).abs()),
        }
    }
}

type Names = Vec<QueueName>;

/// The first page of the known queues: with more of them nothing is counted.
async fn first_names(record: &Record, broker: &Broker) -> Result<Names, Problem> {
    let (page, _) = queues::page(record, broker.prefix(), "").await?;
    Ok(page.into_iter().map(|known| known.queue).collect())
}

async fn live(broker: &Broker, queues: &[QueueName]) -> Result<i64, BrokerError> {
    let looks = queues.iter().map(|queue| broker.counts(queue));
    let looks: Vec<_> = looks.collect();
    let mut counts = futures_util::stream::iter(looks).buffer_unordered(ASKED_AT_ONCE);
    let mut live = 0;
    while let Some(counts) = counts.next().await {
        let counts = counts?;
        let waiting = counts.wait + counts.paused + counts.prioritized;
        live += waiting + counts.delayed + counts.active + counts.waiting_children;
    }
    Ok(i64::try_from(live).unwrap_or(i64::MAX))
}
