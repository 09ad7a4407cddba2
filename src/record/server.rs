//! What the database server says about itself, for measurements.

use super::{Record, RecordError};

/// Counters of the server; the difference of two is what happened in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerCounters {
    /// Bytes of write-ahead log.
    pub wal_bytes: u64,
    /// Transactions of this database that were committed, reading ones included.
    pub commits: u64,
}

/// Reads the counters.
pub async fn counters(record: &Record) -> Result<ServerCounters, RecordError> {
    let (wal_bytes, commits): (i64, i64) = sqlx::query_as(
        "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint,
           (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database())",
    )
    .fetch_one(&record.pool)
    .await?;
    Ok(ServerCounters {
        wal_bytes: wal_bytes.unsigned_abs(),
        commits: commits.unsigned_abs(),
    })
}

/// How many jobs have each status. Reads all of `jobs`.
pub async fn count_by_status(record: &Record) -> Result<Vec<(String, i64)>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT status, count(*) FROM jobs WHERE deleted_at IS NULL
             GROUP BY status ORDER BY status",
    )
    .fetch_all(&record.pool)
    .await?)
}

/// Completed jobs that were started more than once.
pub async fn completed_twice_started(record: &Record) -> Result<i64, RecordError> {
    Ok(
        sqlx::query_scalar("SELECT count(*) FROM jobs WHERE status = 'completed' AND attempt <> 1")
            .fetch_one(&record.pool)
            .await?,
    )
}
