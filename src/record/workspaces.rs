//! Workspaces: the tenants.

use uuid::Uuid;

use super::{Record, RecordError};

/// The workspace that a single-tenant installation uses. A fixed id, so that two processes that
/// start at once make the same one.
pub const DEFAULT_WORKSPACE: Uuid = Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0001);

/// Whether there is such a workspace.
pub async fn exists(record: &Record, id: Uuid) -> Result<bool, RecordError> {
    Ok(
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM workspaces WHERE id = $1)")
            .bind(id)
            .fetch_one(&record.pool)
            .await?,
    )
}

/// Makes sure that the default workspace exists.
pub async fn ensure_default(record: &Record) -> Result<Uuid, RecordError> {
    sqlx::query("INSERT INTO workspaces (id, name) VALUES ($1, 'Default') ON CONFLICT DO NOTHING")
        .bind(DEFAULT_WORKSPACE)
        .execute(&record.pool)
        .await?;
    Ok(DEFAULT_WORKSPACE)
}
