//! What an update does with each field: overwrite it, fill its gaps, or never touch it.
//!
//! A policy is of a field of the mapping, and goes for every column that the field becomes: that of
//! `full_name` for both names, that of `company_domain` for the account of a contact.

use std::collections::BTreeMap;

use super::fields;
use super::mapping::{CUSTOM, CUSTOM_NAME_MAX, Mapping, Target};
use super::payload::{
    EmptyValues, EntityType, ImportOptions, InvalidPayload, MAPPING_MAX, UpdatePolicy,
};
use crate::record::merge::Merge;

/// Keys of records, which an empty value never clears.
const KEYS: [&str; 5] = ["name", "external_id", "domain", "email", "linkedin_url"];

/// Whether every policy is of a field that there is.
pub(super) fn check(
    entity: EntityType,
    policies: &BTreeMap<String, UpdatePolicy>,
) -> Result<(), InvalidPayload> {
    if policies.len() > MAPPING_MAX {
        return Err(InvalidPayload::Policies(policies.len()));
    }
    let fields = || fields::fields_of(entity).iter().map(|def| def.name);
    for field in policies.keys() {
        let is_custom = field
            .strip_prefix(CUSTOM)
            .is_some_and(|name| (1..=CUSTOM_NAME_MAX).contains(&name.len()));
        if !is_custom && !fields().any(|name| name == field) {
            let known: Vec<_> = fields().collect();
            return Err(InvalidPayload::PolicyOf {
                field: field.clone(),
                entity: entity.as_str(),
                known: known.join(", "),
            });
        }
    }
    Ok(())
}

/// How existing records take over the values of a file.
pub(super) fn merge(entity: EntityType, options: &ImportOptions, mapping: &Mapping) -> Merge {
    let mut merge = Merge::default();
    for (column, policy) in by_column(entity, options, mapping) {
        match policy {
            UpdatePolicy::Overwrite => {}
            UpdatePolicy::FillBlank => merge.fill.push(column),
            UpdatePolicy::Never => merge.keep.push(column),
        }
    }
    if options.empty_values == EmptyValues::Clear {
        let is_mapped = |field| {
            let target = Target::Field(field);
            mapping.columns.iter().any(|column| column.target == target)
        };
        let mapped = fields::fields_of(entity)
            .iter()
            .filter(|def| is_mapped(def.field));
        let names = mapped.map(|def| def.name);
        let is_cleared = |name: &&str| !KEYS.contains(name) && columns_of(name).is_none();
        merge.clear = names.filter(is_cleared).collect();
    }
    merge
}

/// What is said of each column: of itself, else of the field that becomes it, else of all.
fn by_column(
    entity: EntityType,
    options: &ImportOptions,
    mapping: &Mapping,
) -> BTreeMap<String, UpdatePolicy> {
    let mut columns = BTreeMap::new();
    let mut own = Vec::new();
    let custom = mapping
        .columns
        .iter()
        .filter_map(|column| match &column.target {
            Target::Custom(name) => Some(format!("{CUSTOM}{name}")),
            Target::Field(_) | Target::Ignored => None,
        });
    let known = fields::fields_of(entity)
        .iter()
        .map(|def| def.name.to_owned());
    for name in known.chain(custom) {
        let said = options.field_policies.get(&name).copied();
        match columns_of(&name) {
            Some(into) => {
                let policy = said.unwrap_or(options.update_policy);
                columns.extend(into.iter().map(|name| ((*name).to_owned(), policy)));
            }
            None => own.push((name, said)),
        }
    }
    for (name, said) in own {
        let general = columns.get(&name).copied();
        let policy = said.or(general).unwrap_or(options.update_policy);
        columns.insert(name, policy);
    }
    columns
}

/// The columns of a record that a field becomes, where they are called otherwise.
fn columns_of(field: &str) -> Option<&'static [&'static str]> {
    match field {
        "full_name" => Some(&["first_name", "last_name"]),
        "company_domain" => Some(&["account_id"]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::mapping::map_columns;
    use super::*;

    fn merged(entity: EntityType, headers: &[&str], options: &str) -> Merge {
        let headers: Vec<String> = headers.iter().map(|header| (*header).to_owned()).collect();
        let mapping = map_columns(entity, &headers, &BTreeMap::new(), true, &[]).unwrap();
        merge(entity, &serde_json::from_str(options).unwrap(), &mapping)
    }

    #[test]
    fn a_policy_of_a_field_wins_over_that_of_all() {
        let headers = ["name", "industry", "city", "custom.x", "custom.y"];
        let options = r#"{"update_policy": "fill_blank", "field_policies": {
            "industry": "never", "city": "overwrite", "custom.x": "never"}}"#;
        let merge = merged(EntityType::Accounts, &headers, options);
        assert_eq!(merge.keep, ["custom.x", "industry"]);
        let fills = |name: &str| merge.fill.iter().any(|column| column == name);
        assert!(fills("name") && fills("custom.y") && !fills("city") && !fills("industry"));
    }

    #[test]
    fn a_policy_goes_for_the_columns_that_the_field_becomes() {
        let options = r#"{"field_policies": {"full_name": "never", "first_name": "fill_blank",
            "company_domain": "never"}}"#;
        let merge = merged(EntityType::Contacts, &["email", "full name"], options);
        assert_eq!(merge.keep, ["account_id", "last_name"]);
        assert_eq!(merge.fill, ["first_name"]);
    }

    #[test]
    fn a_policy_of_a_field_that_is_not_there_is_refused() {
        for (field, fits) in [
            ("industry", true),
            ("custom.x", true),
            ("email", false),
            ("Industry", false),
            ("custom.", false),
        ] {
            let policies = BTreeMap::from([(field.to_owned(), UpdatePolicy::Never)]);
            let checked = check(EntityType::Accounts, &policies);
            assert_eq!(checked.is_ok(), fits, "{field}");
        }
    }
}
