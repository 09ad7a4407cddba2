//! What a person must know.

use super::{Record, RecordError};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertKind {
    /// The record went back in time; what only Redis knew was written into it again.
    RecordLostItsTail,
}

impl AlertKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RecordLostItsTail => "record_lost_its_tail",
        }
    }
}

/// Writes an alert.
pub async fn raise(
    record: &Record,
    kind: AlertKind,
    message: &str,
    details: &serde_json::Value,
) -> Result<(), RecordError> {
    sqlx::query("INSERT INTO bullwark.alerts (kind, message, details) VALUES ($1, $2, $3)")
        .bind(kind.as_str())
        .bind(message)
        .bind(details)
        .execute(&record.pool)
        .await?;
    Ok(())
}
