//! The log lines of jobs on their way into the record, and from there into Redis.
//!
//! Lines are kept while the record is away, up to [`LINES_MAX`]; what comes on top is dropped and
//! counted where it is logged. A line that the record can not hold costs no other one.
//!
//! What the record has taken is shown in Redis, too, where `BullMQ`'s dashboards look for it. That
//! is a copy for people: if Redis is away, it is left out.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, OWN_LOG_ROW};
use crate::job::QueueName;
use crate::record::logs::{self, LOG_BATCH_MAX, LogLevel, NewLog};
use crate::record::{Record, RecordError};

/// Lines that wait to be written.
pub(super) const LINES_MAX: usize = 10_000;
/// Lines collect for so long, so that many go at once.
const COLLECT: Duration = Duration::from_millis(100);
/// The pause after an error.
const PAUSE: Duration = Duration::from_secs(1);
/// Lines of a job of ours that Redis keeps.
const SHOWN_MAX: u32 = 1000;

/// A line, and where its job is in Redis.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) log: NewLog,
    pub(super) queue: QueueName,
    pub(super) wire_id: String,
}

pub(super) struct LogWriter {
    record: Record,
    broker: Broker,
    lines: mpsc::Receiver<Line>,
    /// Received, not written yet; at most one batch.
    batch: VecDeque<Line>,
}

impl LogWriter {
    pub(super) fn new(record: Record, broker: Broker, lines: mpsc::Receiver<Line>) -> Self {
        let batch = VecDeque::with_capacity(LOG_BATCH_MAX);
        Self {
            record,
            broker,
            lines,
            batch,
        }
    }

    /// Runs until `stop`, then writes what is left, if the record takes it.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let pause = match self.write_all().await {
                Ok(()) => COLLECT,
                Err(error) => {
                    tracing::warn!(%error, lines = self.batch.len(), "log lines held");
                    PAUSE
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => break,
            }
        }
        if let Err(error) = self.write_all().await {
            tracing::warn!(%error, "log lines lost");
        }
    }

    /// Writes what has come. After an error the batch is kept for the next call.
    async fn write_all(&mut self) -> Result<(), RecordError> {
        loop {
            while self.batch.len() < LOG_BATCH_MAX {
                match self.lines.try_recv() {
                    Ok(line) => self.batch.push_back(line),
                    Err(_) => break,
                }
            }
            if self.batch.is_empty() {
                return Ok(());
            }
            let logs: Vec<NewLog> = self.batch.iter().map(|line| line.log.clone()).collect();
            match logs::insert_many(&self.record, &logs).await {
                Err(RecordError::Refused { message, .. }) => self.write_singly(&message).await?,
                written => {
                    let written = written?;
                    let shown = written.iter().filter_map(|nth| self.batch.get(*nth));
                    show(&self.broker, shown).await;
                    self.batch.clear();
                }
            }
        }
    }

    /// Finds the line that the record can not hold, and writes all others.
    async fn write_singly(&mut self, why: &str) -> Result<(), RecordError> {
        while let Some(line) = self.batch.front() {
            match logs::insert_many(&self.record, std::slice::from_ref(&line.log)).await {
                Err(RecordError::Refused { .. }) => {
                    tracing::warn!(job.id = %line.log.job_id, why, "log line refused");
                    metrics::counter!("bullwark_log_lines_dropped_total").increment(1);
                }
                written => {
                    let shown = written?.len();
                    show(&self.broker, std::iter::once(line).take(shown)).await;
                }
            }
            self.batch.pop_front();
        }
        Ok(())
    }
}

/// Shows lines in Redis, under the names of their jobs there.
async fn show(broker: &Broker, lines: impl Iterator<Item = &Line>) {
    let mut queues: HashMap<&QueueName, Vec<_>> = HashMap::new();
    for line in lines {
        // A client's job keeps as many as its client said.
        let is_own = line.wire_id == line.log.job_id.to_string();
        let keep = is_own.then_some(SHOWN_MAX);
        let row = (line.wire_id.clone(), row(&line.log), keep);
        queues.entry(&line.queue).or_default().push(row);
    }
    for (queue, rows) in queues {
        if let Err(error) = broker.add_logs(queue, &rows).await {
            tracing::debug!(%error, %queue, rows = rows.len(), "log lines not shown in Redis");
        }
    }
}

/// As a person reads it. It begins with a word by which it is known as a copy.
fn row(log: &NewLog) -> String {
    let level = match log.level {
        LogLevel::Debug | LogLevel::Info => String::new(),
        LogLevel::Warn | LogLevel::Error => format!("{}: ", log.level.as_str()),
    };
    let metadata = log.metadata.as_ref().map(|m| format!(" {m}"));
    let metadata = metadata.unwrap_or_default();
    format!("{OWN_LOG_ROW}{level}{}{metadata}", log.message)
}
