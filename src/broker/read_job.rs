//! Jobs are read whole, as their hashes have them, and how they ended.

use std::collections::HashMap;

use super::{BATCH_MAX, Broker, BrokerError};
use crate::job::QueueName;

/// The hash of a job. Texts are as their writer left them: nothing checks the JSON of a foreign
/// client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobHash {
    pub id: String,
    pub name: String,
    /// JSON text.
    pub data: String,
    /// JSON text, with `BullMQ`'s names.
    pub opts: String,
    pub timestamp_ms: i64,
    pub delay_ms: i64,
    pub priority: u32,
    /// JSON text.
    pub progress: Option<String>,
    pub processed_ms: Option<i64>,
    pub finished_ms: Option<i64>,
    /// JSON text.
    pub returnvalue: Option<String>,
    /// Plain text.
    pub failed_reason: Option<String>,
    /// JSON array of texts.
    pub stacktrace: Option<String>,
    pub attempts_made: u32,
    pub attempts_started: u32,
    /// How often it was rescued.
    pub stalled: u32,
    /// Why its next claim makes it fail.
    pub deferred_failure: Option<String>,
    /// The name of the worker that ran it last, if that has one.
    pub processed_by: Option<String>,
    /// The full key of its parent's hash.
    pub parent_key: Option<String>,
    /// JSON text: its parent's id and queue, and what that is told of a failure.
    pub parent: Option<String>,
    /// `rjk`: the schedule that it is an iteration of.
    pub schedule_id: Option<String>,
    /// `nrjid`: the iteration that follows it.
    pub next_iteration_id: Option<String>,
    /// The deduplication id.
    pub dedup_id: Option<String>,
}

/// Whether and how a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEnd {
    /// It waits or runs.
    Open,
    /// Redis knows no such job: it never did, or the job was not kept.
    JobMissing,
    /// JSON text.
    Completed(String),
    /// Plain text.
    Failed(String),
}

type Fields = HashMap<String, Vec<u8>>;

impl Broker {
    /// A job as its hash has it; none: Redis knows no such job.
    pub async fn job(&self, queue: &QueueName, id: &str) -> Result<Option<JobHash>, BrokerError> {
        let mut jobs = self.jobs(queue, &[id.to_owned()]).await?;
        Ok(jobs.pop().flatten())
    }

    /// Jobs as their hashes have them, each at one moment; none for those that Redis does not know.
    pub async fn jobs(
        &self,
        queue: &QueueName,
        ids: &[String],
    ) -> Result<Vec<Option<JobHash>>, BrokerError> {
        let keys = self.keys(queue);
        let mut jobs = Vec::with_capacity(ids.len());
        for part in ids.chunks(BATCH_MAX) {
            let mut pipeline = redis::pipe();
            for id in part {
                pipeline.cmd("HGETALL").arg(keys.job(id));
            }
            let rows: Vec<Fields> = self.connections.pipeline("jobs", &pipeline).await?;
            let pairs = part.iter().zip(rows);
            jobs.extend(pairs.map(|(id, fields)| JobHash::read(id, fields)));
        }
        Ok(jobs)
    }

    /// Whether and how a job ended, at one moment.
    pub async fn job_end(&self, queue: &QueueName, id: &str) -> Result<JobEnd, BrokerError> {
        let keys = self.keys(queue);
        let job = keys.job(id);
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("EXISTS").arg(&job);
        pipeline.cmd("ZSCORE").arg(keys.completed()).arg(id);
        pipeline.cmd("ZSCORE").arg(keys.failed()).arg(id);
        pipeline.cmd("HGET").arg(&job).arg("returnvalue");
        pipeline.cmd("HGET").arg(&job).arg("failedReason");
        type Answer = (
            bool,
            Option<f64>,
            Option<f64>,
            Option<Vec<u8>>,
            Option<Vec<u8>>,
        );
        let (exists, completed, failed, returnvalue, reason): Answer =
            self.connections.pipeline("job_end", &pipeline).await?;
        Ok(if !exists {
            JobEnd::JobMissing
        } else if completed.is_some() {
            JobEnd::Completed(returnvalue.map_or_else(|| "null".to_owned(), text))
        } else if failed.is_some() {
            JobEnd::Failed(reason.map(text).unwrap_or_default())
        } else {
            JobEnd::Open
        })
    }
}

impl JobHash {
    fn read(id: &str, mut fields: Fields) -> Option<Self> {
        if fields.is_empty() {
            return None;
        }
        let mut take = |name: &str| fields.remove(name).map(text);
        let made = take("atm").or_else(|| take("attemptsMade")); // the latter of old versions
        Some(Self {
            id: id.to_owned(),
            name: take("name").unwrap_or_default(),
            data: take("data").unwrap_or_else(|| "{}".to_owned()),
            opts: take("opts").unwrap_or_else(|| "{}".to_owned()),
            timestamp_ms: number(take("timestamp")).unwrap_or_default(),
            delay_ms: number(take("delay")).unwrap_or_default(),
            priority: number(take("priority")).unwrap_or_default(),
            progress: take("progress"),
            processed_ms: number(take("processedOn")),
            finished_ms: number(take("finishedOn")),
            returnvalue: take("returnvalue"),
            failed_reason: take("failedReason"),
            stacktrace: take("stacktrace"),
            attempts_made: number(made).unwrap_or_default(),
            attempts_started: number(take("ats")).unwrap_or_default(),
            stalled: number(take("stc")).unwrap_or_default(),
            deferred_failure: take("defa"),
            processed_by: take("pb"),
            parent_key: take("parentKey"),
            parent: take("parent"),
            schedule_id: take("rjk"),
            next_iteration_id: take("nrjid"),
            dedup_id: take("deid"),
        })
    }
}

/// A foreign client may have stored what is no text.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn number<T: std::str::FromStr>(text: Option<String>) -> Option<T> {
    text.and_then(|text| text.parse().ok())
}
