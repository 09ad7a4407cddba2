//! The payloads of `export_data` and `export_csv` jobs: which records, which columns, which rows,
//! and how the file is written.
//!
//! Promises: what deserialises has known fields only; what the types do not say is looked at by
//! [`Plan::new`](super::plan::Plan::new), which names every mistake with its place.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use super::super::deliver_export::{DeliverTo, Delivery};
use super::super::import_csv::payload::{Delimiter, EntityType};
use crate::record::exports::filter::Op;

/// Rows of a page when the payload does not say, and at most.
pub const PAGE_SIZE_DEFAULT: u32 = 1_000;
pub const PAGE_SIZE_MAX: u32 = 5_000;
/// Most fields that a payload names.
pub const FIELDS_MAX: usize = 300;
/// Most conditions.
pub const FILTERS_MAX: usize = 20;
/// Longest file name, in characters.
pub const FILE_NAME_MAX: usize = 200;

/// What an `export_data` job is asked to do.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = NewExport))]
pub struct ExportData {
    /// Which records.
    pub entity_type: EntityType,
    #[serde(default)]
    pub format: Format,
    /// The columns, in their order; `custom.x` is the custom field `x`. None: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 300))]
    #[cfg_attr(feature = "server", schema(max_items = 300, example = json!(["name", "domain"])))]
    pub fields: Vec<String>,
    /// Only rows for which all of these hold.
    #[serde(default, skip_serializing_if = "Filters::is_empty")]
    pub filters: Filters,
    /// What the file is called where it is downloaded; for people, never a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    #[cfg_attr(feature = "server", schema(min_length = 1, max_length = 200))]
    pub file_name: Option<String>,
    /// May be left out: the file waits to be downloaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver_to: Option<DeliverTo>,
    /// With `deliver_to`: whom the mail goes to, or what is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    #[serde(default)]
    pub options: ExportOptions,
}

/// What an `export_csv` job is asked to do: the same, and the format is known.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportCsv {
    /// Which records.
    pub entity_type: EntityType,
    /// Always `csv`; may be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<OnlyCsv>,
    /// The columns, in their order; `custom.x` is the custom field `x`. None: all of them.
    #[serde(default)]
    #[schemars(length(max = 300))]
    pub fields: Vec<String>,
    /// Only rows for which all of these hold.
    #[serde(default)]
    pub filters: Filters,
    /// What the file is called where it is downloaded; for people, never a path.
    #[serde(default)]
    #[schemars(length(min = 1, max = 200))]
    pub file_name: Option<String>,
    /// May be left out: the file waits to be downloaded.
    #[serde(default)]
    pub deliver_to: Option<DeliverTo>,
    /// With `deliver_to`: whom the mail goes to, or what is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    #[serde(default)]
    pub options: ExportOptions,
}

impl From<ExportCsv> for ExportData {
    fn from(csv: ExportCsv) -> Self {
        Self {
            entity_type: csv.entity_type,
            format: Format::Csv,
            fields: csv.fields,
            filters: csv.filters,
            file_name: csv.file_name,
            deliver_to: csv.deliver_to,
            delivery: csv.delivery,
            options: csv.options,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnlyCsv {
    Csv,
}

/// How the file is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = ExportFormat))]
pub enum Format {
    #[default]
    Csv,
    /// One array of objects.
    Json,
    /// One object per line.
    Ndjson,
    /// A workbook for Excel and the like.
    Xlsx,
    /// The same as `xlsx`.
    Excel,
}

impl Format {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Xlsx | Self::Excel => "xlsx",
        }
    }
}

/// Which rows: conditions with operators, or values by field (`{"country": "DE"}`), where a list
/// means any of its values and `null` none at all.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = ExportFilters))]
pub enum Filters {
    List(#[schemars(length(max = 20))] Vec<Filter>),
    Values(BTreeMap<String, Value>),
}

impl Default for Filters {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

/// By hand, so that a mistake in a condition is told, and not only that nothing fits.
impl<'de> Deserialize<'de> for Filters {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        match Value::deserialize(deserializer)? {
            Value::Array(items) => {
                let read = |(at, item)| {
                    serde_json::from_value(item)
                        .map_err(|error| D::Error::custom(format!("filter {at}: {error}")))
                };
                let list: Result<_, _> = items.into_iter().enumerate().map(read).collect();
                Ok(Self::List(list?))
            }
            Value::Object(members) => Ok(Self::Values(members.into_iter().collect())),
            _ => Err(D::Error::custom(
                "filters are a list of {\"field\", \"op\", \"value\"}, or an object of values by \
                 field",
            )),
        }
    }
}

impl Filters {
    pub fn is_empty(&self) -> bool {
        match self {
            Self::List(list) => list.is_empty(),
            Self::Values(values) => values.is_empty(),
        }
    }

    /// Each of them with its place in the payload.
    pub fn each(&self) -> Vec<(String, Filter)> {
        match self {
            Self::List(list) => {
                let placed =
                    |(at, filter): (usize, &Filter)| (format!("/filters/{at}"), filter.clone());
                list.iter().enumerate().map(placed).collect()
            }
            Self::Values(values) => {
                let placed = |(field, value): (&String, &Value)| {
                    let name = field.replace('~', "~0").replace('/', "~1");
                    let op = match value {
                        Value::Null => Op::IsNull,
                        Value::Array(_) => Op::In,
                        _ => Op::Eq,
                    };
                    let (field, value) = (field.clone(), value.clone());
                    (format!("/filters/{name}"), Filter { field, op, value })
                };
                values.iter().map(placed).collect()
            }
        }
    }
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = ExportFilter))]
pub struct Filter {
    /// A column, or `custom.x`.
    pub field: String,
    #[serde(default)]
    pub op: Op,
    /// What the field is compared with: a text, a whole number, a time, or for `in` a list.
    #[serde(default)]
    pub value: Value,
}

/// How rows are read and written.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct ExportOptions {
    /// Of CSV: between two columns, `,` `;` `|` or a tab.
    pub delimiter: Option<Delimiter>,
    /// Of CSV: the first line has the names of the columns.
    pub header: bool,
    /// Of CSV: start with a byte order mark, which older spreadsheets want.
    pub bom: bool,
    /// Of CSV: an apostrophe before texts that a spreadsheet would compute. An import takes it off
    /// again. Without it, a text that somebody else wrote may do harm where the file is opened.
    pub formula_guard: bool,
    /// Rows that are read at once, 1 to 5000.
    #[schemars(range(min = 1, max = 5000))]
    #[cfg_attr(feature = "server", schema(minimum = 1, maximum = 5000))]
    pub page_size: u32,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            delimiter: None,
            header: true,
            bom: false,
            formula_guard: true,
            page_size: PAGE_SIZE_DEFAULT,
        }
    }
}
