//! What can go wrong with the record, in the kinds that callers act on.

/// An error of the record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The address can not be read; a mistake of the configuration.
    #[error("database address: {0}")]
    Address(String),
    /// PostgreSQL is away, overloaded or starting: try again.
    #[error("the record (PostgreSQL) is unavailable: {0}")]
    Unavailable(String),
    /// A rule of the schema said no to these values; they will never be accepted.
    #[error("the record refused the values{}: {message}", of(constraint))]
    Refused {
        constraint: Option<String>,
        message: String,
    },
    /// The schema is not the one that this program expects.
    #[error("the record's schema does not fit: {0}; run `bullwark migrate`")]
    Schema(String),
    /// A bug, or a damaged database.
    #[error("the record answered unexpectedly: {0}")]
    Corrupt(String),
}

fn of(constraint: &Option<String>) -> String {
    constraint
        .as_ref()
        .map(|name| format!(" ({name})"))
        .unwrap_or_default()
}

impl RecordError {
    /// True when the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    pub(super) fn from_migration(error: sqlx::migrate::MigrateError) -> Self {
        match error {
            sqlx::migrate::MigrateError::Execute(error)
            | sqlx::migrate::MigrateError::ExecuteMigration(error, _) => error.into(),
            other => Self::Schema(other.to_string()),
        }
    }
}

impl From<sqlx::Error> for RecordError {
    fn from(error: sqlx::Error) -> Self {
        let text = error.to_string();
        match error {
            sqlx::Error::Database(error) => from_database(error.as_ref(), text),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Protocol(_) => Self::Unavailable(text),
            _ => Self::Corrupt(text),
        }
    }
}

/// Sorts by SQLSTATE class (PostgreSQL documentation, appendix A).
fn from_database(error: &dyn sqlx::error::DatabaseError, text: String) -> RecordError {
    let code = error.code().unwrap_or_default().into_owned();
    match (code.get(..2).unwrap_or(""), code.as_str()) {
        // Connection, resources, operator intervention, system error, read only, locks, rollback.
        ("08" | "53" | "57" | "58" | "25" | "55" | "40", _) => RecordError::Unavailable(text),
        // Undefined table, column or function: the schema is older or newer than the program.
        (_, "42P01" | "42703" | "42883" | "3F000") => RecordError::Schema(text),
        ("22" | "23", _) => RecordError::Refused {
            constraint: error.constraint().map(str::to_owned),
            message: error.message().to_owned(),
        },
        // Statement too complex (deeply nested values).
        ("54", _) => RecordError::Refused {
            constraint: None,
            message: text,
        },
        _ => RecordError::Corrupt(text),
    }
}
