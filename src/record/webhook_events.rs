//! From what happened to what is delivered: rows of `bullwark.webhook_events` become jobs.
//!
//! A row is taken away in the transaction that makes its jobs, so each event is delivered by one
//! job, whoever dies when: before the commit nothing has happened, after it the jobs are the
//! record's. Rows are taken without waiting for those that others are at.
//!
//! Each webhook of which something is to be told has its part of a batch, so that no backlog of one
//! keeps another waiting; and one of which too many deliveries wait already loses what comes on
//! top, which is counted where people see it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::enqueue::{INSERT_MAX, insert_in};
use super::webhook_deliveries::{self, NewDelivery};
use super::{Record, RecordError, Tx};
use crate::job::NewJob;
use crate::job::webhook::{Delivery, Told, delivery_id, delivery_job, message, message_id};

/// Rows that are looked at for a batch of at most [`INSERT_MAX`] deliveries.
const ROWS_MAX: i64 = 100;
/// Webhooks of which it is known that something waits, at most; a batch has rows of [`ROWS_MAX`].
const WEBHOOKS_SEEN_MAX: i64 = 10_000;
/// Deliveries of one webhook that have not ended; what happens beyond that is not delivered.
/// Several processes at it may each go a batch beyond it.
pub const WAITING_MAX: i64 = 10_000;

#[derive(sqlx::FromRow)]
struct EventRow {
    id: i64,
    webhook_id: Uuid,
    event: String,
    at: DateTime<Utc>,
    job_ids: Vec<Uuid>,
    starts: Vec<i32>,
    failures: Vec<i32>,
}

/// One job of a row.
struct Happened<'a> {
    row: &'a EventRow,
    job_id: Uuid,
    start: i32,
    failures: i32,
}

#[derive(sqlx::FromRow)]
struct ToldRow {
    place: i64,
    workspace_id: Uuid,
    job_type: String,
    job_queue: String,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    ended_at: DateTime<Utc>,
    error_message: Option<String>,
}

/// Makes jobs of what happened; returns how many events are done with. None are left when that is
/// none. Events of webhooks that are gone or out of service are dropped.
pub async fn make_deliveries(record: &Record) -> Result<usize, RecordError> {
    make_deliveries_up_to(record, WAITING_MAX).await
}

/// The same with another maximum than [`WAITING_MAX`].
pub async fn make_deliveries_up_to(record: &Record, most: i64) -> Result<usize, RecordError> {
    let some = "SELECT EXISTS (SELECT FROM bullwark.webhook_events)";
    let is_some: bool = sqlx::query_scalar(some).fetch_one(&record.pool).await?;
    if !is_some {
        return Ok(0);
    }
    let mut tx = record.begin().await?;
    let done = make_in(&mut tx, most).await?;
    tx.commit().await?;
    Ok(done)
}

async fn make_in(tx: &mut Tx, most: i64) -> Result<usize, RecordError> {
    // A batch of ids is looked up by index, whatever statistics say of `jobs`.
    let settings = "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off;
        SET LOCAL enable_seqscan = off";
    sqlx::raw_sql(settings).execute(tx.connection()).await?;
    let rows = pick(tx).await?;
    let webhooks: HashSet<Uuid> = rows.iter().map(|row| row.webhook_id).collect();
    let part = INSERT_MAX / webhooks.len().max(1);
    let (mut happened, mut taken) = (Vec::new(), Vec::new());
    let mut used: HashMap<Uuid, usize> = HashMap::new();
    for row in &rows {
        let used = used.entry(row.webhook_id).or_default();
        let room = part - *used;
        if room == 0 {
            continue;
        }
        *used += row.job_ids.len().min(room);
        let jobs = row.job_ids.iter().zip(&row.starts).zip(&row.failures);
        happened.extend(jobs.take(room).map(|((job_id, start), failures)| Happened {
            row,
            job_id: *job_id,
            start: *start,
            failures: *failures,
        }));
        taken.push((row.id, row.job_ids.len().min(room) as i32));
    }
    let told = load(tx, &happened).await?;
    let made = deliveries(&happened, told);
    let made = not_too_many(tx, made, most).await?;
    let (jobs, notes) = absent(tx, made).await?;
    insert_in(tx, &jobs).await?;
    webhook_deliveries::insert_many(tx, &notes).await?;
    take_away(tx, &taken).await?;
    Ok(happened.len())
}

/// The oldest rows of each of some webhooks, in the order of time. Which webhooks is left to
/// chance: whoever has much to be told is not taken before others.
async fn pick(tx: &mut Tx) -> Result<Vec<EventRow>, RecordError> {
    Ok(sqlx::query_as(
        // From one webhook to the next by index, however many rows each has.
        "WITH RECURSIVE following AS (
           (SELECT webhook_id, 1 AS nth FROM bullwark.webhook_events ORDER BY webhook_id LIMIT 1)
           UNION ALL
           SELECT (SELECT e.webhook_id FROM bullwark.webhook_events e
                   WHERE e.webhook_id > f.webhook_id ORDER BY e.webhook_id LIMIT 1), f.nth + 1
           FROM following f WHERE f.webhook_id IS NOT NULL AND f.nth < $2
         ), picked AS MATERIALIZED (
           SELECT webhook_id FROM following WHERE webhook_id IS NOT NULL ORDER BY random() LIMIT $1
         ), part AS MATERIALIZED (SELECT greatest($1 / count(*), 1) AS rows FROM picked)
         SELECT e.* FROM picked CROSS JOIN LATERAL (
           SELECT id, webhook_id, event, at, job_ids[:$3] AS job_ids, starts[:$3] AS starts,
             failures[:$3] AS failures
           FROM bullwark.webhook_events e WHERE e.webhook_id = picked.webhook_id
           ORDER BY id LIMIT (SELECT rows FROM part) FOR UPDATE SKIP LOCKED) e
         ORDER BY e.id",
    )
    .bind(ROWS_MAX)
    .bind(WEBHOOKS_SEEN_MAX)
    .bind(INSERT_MAX as i32)
    .fetch_all(tx.connection())
    .await?)
}

/// What is known of the jobs, as they were then: the error of that very attempt, though another one
/// may have begun or ended since.
async fn load(tx: &mut Tx, happened: &[Happened<'_>]) -> Result<Vec<ToldRow>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT u.place, w.workspace_id, j.job_type, j.job_queue, j.created_at,
           CASE WHEN j.attempt = u.start THEN j.started_at ELSE f.started_at END AS started_at,
           coalesce(CASE WHEN s.is_same THEN coalesce(j.completed_at, j.failed_at) END, u.at)
             AS ended_at,
           CASE WHEN s.is_same THEN j.error_message ELSE f.error_message END AS error_message
         FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::text[], $5::timestamptz[])
           WITH ORDINALITY AS u (webhook_id, job_id, start, event, at, place)
         JOIN webhooks w ON w.id = u.webhook_id AND w.is_active
         JOIN jobs j ON j.id = u.job_id AND j.workspace_id = w.workspace_id
         CROSS JOIN LATERAL (
           SELECT j.attempt = u.start AND 'job.' || j.status = u.event AS is_same) s
         LEFT JOIN job_failures f ON f.job_id = u.job_id AND f.attempt = u.start
           AND u.event IN ('job.failed', 'job.dead_letter')
         ORDER BY u.place",
    )
    .bind(
        happened
            .iter()
            .map(|h| h.row.webhook_id)
            .collect::<Vec<_>>(),
    )
    .bind(happened.iter().map(|h| h.job_id).collect::<Vec<_>>())
    .bind(happened.iter().map(|h| h.start).collect::<Vec<_>>())
    .bind(
        happened
            .iter()
            .map(|h| h.row.event.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(happened.iter().map(|h| h.row.at).collect::<Vec<_>>())
    .fetch_all(tx.connection())
    .await?)
}

type Made = (Delivery, NewDelivery);

fn deliveries(happened: &[Happened<'_>], told: Vec<ToldRow>) -> Vec<Made> {
    let one = |told: ToldRow| {
        // Counted from 1.
        let Happened {
            row,
            job_id,
            failures,
            ..
        } = happened.get(usize::try_from(told.place - 1).ok()?)?;
        let status = row.event.strip_prefix("job.").unwrap_or_default();
        let id = delivery_id(row.id, row.webhook_id, *job_id, row.at);
        let job = Told {
            id: *job_id,
            job_type: told.job_type,
            queue: told.job_queue,
            status: status.to_owned(),
            attempts: *failures,
            created_at: told.created_at,
            started_at: told.started_at,
            ended_at: told.ended_at,
            error_message: told.error_message,
        };
        let delivery = Delivery {
            id,
            workspace_id: told.workspace_id,
            webhook_id: row.webhook_id,
            message: message(&row.event, row.at, &job),
        };
        let note = NewDelivery {
            job_id: id,
            webhook_id: row.webhook_id,
            workspace_id: told.workspace_id,
            message_id: message_id(id),
            event: row.event.clone(),
            about_job_id: Some(*job_id),
            replay_of: None,
        };
        Some((delivery, note))
    };
    told.into_iter().filter_map(one).collect()
}

/// Those of webhooks of which not too many wait already; the others are counted as dropped.
async fn not_too_many(tx: &mut Tx, made: Vec<Made>, most: i64) -> Result<Vec<Made>, RecordError> {
    let webhooks: BTreeSet<Uuid> = made.iter().map(|(one, _)| one.webhook_id).collect();
    let waiting: Vec<(Uuid, i64)> = sqlx::query_as(
        "SELECT u.id, (SELECT count(*) FROM (
           SELECT FROM bullwark.webhook_deliveries d WHERE d.webhook_id = u.id AND d.is_open
           LIMIT $2) s)
         FROM unnest($1::uuid[]) AS u (id)",
    )
    .bind(webhooks.iter().copied().collect::<Vec<_>>())
    .bind(most)
    .fetch_all(tx.connection())
    .await?;
    let mut waiting: HashMap<Uuid, i64> = waiting.into_iter().collect();
    let mut dropped: BTreeMap<Uuid, i64> = BTreeMap::new();
    let mut kept = made;
    kept.retain(|(one, _)| {
        let waiting = waiting.entry(one.webhook_id).or_default();
        *waiting += 1;
        if *waiting > most {
            *dropped.entry(one.webhook_id).or_default() += 1;
        }
        *waiting <= most
    });
    // In the order of ids, as whoever else locks several.
    for (webhook_id, events) in dropped {
        tracing::warn!(webhook.id = %webhook_id, events, "too many deliveries wait: dropped");
        metrics::counter!("bullwark_webhook_events_dropped_total").increment(events.unsigned_abs());
        sqlx::query(
            "UPDATE webhooks SET dropped = dropped + $2,
               dropped_since = coalesce(dropped_since, now())
             WHERE id = $1",
        )
        .bind(webhook_id)
        .bind(events)
        .execute(tx.connection())
        .await?;
    }
    Ok(kept)
}

/// The jobs that were not made yet, and the rows that vouch for them. All, unless something came
/// back: rows that were taken away once, with a record that was restored; or jobs that Redis had
/// kept when the record lost its newest commits, for which nobody vouches any more. Those are what
/// is to be made, or else somebody else's.
async fn absent(
    tx: &mut Tx,
    made: Vec<Made>,
) -> Result<(Vec<NewJob>, Vec<NewDelivery>), RecordError> {
    type There = (Uuid, String, Value, bool);
    let ids: Vec<Uuid> = made.iter().map(|(delivery, _)| delivery.id).collect();
    let there: Vec<There> = sqlx::query_as(
        "SELECT j.id, j.job_type, j.payload, d.job_id IS NOT NULL
         FROM jobs j LEFT JOIN bullwark.webhook_deliveries d ON d.job_id = j.id
         WHERE j.id = ANY($1)",
    )
    .bind(&ids)
    .fetch_all(tx.connection())
    .await?;
    let mut there: HashMap<Uuid, There> = there.into_iter().map(|one| (one.0, one)).collect();
    let (mut jobs, mut notes) = (Vec::new(), Vec::new());
    for (delivery, note) in made {
        let job = delivery_job(&delivery, rand::random());
        match there.remove(&delivery.id) {
            None => {
                jobs.push(job);
                notes.push(note);
            }
            Some((.., true)) => {}
            Some((_, job_type, payload, false)) => {
                let is_it = job_type == job.job_type
                    && serde_json::from_str(&job.payload).is_ok_and(|ours: Value| ours == payload);
                match is_it {
                    true => notes.push(note),
                    false => tracing::warn!(job.id = %delivery.id, "another job has its id"),
                }
            }
        }
    }
    Ok((jobs, notes))
}

/// Takes so many jobs off the beginning of each row, and rows away that have none left.
async fn take_away(tx: &mut Tx, taken: &[(i64, i32)]) -> Result<(), RecordError> {
    sqlx::query(
        "WITH taken AS (
           SELECT * FROM unnest($1::bigint[], $2::int[]) AS u (id, jobs)
         ), shortened AS (
           UPDATE bullwark.webhook_events e SET job_ids = e.job_ids[t.jobs + 1:],
             starts = e.starts[t.jobs + 1:], failures = e.failures[t.jobs + 1:]
           FROM taken t WHERE e.id = t.id AND cardinality(e.job_ids) > t.jobs
         )
         DELETE FROM bullwark.webhook_events e USING taken t
         WHERE e.id = t.id AND cardinality(e.job_ids) <= t.jobs",
    )
    .bind(taken.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(taken.iter().map(|(_, jobs)| *jobs).collect::<Vec<_>>())
    .execute(tx.connection())
    .await?;
    Ok(())
}
