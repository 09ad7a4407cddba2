//! `job_effects`: calls to the outside world, noted before they are made.
//!
//! An intent that has no result is ambiguous: the process died, or the answer was lost, and the
//! call may have taken effect. Every function here runs in a transaction that began with the fence.

use uuid::Uuid;

use super::{RecordError, Tx};

/// Effects that one job may have.
pub const EFFECTS_MAX: i64 = 1_000;

/// A call that is about to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Intent {
    pub job_id: Uuid,
    pub key: String,
    pub idempotency_key: String,
    /// Hash of the request: the same key with another request is a mistake of the handler.
    pub fingerprint: Vec<u8>,
    /// Of this one call; tells its own intent from that of an earlier one.
    pub call_id: Uuid,
    pub attempt: i32,
}

/// An effect as it stands in the record.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct EffectRow {
    /// `intended`, `done` or `unknown`.
    pub state: String,
    pub result: Option<serde_json::Value>,
    pub fingerprint: Vec<u8>,
    pub call_id: Uuid,
}

/// Notes an intent, unless there is one under this key; returns the one that stands there. None:
/// the job has [`EFFECTS_MAX`] others. Safe to repeat.
pub async fn intend(tx: &mut Tx, intent: &Intent) -> Result<Option<EffectRow>, RecordError> {
    sqlx::query(
        "INSERT INTO job_effects (job_id, key, idempotency_key, fingerprint, call_id, attempt)
         SELECT $1, $2, $3, $4, $5, $6
         WHERE (SELECT count(*) FROM job_effects WHERE job_id = $1) < $7
         ON CONFLICT (job_id, key) DO NOTHING",
    )
    .bind(intent.job_id)
    .bind(&intent.key)
    .bind(&intent.idempotency_key)
    .bind(&intent.fingerprint)
    .bind(intent.call_id)
    .bind(intent.attempt)
    .bind(EFFECTS_MAX)
    .execute(tx.connection())
    .await?;
    Ok(sqlx::query_as(
        "SELECT state, result, fingerprint, call_id FROM job_effects
         WHERE job_id = $1 AND key = $2",
    )
    .bind(intent.job_id)
    .bind(&intent.key)
    .fetch_optional(tx.connection())
    .await?)
}

/// Takes an ambiguous intent over: the call is made again.
pub async fn intend_again(tx: &mut Tx, intent: &Intent) -> Result<(), RecordError> {
    sqlx::query(
        "UPDATE job_effects SET call_id = $3, attempt = $4
         WHERE job_id = $1 AND key = $2 AND state = 'intended'",
    )
    .bind(intent.job_id)
    .bind(&intent.key)
    .bind(intent.call_id)
    .bind(intent.attempt)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Gives an ambiguous intent up: it is never sent again.
pub async fn give_up(tx: &mut Tx, intent: &Intent) -> Result<(), RecordError> {
    sqlx::query(
        "UPDATE job_effects SET state = 'unknown', ended_at = now()
         WHERE job_id = $1 AND key = $2 AND state = 'intended'",
    )
    .bind(intent.job_id)
    .bind(&intent.key)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Notes the result of a call. Safe to repeat: the first result stays. A job that gets on is no
/// crash loop: its lost leases are forgotten.
pub async fn note_result(
    tx: &mut Tx,
    intent: &Intent,
    result: &serde_json::Value,
) -> Result<(), RecordError> {
    sqlx::query(
        "WITH forgiven AS (
           UPDATE jobs SET lease_losses = 0 WHERE id = $1 AND lease_losses > 0
         )
         UPDATE job_effects SET state = 'done', result = $3, ended_at = now()
         WHERE job_id = $1 AND key = $2 AND state <> 'done'",
    )
    .bind(intent.job_id)
    .bind(&intent.key)
    .bind(result)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Forgets the intent of a call that certainly took no effect: a later attempt may make it.
pub async fn withdraw(tx: &mut Tx, intent: &Intent) -> Result<(), RecordError> {
    sqlx::query(
        "DELETE FROM job_effects
         WHERE job_id = $1 AND key = $2 AND call_id = $3 AND state = 'intended'",
    )
    .bind(intent.job_id)
    .bind(&intent.key)
    .bind(intent.call_id)
    .execute(tx.connection())
    .await?;
    Ok(())
}
