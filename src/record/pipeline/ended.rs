//! How many attempts ended in a span, how, and how long they took and had waited.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::job::period::{Slot, Span};
use crate::record::latencies::Latencies;
use crate::record::rollups::{Ended, Row};
use crate::record::{RecordError, View};

/// Types that are told apart. Clients of Redis name jobs as they like; later names are summed up.
pub const TYPES_MAX: usize = 1_000;
/// What the others are called: no type has such a name.
pub const OTHERS: &str = "(others)";
/// Rows of a page.
const PAGE: i64 = 5_000;
/// Rows that are read at most: 90 days of 20 types in 20 queues are 864,000.
const ROWS_MAX: i64 = 1_000_000;
/// Commits that nobody has summed up yet, which takes seconds; the newest ones.
const FRESH_MAX: i64 = 50_000;

/// Sums of all that ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Volumes {
    pub all: Ended,
    /// For each slot.
    pub slots: Vec<Ended>,
    pub types: BTreeMap<String, Ended>,
    /// There was more than is read at most: the sums are too low.
    pub is_cut: bool,
}

impl Volumes {
    fn add(&mut self, slots: &[Slot], at: DateTime<Utc>, job_type: String, ended: &Ended) {
        self.all.add(ended);
        let slot = slots.partition_point(|slot| slot.from <= at);
        if let Some(sum) = slot.checked_sub(1).and_then(|n| self.slots.get_mut(n)) {
            sum.add(ended);
        }
        let is_known = self.types.contains_key(&job_type);
        let name = match is_known || self.types.len() < TYPES_MAX {
            true => job_type,
            false => OTHERS.to_owned(),
        };
        self.types.entry(name).or_default().add(ended);
    }
}

/// Adds up what there is, page by page, in the order of the primary key.
pub(super) async fn read(
    view: &mut View,
    workspace_id: Uuid,
    span: Span,
    slots: &[Slot],
) -> Result<Volumes, RecordError> {
    let mut volumes = Volumes {
        slots: vec![Ended::default(); slots.len()],
        ..Volumes::default()
    };
    let mut read = 0;
    for step in ["hour", "minute"] {
        let mut after = (span.from, String::new(), String::new());
        loop {
            let page: Vec<Row<i64>> = sqlx::query_as(
                "SELECT at, workspace_id, job_queue, job_type, completed, failed, dead, cancelled,
                   run_ms, runs, waits
                 FROM bullwark.rollups
                 WHERE workspace_id = $1 AND step = $2 AND (at, job_queue, job_type) > ($3, $4, $5)
                   AND at < $6
                 ORDER BY at, job_queue, job_type LIMIT $7",
            )
            .bind(workspace_id)
            .bind(step)
            .bind(after.0)
            .bind(&after.1)
            .bind(&after.2)
            .bind(span.to)
            .bind(PAGE)
            .fetch_all(view.connection())
            .await?;
            let size = page.len() as i64;
            read += size;
            if let Some(last) = page.last() {
                after = (last.at, last.job_queue.clone(), last.job_type.clone());
            }
            for row in page {
                let (at, job_type, ended) = row.ended(Latencies::add);
                volumes.add(slots, at, job_type, &ended);
            }
            if size < PAGE {
                break;
            }
            if read >= ROWS_MAX {
                volumes.is_cut = true;
                break;
            }
        }
    }
    let fresh: Vec<Row<i16>> = sqlx::query_as(
        "SELECT ended_at AS at, workspace_id, job_queue, job_type, completed::bigint,
           failed::bigint, dead::bigint, cancelled::bigint, run_ms, coalesce(runs, '{}') AS runs,
           coalesce(waits, '{}') AS waits
         FROM bullwark.ended_attempts
         WHERE workspace_id = $1 AND ended_at >= $2 AND ended_at < $3
         ORDER BY id DESC LIMIT $4",
    )
    .bind(workspace_id)
    .bind(span.from)
    .bind(span.to)
    .bind(FRESH_MAX)
    .fetch_all(view.connection())
    .await?;
    volumes.is_cut |= fresh.len() as i64 == FRESH_MAX;
    for row in fresh {
        let (at, job_type, ended) = row.ended(|times, buckets| times.count(buckets));
        volumes.add(slots, at, job_type, &ended);
    }
    Ok(volumes)
}
