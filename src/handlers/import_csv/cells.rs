//! The cells of one row, brought to their fields and checked for what concerns every cell.
//!
//! A spreadsheet's `#N/A` in an optional cell counts as empty; where the cell is a key it rejects
//! the row. Values are taken out one by one by the validation of accounts and contacts.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::custom::Kind;
use super::fields::{self, Field};
use super::issue::{Code, Complaint, Issue};
use super::mapping::{Mapping, Target};
use super::normalize;
use super::payload::{EntityType, NumberFormat};

/// Longest value of a custom field, in characters.
pub const CUSTOM_VALUE_MAX: usize = 10_000;
const FIELD_COUNT: usize = Field::CompanyDomain as usize + 1;

/// Things that were repaired without rejecting the row, counted over the whole file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Warnings {
    /// Values that contain a character which the file's encoding could not express.
    pub replaced_characters: u64,
    /// Optional cells with `#N/A` and the like, taken as empty.
    pub spreadsheet_errors: u64,
    /// Countries that are on no list, stored as written.
    pub unknown_countries: u64,
    /// Rows with fewer cells than the header, padded with empty ones.
    pub short_rows: u64,
}

/// What the header says about each column.
#[derive(Debug, Clone)]
pub struct Rules {
    /// By column; absent where the value is not used.
    columns: Vec<Option<Rule>>,
    /// Columns whose header is empty: nothing may stand there to the right of `width`.
    nameless: Vec<bool>,
    width: usize,
    format: NumberFormat,
}

#[derive(Debug, Clone)]
struct Rule {
    header: String,
    target: Target,
    /// Of a custom field that is declared.
    kind: Kind,
    /// Characters.
    max: usize,
}

impl Rules {
    pub fn new(entity: EntityType, mapping: &Mapping, format: NumberFormat) -> Self {
        let rule = |column: &super::mapping::Column| {
            let max = match &column.target {
                Target::Field(field) => fields::def_of(entity, *field)?.max,
                Target::Custom(_) => CUSTOM_VALUE_MAX,
                Target::Ignored => return None,
            };
            Some(Rule {
                header: column.header.clone(),
                target: column.target.clone(),
                kind: match &column.target {
                    Target::Custom(name) => mapping.kinds.get(name).copied().unwrap_or(Kind::Text),
                    Target::Field(_) | Target::Ignored => Kind::Text,
                },
                max,
            })
        };
        Self {
            columns: mapping.columns.iter().map(rule).collect(),
            nameless: mapping
                .columns
                .iter()
                .map(|column| column.header.is_empty())
                .collect(),
            width: mapping.width,
            format,
        }
    }

    fn header(&self, field: Field) -> Option<&str> {
        let target = Target::Field(field);
        let rule = self
            .columns
            .iter()
            .flatten()
            .find(|rule| rule.target == target);
        rule.map(|rule| rule.header.as_str())
    }
}

/// The values of one row, and the complaints about it so far.
pub struct Cells<'r, 'a> {
    rules: &'r Rules,
    values: [Option<Cow<'a, str>>; FIELD_COUNT],
    custom: serde_json::Map<String, serde_json::Value>,
    pub issues: Vec<Issue>,
    pub warnings: &'r mut Warnings,
}

impl<'r, 'a> Cells<'r, 'a> {
    /// Brings every cell to its field.
    pub fn collect(rules: &'r Rules, cells: &[&'a [u8]], warnings: &'r mut Warnings) -> Self {
        let mut row = Self {
            rules,
            values: [const { None }; FIELD_COUNT],
            custom: serde_json::Map::new(),
            issues: Vec::new(),
            warnings,
        };
        row.check_width(cells);
        for (rule, cell) in rules.columns.iter().zip(cells) {
            if let Some(rule) = rule
                && !cell.is_empty()
            {
                row.place(rule, cell);
            }
        }
        row
    }

    /// Cells right of the last named column have lost their place.
    fn check_width(&mut self, cells: &[&[u8]]) {
        let width = self.rules.width;
        let lost = (width..cells.len())
            .filter(|at| self.rules.nameless.get(*at).copied().unwrap_or(true))
            .any(|at| !cells[at].trim_ascii().is_empty());
        if lost {
            let message = format!(
                "the row has {} columns, the header has {width}; a value with the delimiter in it \
                 must stand in quotes",
                cells.len()
            );
            let code = Code::TooManyColumns;
            self.issues.push(Issue {
                code,
                column: None,
                message,
                suggestion: None,
            });
        }
        self.warnings.short_rows += u64::from(cells.len() < width);
    }

    fn place(&mut self, rule: &Rule, cell: &'a [u8]) {
        let value = match String::from_utf8_lossy(cell) {
            Cow::Borrowed(text) => normalize::clean(text),
            Cow::Owned(text) => Cow::Owned(normalize::clean(&text).into_owned()),
        };
        if value.is_empty() {
            return;
        }
        if value
            .chars()
            .any(|c| c.is_control() && !matches!(c, '\t' | '\r' | '\n'))
        {
            let message = "the value contains a control character";
            return self.complain(rule, Complaint::new(Code::InvalidCharacter, message));
        }
        if value.len() > rule.max && value.chars().count() > rule.max {
            let length = value.chars().count();
            let message = format!(
                "the value has {length} characters, at most {} fit",
                rule.max
            );
            return self.complain(rule, Complaint::new(Code::ValueTooLong, message));
        }
        let is_key = matches!(
            rule.target,
            Target::Field(Field::Email | Field::Domain | Field::ExternalId | Field::LinkedinUrl)
        );
        if value.contains('\u{FFFD}') {
            self.warnings.replaced_characters += 1;
            if is_key {
                let message = "a character of the key could not be read in the file's encoding";
                return self.complain(rule, Complaint::new(Code::EncodingReplaced, message));
            }
        }
        if normalize::is_spreadsheet_error(&value) {
            if is_key || rule.target == Target::Field(Field::Name) {
                let message = format!("the spreadsheet wrote {value} instead of a value");
                return self.complain(rule, Complaint::new(Code::ExcelDamage, message));
            }
            self.warnings.spreadsheet_errors += 1;
            return;
        }
        match &rule.target {
            Target::Field(field) => self.values[*field as usize] = Some(value),
            // Of a kind, a word for nothing is nothing, as in the fields that everybody has.
            Target::Custom(_) if rule.kind != Kind::Text && is_placeholder(&value) => {}
            Target::Custom(name) => match rule.kind.parse(&value, self.rules.format) {
                Ok(value) => {
                    self.custom.insert(name.clone(), value);
                }
                Err(complaint) => self.complain(rule, complaint),
            },
            Target::Ignored => {}
        }
    }

    fn complain(&mut self, rule: &Rule, complaint: Complaint) {
        self.issues.push(complaint.about(&rule.header));
    }

    /// A text of one line.
    pub fn text(&mut self, field: Field) -> Option<String> {
        let value = self.values[field as usize].take()?;
        Some(normalize::one_line(&value).into_owned())
    }

    /// A text that may have several lines.
    pub fn long_text(&mut self, field: Field) -> Option<String> {
        self.values[field as usize].take().map(Cow::into_owned)
    }

    /// A value that `parse` checks; placeholders such as `n/a` count as empty.
    pub fn typed<T>(
        &mut self,
        field: Field,
        parse: impl FnOnce(&str) -> Result<T, Complaint>,
    ) -> Option<T> {
        let value = self.values[field as usize].take()?;
        if is_placeholder(&value) {
            return None;
        }
        match parse(&value) {
            Ok(value) => Some(value),
            Err(complaint) => {
                let header = self.rules.header(field).unwrap_or_default();
                self.issues.push(complaint.about(header));
                None
            }
        }
    }

    /// The custom fields as a JSON object, if there are any.
    pub fn custom(&mut self) -> Option<serde_json::Value> {
        let values = std::mem::take(&mut self.custom);
        (!values.is_empty()).then_some(serde_json::Value::Object(values))
    }

    /// Notes that all of these fields are empty, unless one of them was complained about already.
    pub fn require(&mut self, fields: &[Field], why: &str, suggestion: Option<String>) {
        let headers: Vec<_> = fields
            .iter()
            .filter_map(|field| self.rules.header(*field))
            .collect();
        let known = |issue: &Issue| {
            issue
                .column
                .as_deref()
                .is_some_and(|column| headers.contains(&column))
        };
        if !self.issues.iter().any(known) {
            self.issues.push(Issue {
                code: Code::RequiredMissing,
                column: headers.first().map(|header| (*header).to_owned()),
                message: why.to_owned(),
                suggestion,
            });
        }
    }
}

fn is_placeholder(value: &str) -> bool {
    [
        "n/a", "na", "n.a.", "null", "none", "nil", "-", "--", "?", "unknown",
    ]
    .iter()
    .any(|word| value.eq_ignore_ascii_case(word))
}
