//! How a row that exists already takes over the values of a file or a provider, and what becomes
//! of a new one whose key exists.

/// What an update does with existing and with missing values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merge {
    /// Columns whose existing values win; new ones only fill gaps. A custom field is `custom.x`.
    pub fill: Vec<String>,
    /// Columns that stay as they are, gaps included.
    pub keep: Vec<String>,
    /// Columns that a missing value empties. Never keys, never required columns.
    pub clear: Vec<&'static str>,
}

/// What becomes of a new row with a key that exists, also one that another transaction commits just
/// now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfTaken {
    /// The whole statement is refused. Costs a sixth less: nobody looks for the key beforehand.
    Refuse,
    /// The row is left out, whichever of its keys it is.
    LeaveOut,
}

/// The statement of a file beside the caller, with what becomes of keys that exist, and the ids of
/// the rows that were made.
macro_rules! insert_statement {
    ($file:literal, $if_taken:expr) => {
        match $if_taken {
            IfTaken::Refuse => concat!(include_str!($file), "RETURNING id"),
            IfTaken::LeaveOut => {
                concat!(include_str!($file), "ON CONFLICT DO NOTHING RETURNING id")
            }
        }
    };
}
pub(super) use insert_statement;

/// One column of many rows, for `unnest`.
pub(super) fn texts<'a, T>(
    rows: &[&'a T],
    column: impl Fn(&'a T) -> &'a Option<String>,
) -> Vec<Option<&'a str>> {
    rows.iter().map(|row| column(row).as_deref()).collect()
}
