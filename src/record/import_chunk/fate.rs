//! What becomes of one row.

use uuid::Uuid;

use super::{OnExisting, RowPlace};

/// The codes of this module; the others come with the rejected rows.
const DUPLICATE_IN_FILE: &str = "DUPLICATE_IN_FILE";
pub(super) const DUPLICATE_EXISTING: &str = "DUPLICATE_EXISTING";
const NO_SUCH_RECORD: &str = "NO_SUCH_RECORD";
const DATABASE_REJECTED: &str = "DATABASE_REJECTED";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Inserted,
    Updated,
    Unchanged,
    Skipped,
    Failed,
}

impl Outcome {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Inserted => "inserted",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }
}

/// What became of one row.
#[derive(Debug, Clone)]
pub(super) struct Fate {
    pub(super) outcome: Outcome,
    pub(super) entity_id: Option<Uuid>,
    pub(super) code: Option<&'static str>,
    pub(super) column: Option<String>,
    pub(super) message: Option<String>,
    pub(super) suggestion: Option<String>,
    /// Whether the row goes into the error report, with its bytes.
    pub(super) is_reported: bool,
}

impl Fate {
    pub(super) fn done(outcome: Outcome, entity_id: Option<Uuid>) -> Self {
        Self {
            outcome,
            entity_id,
            code: None,
            column: None,
            message: None,
            suggestion: None,
            is_reported: false,
        }
    }

    pub(super) fn coded(outcome: Outcome, code: &'static str, message: String) -> Self {
        let is_reported = true;
        Self {
            code: Some(code),
            message: Some(message),
            is_reported,
            ..Self::done(outcome, None)
        }
    }

    /// Other writers changed the record under this row, again and again.
    pub(super) fn lost_race() -> Self {
        let message = "other writers changed this record at the same time, again and again";
        Self::coded(Outcome::Failed, DATABASE_REJECTED, message.to_owned())
    }

    /// It would make a record, where only records that are there are wanted. Somebody may have
    /// mistyped a key, so it is reported.
    pub(super) fn missing() -> Self {
        let message = "there is no such record, and none is to be created";
        Self::coded(Outcome::Skipped, NO_SUCH_RECORD, message.to_owned())
    }

    /// Another row of the file came first. It is lost work unless somebody hears of it, so it is
    /// reported in every mode; strict imports count it as a failure.
    pub(super) fn duplicate_in_file(on_existing: &OnExisting, first_row: i64) -> Self {
        let outcome = match on_existing {
            OnExisting::Reject => Outcome::Failed,
            OnExisting::Update(_) | OnExisting::Skip => Outcome::Skipped,
        };
        Self::coded(
            outcome,
            DUPLICATE_IN_FILE,
            format!("the same record as row {first_row}"),
        )
    }
}

/// A row with its fate, ready to be written down.
#[derive(Debug)]
pub(super) struct Settled<'a> {
    pub(super) place: &'a RowPlace,
    pub(super) key: Option<Uuid>,
    pub(super) fate: Fate,
}

/// Whether a constraint is one of those that keep keys unique.
pub(super) fn is_taken(constraint: Option<&str>) -> bool {
    constraint.is_some_and(|name| name.ends_with("_unique"))
}

/// What a refusal of the schema means for the one row that caused it.
pub(super) fn refused(constraint: Option<String>, message: String) -> Fate {
    match constraint {
        Some(name) if is_taken(Some(&name)) => {
            let message = format!("one of its keys belongs to another record ({name})");
            Fate::coded(Outcome::Failed, DUPLICATE_EXISTING, message)
        }
        _ => Fate::coded(Outcome::Failed, DATABASE_REJECTED, message),
    }
}
