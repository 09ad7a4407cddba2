//! What a job carries besides its state: its data and its log.

use super::batch::batches;
use super::connection::ScriptCall;
use super::keys::check_job_id;
use super::range::Order;
use super::script::ScriptId;
use super::{Broker, BrokerError, LIST_MAX, Repeat};
use crate::job::QueueName;

/// A part of a job's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogPage {
    pub rows: Vec<String>,
    /// How many rows the log has.
    pub total: u64,
}

/// Begin of a row that one of Bullwark's own workers shows in a job's log: the record has it.
pub const OWN_LOG_ROW: &str = "bullwark: ";

impl Broker {
    /// A job gets other data, JSON text; false: Redis knows no such job.
    pub async fn update_data(
        &self,
        queue: &QueueName,
        id: &str,
        data: &str,
    ) -> Result<bool, BrokerError> {
        check_job_id(id)?;
        let job = self.keys(queue).job(id);
        let mut call = ScriptCall::new(ScriptId::UpdateData, [&job]);
        call.arg(data);
        let code: i64 = self.connections.run(&call, Repeat::Safe).await?;
        Ok(code == 0)
    }

    /// Appends a row to a job's log, of which the newest `keep` rows stay; 0: all. Answers how
    /// many there are now; none: Redis knows no such job.
    ///
    /// Not safe to repeat: if the reply is lost, the row may be there.
    pub async fn add_log(
        &self,
        queue: &QueueName,
        id: &str,
        row: &str,
        keep: u32,
    ) -> Result<Option<u64>, BrokerError> {
        check_job_id(id)?;
        let keys = self.keys(queue);
        let both = [keys.job(id), keys.part(id, "logs")];
        let mut call = ScriptCall::new(ScriptId::AddLog, [&both[0], &both[1]]);
        call.arg(row)
            .number_or_empty((keep > 0).then(|| i64::from(keep)));
        let rows: i64 = self.connections.run(&call, Repeat::OnlyIfNotRun).await?;
        Ok(u64::try_from(rows).ok())
    }

    /// Appends rows to the logs of jobs, `(id, row, keep)`, of which the newest `keep` stay unless
    /// the job's own options say how many; none: all. Answers how many were appended: none to a job
    /// that is gone.
    ///
    /// Not safe to repeat: if the reply is lost, the rows may be there.
    pub async fn add_logs(
        &self,
        queue: &QueueName,
        rows: &[(String, String, Option<u32>)],
    ) -> Result<u64, BrokerError> {
        let keys = self.keys(queue);
        let mut appended = 0;
        for batch in batches(rows, |(_, row, _)| row.len()) {
            let mut call = ScriptCall::new(ScriptId::AddLogs, []);
            call.arg(keys.job_prefix());
            for (id, row, keep) in batch {
                call.arg(id).arg(row).number_or_empty(keep.map(i64::from));
            }
            appended += self
                .connections
                .run::<u64>(&call, Repeat::OnlyIfNotRun)
                .await?;
        }
        Ok(appended)
    }

    /// How many rows the logs of jobs have.
    pub async fn log_lengths(
        &self,
        queue: &QueueName,
        ids: &[String],
    ) -> Result<Vec<u64>, BrokerError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let keys = self.keys(queue);
        let mut pipeline = redis::pipe();
        for id in ids {
            pipeline.cmd("LLEN").arg(keys.part(id, "logs"));
        }
        self.connections.pipeline("log_lengths", &pipeline).await
    }

    /// Deletes the rows of a job's log but the newest `keep`.
    pub async fn clear_logs(
        &self,
        queue: &QueueName,
        id: &str,
        keep: u32,
    ) -> Result<(), BrokerError> {
        check_job_id(id)?;
        let logs = self.keys(queue).part(id, "logs");
        let cmd = if keep == 0 {
            redis::cmd("DEL").arg(logs).to_owned()
        } else {
            let mut cmd = redis::cmd("LTRIM");
            cmd.arg(logs).arg(-i64::from(keep)).arg(-1);
            cmd
        };
        self.connections.command("clear_logs", &cmd).await
    }

    /// Rows of a job's log, oldest first ([`Order::Ascending`]) or newest first, at most
    /// [`LIST_MAX`] of them.
    pub async fn logs(
        &self,
        queue: &QueueName,
        id: &str,
        offset: usize,
        limit: usize,
        order: Order,
    ) -> Result<LogPage, BrokerError> {
        let logs = self.keys(queue).part(id, "logs");
        let limit = limit.clamp(1, LIST_MAX);
        let (first, last) = match order {
            Order::Ascending => (signed(offset), signed(offset.saturating_add(limit - 1))),
            Order::Descending => (
                -signed(offset.saturating_add(limit)),
                -signed(offset.saturating_add(1)),
            ),
        };
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("LRANGE").arg(&logs).arg(first).arg(last);
        pipeline.cmd("LLEN").arg(&logs);
        // Bytes: a client may have written what is no text.
        let (rows, total): (Vec<Vec<u8>>, u64) =
            self.connections.pipeline("logs", &pipeline).await?;
        let text = |row: &Vec<u8>| String::from_utf8_lossy(row).into_owned();
        let mut rows: Vec<String> = rows.iter().map(text).collect();
        if order == Order::Descending {
            rows.reverse();
        }
        Ok(LogPage { rows, total })
    }
}

/// As an index of a list; there are no longer ones.
pub(super) fn signed(index: usize) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}
