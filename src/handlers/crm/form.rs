//! The one form of a value, whichever side it comes from. Pure.

use serde_json::{Number, Value};

use super::super::import_csv::normalize;

/// The longest text that is taken, in characters.
pub(super) const TEXT_MAX: usize = 32_000;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// At most so many characters.
    Text(usize),
    Domain,
    Email,
    Integer,
    /// Two digits after the point.
    Money,
    Percent,
    Day,
    Any,
}

/// A value in the one form, or why it has none.
pub(super) fn form(kind: Kind, value: &Value) -> Result<Value, String> {
    let text = match value {
        Value::Null => return Ok(Value::Null),
        Value::String(text) => text.replace('\0', "").trim().to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) if kind == Kind::Any => return Ok(Value::Bool(*flag)),
        Value::Bool(flag) => flag.to_string(),
        Value::Array(_) | Value::Object(_) => return Err("is no single value".to_owned()),
    };
    if text.is_empty() {
        return Ok(Value::Null);
    }
    let number = || {
        let number: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
        match number.is_finite() && number.abs() < 1e15 {
            true => Ok(number),
            false => Err(format!("`{text}` is too large a number")),
        }
    };
    match kind {
        Kind::Text(max) => match text.chars().count() > max {
            true => Err(format!("is longer than {max} characters")),
            false => Ok(Value::String(text)),
        },
        Kind::Any if text.chars().count() > TEXT_MAX => {
            Err(format!("is longer than {TEXT_MAX} characters"))
        }
        Kind::Any if value.is_number() => Ok(value.clone()),
        Kind::Any => Ok(Value::String(text)),
        Kind::Domain => normalize::domain(&text)
            .map(Value::String)
            .map_err(|_| format!("`{text}` is no domain")),
        Kind::Email => match text.len() <= 254 && text.trim_matches('@').contains('@') {
            true => Ok(Value::String(text)),
            false => Err(format!("`{text}` is no e-mail address")),
        },
        Kind::Integer => Ok(Value::from(number()?.round() as i64)),
        Kind::Percent => match number()?.round() {
            whole if (0.0..=100.0).contains(&whole) => Ok(Value::from(whole as i64)),
            _ => Err(format!("`{text}` is no share of 100")),
        },
        Kind::Money => {
            let cents = (number()? * 100.0).round();
            Ok(match cents % 100.0 == 0.0 {
                true => Value::from((cents / 100.0) as i64),
                false => Number::from_f64(cents / 100.0).map_or(Value::Null, Value::Number),
            })
        }
        Kind::Day => day(&text).map(Value::String),
    }
}

/// The day of a date, or of a moment: in RFC 3339, or in milliseconds since 1970.
fn day(text: &str) -> Result<String, String> {
    let no_day = || format!("`{text}` is no day");
    if let Ok(ms) = text.parse::<i64>() {
        let moment = chrono::DateTime::from_timestamp_millis(ms).ok_or_else(no_day)?;
        return Ok(moment.date_naive().to_string());
    }
    let date = text.get(..10).unwrap_or(text);
    let date: chrono::NaiveDate = date.parse().map_err(|_| no_day())?;
    Ok(date.to_string())
}
