//! Looking at jobs as they are in Redis, their hash and their place: `read_jobs`.

use super::batch::batches;
use super::connection::ScriptCall;
use super::script::ScriptId;
use super::{Broker, BrokerError, BrokerState, Repeat};
use crate::job::QueueName;

/// Jobs of one call when what clients wrote is read, too.
const WHOLE_MAX: usize = 50;
/// Active jobs that are searched for each id. A worker's slots are fewer.
const ACTIVE_MAX: usize = 10_000;
const DOING: &str = "read_jobs";

/// A job as it is in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireJob {
    /// [`BrokerState::Wait`] also for a job that is in no set and not active.
    pub state: BrokerState,
    /// When it may start, if it is delayed.
    pub due_ms: Option<i64>,
    /// Who holds its lease.
    pub token: Option<String>,
    pub timestamp_ms: i64,
    pub priority: u32,
    /// The newest start; none for a job that was never started or is to start anew.
    pub processed_ms: Option<i64>,
    pub attempts_made: u32,
    pub attempts_started: u32,
    /// Its hash says so, be it 0; see [`ClaimedJob::is_counted`](super::ClaimedJob::is_counted).
    pub is_counted: bool,
    pub finished_ms: Option<i64>,
    /// JSON text, if its writer kept to the rules.
    pub progress: Option<String>,
    /// JSON text, if its writer kept to the rules.
    pub returnvalue: Option<String>,
    /// Plain text.
    pub failed_reason: Option<String>,
    /// JSON array of texts, if its writer kept to the rules.
    pub stacktrace: Option<String>,
    /// The name of the worker, if it has one.
    pub processed_by: Option<String>,
    /// Only when it was asked for.
    pub content: Option<WireContent>,
}

/// What the client wrote. Texts as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WireContent {
    pub name: String,
    pub data: String,
    pub opts: String,
    pub parent_key: Option<String>,
    pub parent: Option<String>,
    pub repeat_job_key: Option<String>,
    pub dedup_id: Option<String>,
}

/// Bytes: a foreign client may have stored what is no text.
type Row = Vec<Option<Vec<u8>>>;

impl Broker {
    /// Looks at jobs, each at one moment; none: it has no hash. With `is_whole`, also at what a
    /// client wrote, which may be large.
    ///
    /// Costs the same however many jobs wait: their list is not searched. So it does not tell a
    /// waiting job from one that is in no state; [`Broker::states`] does.
    pub async fn read_jobs(
        &self,
        queue: &QueueName,
        ids: &[String],
        is_whole: bool,
    ) -> Result<Vec<Option<WireJob>>, BrokerError> {
        let keys = self.keys(queue);
        let mut answers = Vec::with_capacity(ids.len());
        let size = if is_whole {
            WHOLE_MAX
        } else {
            super::BATCH_MAX
        };
        for batch in ids.chunks(size).flat_map(|part| batches(part, String::len)) {
            let mut call = ScriptCall::new(
                ScriptId::ReadJobs,
                [
                    &keys.completed(),
                    &keys.failed(),
                    &keys.delayed(),
                    &keys.prioritized(),
                    &keys.waiting_children(),
                    &keys.active(),
                ],
            );
            call.arg(keys.job_prefix()).flag(is_whole).arg(ACTIVE_MAX);
            batch.iter().for_each(|id| {
                call.arg(id);
            });
            let rows: Vec<Row> = self.connections.run(&call, Repeat::Safe).await?;
            if rows.len() != batch.len() {
                return Err(BrokerError::corrupt(DOING, "ids and rows differ in number"));
            }
            for row in rows {
                answers.push(match row.is_empty() {
                    true => None,
                    false => Some(job_of(row, is_whole)?),
                });
            }
        }
        Ok(answers)
    }
}

/// The fields in the order of `FIELDS` and `CONTENT` in `read_jobs.lua`.
fn job_of(row: Row, is_whole: bool) -> Result<WireJob, BrokerError> {
    let mut fields = row.into_iter().map(|field| field.map(text));
    let mut next = || fields.next().flatten().filter(|text| !text.is_empty());
    let state = BrokerState::parse(DOING, &next().unwrap_or_default())?;
    let score: f64 = number(next()).unwrap_or_default();
    let (token, timestamp, priority, processed) = (next(), next(), next(), next());
    let (made, started) = (next(), next());
    let mut job = WireJob {
        state,
        due_ms: (state == BrokerState::Delayed).then_some((score / 4096.0) as i64),
        token,
        timestamp_ms: number(timestamp).unwrap_or_default(),
        priority: number(priority).unwrap_or_default(),
        processed_ms: number(processed),
        attempts_made: number(made).unwrap_or_default(),
        is_counted: started.is_some(),
        attempts_started: number(started).unwrap_or_default(),
        finished_ms: number(next()),
        progress: next(),
        returnvalue: next(),
        failed_reason: next(),
        stacktrace: next(),
        processed_by: next(),
        content: None,
    };
    // The name of the field before BullMQ 5.
    let attempts_made_before: Option<u32> = number(next());
    job.attempts_made = job
        .attempts_made
        .max(attempts_made_before.unwrap_or_default());
    if is_whole {
        let object = || "{}".to_owned();
        job.content = Some(WireContent {
            name: next().unwrap_or_default(),
            data: next().unwrap_or_else(object),
            opts: next().unwrap_or_else(object),
            parent_key: next(),
            parent: next(),
            repeat_job_key: next(),
            dedup_id: next(),
        });
    }
    Ok(job)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn number<T: std::str::FromStr>(field: Option<String>) -> Option<T> {
    field?.parse().ok()
}
