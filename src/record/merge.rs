//! How a row that exists already takes over the values of a file or a provider.

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

/// One column of many rows, for `unnest`.
pub(super) fn texts<'a, T>(
    rows: &[&'a T],
    column: impl Fn(&'a T) -> &'a Option<String>,
) -> Vec<Option<&'a str>> {
    rows.iter().map(|row| column(row).as_deref()).collect()
}
