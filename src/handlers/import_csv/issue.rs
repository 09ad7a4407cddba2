//! What can be wrong with one row: stable codes and the sentence a person reads.
//!
//! Codes are a contract. They stand in the error report, in `import_rows.code` and in the summary,
//! and people filter by them; a code is never renamed.

use std::borrow::Cow;

use serde::Serialize;

/// Why a row was not taken over as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// A field that every record needs is empty.
    RequiredMissing,
    /// Not an e-mail address that could receive mail.
    EmailInvalid,
    /// Not a registrable domain and not a URL that contains one.
    DomainInvalid,
    /// Not a web address, or one of another site than the field is for.
    UrlInvalid,
    /// No digits, too few, or too many for a telephone number.
    PhoneInvalid,
    /// A number was expected and something else was found.
    TypeMismatch,
    /// Longer than the field is wide.
    ValueTooLong,
    /// More filled cells than the header has columns.
    TooManyColumns,
    /// An earlier row of the same file has the same key.
    DuplicateInFile,
    /// The record already holds this key, and the options say that this is an error or a skip.
    DuplicateExisting,
    /// A key contains a character that the file's encoding could not express.
    EncodingReplaced,
    /// A spreadsheet destroyed the value (`1.23E+11`, `#REF!`).
    ExcelDamage,
    /// A NUL or another control character stands in a value.
    InvalidCharacter,
    /// The database refused exactly this row.
    DatabaseRejected,
}

impl Code {
    /// All codes, for documentation and tests.
    pub const ALL: [Self; 14] = [
        Self::RequiredMissing,
        Self::EmailInvalid,
        Self::DomainInvalid,
        Self::UrlInvalid,
        Self::PhoneInvalid,
        Self::TypeMismatch,
        Self::ValueTooLong,
        Self::TooManyColumns,
        Self::DuplicateInFile,
        Self::DuplicateExisting,
        Self::EncodingReplaced,
        Self::ExcelDamage,
        Self::InvalidCharacter,
        Self::DatabaseRejected,
    ];

    /// The code as reports and the record spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequiredMissing => "REQUIRED_MISSING",
            Self::EmailInvalid => "EMAIL_INVALID",
            Self::DomainInvalid => "DOMAIN_INVALID",
            Self::UrlInvalid => "URL_INVALID",
            Self::PhoneInvalid => "PHONE_INVALID",
            Self::TypeMismatch => "TYPE_MISMATCH",
            Self::ValueTooLong => "VALUE_TOO_LONG",
            Self::TooManyColumns => "TOO_MANY_COLUMNS",
            Self::DuplicateInFile => "DUPLICATE_IN_FILE",
            Self::DuplicateExisting => "DUPLICATE_EXISTING",
            Self::EncodingReplaced => "ENCODING_REPLACED",
            Self::ExcelDamage => "EXCEL_DAMAGE",
            Self::InvalidCharacter => "INVALID_CHARACTER",
            Self::DatabaseRejected => "DATABASE_REJECTED",
        }
    }
}

/// One complaint about one cell (or about the row, when `column` is absent).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = RowIssue))]
pub struct Issue {
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub code: Code,
    /// The header of the cell, as the file spells it.
    pub column: Option<String>,
    pub message: String,
    /// A value that would have been accepted, when one can be guessed.
    pub suggestion: Option<String>,
}

/// A complaint of a normalising function, which does not know the column it works for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    pub code: Code,
    pub message: Cow<'static, str>,
    pub suggestion: Option<String>,
}

impl Complaint {
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            suggestion: None,
        }
    }

    pub fn suggest(mut self, value: impl Into<String>) -> Self {
        self.suggestion = Some(value.into());
        self
    }

    /// The complaint, now about a named column.
    pub fn about(self, column: &str) -> Issue {
        Issue {
            code: self.code,
            column: Some(column.to_owned()),
            message: self.message.into_owned(),
            suggestion: self.suggestion,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spelling_of_a_code_is_the_same_in_json_and_in_reports() {
        for code in Code::ALL {
            let json = serde_json::to_string(&code).unwrap();
            assert_eq!(json, format!("\"{}\"", code.as_str()));
        }
    }
}
