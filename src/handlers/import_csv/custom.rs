//! Custom fields that a workspace has declared: a column of that name is one, and its values have
//! the declared kind. What is not declared is stored as the text that it is.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::issue::{Code, Complaint};
use super::mapping::{CUSTOM, Column, Mapping, Reason, Target};
use super::normalize::{self, shorten};
use super::number;
use super::payload::NumberFormat;
use super::template::Template;
use crate::record::custom_fields::FieldRow;

/// What the values of a custom field are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = CustomFieldKind))]
pub enum Kind {
    Text,
    Number,
    Boolean,
    Date,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Date => "date",
        }
    }

    /// A value as it is stored: texts and days (`2024-03-01`) as strings, the others as what they
    /// are in JSON.
    pub(super) fn parse(self, text: &str, format: NumberFormat) -> Result<Value, Complaint> {
        match self {
            Self::Text => Ok(text.into()),
            Self::Number => number::number(text, format).map(exact),
            Self::Boolean => boolean(text),
            Self::Date => date(text).map(|day| day.to_string().into()),
        }
    }
}

/// Kinds by the name of the field.
pub type Kinds = BTreeMap<String, Kind>;

/// The declarations as an import needs them.
pub fn kinds(rows: Vec<FieldRow>) -> Kinds {
    let kind = |row: &FieldRow| -> Option<Kind> {
        serde_json::from_value(Value::from(row.kind.as_str())).ok()
    };
    rows.into_iter()
        .filter_map(|row| kind(&row).map(|kind| (row.name, kind)))
        .collect()
}

/// What a workspace has said before, of files and of fields.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub templates: Vec<Template>,
    pub kinds: Kinds,
}

/// Columns that have no target and the name of a declared field become it; the mapping takes along
/// the kinds of all that it fills. `said` is the mapping that people made.
pub(super) fn apply(
    mapping: &mut Mapping,
    kinds: &Kinds,
    auto: bool,
    said: &BTreeMap<String, String>,
) {
    let is_said = |column: &Column| {
        let folded = normalize::fold(&column.header);
        said.keys().any(|header| normalize::fold(header) == folded)
    };
    for name in kinds.keys().filter(|_| auto) {
        let target = Target::Custom(name.clone());
        if mapping.columns.iter().any(|column| column.target == target) {
            continue;
        }
        let folded = normalize::fold(name);
        let found = mapping.columns.iter_mut().find(|column| {
            let is_open = column.target == Target::Ignored && !column.header.is_empty();
            is_open && normalize::fold(&column.header) == folded && !is_said(column)
        });
        if let Some(column) = found {
            column.target = target;
            column.reason = Reason::Exact;
        }
    }
    let targets = mapping.columns.iter().map(|column| &column.target);
    let filled = targets.filter_map(|target| match target {
        Target::Custom(name) => kinds.get(name).map(|kind| (name.clone(), *kind)),
        Target::Field(_) | Target::Ignored => None,
    });
    mapping.kinds = filled.collect();
}

/// Declared fields, as mappings name them.
pub(super) fn names(kinds: &Kinds) -> impl Iterator<Item = String> {
    kinds.keys().map(|name| format!("{CUSTOM}{name}"))
}

/// A whole number without a point.
fn exact(number: f64) -> Value {
    match number.fract() == 0.0 && number.abs() <= number::AMOUNT_MAX {
        true => (number as i64).into(),
        false => number.into(),
    }
}

fn boolean(text: &str) -> Result<Value, Complaint> {
    match text.to_lowercase().as_str() {
        "true" | "yes" | "y" | "1" | "on" | "ja" | "wahr" | "oui" | "vrai" | "sí" | "si"
        | "verdadero" => Ok(true.into()),
        "false" | "no" | "n" | "0" | "off" | "nein" | "falsch" | "non" | "faux" | "falso" => {
            Ok(false.into())
        }
        _ => Err(mismatch(text, "yes or no (`true`, `false`)")),
    }
}

/// A day, perhaps with a time behind it, which is dropped. `03/01/2024` is two days: refused, where
/// both can be.
fn date(text: &str) -> Result<NaiveDate, Complaint> {
    let day = text.split(['T', ' ']).next().unwrap_or(text);
    let parsed = |format| NaiveDate::parse_from_str(day, format).ok();
    let is_year_first = day.len() >= 8 && day.as_bytes()[..4].iter().all(u8::is_ascii_digit);
    if is_year_first {
        let found = parsed("%Y-%m-%d").or_else(|| parsed("%Y/%m/%d"));
        return found
            .or_else(|| parsed("%Y.%m.%d"))
            .ok_or_else(|| mismatch(text, "a day"));
    }
    // Nobody writes the month first with points.
    if day.contains('.') {
        return with_century(day, parsed("%d.%m.%Y")).ok_or_else(|| mismatch(text, "a day"));
    }
    let readings = [parsed("%d/%m/%Y"), parsed("%m/%d/%Y")].map(|found| with_century(day, found));
    match readings {
        [Some(first), Some(second)] if first != second => {
            let mut complaint = mismatch(text, "one day: its month may be either number");
            complaint.suggestion = Some(format!("{first} or {second}"));
            Err(complaint)
        }
        [first, second] => first.or(second).ok_or_else(|| mismatch(text, "a day")),
    }
}

/// Only with four digits of the year: `1.3.24` may be of any century.
fn with_century(day: &str, found: Option<NaiveDate>) -> Option<NaiveDate> {
    let year = day.rsplit(['.', '/']).next().unwrap_or_default();
    found.filter(|_| year.len() == 4)
}

fn mismatch(text: &str, expected: &str) -> Complaint {
    let message = format!("`{}` is not {expected}", shorten(text));
    Complaint::new(Code::TypeMismatch, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_have_the_kind_of_their_field() {
        for (kind, text, expected) in [
            (Kind::Text, "007", Some(json!("007"))),
            (Kind::Number, "1,234.5", Some(json!(1234.5))),
            (Kind::Number, "-7", Some(json!(-7))),
            (Kind::Number, "seven", None),
            (Kind::Number, "12345678901234567890", None),
            (Kind::Boolean, "TRUE", Some(json!(true))),
            (Kind::Boolean, "Nein", Some(json!(false))),
            (Kind::Boolean, "maybe", None),
            (Kind::Date, "2024-03-01", Some(json!("2024-03-01"))),
            (Kind::Date, "2024-03-01 13:30:00", Some(json!("2024-03-01"))),
            (
                Kind::Date,
                "2024-03-01T13:30:00Z",
                Some(json!("2024-03-01")),
            ),
            (Kind::Date, "1.3.2024", Some(json!("2024-03-01"))),
            (Kind::Date, "3/31/2024", Some(json!("2024-03-31"))),
            (Kind::Date, "31/3/2024", Some(json!("2024-03-31"))),
            (Kind::Date, "3/3/2024", Some(json!("2024-03-03"))),
            (Kind::Date, "3/1/2024", None),
            (Kind::Date, "1.3.24", None),
            (Kind::Date, "2024-02-30", None),
            (Kind::Date, "soon", None),
        ] {
            let found = kind.parse(text, NumberFormat::Point);
            if let Err(complaint) = &found {
                assert_eq!(complaint.code, Code::TypeMismatch);
            }
            assert_eq!(found.ok(), expected, "{text}");
        }
        let complaint = date("3/1/2024").unwrap_err();
        let suggestion = complaint.suggestion.as_deref();
        assert_eq!(suggestion, Some("2024-01-03 or 2024-03-01"));
    }
}
