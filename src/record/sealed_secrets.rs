//! Secrets that were sealed with the installation's key, wherever they are.

use super::{Record, RecordError};

/// Whether there are any, whose ever.
pub async fn are_any(record: &Record) -> Result<bool, RecordError> {
    let any = "SELECT EXISTS (SELECT FROM webhooks WHERE secret LIKE 'v1.%')
      OR EXISTS (SELECT FROM connections WHERE credentials LIKE 'v1.%')";
    Ok(sqlx::query_scalar(any).fetch_one(&record.pool).await?)
}
