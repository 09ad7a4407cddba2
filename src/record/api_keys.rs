//! Keys of the HTTP API. The record holds hashes only; a key itself is shown once, when it is made.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Record, RecordError};

/// The workspace that a key opens, if the key is valid.
pub async fn find_workspace(record: &Record, key: &str) -> Result<Option<Uuid>, RecordError> {
    // The key has 256 random bits, so a plain hash needs no salt, and looking it up by its hash
    // tells nothing about other keys.
    Ok(sqlx::query_scalar(
        "SELECT workspace_id FROM bullwark.api_keys WHERE hash = $1 AND revoked_at IS NULL",
    )
    .bind(Sha256::digest(key).to_vec())
    .fetch_optional(&record.pool)
    .await?)
}

/// Makes a given key valid for a workspace. Doing it again changes nothing.
pub async fn ensure(
    record: &Record,
    key: &str,
    workspace_id: Uuid,
    name: &str,
) -> Result<(), RecordError> {
    sqlx::query(
        "INSERT INTO bullwark.api_keys (workspace_id, name, hash) VALUES ($1, $2, $3)
         ON CONFLICT (hash) DO NOTHING",
    )
    .bind(workspace_id)
    .bind(name)
    .bind(Sha256::digest(key).to_vec())
    .execute(&record.pool)
    .await?;
    Ok(())
}
