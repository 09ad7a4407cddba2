//! What `bullwark soak` keeps and asks in the database that it tests.
//!
//! Nothing of it belongs to the schema of Bullwark: the tables and the trigger are made in the
//! private database of a soak, in a schema of their own, when it begins.

use uuid::Uuid;

use super::{Record, RecordError, Tx};

/// Rows of one page.
const PAGE: i64 = 5_000;
/// Rows of a list of what is wrong.
const WRONG_MAX: i64 = 50;

/// Makes the tables, and a trigger that writes down every illegal change of a job.
///
/// Illegal is one that leaves a final status or changes anything there, takes an attempt or a
/// failure back, moves the moment of a job's creation, or lets it end before it was made. The
/// number of a final job's attempt may grow: Redis had started it, and it was not run. A legal
/// change costs the evaluation of the condition, nothing more.
pub async fn install(record: &Record) -> Result<(), RecordError> {
    sqlx::raw_sql(
        "CREATE SCHEMA IF NOT EXISTS soak;
         CREATE TABLE IF NOT EXISTS soak.effects (
           seq bigint NOT NULL, job_id uuid NOT NULL, attempt int NOT NULL, pid int NOT NULL,
           newest int NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
         CREATE TABLE IF NOT EXISTS soak.broken (
           job_id uuid NOT NULL, was jsonb NOT NULL, became jsonb NOT NULL,
           at timestamptz NOT NULL DEFAULT clock_timestamp());
         CREATE OR REPLACE FUNCTION soak.write_broken() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
           INSERT INTO soak.broken (job_id, was, became)
           VALUES (NEW.id, to_jsonb(OLD), to_jsonb(NEW));
           RETURN NULL;
         END $$;
         DROP TRIGGER IF EXISTS soak_broken ON jobs;
         CREATE TRIGGER soak_broken AFTER UPDATE ON jobs FOR EACH ROW WHEN (
           (OLD.status IN ('completed', 'dead_letter', 'cancelled') AND
             (OLD.status, OLD.attempts, OLD.worker_id, OLD.result, OLD.progress,
              OLD.completed_at, OLD.failed_at, OLD.checkpoint)
             IS DISTINCT FROM
             (NEW.status, NEW.attempts, NEW.worker_id, NEW.result, NEW.progress,
              NEW.completed_at, NEW.failed_at, NEW.checkpoint))
           OR NEW.attempt < OLD.attempt OR NEW.attempts < OLD.attempts
           OR NEW.created_at <> OLD.created_at OR NEW.completed_at < NEW.created_at)
         EXECUTE FUNCTION soak.write_broken();",
    )
    .execute(&record.pool)
    .await?;
    Ok(())
}

/// Writes an effect in the transaction of a step, beside the newest attempt that the job has then.
pub async fn write_effect(
    tx: &mut Tx,
    seq: u64,
    job_id: Uuid,
    attempt: i32,
    pid: u32,
) -> Result<(), RecordError> {
    sqlx::query(
        "INSERT INTO soak.effects (seq, job_id, attempt, pid, newest)
         SELECT $1, $2, $3, $4, attempt FROM jobs WHERE id = $2",
    )
    .bind(seq.cast_signed())
    .bind(job_id)
    .bind(attempt)
    .bind(pid.cast_signed())
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Makes a workspace. Doing it again changes nothing.
pub async fn ensure_workspace(record: &Record, id: Uuid, name: &str) -> Result<(), RecordError> {
    sqlx::query("INSERT INTO workspaces (id, name) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(id)
        .bind(name)
        .execute(&record.pool)
        .await?;
    Ok(())
}

/// Ends about this share of Bullwark's connections. Returns how many.
pub async fn terminate_backends(record: &Record, share: f64) -> Result<i64, RecordError> {
    Ok(sqlx::query_scalar(
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM (
           SELECT pid FROM pg_stat_activity
           WHERE application_name = 'bullwark' AND pid <> pg_backend_pid() AND random() < $1
           OFFSET 0) AS chosen",
    )
    .bind(share)
    .fetch_one(&record.pool)
    .await?)
}

/// A job as the checker reads it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct SoakJob {
    pub id: Uuid,
    /// Of a job that came from Redis.
    pub redis_id: Option<String>,
    pub workspace_id: Option<Uuid>,
    pub seq: i64,
    pub status: String,
    pub attempts: i32,
    pub attempt: i32,
    pub error_message: Option<String>,
    /// It began before it was due.
    pub is_early: bool,
}

/// The next page of the jobs of these queues, in the order of their ids.
pub async fn page(
    record: &Record,
    queues: &[&str],
    after: Uuid,
) -> Result<Vec<SoakJob>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT id, redis_id, workspace_id,
           coalesce((payload ->> 'seq')::bigint, -1) AS seq, status, attempts, attempt,
           error_message,
           coalesce(started_at < scheduled_for - interval '100 ms', false) AS is_early
         FROM jobs WHERE id > $1 AND job_queue = ANY($2) ORDER BY id LIMIT $3",
    )
    .bind(after)
    .bind(queues)
    .bind(PAGE)
    .fetch_all(&record.pool)
    .await?)
}

/// What is wrong with effects and histories; at most fifty of each.
#[derive(Debug, Clone, Default)]
pub struct Wrongs {
    pub effects: i64,
    /// Written more than once.
    pub doubled: Vec<String>,
    /// Of jobs that completed without.
    pub missing: Vec<String>,
    /// Written by an attempt that was not the newest any more.
    pub late: Vec<String>,
    /// Illegal changes of jobs.
    pub broken: Vec<String>,
}

/// Asks for all of them. Reads both tables of the soak, and all of `jobs`.
pub async fn wrongs(record: &Record) -> Result<Wrongs, RecordError> {
    let list = async |query: &'static str| -> Result<Vec<String>, RecordError> {
        Ok(sqlx::query_scalar(query)
            .bind(WRONG_MAX)
            .fetch_all(&record.pool)
            .await?)
    };
    Ok(Wrongs {
        effects: sqlx::query_scalar("SELECT count(*) FROM soak.effects")
            .fetch_one(&record.pool)
            .await?,
        doubled: list(
            "SELECT format('job %s (%s): %s effects of attempts %s', seq, min(job_id::text),
               count(*), array_agg(attempt)) FROM soak.effects
             GROUP BY seq HAVING count(*) > 1 LIMIT $1",
        )
        .await?,
        missing: list(
            "SELECT format('job %s (%s) completed without its effect', payload ->> 'seq', id)
             FROM jobs j WHERE payload ->> 'kind' = 'row' AND status = 'completed'
               AND NOT EXISTS (SELECT FROM soak.effects e WHERE e.job_id = j.id) LIMIT $1",
        )
        .await?,
        late: list(
            "SELECT format('job %s (%s): attempt %s wrote, the newest was %s', seq, job_id, attempt,
               newest) FROM soak.effects WHERE attempt <> newest LIMIT $1",
        )
        .await?,
        broken: list(
            "SELECT format(
               'job %s at %s: %s, attempt %s, worker %s became %s, attempt %s, worker %s', job_id,
               at, was ->> 'status', was ->> 'attempt', was ->> 'worker_id',
               became ->> 'status', became ->> 'attempt', became ->> 'worker_id')
             FROM soak.broken ORDER BY at LIMIT $1",
        )
        .await?,
    })
}

/// What the tables that grow take.
#[derive(Debug, Clone, Copy, Default, sqlx::FromRow)]
pub struct Sizes {
    /// Of `jobs`, its indexes included.
    pub jobs_bytes: i64,
    pub jobs_dead_rows: i64,
    /// Of all of them, their indexes included.
    pub tables_bytes: i64,
    pub indexes_bytes: i64,
}

/// Measures them.
pub async fn sizes(record: &Record) -> Result<Sizes, RecordError> {
    Ok(sqlx::query_as(
        "SELECT coalesce(sum(pg_total_relation_size(relid)) FILTER (WHERE relname = 'jobs'),
             0)::bigint AS jobs_bytes,
           coalesce(sum(n_dead_tup) FILTER (WHERE relname = 'jobs'), 0)::bigint AS jobs_dead_rows,
           coalesce(sum(pg_total_relation_size(relid)), 0)::bigint AS tables_bytes,
           coalesce(sum(pg_indexes_size(relid)), 0)::bigint AS indexes_bytes
         FROM pg_stat_user_tables
         WHERE relname IN ('jobs', 'job_failures', 'job_logs', 'idempotency_keys', 'stragglers',
           'dead_letters', 'outbox')",
    )
    .fetch_one(&record.pool)
    .await?)
}
