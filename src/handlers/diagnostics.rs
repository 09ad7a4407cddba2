//! Job types for trying things out: `noop`, `sleep`, `fail` and `crash`.
//!
//! Offered only with `BULLWARK_DIAGNOSTICS=1` or `--diagnostics`: one of them ends its process, by
//! its own hand, with a stack that overflows, or with memory that runs out.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::job::{JobError, Progress};
use crate::worker::{Handler, Handlers, JobContext};

/// The longest sleep of one job, in milliseconds: a day.
const SLEEP_MAX_MS: u64 = 24 * 3600 * 1000;

/// The most memory that a job takes to crash its process.
const MEMORY_MAX: usize = 10 * 1024 * 1024 * 1024;
/// So much of it at once.
const PORTION: usize = 16 * 1024 * 1024;

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

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CrashPayload {
    #[serde(default)]
    how: How,
}

#[derive(Debug, Default, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum How {
    #[default]
    Abort,
    /// Calls itself until the stack is full.
    Stack,
    /// Takes and uses memory until there is none left, or 10 GiB of it.
    Memory,
}

/// Ends its process.
struct Crash;

impl Handler for Crash {
    const TYPE: &'static str = "crash";
    type Payload = CrashPayload;
    type Output = ();

    async fn run(&self, _ctx: JobContext, payload: CrashPayload) -> Result<(), JobError> {
        match payload.how {
            How::Abort => {}
            How::Stack => {
                std::hint::black_box(call_deeper(0));
            }
            How::Memory => take_memory(),
        }
        std::process::abort();
    }
}

/// Only ends where the stack does.
fn call_deeper(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    match frame[0] {
        u64::MAX => depth,
        _ => call_deeper(depth + 1) + frame[63],
    }
}

fn take_memory() {
    let mut taken = Vec::new();
    for _ in 0..MEMORY_MAX / PORTION {
        taken.push(std::hint::black_box(vec![1_u8; PORTION]));
    }
}
