//! From what happened to what is delivered: rows of `bullwark.webhook_events` become jobs.
//!
//! A row is taken away in the transaction that makes its jobs, so each event is delivered by one
//! job, whoever dies when: before the commit nothing has happened, after it the jobs are the
//! record's. Rows are taken without waiting for those that others are at.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::enqueue::{INSERT_MAX, insert_in};
use super::{Record, RecordError, Tx, webhook_deliveries};
use crate::job::webhook::{Delivery, Told, delivery_id, delivery_job, message, message_id};

/// Rows that are looked at for a batch of at most [`INSERT_MAX`] deliveries.
const ROWS_MAX: i64 = 100;

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

/// Makes jobs of the oldest events; returns how many events are done with. None are left when that
/// is none. Events of webhooks that are gone or out of service are dropped.
pub async fn make_deliveries(record: &Record) -> Result<usize, RecordError> {
    let some = "SELECT EXISTS (SELECT FROM bullwark.webhook_events)";
    let is_some: bool = sqlx::query_scalar(some).fetch_one(&record.pool).await?;
    if !is_some {
        return Ok(0);
    }
    let mut tx = record.begin().await?;
    let done = make_in(&mut tx).await?;
    tx.commit().await?;
    Ok(done)
}

async fn make_in(tx: &mut Tx) -> Result<usize, RecordError> {
    // A batch of ids is looked up by index, whatever statistics say of `jobs`.
    let settings = "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off;
        SET LOCAL enable_seqscan = off";
    sqlx::raw_sql(settings).execute(tx.connection()).await?;
    let rows: Vec<EventRow> = sqlx::query_as(
        "SELECT id, webhook_id, event, at, job_ids, starts, failures
         FROM bullwark.webhook_events ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED",
    )
    .bind(ROWS_MAX)
    .fetch_all(tx.connection())
    .await?;
    let (mut happened, mut taken) = (Vec::new(), Vec::new());
    for row in &rows {
        let room = INSERT_MAX - happened.len();
        if room == 0 {
            break;
        }
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
    let deliveries = deliveries(&happened, told);
    let deliveries = absent(tx, deliveries).await?;
    let jobs: Vec<_> = deliveries
        .iter()
        .map(|(delivery, _)| delivery_job(delivery, rand::random()))
        .collect();
    insert_in(tx, &jobs).await?;
    let notes: Vec<_> = deliveries.iter().map(|(_, note)| note.clone()).collect();
    webhook_deliveries::insert_many(tx, &notes).await?;
    take_away(tx, &taken).await?;
    Ok(happened.len())
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

type Made = (Delivery, webhook_deliveries::NewDelivery);

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
        let note = webhook_deliveries::NewDelivery {
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

/// Those that were not made yet. All, unless rows came back that were taken away once, with a
/// record that was restored.
async fn absent(tx: &mut Tx, mut made: Vec<Made>) -> Result<Vec<Made>, RecordError> {
    let ids: Vec<Uuid> = made.iter().map(|(delivery, _)| delivery.id).collect();
    let there: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM jobs WHERE id = ANY($1)")
        .bind(&ids)
        .fetch_all(tx.connection())
        .await?;
    made.retain(|(delivery, _)| !there.contains(&delivery.id));
    Ok(made)
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
