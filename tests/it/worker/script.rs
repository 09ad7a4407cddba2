//! A handler whose payload says what it does.
//!
//! A job's payload is a script: a list of acts for each of its runs (the last list serves all
//! later ones). A `␀` stands for the character U+0000, which no payload may hold.

use std::sync::Arc;
use std::time::Duration;

use bullwark::job::{Backoff, JobError, JobRequest, Progress};
use bullwark::quota::{Ask, Learned, Limits, QuotaKey, QuotaWindow};
use bullwark::record::logs::LogLevel;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use bullwark::worker::{Handler, JobContext};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::probe::{Probe, What};

/// What a run does, in order.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "act", rename_all = "snake_case")]
pub(crate) enum Act {
    Succeed {
        value: Value,
    },
    Fail {
        message: String,
    },
    Permanent {
        message: String,
    },
    RetryAfter {
        ms: u64,
    },
    Snooze {
        ms: u64,
    },
    /// Makes a call to a service of which `max` are allowed in any `per_ms`; tells when.
    Call {
        max: u32,
        per_ms: u64,
    },
    Panic,
    /// Waits until it is told to stop, and wants to go on later then.
    SnoozeWhenTold {
        /// It commits another place to go on from before that.
        gets_on: bool,
    },
    /// Returns a text of so many bytes.
    Large {
        bytes: usize,
    },
    /// Waits for the gate; fails when it is told to stop.
    Wait {
        gate: String,
    },
    /// Waits for the gate, whatever it is told.
    Stubborn {
        gate: String,
    },
    /// Holds a thread of the runtime until the gate opens.
    Block {
        gate: String,
    },
    Log {
        lines: u32,
        message: String,
        metadata: Value,
    },
    /// Notes progress again and again until the gate opens.
    Report {
        gate: String,
        message: String,
    },
    /// Writes the job's name into `effects` and saves the checkpoint, both or none. Fails after the
    /// write, before the commit, when told so.
    Checkpoint {
        checkpoint: Value,
        fails: bool,
    },
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub(crate) struct Script {
    name: String,
    runs: Vec<Vec<Act>>,
}

/// Notes that a handler is gone, however it goes.
struct Run<'a> {
    probe: &'a Probe,
    name: String,
    attempt: i32,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.probe.note(&self.name, self.attempt, What::Gone);
    }
}

pub(super) struct Scripted(pub(super) Arc<Probe>);

impl Handler for Scripted {
    const TYPE: &'static str = "scripted";
    type Payload = Script;
    type Output = Value;

    async fn run(&self, ctx: JobContext, script: Script) -> Result<Value, JobError> {
        let probe = &*self.0;
        let nth = probe.starts_of(&script.name);
        let checkpoint = ctx.checkpoint().cloned();
        probe.note(&script.name, ctx.attempt(), What::Started { checkpoint });
        let run = Run {
            probe,
            name: script.name.clone(),
            attempt: ctx.attempt(),
        };
        let acts = script.runs.get(nth).or(script.runs.last());
        for act in acts.into_iter().flatten() {
            if let Some(ended) = perform(probe, &ctx, &run, act).await {
                return ended;
            }
        }
        Ok(Value::Null)
    }
}

async fn perform(
    probe: &Probe,
    ctx: &JobContext,
    run: &Run<'_>,
    act: &Act,
) -> Option<Result<Value, JobError>> {
    let why = |text: &String| text.clone();
    let failed = match act {
        Act::Succeed { value } => return Some(Ok(with_nul(value))),
        Act::Fail { message } => JobError::Retry(why(message)),
        Act::Permanent { message } => JobError::Permanent(why(message)),
        Act::RetryAfter { ms } => {
            JobError::RetryAfter(Duration::from_millis(*ms), "come back later".to_owned())
        }
        Act::Snooze { ms } => JobError::Snooze(Duration::from_millis(*ms), "quota".to_owned()),
        Act::Call { max, per_ms } => return Some(call(ctx, *max, *per_ms).await),
        Act::Panic => panic!("at the disco"),
        Act::Large { bytes } => return Some(Ok(Value::from("x".repeat(*bytes)))),
        Act::SnoozeWhenTold { gets_on } => {
            if *gets_on {
                let begun = ctx.begin_checkpoint().await;
                let place = serde_json::json!(run.attempt);
                let saved = begun.unwrap().commit(place, Progress::default());
                saved.await.unwrap();
            }
            ctx.cancelled().cancelled().await;
            JobError::Snooze(Duration::from_millis(20), "it got on".to_owned())
        }
        Act::Wait { gate } => tokio::select! {
            () = probe.passed(gate) => return None,
            () = ctx.cancelled().cancelled() => {
                probe.note(&run.name, run.attempt, What::Told);
                JobError::Retry("told to stop".to_owned())
            }
        },
        Act::Stubborn { gate } => {
            tokio::select! {
                () = probe.passed(gate) => return None,
                () = ctx.cancelled().cancelled() => {
                    probe.note(&run.name, run.attempt, What::Told);
                }
            }
            probe.passed(gate).await;
            return None;
        }
        Act::Block { gate } => {
            while !probe.is_open(gate) {
                std::thread::sleep(Duration::from_millis(5));
            }
            return None;
        }
        Act::Log {
            lines,
            message,
            metadata,
        } => {
            for _ in 0..*lines {
                let message = message.replace('␀', "\0");
                ctx.log(LogLevel::Info, &message, Some(with_nul(metadata)));
            }
            return None;
        }
        Act::Report { gate, message } => {
            let mut done = 0;
            while !probe.is_open(gate) {
                done += 1;
                let message = message.replace('␀', "\0");
                ctx.progress(Progress::new(1_000_000, done, 0, message));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            return None;
        }
        Act::Checkpoint { checkpoint, fails } => {
            let wrote = save(ctx, &run.name, checkpoint, *fails).await;
            probe.note(&run.name, run.attempt, What::Wrote(wrote.clone()));
            match wrote {
                Ok(()) => return None,
                Err(error) => error,
            }
        }
    };
    Some(Err(failed))
}

async fn call(ctx: &JobContext, max: u32, per_ms: u64) -> Result<Value, JobError> {
    let workspace_id = ctx.workspace_id().unwrap();
    let key = QuotaKey::new("scripted", workspace_id).unwrap();
    let limits = Limits::of([QuotaWindow::Sliding { max, per_ms }]);
    let permit = ctx.permit(Ask::new(&key, &limits)).await?;
    let at_ms = bullwark::clock::now_ms();
    assert_eq!(permit.answered(&Learned::fine()).await, None);
    Ok(json!(at_ms))
}

fn with_nul(value: &Value) -> Value {
    serde_json::from_str(&value.to_string().replace('␀', "\\u0000")).unwrap()
}

async fn save(ctx: &JobContext, name: &str, at: &Value, fails: bool) -> Result<(), JobError> {
    let mut begun = ctx.begin_checkpoint().await?;
    sqlx::query("INSERT INTO effects VALUES ($1)")
        .bind(name)
        .execute(begun.tx().connection())
        .await
        .map_err(JobError::retry)?;
    if fails {
        return Err(JobError::Retry(
            "between the effect and the commit".to_owned(),
        ));
    }
    begun
        .commit(at.clone(), Progress::new(2, 1, 0, "half"))
        .await
}

/// A job whose payload is a script.
pub(crate) fn scripted(name: &str, runs: &[&[Act]]) -> JobRequest {
    let mut request = JobRequest::new("scripted", json!({ "name": name, "runs": runs }));
    request.workspace_id = Some(DEFAULT_WORKSPACE);
    request.backoff = Some(Backoff::Fixed {
        delay_ms: 20,
        jitter: 0.0,
    });
    request
}

pub(crate) fn succeed(value: Value) -> Act {
    Act::Succeed { value }
}

pub(crate) fn fail(message: &str) -> Act {
    let message = message.to_owned();
    Act::Fail { message }
}

pub(crate) fn wait(gate: &str) -> Act {
    let gate = gate.to_owned();
    Act::Wait { gate }
}
