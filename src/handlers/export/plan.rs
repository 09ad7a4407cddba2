//! A payload that was checked: which fields and rows, and how they are written.

use serde_json::Value;

use super::payload::{
    ExportData, ExportOptions, FIELDS_MAX, FILE_NAME_MAX, FILTERS_MAX, Format, PAGE_SIZE_MAX,
};
use crate::handlers::deliver_export;
use crate::handlers::import_csv::payload::EntityType;
use crate::job::Problem;
use crate::record::exports::columns::{Entity, Field, Kind};
use crate::record::exports::filter::{Condition, Wrong};

/// What an export does.
#[derive(Debug, Clone)]
pub struct Plan {
    pub entity: Entity,
    pub format: Format,
    /// None: all of them.
    pub fields: Vec<Field>,
    pub conditions: Vec<Condition>,
    pub file_name: Option<String>,
    pub options: ExportOptions,
}

impl Plan {
    /// The plan of a payload, or every mistake in it.
    pub fn new(payload: &ExportData) -> Result<Self, Vec<Problem>> {
        let entity = match payload.entity_type {
            EntityType::Accounts => Entity::Accounts,
            EntityType::Contacts => Entity::Contacts,
        };
        let wrong = deliver_export::payload::check(payload.deliver_to, payload.delivery.as_ref());
        let mut mistakes = Mistakes(wrong);
        let plan = Self {
            entity,
            format: payload.format,
            fields: fields(entity, &payload.fields, &mut mistakes),
            conditions: conditions(entity, payload, &mut mistakes),
            file_name: file_name(payload, &mut mistakes),
            options: payload.options.clone(),
        };
        let size = plan.options.page_size;
        if !(1..=PAGE_SIZE_MAX).contains(&size) {
            let message = format!("must be between 1 and {PAGE_SIZE_MAX}");
            mistakes.add("/options/page_size", message);
        }
        match mistakes.0.is_empty() {
            true => Ok(plan),
            false => Err(mistakes.0),
        }
    }

    /// All columns as a file has them, but for the custom fields. A workbook and CSV have a column
    /// for each of those; JSON has them as they are.
    pub fn all_columns(&self) -> Vec<Field> {
        let has_custom = self.is_tabular();
        let columns = self.entity.columns().iter();
        let shown =
            columns.filter(|c| !(has_custom && c.kind == Kind::Object && c.name == "custom"));
        shown.map(|column| Field::Column(*column)).collect()
    }

    pub fn is_sheet(&self) -> bool {
        matches!(self.format, Format::Xlsx | Format::Excel)
    }

    /// Whether a row is a line of cells.
    pub fn is_tabular(&self) -> bool {
        matches!(self.format, Format::Csv | Format::Xlsx | Format::Excel)
    }
}

struct Mistakes(Vec<Problem>);

impl Mistakes {
    fn add(&mut self, pointer: &str, message: String) {
        let pointer = pointer.to_owned();
        self.0.push(Problem { pointer, message });
    }
}

fn fields(entity: Entity, names: &[String], mistakes: &mut Mistakes) -> Vec<Field> {
    if names.len() > FIELDS_MAX {
        mistakes.add("/fields", format!("has more than {FIELDS_MAX} fields"));
        return Vec::new();
    }
    let mut fields = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let pointer = format!("/fields/{at}");
        match entity.field(name) {
            Some(field) if fields.contains(&field) => {
                mistakes.add(&pointer, "is named twice".to_owned());
            }
            Some(field) => fields.push(field),
            None => mistakes.add(&pointer, unknown(entity, name)),
        }
    }
    fields
}

fn conditions(entity: Entity, payload: &ExportData, mistakes: &mut Mistakes) -> Vec<Condition> {
    let filters = payload.filters.each();
    if filters.len() > FILTERS_MAX {
        mistakes.add(
            "/filters",
            format!("has more than {FILTERS_MAX} conditions"),
        );
        return Vec::new();
    }
    // Conditions by value have no parts that could be named.
    let is_list = matches!(payload.filters, super::payload::Filters::List(_));
    let part = |pointer: &str, name: &str| match is_list {
        true => format!("{pointer}/{name}"),
        false => pointer.to_owned(),
    };
    let mut conditions = Vec::new();
    for (pointer, filter) in filters {
        let Some(field) = entity.field(&filter.field) else {
            mistakes.add(&part(&pointer, "field"), unknown(entity, &filter.field));
            continue;
        };
        let value: &Value = &filter.value;
        match Condition::new(field, filter.op, value) {
            Ok(condition) => conditions.push(condition),
            Err(Wrong::Op(message)) => mistakes.add(&part(&pointer, "op"), message),
            Err(Wrong::Value(message)) => mistakes.add(&part(&pointer, "value"), message),
        }
    }
    conditions
}

fn unknown(entity: Entity, name: &str) -> String {
    let name: String = name.chars().take(100).collect();
    let (entity, names) = (entity.as_str(), entity.names());
    format!("`{name}` is no field of {entity}; there are {names}, and custom.<name>")
}

fn file_name(payload: &ExportData, mistakes: &mut Mistakes) -> Option<String> {
    let given = payload.file_name.as_deref()?;
    let length = given.chars().count();
    let is_bad = |c: char| c.is_control() || matches!(c, '/' | '\\');
    if !(1..=FILE_NAME_MAX).contains(&length) || given.trim().is_empty() || given.contains(is_bad) {
        let message = format!(
            "must have 1 to {FILE_NAME_MAX} characters, no `/`, no `\\`, and none that controls"
        );
        mistakes.add("/file_name", message);
    }
    Some(crate::uploads::sanitized(given))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(payload: Value) -> Result<Plan, Vec<(String, String)>> {
        let payload: ExportData = serde_json::from_value(payload).unwrap();
        let places = |mistakes: Vec<Problem>| {
            let place = |mistake: Problem| (mistake.pointer, mistake.message);
            mistakes.into_iter().map(place).collect()
        };
        Plan::new(&payload).map_err(places)
    }

    #[test]
    fn the_example_of_the_specification_is_accepted() {
        let plan = plan(json!({
            "entity_type": "accounts", "filters": {"industry": "Software", "country": ["DE", "AT"]},
            "fields": ["name", "domain", "industry"], "format": "excel",
            "deliver_to": "download_link",
        }))
        .unwrap();
        assert_eq!(plan.format.as_str(), "xlsx");
        assert_eq!((plan.fields.len(), plan.conditions.len()), (3, 2));
    }

    #[test]
    fn every_mistake_is_named_with_its_place() {
        let refused = plan(json!({
            "entity_type": "contacts", "fields": ["email", "domain", "email"], "file_name": "a/b",
            "filters": [
                {"field": "workspace_id", "value": "x"},
                {"field": "email", "op": "gt", "value": "x"},
                {"field": "created_at", "op": "lt", "value": 5},
            ],
            "options": {"page_size": 0},
        }))
        .unwrap_err();
        let places: Vec<&str> = refused.iter().map(|(place, _)| place.as_str()).collect();
        let expected = [
            "/fields/1",
            "/fields/2",
            "/filters/0/field",
            "/filters/1/op",
            "/filters/2/value",
            "/file_name",
            "/options/page_size",
        ];
        assert_eq!(places, expected);
        let by_value = plan(json!({"entity_type": "accounts", "filters": {"a/b": 1, "name": 5}}));
        let by_value = by_value.unwrap_err();
        assert_eq!(by_value[0].0, "/filters/a~1b");
        assert_eq!(by_value[1].0, "/filters/name");
        let many = json!({"entity_type": "accounts",
            "filters": vec![json!({"field": "name", "value": "x"}); 21]});
        assert_eq!(plan(many).unwrap_err()[0].0, "/filters");
    }

    #[test]
    fn misspelt_payloads_are_refused_with_what_is_wrong() {
        for (payload, told) in [
            (json!({"entity_type": "deals"}), "unknown variant `deals`"),
            (
                json!({"entity_type": "accounts", "format": "pdf"}),
                "unknown variant `pdf`",
            ),
            (
                json!({"entity_type": "accounts", "deliver_to": "fax"}),
                "download_link",
            ),
            (
                json!({"entity_type": "accounts", "filters": [{"op": "eq"}]}),
                "filter 0: missing",
            ),
            (
                json!({"entity_type": "accounts", "filters": 5}),
                "filters are a list",
            ),
            (
                json!({"entity_type": "accounts", "option": {}}),
                "unknown field `option`",
            ),
        ] {
            let error = serde_json::from_value::<ExportData>(payload).unwrap_err();
            assert!(error.to_string().contains(told), "{error}");
        }
    }
}
