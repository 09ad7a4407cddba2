//! Whether the process lives, and whether it can do its work.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::{Json, extract};
use serde_json::{Value, json};

use super::state::State;
use crate::broker::{Broker, Trouble as BrokerTrouble};
use crate::record::{Record, Trouble as RecordTrouble};
use crate::settle::held_outcomes;

/// How long a store may take to answer before it counts as away.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);
/// The state of a store that nothing is the matter with.
pub(super) const WELL: &str = "ok";
/// Every state of the record.
const RECORD_STATES: [&str; 4] = [WELL, "away", "full", "read_only"];

/// The process answers: nothing more.
pub(super) async fn live() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// 200 while jobs are accepted, 503 otherwise. Whatever else is wrong makes it `degraded`: with
/// Redis in trouble jobs wait in the record.
pub(super) async fn ready(
    extract::State(state): extract::State<State>,
) -> (StatusCode, Json<Value>) {
    let (postgres, redis) = look(&state).await;
    let failing = state.services.failing.all();
    let failing: Vec<&str> = failing.into_iter().map(|(duty, _)| duty).collect();
    let (code, status) = match postgres.state {
        WELL if redis.state == WELL && failing.is_empty() => (StatusCode::OK, "ok"),
        WELL => (StatusCode::OK, "degraded"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    let document = json!({
        "status": status,
        "stores": { "postgres": postgres.described(), "redis": redis.described() },
        "duties_failing": failing,
        "held_outcomes": held_outcomes(),
        "open_alerts": postgres.open_alerts,
    });
    (code, Json(document))
}

/// What a store looks like from here.
pub(super) struct Store {
    pub(super) state: &'static str,
    latency: Duration,
    open_alerts: Option<i64>,
}

impl Store {
    fn described(&self) -> Value {
        if self.state != WELL {
            return json!({ "status": self.state, "reason": reason(self.state) });
        }
        let latency_ms = (self.latency.as_secs_f64() * 100_000.0).round() / 100.0;
        json!({ "status": self.state, "latency_ms": latency_ms })
    }
}

/// What people are told. Not the words of the store: anybody may ask here.
fn reason(state: &str) -> &'static str {
    match state {
        "full" => "it has no room left",
        "read_only" => "it takes no writes: it is a replica, or lacks its own",
        "busy" => "it runs a script that does not end, or loads its data",
        "misconfigured" => "it can not save to its disk, or denies access",
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
