//! The log lines of jobs on their way into the record.
//!
//! Lines are kept while the record is away, up to [`LINES_MAX`]; what comes on top is dropped and
//! counted where it is logged. A line that the record can not hold costs no other one.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::record::logs::{self, LOG_BATCH_MAX, NewLog};
use crate::record::{Record, RecordError};

/// Lines that wait to be written.
pub(super) const LINES_MAX: usize = 10_000;
/// Lines collect for so long, so that many go at once.
const COLLECT: Duration = Duration::from_millis(100);
/// The pause after an error.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) struct LogWriter {
    record: Record,
    lines: mpsc::Receiver<NewLog>,
    /// Received, not written yet; at most one batch.
    batch: VecDeque<NewLog>,
}

impl LogWriter {
    pub(super) fn new(record: Record, lines: mpsc::Receiver<NewLog>) -> Self {
        let batch = VecDeque::with_capacity(LOG_BATCH_MAX);
        Self {
            record,
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
            match logs::insert_many(&self.record, self.batch.make_contiguous()).await {
                Err(RecordError::Refused { message, .. }) => self.write_singly(&message).await?,
                written => {
                    written?;
                    self.batch.clear();
                }
            }
        }
    }

    /// Finds the line that the record can not hold, and writes all others.
    async fn write_singly(&mut self, why: &str) -> Result<(), RecordError> {
        while let Some(line) = self.batch.front() {
            match logs::insert_many(&self.record, std::slice::from_ref(line)).await {
                Err(RecordError::Refused { .. }) => {
                    tracing::warn!(job.id = %line.job_id, why, "log line refused");
                    metrics::counter!("bullwark_log_lines_dropped_total").increment(1);
                }
                written => written?,
            }
            self.batch.pop_front();
        }
        Ok(())
    }
}
