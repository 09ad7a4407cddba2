//! Whether the process lives, and whether it can do its work.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::{Json, extract};
use serde::Serialize;
use utoipa::ToSchema;

use super::state::State;
use crate::broker::{Broker, Trouble as BrokerTrouble};
use crate::record::{Record, Trouble as RecordTrouble};
use crate::settle::held_outcomes;
use crate::storage::Objects;

/// How long a store may take to answer before it counts as away.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);
/// The state of a store that nothing is the matter with.
pub(super) const WELL: &str = "ok";
/// Every state of the record.
const RECORD_STATES: [&str; 4] = [WELL, "away", "full", "read_only"];

/// Every state of the object storage.
const STORAGE_STATES: [&str; 4] = [WELL, "away", "denied", "no_bucket"];

/// That the process lives.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Live {
    #[schema(example = "ok")]
    status: &'static str,
}

/// Does it live
///
/// The process answers: nothing more.
#[utoipa::path(get, path = "/healthz", operation_id = "getHealth", tag = "server", security(()),
    responses((status = 200, description = "It does", body = Live)))]
pub(super) async fn live() -> Json<Live> {
    Json(Live { status: "ok" })
}

/// Whether the server can do its work, and what is the matter.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ready {
    status: Readiness,
    stores: BothStores,
    /// Duties of this process that fail.
    duties_failing: Vec<&'static str>,
    /// Outcomes of jobs that wait for the record.
    held_outcomes: usize,
    /// None: the record could not be asked.
    open_alerts: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Readiness {
    Ok,
    /// Jobs are accepted, but something is wrong.
    Degraded,
    /// Jobs are not accepted.
    Unavailable,
}

#[derive(Debug, Serialize, ToSchema)]
struct BothStores {
    postgres: Described,
    redis: Described,
    /// Where files are kept, if that is not the data directory; as it was half a minute ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    object_storage: Option<Described>,
}

/// How a store is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StoreHealth)]
struct Described {
    /// `ok`, or a word for what is the matter.
    #[schema(example = "ok")]
    status: &'static str,
    /// What is the matter, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<&'static str>,
    /// How long it took to answer, while it is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    latency_ms: Option<f64>,
}

/// Can it do its work
///
/// 200 while jobs are accepted, 503 otherwise. Whatever else is wrong makes it `degraded`: with
/// Redis in trouble jobs wait in the record.
#[utoipa::path(get, path = "/readyz", operation_id = "getReadiness", tag = "server", security(()),
    responses(
        (status = 200, description = "Jobs are accepted", body = Ready),
        (status = 503, description = "Jobs are not accepted", body = Ready)))]
pub(super) async fn ready(
    extract::State(state): extract::State<State>,
) -> (StatusCode, Json<Ready>) {
    let (postgres, redis) = look(&state).await;
    let failing = state.services.failing.all();
    let storage = state.storage();
    let is_rest_well = failing.is_empty() && storage.is_none_or(|state| state == WELL);
    let (code, status) = match postgres.state {
        WELL if redis.state == WELL && is_rest_well => (StatusCode::OK, Readiness::Ok),
        WELL => (StatusCode::OK, Readiness::Degraded),
        _ => (StatusCode::SERVICE_UNAVAILABLE, Readiness::Unavailable),
    };
    let document = Ready {
        status,
        stores: BothStores {
            postgres: postgres.described(),
            redis: redis.described(),
            object_storage: storage.map(|state| Described {
                status: state,
                reason: (state != WELL).then(|| reason(state)),
                latency_ms: None,
            }),
        },
        duties_failing: failing.into_iter().map(|(duty, _)| duty).collect(),
        held_outcomes: held_outcomes(),
        open_alerts: postgres.open_alerts,
    };
    (code, Json(document))
}

/// What a store looks like from here.
pub(super) struct Store {
    pub(super) state: &'static str,
    latency: Duration,
    open_alerts: Option<i64>,
}

impl Store {
    fn described(&self) -> Described {
        let is_well = self.state == WELL;
        let latency_ms = (self.latency.as_secs_f64() * 100_000.0).round() / 100.0;
        Described {
            status: self.state,
            reason: (!is_well).then(|| reason(self.state)),
            latency_ms: is_well.then_some(latency_ms),
        }
    }
}

/// What people are told. Not the words of the store: anybody may ask here.
fn reason(state: &str) -> &'static str {
    match state {
        "full" => "it has no room left",
        "read_only" => "it takes no writes: it is a replica, or lacks its own",
        "busy" => "it runs a script that does not end, or loads its data",
        "misconfigured" => "it can not save to its disk, or denies access",
        "denied" => "it refuses access: the key, or what the key may do, is wrong",
        "no_bucket" => "it has no such bucket",
        "comparing" => "it may have lost its memory, which is compared with the record",
        _ => "it does not answer",
    }
}

/// Looks at PostgreSQL and Redis at once, and notes what is seen.
pub(super) async fn look(state: &State) -> (Store, Store) {
    let services = &state.services;
    let (postgres, redis) = tokio::join!(postgres(&services.record), redis(&services.broker));
    let broker_states = BrokerTrouble::ALL.map(BrokerTrouble::as_str);
    show("postgres", RECORD_STATES.into_iter(), postgres.state);
    show(
        "redis",
        [WELL].into_iter().chain(broker_states),
        redis.state,
    );
    state.note_redis(redis.state);
    (postgres, redis)
}

/// Looks at the object storage, and notes what is seen. The log has the words for operators.
pub(super) async fn look_at_storage(state: &State, objects: &Objects) {
    let probed = objects.probe().await;
    let now = probed
        .as_ref()
        .map_or_else(|error| error.state(), |()| WELL);
    show("object_storage", STORAGE_STATES.into_iter(), now);
    let before = state.storage();
    state.note_storage(now);
    match probed {
        _ if before == Some(now) => {}
        Ok(()) => tracing::info!("the object storage takes files"),
        Err(error) => tracing::error!(%error, "files can not be kept; jobs that write any wait"),
    }
}

/// The gauge of a store's state is 1, those of its other states are 0.
fn show(store: &'static str, all: impl Iterator<Item = &'static str>, current: &str) {
    for state in all {
        metrics::gauge!("bullwark_store_state", "store" => store, "state" => state)
            .set(if state == current { 1.0 } else { 0.0 });
    }
}

async fn postgres(record: &Record) -> Store {
    let began = Instant::now();
    let looked = tokio::time::timeout(PROBE_PATIENCE, record.look()).await;
    let looked = looked.ok().and_then(|looked| {
        looked
            .inspect_err(|error| tracing::debug!(%error, "probed"))
            .ok()
    });
    let state = match looked.map(|look| look.trouble) {
        Some(None) => WELL,
        Some(Some(RecordTrouble::Full)) => "full",
        Some(Some(RecordTrouble::ReadOnly)) => "read_only",
        // Of these only the first two are ever seen by a look.
        Some(Some(
            RecordTrouble::Away
            | RecordTrouble::Lost
            | RecordTrouble::Conflict
            | RecordTrouble::Slow
            | RecordTrouble::Comparing,
        ))
        | None => "away",
    };
    Store {
        state,
        latency: began.elapsed(),
        open_alerts: looked.map(|look| look.open_alerts),
    }
}

async fn redis(broker: &Broker) -> Store {
    let began = Instant::now();
    let probed = tokio::time::timeout(PROBE_PATIENCE, broker.probe()).await;
    let state = match probed {
        Ok(Ok(())) => WELL,
        Ok(Err(error)) => {
            tracing::debug!(%error, "probed");
            error.trouble().unwrap_or(BrokerTrouble::Away).as_str()
        }
        Err(_) => BrokerTrouble::Away.as_str(),
    };
    Store {
        state,
        latency: began.elapsed(),
        open_alerts: None,
    }
}
