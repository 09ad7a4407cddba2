//! What can go wrong with the record, in the kinds that callers act on.

/// Why the record is unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// There is no connection, or none came free in time.
    Away,
    /// The connection broke while the call ran: it may have taken effect.
    Lost,
    /// The server has no room to write.
    Full,
    /// The server takes no writes: a standby, or a primary that was told so.
    ReadOnly,
    /// Rolled back for the sake of another transaction: nothing was done, and the same call may
    /// work at once.
    Conflict,
    /// Somebody else holds what it needs, or it took too long: nothing was done.
    Slow,
    /// Another server answers, which may lack its tail: Redis is to be looked at first.
    Comparing,
}

/// An error of the record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The address can not be read; a mistake of the configuration.
    #[error("database address: {0}")]
    Address(String),
    /// It did not work this time: try again.
    #[error("the record (PostgreSQL) is unavailable: {1}")]
    Unavailable(Trouble, String),
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
        self.trouble().is_some()
    }

    /// Why it is unavailable, if it is.
    pub fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::Unavailable(trouble, _) => Some(*trouble),
            _ => None,
        }
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
            sqlx::Error::Io(error) => Self::Unavailable(trouble_of(&error), text),
            // Half an answer.
            sqlx::Error::Protocol(_) => Self::Unavailable(Trouble::Lost, text),
            sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(Trouble::Away, text),
            _ => Self::Corrupt(text),
        }
    }
}

fn trouble_of(error: &std::io::Error) -> Trouble {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound => Trouble::Away,
        _ => Trouble::Lost,
    }
}

/// Sorts by SQLSTATE class (PostgreSQL documentation, appendix A).
fn from_database(error: &dyn sqlx::error::DatabaseError, text: String) -> RecordError {
    let code = error.code().unwrap_or_default().into_owned();
    let unavailable = |trouble| RecordError::Unavailable(trouble, text.clone());
    match (code.get(..2).unwrap_or(""), code.as_str()) {
        // The session was ended under the call, or nobody knows how the call ended.
        (_, "57P01" | "57P02" | "57P05" | "25P03" | "40003") | ("08", _) => {
            unavailable(Trouble::Lost)
        }
        (_, "53100") => unavailable(Trouble::Full),
        (_, "25006") => unavailable(Trouble::ReadOnly),
        ("40", _) => unavailable(Trouble::Conflict),
        // A lock that did not come free, a statement that was ended for its length.
        (_, "55P03" | "57014") => unavailable(Trouble::Slow),
        // Resources, operator intervention, system error, transaction state, locks.
        ("53" | "57" | "58" | "25" | "55", _) => unavailable(Trouble::Away),
        // A file that may not grow (a quota, a limit of the process) has no code of its own.
        (_, "XX000") if is_storage(error) => unavailable(Trouble::Full),
        // Undefined table, column or function, or a right or role that is missing: the schema is
        // older or newer than the program, or somebody changed it.
        (_, "42P01" | "42703" | "42883" | "3F000" | "42501" | "42704") => RecordError::Schema(text),
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

/// Raised by PostgreSQL's storage manager, whose functions are named so in every language.
fn is_storage(error: &dyn sqlx::error::DatabaseError) -> bool {
    error
        .try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
        .and_then(sqlx::postgres::PgDatabaseError::routine)
        .is_some_and(|routine| routine.starts_with("md"))
}
