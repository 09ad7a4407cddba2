//! What may be exported of accounts and contacts: the columns, and what is in them.
//!
//! Statements are made of these names and of no others, so nothing that a caller wrote becomes
//! part of a statement.

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

/// The longest name of a custom field, in bytes.
pub const CUSTOM_NAME_MAX: usize = 100;
/// How fields of `custom` are named.
const CUSTOM: &str = "custom.";

/// What is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entity {
    Accounts,
    Contacts,
}

impl Entity {
    /// Its table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::Contacts => "contacts",
        }
    }

    /// Its columns, in the order of a file.
    pub fn columns(self) -> &'static [Column] {
        match self {
            Self::Accounts => ACCOUNTS,
            Self::Contacts => CONTACTS,
        }
    }

    /// The field of this name: a column, or `custom.` and the name of a custom field.
    pub fn field(self, name: &str) -> Option<Field> {
        if let Some(custom) = name.strip_prefix(CUSTOM) {
            let is_good = (1..=CUSTOM_NAME_MAX).contains(&custom.len()) && !custom.contains('\0');
            return is_good.then(|| Field::Custom(custom.to_owned()));
        }
        let found = self.columns().iter().find(|column| column.name == name);
        found.map(|column| Field::Column(*column))
    }

    /// The names of all columns, for people.
    pub fn names(self) -> String {
        let names: Vec<_> = self.columns().iter().map(|column| column.name).collect();
        names.join(", ")
    }
}

/// What is in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Id,
    Text,
    Number,
    Time,
    /// A JSON array of texts.
    List,
    /// A JSON object.
    Object,
    /// Any JSON value, mostly a text.
    Custom,
}

/// A column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
}

/// What is asked for of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    Column(Column),
    Custom(String),
}

impl Field {
    pub fn name(&self) -> String {
        match self {
            Self::Column(column) => column.name.to_owned(),
            Self::Custom(name) => format!("{CUSTOM}{name}"),
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Column(column) => column.kind,
            Self::Custom(_) => Kind::Custom,
        }
    }
}

/// A value of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Empty,
    Id(Uuid),
    Text(String),
    Number(i64),
    Time(DateTime<Utc>),
    Json(Value),
}

const fn column(name: &'static str, kind: Kind) -> Column {
    Column { name, kind }
}

const ACCOUNTS: &[Column] = &[
    column("id", Kind::Id),
    column("external_id", Kind::Text),
    column("name", Kind::Text),
    column("domain", Kind::Text),
    column("website", Kind::Text),
    column("industry", Kind::Text),
    column("employee_count", Kind::Number),
    column("annual_revenue", Kind::Number),
    column("country", Kind::Text),
    column("city", Kind::Text),
    column("phone", Kind::Text),
    column("linkedin_url", Kind::Text),
    column("description", Kind::Text),
    column("technologies", Kind::List),
    column("social_links", Kind::Object),
    column("custom", Kind::Object),
    column("source", Kind::Text),
    column("enriched_at", Kind::Time),
    column("created_at", Kind::Time),
    column("updated_at", Kind::Time),
];

const CONTACTS: &[Column] = &[
    column("id", Kind::Id),
    column("account_id", Kind::Id),
    column("external_id", Kind::Text),
    column("email", Kind::Text),
    column("first_name", Kind::Text),
    column("last_name", Kind::Text),
    column("title", Kind::Text),
    column("phone", Kind::Text),
    column("linkedin_url", Kind::Text),
    column("company", Kind::Text),
    column("country", Kind::Text),
    column("city", Kind::Text),
    column("email_status", Kind::Text),
    column("email_checked_at", Kind::Time),
    column("email_reasons", Kind::List),
    column("custom", Kind::Object),
    column("source", Kind::Text),
    column("enriched_at", Kind::Time),
    column("created_at", Kind::Time),
    column("updated_at", Kind::Time),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_columns_and_custom_names_are_fields() {
        let named = |name: &str| Entity::Accounts.field(name).map(|field| field.name());
        assert_eq!(named("domain").as_deref(), Some("domain"));
        assert_eq!(named("custom.a b").as_deref(), Some("custom.a b"));
        let long = format!("custom.{}", "x".repeat(101));
        for name in [
            "workspace_id",
            "name_key",
            "name; DROP TABLE jobs",
            "Name",
            "",
            "custom.",
            "custom.\0",
            &long,
        ] {
            assert_eq!(named(name), None, "{name:?}");
        }
    }
}
