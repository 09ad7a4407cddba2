//! What ended, summed up: by minute within seconds, minutes by hour after an hour; for 90 days.
//!
//! Every step takes rows away and adds their sums in one transaction, so each ending is counted
//! once, whoever dies when; two that do it at once share the rows.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::latencies::Latencies;
use super::{Record, RecordError, View};

/// Rows that are summed up at once.
const ROLL_MAX: i64 = 2000;

/// What has a row of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    // In the order of the primary key, in which rows are locked.
    workspace_id: Uuid,
    at: DateTime<Utc>,
    job_queue: String,
    job_type: String,
}

/// How many attempts ended, how, and how long they took.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ended {
    pub completed: i64,
    /// Attempts that failed, after which others follow.
    pub failed: i64,
    pub dead: i64,
    pub cancelled: i64,
    /// In total.
    pub run_ms: f64,
    pub runs: Latencies,
    /// Of first attempts, from when they could have started.
    pub waits: Latencies,
}

/// What ended in a minute, or in an hour, of a queue and a type.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollup {
    pub at: DateTime<Utc>,
    pub job_queue: String,
    pub job_type: String,
    pub ended: Ended,
}

type Sums = BTreeMap<Key, Ended>;

#[derive(sqlx::FromRow)]
pub(super) struct Row<B> {
    pub(super) at: DateTime<Utc>,
    workspace_id: Uuid,
    pub(super) job_queue: String,
    pub(super) job_type: String,
    completed: i64,
    failed: i64,
    dead: i64,
    cancelled: i64,
    run_ms: f64,
    runs: Vec<B>,
    waits: Vec<B>,
}

impl<B> Row<B> {
    /// When it ended, its type, and what it says, with `add` for what it says of latencies.
    pub(super) fn ended(
        self,
        add: impl Fn(&mut Latencies, &[B]),
    ) -> (DateTime<Utc>, String, Ended) {
        let (mut runs, mut waits) = (Latencies::default(), Latencies::default());
        add(&mut runs, &self.runs);
        add(&mut waits, &self.waits);
        let ended = Ended {
            completed: self.completed,
            failed: self.failed,
            dead: self.dead,
            cancelled: self.cancelled,
            run_ms: self.run_ms,
            runs,
            waits,
        };
        (self.at, self.job_type, ended)
    }

    /// Adds itself, with `add` for what it says of latencies.
    fn add_to(self, sums: &mut Sums, add: impl Fn(&mut Latencies, &[B])) {
        let key = Key {
            workspace_id: self.workspace_id,
            at: self.at,
            job_queue: self.job_queue,
            job_type: self.job_type,
        };
        let sum = sums.entry(key).or_default();
        sum.completed += self.completed;
        sum.failed += self.failed;
        sum.dead += self.dead;
        sum.cancelled += self.cancelled;
        sum.run_ms += self.run_ms;
        add(&mut sum.runs, &self.runs);
        add(&mut sum.waits, &self.waits);
    }
}

impl Ended {
    pub fn add(&mut self, other: &Self) {
        self.completed += other.completed;
        self.failed += other.failed;
        self.dead += other.dead;
        self.cancelled += other.cancelled;
        self.run_ms += other.run_ms;
        self.runs.add(other.runs.counts());
        self.waits.add(other.waits.counts());
    }
}

/// What ended lately in a workspace.
#[derive(Debug, Clone, PartialEq)]
pub struct Lately {
    /// The time of the record when it was read.
    pub now: DateTime<Utc>,
    /// By the minute within the last hour, by the hour before that; also what nobody has summed up
    /// yet.
    pub rollups: Vec<Rollup>,
}

/// Rows that are read at most, the newest ones.
const READ_MAX: i64 = 50_000;

/// What ended in a workspace since the beginning of the hour that was so long ago.
pub async fn lately(
    view: &mut View,
    workspace_id: Uuid,
    back: TimeDelta,
) -> Result<Lately, RecordError> {
    // A view is of one moment: what is being summed up just now is in one of the two tables.
    let (now, since): (DateTime<Utc>, DateTime<Utc>) =
        sqlx::query_as("SELECT now(), date_trunc('hour', now() - $1)")
            .bind(back)
            .fetch_one(view.connection())
            .await?;
    let rows: Vec<Row<i64>> = sqlx::query_as(
        "SELECT at, workspace_id, job_queue, job_type, completed, failed, dead, cancelled, run_ms,
           runs, waits
         FROM bullwark.rollups WHERE workspace_id = $1 AND at >= $2 ORDER BY at DESC LIMIT $3",
    )
    .bind(workspace_id)
    .bind(since)
    .bind(READ_MAX)
    .fetch_all(view.connection())
    .await?;
    let fresh: Vec<Row<i16>> = sqlx::query_as(
        "SELECT date_trunc('minute', ended_at) AS at, workspace_id, job_queue, job_type,
           completed::bigint, failed::bigint, dead::bigint, cancelled::bigint, run_ms,
           coalesce(runs, '{}') AS runs, coalesce(waits, '{}') AS waits
         FROM bullwark.ended_attempts WHERE workspace_id = $1 AND ended_at >= $2
         ORDER BY id DESC LIMIT $3",
    )
    .bind(workspace_id)
    .bind(since)
    .bind(READ_MAX)
    .fetch_all(view.connection())
    .await?;
    let mut sums = Sums::new();
    for row in rows {
        row.add_to(&mut sums, Latencies::add);
    }
    for row in fresh {
        row.add_to(&mut sums, |latencies, buckets| latencies.count(buckets));
    }
    let rollup = |(key, ended): (Key, Ended)| Rollup {
        at: key.at,
        job_queue: key.job_queue,
        job_type: key.job_type,
        ended,
    };
    let rollups = sums.into_iter().map(rollup).collect();
    Ok(Lately { now, rollups })
}

/// Sums up what ended lately by minute. Returns whether there is more to do at once.
pub async fn roll_minutes(record: &Record) -> Result<bool, RecordError> {
    let mut tx = record.begin().await?;
    let rows: Vec<Row<i16>> = sqlx::query_as(
        "WITH picked AS MATERIALIZED (
           SELECT id FROM bullwark.ended_attempts ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
         )
         DELETE FROM bullwark.ended_attempts e USING picked WHERE e.id = picked.id
         RETURNING date_trunc('minute', ended_at) AS at,
           workspace_id, job_queue, job_type, completed::bigint, failed::bigint, dead::bigint,
           cancelled::bigint, run_ms, coalesce(runs, '{}') AS runs, coalesce(waits, '{}') AS waits",
    )
    .bind(ROLL_MAX)
    .fetch_all(tx.connection())
    .await?;
    let is_full = rows.len() as i64 == ROLL_MAX;
    let mut sums = Sums::new();
    for row in rows {
        row.add_to(&mut sums, |latencies, buckets| latencies.count(buckets));
    }
    add(tx.connection(), "minute", &sums).await?;
    tx.commit().await?;
    Ok(is_full)
}

/// Sums up minutes that are over an hour old by hour. Returns whether there is more to do at once.
pub async fn roll_hours(record: &Record) -> Result<bool, RecordError> {
    let mut tx = record.begin().await?;
    let rows: Vec<Row<i64>> = sqlx::query_as(
        "WITH picked AS MATERIALIZED (
           SELECT ctid FROM bullwark.rollups
           WHERE step = 'minute' AND at < now() - interval '62 minutes'
           ORDER BY at LIMIT $1 FOR UPDATE SKIP LOCKED
         )
         DELETE FROM bullwark.rollups r USING picked WHERE r.ctid = picked.ctid
         RETURNING date_trunc('hour', at) AS at, workspace_id, job_queue, job_type, completed,
           failed, dead, cancelled, run_ms, runs, waits",
    )
    .bind(ROLL_MAX)
    .fetch_all(tx.connection())
    .await?;
    let is_full = rows.len() as i64 == ROLL_MAX;
    let mut sums = Sums::new();
    for row in rows {
        row.add_to(&mut sums, Latencies::add);
    }
    add(tx.connection(), "hour", &sums).await?;
    tx.commit().await?;
    Ok(is_full)
}

/// Forgets hours of long ago. Returns whether there is more to do at once.
pub async fn prune(record: &Record) -> Result<bool, RecordError> {
    let done = sqlx::query(
        "DELETE FROM bullwark.rollups WHERE (workspace_id, step, at, job_queue, job_type) IN (
           SELECT workspace_id, step, at, job_queue, job_type FROM bullwark.rollups
           WHERE step = 'hour' AND at < now() - interval '90 days' ORDER BY at LIMIT $1)",
    )
    .bind(ROLL_MAX)
    .execute(&record.pool)
    .await?;
    Ok(done.rows_affected() == ROLL_MAX.unsigned_abs())
}

/// In the order of the keys, as every statement on several of them: no two can deadlock.
async fn add(connection: &mut PgConnection, step: &str, sums: &Sums) -> Result<(), RecordError> {
    let counts = |of: fn(&Ended) -> i64| sums.values().map(of).collect::<Vec<_>>();
    // Arrays of arrays would have to be of one length.
    let text = |of: fn(&Ended) -> &Latencies| {
        let text = |sum: &Ended| {
            let counts: Vec<String> = of(sum).counts().iter().map(i64::to_string).collect();
            format!("{{{}}}", counts.join(","))
        };
        sums.values().map(text).collect::<Vec<_>>()
    };
    sqlx::query(
        "INSERT INTO bullwark.rollups AS r (workspace_id, step, at, job_queue, job_type,
           completed, failed, dead, cancelled, run_ms, runs, waits)
         SELECT u.workspace_id, $1, u.at, u.job_queue, u.job_type, u.completed, u.failed, u.dead,
           u.cancelled, u.run_ms, u.runs::bigint[], u.waits::bigint[]
         FROM unnest($2::uuid[], $3::timestamptz[], $4::text[], $5::text[], $6::bigint[],
           $7::bigint[], $8::bigint[], $9::bigint[], $10::float8[], $11::text[], $12::text[])
           AS u (workspace_id, at, job_queue, job_type, completed, failed, dead, cancelled, run_ms,
             runs, waits)
         ORDER BY u.workspace_id, u.at, u.job_queue, u.job_type
         ON CONFLICT (workspace_id, step, at, job_queue, job_type) DO UPDATE
         SET completed = r.completed + excluded.completed,
           failed = r.failed + excluded.failed, dead = r.dead + excluded.dead,
           cancelled = r.cancelled + excluded.cancelled, run_ms = r.run_ms + excluded.run_ms,
           runs = bullwark.add_counts(r.runs, excluded.runs),
           waits = bullwark.add_counts(r.waits, excluded.waits)",
    )
    .bind(step)
    .bind(sums.keys().map(|key| key.workspace_id).collect::<Vec<_>>())
    .bind(sums.keys().map(|key| key.at).collect::<Vec<_>>())
    .bind(
        sums.keys()
            .map(|key| key.job_queue.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(
        sums.keys()
            .map(|key| key.job_type.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(counts(|sum| sum.completed))
    .bind(counts(|sum| sum.failed))
    .bind(counts(|sum| sum.dead))
    .bind(counts(|sum| sum.cancelled))
    .bind(sums.values().map(|sum| sum.run_ms).collect::<Vec<_>>())
    .bind(text(|sum| &sum.runs))
    .bind(text(|sum| &sum.waits))
    .execute(connection)
    .await?;
    Ok(())
}
