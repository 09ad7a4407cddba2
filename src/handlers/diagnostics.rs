//! Job types for trying things out: `noop`, `sleep`, `fail` and `crash`.
//!
//! Offered only with `BULLWARK_DIAGNOSTICS=1` or `--diagnostics`: one of them ends its process.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::job::{JobError, Progress};
use crate::worker::{Handler, Handlers, JobContext};

/// The longest sleep of one job, in milliseconds: a day.
const SLEEP_MAX_MS: u64 = 24 * 3600 * 1000;

/// Adds all four.
pub fn add(handlers: &mut Handlers) {
    handlers.add(Noop);
    handlers.add(Sleep);
    handlers.add(Fail);
    handlers.add(Crash);
}

/// Does nothing. Accepts any payload.
struct Noop;

impl Handler for Noop {
    const TYPE: &'static str = "noop";
    type Payload = Value;
    type Output = ();

    async fn run(&self, _ctx: JobContext, _payload: Value) -> Result<(), JobError> {
        Ok(())
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SleepPayload {
    /// How long, in milliseconds.
    #[schemars(range(max = 86_400_000))]
    ms: u64,
}

#[derive(Debug, Serialize)]
struct Slept {
    slept_ms: u64,
}

/// Waits, with progress every tenth.
struct Sleep;

impl Handler for Sleep {
    const TYPE: &'static str = "sleep";
    type Payload = SleepPayload;
    type Output = Slept;

    fn timeout(&self) -> Duration {
        Duration::from_millis(SLEEP_MAX_MS)
    }

    async fn run(&self, ctx: JobContext, payload: SleepPayload) -> Result<Slept, JobError> {
        let ms = payload.ms.min(SLEEP_MAX_MS);
        for tenth in 1..=10 {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(ms).div_f64(10.0)) => {}
                () = ctx.cancelled().cancelled() => {
                    return Err(JobError::Retry("told to stop".to_owned()));
                }
            }
            ctx.progress(Progress::new(10, tenth, 0, "sleeping"));
        }
        Ok(Slept { slept_ms: ms })
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FailPayload {
    #[serde(default = "failed_on_purpose")]
    message: String,
    /// Skip the retries.
    #[serde(default)]
    permanent: bool,
}

fn failed_on_purpose() -> String {
    "failed on purpose".to_owned()
}

/// Always fails.
struct Fail;

impl Handler for Fail {
    const TYPE: &'static str = "fail";
    type Payload = FailPayload;
    type Output = ();

    async fn run(&self, _ctx: JobContext, payload: FailPayload) -> Result<(), JobError> {
        match payload.permanent {
            true => Err(JobError::Permanent(payload.message)),
            false => Err(JobError::Retry(payload.message)),
        }
    }
}

/// Aborts its process.
struct Crash;

impl Handler for Crash {
    const TYPE: &'static str = "crash";
    type Payload = Value;
    type Output = ();

    async fn run(&self, _ctx: JobContext, _payload: Value) -> Result<(), JobError> {
        std::process::abort();
    }
}
