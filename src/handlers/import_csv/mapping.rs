//! Which column becomes which field.
//!
//! The user's mapping decides first. Columns that it does not name are matched by their header
//! (exact name, synonym, then one typing error), and a column whose header says nothing by its
//! values when they are plainly e-mail or `LinkedIn` addresses. One field takes one column.
//!
//! Refuses before a row is touched: a mapped header that the file lacks, an unknown or doubly used
//! field, and a file without any column for a required field.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use super::custom::Kinds;
use super::fields::{self, Field};
use super::link;
use super::normalize;
use super::payload::EntityType;
use super::similar::one_error_apart;

/// Our own columns at the end of an error report; a corrected report may be uploaded again.
pub const REPORT_COLUMNS: [&str; 6] = [
    "_row",
    "_status",
    "_error_code",
    "_error_column",
    "_error_message",
    "_suggestion",
];
/// How custom fields are named.
pub(super) const CUSTOM: &str = "custom.";
/// Longest name of a custom field, in bytes.
pub const CUSTOM_NAME_MAX: usize = 100;
/// Share of the sampled values that must look alike before they name a column.
const EVIDENCE_MIN: f64 = 0.8;
/// Headers that an error message lists.
const LISTED_MAX: usize = 40;

/// Where the values of a column go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Field(Field),
    Custom(String),
    Ignored,
}

/// Why a column has its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = MappingReason))]
pub enum Reason {
    /// The payload says so.
    Explicit,
    /// A template for these headers says so.
    Template,
    /// The header is the name of the field.
    Exact,
    /// The header is a known synonym.
    Synonym,
    /// The header is one typing error away from a name or synonym.
    Similar,
    /// The values are unmistakable.
    Values,
    /// Nothing fits, or the payload leaves the column out.
    Ignored,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The header, made unique (`email`, `email_2`).
    pub header: String,
    pub target: Target,
    pub reason: Reason,
}

/// The columns of a file in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    pub columns: Vec<Column>,
    /// Columns up to the last one with a name of the user's. A value to the right of it has lost
    /// its place: an unquoted delimiter has moved the row.
    pub width: usize,
    /// Of the custom fields that it fills, as far as they are declared.
    pub kinds: Kinds,
}

/// Why a file cannot be mapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    #[error("the file has no header row")]
    NoHeader,
    #[error(
        "the mapping names the header `{header}`, which the file does not have; it has: {known}"
    )]
    UnknownHeader { header: String, known: String },
    #[error(
        "the mapping sends `{header}` to `{field}`, which is no field of {entity}; known: {known}"
    )]
    UnknownField {
        header: String,
        field: String,
        entity: &'static str,
        known: String,
    },
    #[error("the mapping sends both `{first}` and `{second}` to `{field}`")]
    FieldTwice {
        first: String,
        second: String,
        field: String,
    },
    #[error("no column for {required}; map one of the headers to it: {known}")]
    RequiredUnmapped { required: String, known: String },
}

/// Maps the headers of a file, so that its rows can be told apart. `sample` holds the values of the
/// first rows, by row.
pub fn map_columns(
    entity: EntityType,
    headers: &[String],
    explicit: &BTreeMap<String, String>,
    auto: bool,
    sample: &[Vec<String>],
) -> Result<Mapping, MappingError> {
    let mapping = propose(entity, headers, explicit, auto, sample)?;
    mapping.check(entity)?;
    Ok(mapping)
}

/// Maps the headers of a file as far as it goes.
pub fn propose(
    entity: EntityType,
    headers: &[String],
    explicit: &BTreeMap<String, String>,
    auto: bool,
    sample: &[Vec<String>],
) -> Result<Mapping, MappingError> {
    let headers = unique_headers(headers);
    if headers.iter().all(String::is_empty) {
        return Err(MappingError::NoHeader);
    }
    let mut columns: Vec<Column> = headers
        .iter()
        .map(|header| Column {
            header: header.clone(),
            target: Target::Ignored,
            reason: Reason::Ignored,
        })
        .collect();
    let named_by_user = apply_explicit(entity, &mut columns, explicit)?;
    if auto {
        apply_names(entity, &mut columns, &named_by_user);
        apply_values(entity, &mut columns, &named_by_user, sample);
    }
    let width = headers
        .iter()
        .rposition(|header| !header.is_empty() && !is_report_column(header))
        .map_or(0, |at| at + 1);
    Ok(Mapping {
        columns,
        width,
        kinds: Kinds::new(),
    })
}

impl Mapping {
    /// Whether there is a column by which rows can be told apart.
    pub fn check(&self, entity: EntityType) -> Result<(), MappingError> {
        let required = fields::required_of(entity);
        if required.iter().any(|field| is_taken(&self.columns, *field)) {
            return Ok(());
        }
        let names: Vec<_> = required
            .iter()
            .filter_map(|field| fields::def_of(entity, *field))
            .map(|def| format!("`{}`", def.name))
            .collect();
        let headers: Vec<_> = self.columns.iter().map(|c| c.header.clone()).collect();
        Err(MappingError::RequiredUnmapped {
            required: names.join(" or "),
            known: list(&headers),
        })
    }
}

fn is_report_column(header: &str) -> bool {
    REPORT_COLUMNS.contains(&header)
}

/// Trims headers and numbers the repeated ones.
pub(super) fn unique_headers(headers: &[String]) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut unique = Vec::with_capacity(headers.len());
    for header in headers {
        let header = normalize::one_line(&normalize::clean(header)).into_owned();
        let mut name = header.clone();
        let mut number = 2;
        while !header.is_empty() && !seen.insert(name.to_lowercase()) {
            name = format!("{header}_{number}");
            number += 1;
        }
        unique.push(name);
    }
    unique
}

/// Sets what the payload says; returns the columns that it names, ignored ones included.
fn apply_explicit(
    entity: EntityType,
    columns: &mut [Column],
    explicit: &BTreeMap<String, String>,
) -> Result<HashSet<usize>, MappingError> {
    let mut named = HashSet::new();
    for (header, target) in explicit {
        let Some(at) = find_header(columns, header) else {
            let headers: Vec<_> = columns.iter().map(|column| column.header.clone()).collect();
            let known = list(&headers);
            return Err(MappingError::UnknownHeader {
                header: header.clone(),
                known,
            });
        };
        let target = parse_target(entity, header, target)?;
        let taken = columns
            .iter()
            .find(|column| column.target == target && target != Target::Ignored);
        if let Some(other) = taken {
            return Err(MappingError::FieldTwice {
                first: other.header.clone(),
                second: columns[at].header.clone(),
                field: explicit[header].clone(),
            });
        }
        columns[at].reason = if target == Target::Ignored {
            Reason::Ignored
        } else {
            Reason::Explicit
        };
        columns[at].target = target;
        named.insert(at);
    }
    Ok(named)
}

/// A header as written, else by its letters and digits.
fn find_header(columns: &[Column], header: &str) -> Option<usize> {
    let cleaned = normalize::clean(header);
    let exact = columns.iter().position(|column| column.header == cleaned);
    exact.or_else(|| {
        let folded = normalize::fold(header);
        columns
            .iter()
            .position(|column| !folded.is_empty() && normalize::fold(&column.header) == folded)
    })
}

fn parse_target(entity: EntityType, header: &str, target: &str) -> Result<Target, MappingError> {
    let target = target.trim();
    if matches!(target, "" | "-" | "ignore") {
        return Ok(Target::Ignored);
    }
    if let Some(custom) = target.strip_prefix(CUSTOM)
        && (1..=CUSTOM_NAME_MAX).contains(&custom.len())
    {
        return Ok(Target::Custom(custom.to_owned()));
    }
    match fields::by_name(entity, target) {
        Some(def) => Ok(Target::Field(def.field)),
        None => {
            let names: Vec<_> = fields::fields_of(entity)
                .iter()
                .map(|def| def.name)
                .collect();
            Err(MappingError::UnknownField {
                header: header.to_owned(),
                field: target.to_owned(),
                entity: entity.as_str(),
                known: format!("{}, custom.<name>", names.join(", ")),
            })
        }
    }
}

/// Matches headers by name: all exact names first, so that a synonym never takes their field.
fn apply_names(entity: EntityType, columns: &mut [Column], named: &HashSet<usize>) {
    apply_custom(columns, named);
    for reason in [Reason::Exact, Reason::Synonym, Reason::Similar] {
        for def in fields::fields_of(entity) {
            if is_taken(columns, def.field) {
                continue;
            }
            let name = normalize::fold(def.name);
            let fits = |folded: &str| match reason {
                Reason::Exact => folded == name,
                Reason::Synonym => def.synonyms.contains(&folded),
                _ => {
                    one_error_apart(folded, &name)
                        || def
                            .synonyms
                            .iter()
                            .any(|synonym| one_error_apart(folded, synonym))
                }
            };
            let found = columns.iter().enumerate().position(|(at, column)| {
                !named.contains(&at)
                    && column.target == Target::Ignored
                    && !is_report_column(&column.header)
                    && fits(&normalize::fold(&column.header))
            });
            if let Some(at) = found {
                columns[at].target = Target::Field(def.field);
                columns[at].reason = reason;
            }
        }
    }
}

/// `custom.note`: how exports name a custom field.
fn apply_custom(columns: &mut [Column], named: &HashSet<usize>) {
    for at in (0..columns.len()).filter(|at| !named.contains(at)) {
        let Some(name) = columns[at].header.strip_prefix(CUSTOM) else {
            continue;
        };
        let target = Target::Custom(name.to_owned());
        let is_taken = columns.iter().any(|column| column.target == target);
        if (1..=CUSTOM_NAME_MAX).contains(&name.len()) && !is_taken {
            columns[at].target = target;
            columns[at].reason = Reason::Exact;
        }
    }
}

fn is_taken(columns: &[Column], field: Field) -> bool {
    columns
        .iter()
        .any(|column| column.target == Target::Field(field))
}

/// Whether a value is unmistakable.
type LooksRight = fn(&str) -> bool;

/// Gives unnamed or oddly named columns a field when their values are unmistakable.
fn apply_values(
    entity: EntityType,
    columns: &mut [Column],
    named: &HashSet<usize>,
    sample: &[Vec<String>],
) {
    let looks: [(Field, LooksRight); 2] = [
        (Field::Email, |value| normalize::email(value).is_ok()),
        (Field::LinkedinUrl, |value| {
            value.contains("linkedin.com/") && link::linkedin(value).is_ok()
        }),
    ];
    for (field, looks_right) in looks {
        if fields::def_of(entity, field).is_none() || is_taken(columns, field) {
            continue;
        }
        let found = (0..columns.len()).find(|at| {
            let open = columns[*at].target == Target::Ignored && !named.contains(at);
            open && !is_report_column(&columns[*at].header) && share(sample, *at, looks_right)
        });
        if let Some(at) = found {
            columns[at].target = Target::Field(field);
            columns[at].reason = Reason::Values;
        }
    }
}

fn share(sample: &[Vec<String>], at: usize, looks_right: LooksRight) -> bool {
    let values = || {
        sample
            .iter()
            .filter_map(|row| row.get(at))
            .map(|value| value.trim())
    };
    let filled = values().filter(|value| !value.is_empty()).count();
    let right = values().filter(|value| looks_right(value)).count();
    filled > 0 && right as f64 / filled as f64 >= EVIDENCE_MIN
}

fn list(headers: &[String]) -> String {
    let named: Vec<_> = headers.iter().filter(|header| !header.is_empty()).collect();
    let shown: Vec<_> = named
        .iter()
        .take(LISTED_MAX)
        .map(|h| normalize::shorten(h).into_owned())
        .collect();
    let more = named.len().saturating_sub(LISTED_MAX);
    match more {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests;
