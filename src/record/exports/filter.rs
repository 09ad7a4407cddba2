//! Which rows are exported: conditions on fields, all of which hold.
//!
//! A condition is made by [`Condition::new`] alone, which refuses what the field can not be
//! compared with. Its value is bound, never written into a statement.

use chrono::{DateTime, NaiveDate, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use super::columns::{Field, Kind};

/// Values of a list.
pub const VALUES_MAX: usize = 100;
/// Bytes of a text that is compared with.
pub const TEXT_MAX: usize = 1000;

/// How a field is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = ExportFilterOp))]
pub enum Op {
    /// Is the value.
    #[default]
    Eq,
    /// Is another value, or none.
    Ne,
    /// Is one of the values.
    In,
    /// Has the text somewhere in it, in any case; of a list: has the entry.
    Contains,
    Gt,
    Gte,
    Lt,
    Lte,
    /// Has no value; with `false`: has one.
    IsNull,
}

/// One condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    field: Field,
    op: Op,
    operand: Operand,
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Truth(bool),
    Text(String),
    Texts(Vec<String>),
    Number(i64),
    Numbers(Vec<i64>),
    Time(DateTime<Utc>),
    Id(Uuid),
    Ids(Vec<Uuid>),
}

/// What is wrong with a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    Op(String),
    Value(String),
}

impl Condition {
    /// The condition, if the field can be compared like that with this value.
    pub fn new(field: Field, op: Op, value: &Value) -> Result<Self, Wrong> {
        let allowed: &[Op] = match field.kind() {
            Kind::Id => &[Op::Eq, Op::Ne, Op::In, Op::IsNull],
            Kind::Text | Kind::Custom => &[Op::Eq, Op::Ne, Op::In, Op::Contains, Op::IsNull],
            Kind::Number => &[
                Op::Eq,
                Op::Ne,
                Op::In,
                Op::Gt,
                Op::Gte,
                Op::Lt,
                Op::Lte,
                Op::IsNull,
            ],
            Kind::Time => &[Op::Gt, Op::Gte, Op::Lt, Op::Lte, Op::IsNull],
            Kind::List => &[Op::Contains, Op::IsNull],
            Kind::Object => &[Op::IsNull],
        };
        if !allowed.contains(&op) {
            let names: Vec<_> = allowed.iter().map(|op| op.as_str()).collect();
            let (name, names) = (field.name(), names.join(", "));
            return Err(Wrong::Op(format!("`{name}` can be asked for {names}")));
        }
        let operand = operand(field.kind(), op, value).map_err(Wrong::Value)?;
        Ok(Self { field, op, operand })
    }

    /// Adds the condition to a statement.
    pub(super) fn push(&self, query: &mut QueryBuilder<Postgres>) {
        // (field is operand), so that each kind of comparison is one line.
        match self.op {
            Op::Contains if self.field.kind() == Kind::List => {
                self.push_field(query);
                query.push(" @> jsonb_build_array(");
                self.push_operand(query);
                query.push(")");
            }
            Op::Contains => {
                query.push("position(lower(");
                self.push_operand(query);
                query.push(") IN lower(");
                self.push_field(query);
                query.push(")) > 0");
            }
            Op::IsNull => {
                query.push("(");
                self.push_field(query);
                query.push(" IS NULL) = ");
                self.push_operand(query);
            }
            Op::In => {
                self.push_field(query);
                query.push(" = ANY(");
                self.push_operand(query);
                query.push(")");
            }
            Op::Eq | Op::Ne | Op::Gt | Op::Gte | Op::Lt | Op::Lte => {
                self.push_field(query);
                query.push(match self.op {
                    Op::Eq => " = ",
                    Op::Gt => " > ",
                    Op::Gte => " >= ",
                    Op::Lt => " < ",
                    Op::Lte => " <= ",
                    _ => " IS DISTINCT FROM ",
                });
                self.push_operand(query);
            }
        }
    }

    fn push_field(&self, query: &mut QueryBuilder<Postgres>) {
        match &self.field {
            Field::Column(column) => query.push(column.name),
            Field::Custom(name) => query
                .push("(custom ->> ")
                .push_bind(name.clone())
                .push("::text)"),
        };
    }

    fn push_operand(&self, query: &mut QueryBuilder<Postgres>) {
        match &self.operand {
            Operand::Truth(is_so) => query.push_bind(*is_so),
            Operand::Text(text) => query.push_bind(text.clone()).push("::text"),
            Operand::Texts(texts) => query.push_bind(texts.clone()).push("::text[]"),
            Operand::Number(number) => query.push_bind(*number).push("::bigint"),
            Operand::Numbers(numbers) => query.push_bind(numbers.clone()).push("::bigint[]"),
            Operand::Time(time) => query.push_bind(*time).push("::timestamptz"),
            Operand::Id(id) => query.push_bind(*id).push("::uuid"),
            Operand::Ids(ids) => query.push_bind(ids.clone()).push("::uuid[]"),
        };
    }
}

impl Op {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eq => "eq",
            Self::Ne => "ne",
            Self::In => "in",
            Self::Contains => "contains",
            Self::Gt => "gt",
            Self::Gte => "gte",
            Self::Lt => "lt",
            Self::Lte => "lte",
            Self::IsNull => "is_null",
        }
    }
}

fn operand(kind: Kind, op: Op, value: &Value) -> Result<Operand, String> {
    match (op, kind) {
        (Op::IsNull, _) => match value {
            Value::Null => Ok(Operand::Truth(true)),
            Value::Bool(is_so) => Ok(Operand::Truth(*is_so)),
            _ => Err("must be true or false".to_owned()),
        },
        (Op::In, Kind::Number) => list(value, number).map(Operand::Numbers),
        (Op::In, Kind::Id) => list(value, id).map(Operand::Ids),
        (Op::In, _) => list(value, text).map(Operand::Texts),
        (_, Kind::Number) => number(value).map(Operand::Number),
        (_, Kind::Id) => id(value).map(Operand::Id),
        (_, Kind::Time) => time(value).map(Operand::Time),
        (_, Kind::Text | Kind::Custom | Kind::List | Kind::Object) => {
            text(value).map(Operand::Text)
        }
    }
}

fn list<T>(value: &Value, one: fn(&Value) -> Result<T, String>) -> Result<Vec<T>, String> {
    let values = value.as_array().map(Vec::as_slice).unwrap_or_default();
    if !(1..=VALUES_MAX).contains(&values.len()) {
        return Err(format!("must be a list of 1 to {VALUES_MAX} values"));
    }
    values.iter().map(one).collect()
}

fn text(value: &Value) -> Result<String, String> {
    let fits = |text: &&str| text.len() <= TEXT_MAX && !text.contains('\0');
    let text = value.as_str().filter(fits);
    let why = || format!("must be a text of at most {TEXT_MAX} bytes, without U+0000");
    text.map(str::to_owned).ok_or_else(why)
}

fn number(value: &Value) -> Result<i64, String> {
    let number = value.as_i64();
    number.ok_or_else(|| "must be a whole number".to_owned())
}

fn id(value: &Value) -> Result<Uuid, String> {
    let id = value.as_str().and_then(|text| text.parse().ok());
    id.ok_or_else(|| "must be an id, a UUID".to_owned())
}

/// A moment, or the beginning of a day in UTC.
fn time(value: &Value) -> Result<DateTime<Utc>, String> {
    let text = value.as_str().unwrap_or_default();
    if let Ok(day) = text.parse::<NaiveDate>() {
        return Ok(day.and_time(chrono::NaiveTime::MIN).and_utc());
    }
    let time = DateTime::parse_from_rfc3339(text);
    let why = |_| "must be a time such as 2026-01-31T08:00:00Z, or a day".to_owned();
    time.map(|time| time.with_timezone(&Utc)).map_err(why)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::exports::columns::Entity;

    fn made(name: &str, op: Op, value: Value) -> Result<Condition, Wrong> {
        Condition::new(Entity::Accounts.field(name).unwrap(), op, &value)
    }

    #[test]
    fn a_field_is_compared_with_what_it_can_be() {
        for (name, op, value) in [
            ("id", Op::Eq, json!(Uuid::nil())),
            ("name", Op::Contains, json!("acme")),
            ("employee_count", Op::In, json!([1, 2])),
            ("created_at", Op::Gte, json!("2026-01-31")),
            ("created_at", Op::Lt, json!("2026-01-31T08:00:00+01:00")),
            ("technologies", Op::Contains, json!("Rust")),
            ("social_links", Op::IsNull, json!(false)),
            ("custom.x", Op::Ne, json!("y")),
            ("phone", Op::IsNull, Value::Null),
        ] {
            assert!(made(name, op, value).is_ok(), "{name}");
        }
        for (name, op, value) in [
            ("id", Op::Eq, json!("x")),
            ("id", Op::Contains, json!("x")),
            ("name", Op::Eq, json!(5)),
            ("name", Op::Eq, json!("a\0")),
            ("name", Op::Eq, json!("x".repeat(1001))),
            ("name", Op::Gt, json!("x")),
            ("name", Op::In, json!([])),
            ("name", Op::In, json!(vec!["x"; 101])),
            ("name", Op::In, json!(["x", 5])),
            ("employee_count", Op::Gt, json!("5")),
            ("employee_count", Op::Gt, json!(1.5)),
            ("created_at", Op::Gte, json!("yesterday")),
            ("created_at", Op::Eq, json!("2026-01-31")),
            ("technologies", Op::Eq, json!("Rust")),
            ("social_links", Op::Contains, json!("x")),
            ("phone", Op::IsNull, json!("yes")),
        ] {
            assert!(made(name, op, value.clone()).is_err(), "{name} {value}");
        }
    }

    #[test]
    fn values_are_bound_and_never_a_part_of_the_statement() {
        let hostile = "x') OR true; --";
        for (name, op, value) in [
            ("name", Op::Eq, json!(hostile)),
            ("name", Op::In, json!([hostile])),
            ("name", Op::Contains, json!(hostile)),
            ("technologies", Op::Contains, json!(hostile)),
            ("custom.x') OR true; --", Op::Eq, json!("y")),
        ] {
            let mut query = QueryBuilder::new("");
            made(name, op, value).unwrap().push(&mut query);
            assert!(!query.sql().as_str().contains("OR true"), "{name}");
        }
    }
}
