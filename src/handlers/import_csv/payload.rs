//! The payload of an `import_csv` job: which file, which kind of record, which columns.
//!
//! Promises: what deserialises has known fields only, and [`ImportCsv::check`] has looked at every
//! bound. Refuses: unknown fields, so that a misspelt option is an error and not a silent default.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rows per insert statement when the payload does not say.
pub const BATCH_SIZE_DEFAULT: u32 = 100;
/// Most rows per insert statement.
pub const BATCH_SIZE_MAX: u32 = 2_000;
/// Longest name of a sheet, in characters.
pub const SHEET_NAME_MAX: usize = 255;
/// Most entries of a mapping: as many as a file may have columns.
pub const MAPPING_MAX: usize = 1_000;

/// What an `import_csv` job is asked to do.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct ImportCsv {
    /// Always `csv`; may be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import_type: Option<ImportType>,
    /// Where the file is: `upload://<id>` (a file uploaded before), `https://…`, `http://…`, or
    /// `file://…` below the directory that the operator has opened for imports.
    #[schemars(length(min = 1, max = 4096))]
    pub file_url: String,
    /// The name that the file had on the user's side; for display only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub file_name: Option<String>,
    /// Which records the rows become.
    pub entity_type: EntityType,
    /// Header of the file → field of the record (`"Company Name": "name"`). A target `custom.x`
    /// stores the value as custom field `x`; an empty target leaves the column out. Headers that
    /// are not listed are mapped by their name where it is well known.
    #[serde(default)]
    pub mapping: BTreeMap<String, String>,
    #[serde(default)]
    pub options: ImportOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub enum ImportType {
    Csv,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub enum EntityType {
    Accounts,
    Contacts,
}

impl EntityType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::Contacts => "contacts",
        }
    }
}

/// How rows are read and what happens to duplicates.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct ImportOptions {
    /// A row whose key exists already updates that record. Wins over `skip_duplicates`.
    pub update_existing: bool,
    /// A row whose key exists already is skipped. With both options off it is an error.
    pub skip_duplicates: bool,
    /// A row without a record makes one. Off, it is skipped and reported: a list of updates can not
    /// create anything by a mistyped key. Needs `update_existing` then.
    pub create_missing: bool,
    /// Rows per insert statement, 1 to 2000.
    #[schemars(range(min = 1, max = 2000))]
    pub batch_size: u32,
    /// Column separator: `,` `;` `|` or a tab. Detected when absent.
    pub delimiter: Option<Delimiter>,
    /// Character encoding by its usual label (`utf-8`, `windows-1252`, `shift_jis`). Detected when
    /// absent.
    pub encoding: Option<String>,
    /// The sheet of a workbook (`.xlsx`); the first visible one when absent.
    #[schemars(length(min = 1, max = 255))]
    pub sheet: Option<String>,
    /// Physical line of the header, counted from 1. Detected when absent.
    #[schemars(range(min = 1, max = 1000))]
    pub header_row: Option<u32>,
    /// Two-letter country code, used for telephone numbers without a country prefix and for rows
    /// without a country.
    pub default_country: Option<String>,
    /// How numbers are written. Detected per value when absent.
    pub number_format: Option<NumberFormat>,
    /// What an empty cell does to an existing value.
    pub empty_values: EmptyValues,
    /// Whether an update replaces existing values or only fills gaps.
    pub update_policy: UpdatePolicy,
    /// The same for single fields (`"phone": "never"`, `"custom.x": "fill_blank"`), which wins over
    /// `update_policy`. A record that is new gets every value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub field_policies: BTreeMap<String, UpdatePolicy>,
    /// Map columns by well-known header names when `mapping` does not list them.
    pub auto_map: bool,
    /// Without a `mapping`, use the template that is saved for these headers, if there is one.
    pub use_templates: bool,
    /// Check everything and count, but change no account and no contact.
    pub dry_run: bool,
    /// Start the error report with a byte order mark, which spreadsheets want.
    pub report_bom: bool,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            update_existing: false,
            skip_duplicates: true,
            create_missing: true,
            batch_size: BATCH_SIZE_DEFAULT,
            delimiter: None,
            encoding: None,
            sheet: None,
            header_row: None,
            default_country: None,
            number_format: None,
            empty_values: EmptyValues::Ignore,
            update_policy: UpdatePolicy::Overwrite,
            field_policies: BTreeMap::new(),
            auto_map: true,
            use_templates: true,
            dry_run: false,
            report_bom: true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub enum Delimiter {
    #[serde(rename = ",", alias = "comma")]
    Comma,
    #[serde(rename = ";", alias = "semicolon")]
    Semicolon,
    #[serde(rename = "\t", alias = "tab")]
    Tab,
    #[serde(rename = "|", alias = "pipe")]
    Pipe,
}

impl Delimiter {
    /// Candidates in the order in which a tie is decided.
    pub const ALL: [Self; 4] = [Self::Comma, Self::Semicolon, Self::Tab, Self::Pipe];

    pub fn byte(self) -> u8 {
        match self {
            Self::Comma => b',',
            Self::Semicolon => b';',
            Self::Tab => b'\t',
            Self::Pipe => b'|',
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub enum NumberFormat {
    /// `1,234.56`
    Point,
    /// `1.234,56`
    Comma,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub enum EmptyValues {
    /// The existing value stays.
    Ignore,
    /// The existing value is removed (never a key, never a required field).
    Clear,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub enum UpdatePolicy {
    /// Values of the file replace existing ones.
    Overwrite,
    /// Values of the file only fill empty fields.
    FillBlank,
    /// What is there stays, empty fields included.
    Never,
}

/// Why a payload that has the right shape is still refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPayload {
    #[error("options.batch_size is {0}; it must be between 1 and {BATCH_SIZE_MAX}")]
    BatchSize(u32),
    #[error("options.encoding `{0}` is not a known encoding; try utf-8 or windows-1252")]
    Encoding(String),
    #[error("options.header_row is {0}; it counts lines from 1 to 1000")]
    HeaderRow(u32),
    #[error("options.default_country `{0}` is not a two-letter country code such as DE")]
    Country(String),
    #[error("mapping has {0} entries; at most {MAPPING_MAX} are allowed")]
    Mapping(usize),
    #[error("options.sheet is empty or longer than {SHEET_NAME_MAX} characters")]
    Sheet,
    #[error("options.field_policies has {0} entries; at most {MAPPING_MAX} are allowed")]
    Policies(usize),
    #[error(
        "options.field_policies names `{field}`, which is no field of {entity}; known: {known}, \
         custom.<name>"
    )]
    PolicyOf {
        field: String,
        entity: &'static str,
        known: String,
    },
    #[error(
        "options.create_missing is off, and update_existing too: nothing would be written; switch \
         update_existing on"
    )]
    NothingToWrite,
    #[error("file_url is empty")]
    FileUrl,
}

impl ImportCsv {
    /// Looks at every bound that the types do not express.
    pub fn check(&self) -> Result<(), InvalidPayload> {
        let options = &self.options;
        if self.file_url.trim().is_empty() {
            return Err(InvalidPayload::FileUrl);
        }
        if self.mapping.len() > MAPPING_MAX {
            return Err(InvalidPayload::Mapping(self.mapping.len()));
        }
        if !options.create_missing && !options.update_existing {
            return Err(InvalidPayload::NothingToWrite);
        }
        if options.batch_size == 0 || options.batch_size > BATCH_SIZE_MAX {
            return Err(InvalidPayload::BatchSize(options.batch_size));
        }
        if let Some(row) = options.header_row.filter(|row| *row == 0 || *row > 1000) {
            return Err(InvalidPayload::HeaderRow(row));
        }
        if let Some(sheet) = &options.sheet
            && !(1..=SHEET_NAME_MAX).contains(&sheet.chars().count())
        {
            return Err(InvalidPayload::Sheet);
        }
        super::policies::check(self.entity_type, &options.field_policies)?;
        if let Some(label) = &options.encoding
            && encoding_rs::Encoding::for_label(label.as_bytes()).is_none()
        {
            return Err(InvalidPayload::Encoding(label.clone()));
        }
        if let Some(country) = &options.default_country
            && super::country::by_code(country).is_none()
        {
            return Err(InvalidPayload::Country(country.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
