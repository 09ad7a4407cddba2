//! Which record this is, and how far it has come: whoever remembers can tell when it lost its tail.

use super::{Record, RecordError};

/// A moment in the life of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordMark {
    /// The database cluster and its timeline: a promotion and a recovery begin another one.
    pub server: String,
    /// Grows all the time; a record that was restored has an earlier one.
    pub beat: i64,
}

impl RecordMark {
    /// Whether a record with this mark may lack what one with that other mark had.
    pub fn may_lack(&self, other: &Self) -> bool {
        self.server != other.server || self.beat < other.beat
    }
}

impl std::fmt::Display for RecordMark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.server, self.beat)
    }
}

impl std::str::FromStr for RecordMark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no mark of a record");
        let (server, beat) = text.rsplit_once('/').ok_or_else(wrong)?;
        Ok(Self {
            server: server.to_owned(),
            beat: beat.parse().map_err(|_| wrong())?,
        })
    }
}

/// The timeline is the first part of the name of a file of the write-ahead log.
const SERVER: &str = "(SELECT system_identifier::text FROM pg_control_system()) || '.' ||
  left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)";

/// The mark now.
pub async fn get(record: &Record, prefix: &str) -> Result<RecordMark, RecordError> {
    let (server, beat) = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {SERVER}, coalesce((SELECT beat FROM bullwark.beats WHERE prefix = $1), 0)"
    )))
    .bind(prefix)
    .fetch_one(&record.pool)
    .await?;
    Ok(RecordMark { server, beat })
}

/// Moves the mark on, and returns it.
pub async fn beat(record: &Record, prefix: &str) -> Result<RecordMark, RecordError> {
    let (server, beat) = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "WITH beaten AS (
           INSERT INTO bullwark.beats AS b (prefix, beat) VALUES ($1, 1)
           ON CONFLICT (prefix) DO UPDATE SET beat = b.beat + 1 RETURNING beat
         )
         SELECT {SERVER}, beat FROM beaten"
    )))
    .bind(prefix)
    .fetch_one(&record.pool)
    .await?;
    Ok(RecordMark { server, beat })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_knows_what_it_may_lack() {
        let mark = |server: &str, beat| RecordMark {
            server: server.into(),
            beat,
        };
        let now = mark("7001.00000002", 9);
        assert_eq!(now.to_string().parse(), Ok(now.clone()));
        assert!("7001.00000002".parse::<RecordMark>().is_err());
        assert!(!now.may_lack(&now));
        assert!(!now.may_lack(&mark("7001.00000002", 8)));
        assert!(now.may_lack(&mark("7001.00000002", 10)));
        assert!(now.may_lack(&mark("7001.00000001", 3)), "promoted");
    }
}
