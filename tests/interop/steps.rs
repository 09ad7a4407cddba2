//! What a test job does: steps that every kind of worker reads from the job's data. `steps.mjs`
//! lists them.

use std::time::Duration;

use bullwark::job::{JobError, Progress};
use bullwark::record::logs::LogLevel;
use bullwark::worker::{Handler, JobContext};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

/// The name of all test jobs.
pub(crate) const ACT: &str = "act";

/// The data of a job with these steps.
pub(crate) fn steps(steps: &[Value]) -> Value {
    json!({ "steps": steps })
}

/// Bullwark's own worker of such jobs.
pub(crate) struct Act;

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Payload {
    #[serde(default)]
    steps: Vec<Value>,
}

impl Handler for Act {
    const TYPE: &'static str = ACT;
    type Payload = Payload;
    type Output = Value;

    async fn run(&self, ctx: JobContext, payload: Payload) -> Result<Value, JobError> {
        let start = i64::from(ctx.attempt());
        let mut result = json!({ "by": "bullwark", "attempt": start });
        for step in payload.steps {
            let Some((name, value)) = step.as_object().and_then(|fields| fields.iter().next())
            else {
                continue;
            };
            let text = || value.as_str().unwrap_or_default().to_owned();
            match name.as_str() {
                "progress" => {
                    let done = value.as_u64().unwrap_or_default();
                    ctx.progress(Progress::new(100, done, 0, ""));
                }
                "log" => ctx.log(LogLevel::Info, &text(), None),
                "sleep" => {
                    let ms = value.as_u64().unwrap_or_default();
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                }
                "fail" if start <= step["times"].as_i64().unwrap_or(i64::MAX) => {
                    return Err(JobError::Retry(text()));
                }
                "fail" => {}
                "fatal" => return Err(JobError::Permanent(text())),
                "delay" if start == 1 => {
                    let delay = Duration::from_millis(value.as_u64().unwrap_or_default());
                    return Err(JobError::Snooze(delay, "later".to_owned()));
                }
                "delay" => {}
                "return" => result = value.clone(),
                other => return Err(JobError::Permanent(format!("unknown step {other}"))),
            }
        }
        Ok(result)
    }
}
