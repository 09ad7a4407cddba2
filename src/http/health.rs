//! Whether the process lives, and whether it can do its work.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::{Json, extract};
use serde_json::{Value, json};

use super::state::State;

/// How long a store may take to answer before it counts as away.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);

/// The process answers: nothing more.
pub(super) async fn live() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// 200 while PostgreSQL answers, because then jobs are accepted; 503 otherwise. Redis being away
/// makes it `degraded`: jobs wait in the record.
pub(super) async fn ready(
    extract::State(state): extract::State<State>,
) -> (StatusCode, Json<Value>) {
    let (postgres, redis) = tokio::join!(postgres(&state), redis(&state));
    state.note_redis(redis.is_err());
    let (code, status) = match (postgres.is_ok(), redis.is_ok()) {
        (true, true) => (StatusCode::OK, "ok"),
        (true, false) => (StatusCode::OK, "degraded"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    let stores = json!({ "postgres": described(postgres), "redis": described(redis) });
    (code, Json(json!({ "status": status, "stores": stores })))
}

/// How long a store took, or that it is away.
type Looked = Result<Duration, ()>;

fn described(looked: Looked) -> Value {
    match looked {
        Ok(latency) => {
            let latency_ms = (latency.as_secs_f64() * 100_000.0).round() / 100.0;
            json!({ "status": "ok", "latency_ms": latency_ms })
        }
        Err(()) => json!({ "status": "away" }),
    }
}

async fn postgres(state: &State) -> Looked {
    let began = Instant::now();
    match tokio::time::timeout(PROBE_PATIENCE, state.services.record.ping()).await {
        Ok(Ok(())) => Ok(began.elapsed()),
        Ok(Err(_)) | Err(_) => Err(()),
    }
}

pub(super) async fn redis(state: &State) -> Looked {
    let began = Instant::now();
    match tokio::time::timeout(PROBE_PATIENCE, state.services.broker.ping()).await {
        Ok(Ok(())) => Ok(began.elapsed()),
        Ok(Err(_)) | Err(_) => Err(()),
    }
}
