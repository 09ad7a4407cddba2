//! What foreign code logs about a job is copied from Redis into `job_logs`.
//!
//! `BullMQ` says nothing when a row is added, so logs are looked at when an attempt has ended: by
//! the mirror for foreign workers, by the worker itself for a job that it forwards. Rows have no
//! ids, and with `keepLogs` a job has only its newest. Each row is copied once, by this rule:
//!
//! * if the log still has everything, what comes after as many rows as were copied is new;
//! * if it was cut, what comes after the last place where the newest copied rows stand is new.
//!   Where equal rows repeat, that place is the last of several: rather none than two;
//! * if Redis lost the end of the log, what comes after the last copied row that is still there is
//!   new.
//!
//! The place is written with the rows, under a lock that is taken before Redis is read: two
//! copiers, or a process that dies anywhere, change nothing. Rows that Bullwark's own workers show
//! there are passed over: they came from `job_logs`, and are known by their first word, which
//! nobody else should begin a row with. A job that is deleted with its end (`removeOnComplete`)
//! takes its log along before anybody can look, unless Bullwark forwarded it.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::ReconcileError;
use super::halves::{Halves, passed_over};
use crate::broker::{Broker, LIST_MAX, OWN_LOG_ROW, Order};
use crate::job::QueueName;
use crate::record::Record;
use crate::record::log_copies::{self, Copied};

/// The most rows of a job that are looked at: its newest.
const ROWS_MAX: usize = 10_000;
/// The longest row in bytes; longer ones are cut.
const ROW_MAX_BYTES: usize = 8 * 1024;
/// Copied rows that are remembered to know where a cut log goes on.
const REMEMBERED: usize = 20;

/// Copies what is new in the logs of these jobs, given with their ids on the wire. Returns how many
/// rows. A log that a store refuses is passed over: it must not hold up its job, nor any other.
pub async fn copy_logs(
    record: &Record,
    broker: &Broker,
    queue: &QueueName,
    jobs: &[(Uuid, String)],
) -> Result<u64, ReconcileError> {
    let mut copied = 0;
    let mut halves = Halves::of(jobs);
    while let Some(part) = halves.next() {
        let done = copy_part(record, broker, queue, part).await;
        let done = halves.judge(part, done, |(_, wire_id), error| {
            passed_over(queue.as_str(), wire_id, error);
        })?;
        copied += done.unwrap_or_default();
    }
    metrics::counter!("bullwark_log_rows_copied_total").increment(copied);
    Ok(copied)
}

async fn copy_part(
    record: &Record,
    broker: &Broker,
    queue: &QueueName,
    jobs: &[(Uuid, String)],
) -> Result<u64, ReconcileError> {
    let ids: Vec<String> = jobs.iter().map(|(_, wire_id)| wire_id.clone()).collect();
    let lengths = broker.log_lengths(queue, &ids).await?;
    let mut copied = 0;
    for ((id, wire_id), length) in jobs.iter().zip(lengths) {
        if length > 0 {
            copied += copy(record, broker, queue, *id, wire_id).await?;
        }
    }
    Ok(copied)
}

async fn copy(
    record: &Record,
    broker: &Broker,
    queue: &QueueName,
    id: Uuid,
    wire_id: &str,
) -> Result<u64, ReconcileError> {
    let mut tx = record.begin().await?;
    let Some(before) = log_copies::lock(&mut tx, id).await? else {
        return Ok(0);
    };
    let (rows, is_whole) = read(broker, queue, wire_id).await?;
    let hashes: Vec<i64> = rows.iter().map(|row| hash(row)).collect();
    let first = first_new(&before, &hashes, is_whole);
    let new = rows.get(first..).unwrap_or_default();
    if new.is_empty() {
        return Ok(0);
    }
    let texts: Vec<String> = new
        .iter()
        .filter(|row| !row.starts_with(OWN_LOG_ROW))
        .map(|row| storable(row))
        .collect();
    let newest: Vec<i64> = before
        .newest
        .iter()
        .chain(&hashes[first..])
        .copied()
        .collect();
    let now = Copied {
        copied: before.copied + new.len() as i64,
        newest: newest[newest.len().saturating_sub(REMEMBERED)..].to_vec(),
    };
    log_copies::write(&mut tx, id, &texts, &now).await?;
    tx.commit().await?;
    Ok(texts.len() as u64)
}

/// The newest rows, oldest first, and whether these are all.
async fn read(
    broker: &Broker,
    queue: &QueueName,
    wire_id: &str,
) -> Result<(Vec<String>, bool), ReconcileError> {
    let length = broker.log_lengths(queue, &[wire_id.to_owned()]).await?;
    let length = length.first().copied().unwrap_or_default() as usize;
    let mut rows = Vec::new();
    let mut offset = length.saturating_sub(ROWS_MAX);
    let is_whole = offset == 0;
    loop {
        let page = broker
            .logs(queue, wire_id, offset, LIST_MAX, Order::Ascending)
            .await?;
        offset += page.rows.len();
        let is_last = page.rows.len() < LIST_MAX;
        rows.extend(page.rows);
        if is_last || rows.len() >= ROWS_MAX {
            return Ok((rows, is_whole));
        }
    }
}

/// The position of the first row that was not copied.
fn first_new(before: &Copied, rows: &[i64], is_whole: bool) -> usize {
    let newest = before.newest.as_slice();
    let copied = usize::try_from(before.copied).unwrap_or(usize::MAX);
    if is_whole && copied <= rows.len() && end_alike(newest, &rows[..copied]) {
        return copied;
    }
    let places = || (1..=rows.len()).rev();
    let cut = places().find(|place| end_alike(newest, &rows[..*place]));
    let lost = || {
        let is_known = |place: &usize| {
            (1..newest.len()).any(|known| end_alike(&newest[..known], &rows[..*place]))
        };
        places().find(is_known)
    };
    cut.or_else(lost).unwrap_or_default()
}

/// Whether these end with the same rows, as far back as both go.
fn end_alike(newest: &[i64], rows: &[i64]) -> bool {
    let count = newest.len().min(rows.len());
    (count > 0 || rows.is_empty()) && newest.ends_with(&rows[rows.len() - count..])
}

/// The same for the same row in every process and version: it is kept.
fn hash(row: &str) -> i64 {
    let digest = Sha256::digest(row.as_bytes());
    digest
        .iter()
        .take(8)
        .fold(0, |hash, byte| (hash << 8) | i64::from(*byte))
}

/// A text that the record can hold.
fn storable(row: &str) -> String {
    let end = row.floor_char_boundary(ROW_MAX_BYTES);
    row[..end].replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(copied: &[i64], rows: &[i64]) -> usize {
        let before = Copied {
            copied: copied.len() as i64,
            newest: copied[copied.len().saturating_sub(REMEMBERED)..].to_vec(),
        };
        first_new(&before, rows, true)
    }

    #[test]
    fn a_row_is_known_by_the_begin_of_its_sha_256() {
        assert_eq!(hash("abc") as u64, 0xba78_16bf_8f01_cfea); // FIPS 180-2, appendix B.1
    }

    #[test]
    fn a_whole_log_goes_on_after_as_many_rows_as_were_copied() {
        assert_eq!(after(&[], &[]), 0);
        assert_eq!(after(&[], &[1, 2]), 0);
        assert_eq!(after(&[1, 2], &[1, 2, 3]), 2);
        assert_eq!(after(&[1, 2], &[1, 2]), 2);
        assert_eq!(
            after(&[7, 7], &[7, 7, 7, 7]),
            2,
            "equal rows, and none is lost"
        );
        let many: Vec<i64> = (0..50).collect();
        assert_eq!(after(&many[..30], &many), 30);
    }

    #[test]
    fn a_log_that_was_cut_goes_on_after_the_rows_that_are_known() {
        assert_eq!(after(&[1, 2, 3], &[2, 3, 4]), 2);
        assert_eq!(after(&[1, 2, 3], &[3, 4, 5]), 1);
        assert_eq!(after(&[1, 2, 3], &[4, 5, 6]), 0, "all of it is new");
        assert_eq!(after(&[1, 2, 3], &[2, 3]), 2, "nothing is");
        assert_eq!(after(&[5, 5, 5], &[5, 5]), 2, "rather none than two");
    }

    #[test]
    fn an_older_state_of_a_log_brings_nothing() {
        assert_eq!(after(&[1, 2, 3, 4], &[1, 2]), 2);
        assert_eq!(after(&[1, 2, 3, 4], &[1, 2, 3]), 3);
        assert_eq!(
            after(&[1, 2, 3, 4], &[1, 2, 5]),
            2,
            "and what came since is new"
        );
        assert_eq!(
            after(&[1, 2, 3], &[3, 1]),
            1,
            "a row that was said before is new"
        );
    }
}
