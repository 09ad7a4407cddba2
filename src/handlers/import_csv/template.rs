//! Saved mappings: files with the same headers are mapped as the workspace has said before.
//!
//! A file is known by the fingerprint of its headers, in any order, case and punctuation. A mapping
//! in the payload wins; so does whatever an import has begun with, over what became of the template
//! since.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::custom::{self, Known};
use super::mapping::{self, Mapping, MappingError, REPORT_COLUMNS, Reason, propose};
use super::normalize;
use super::payload::{EntityType, ImportCsv};
use crate::record::import_templates::TemplateRow;

/// A template, as an import notes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    pub id: Uuid,
    pub name: String,
    pub fingerprint: String,
    pub mapping: BTreeMap<String, String>,
}

impl Template {
    /// None: what is stored is no mapping.
    pub fn of(row: TemplateRow) -> Option<Self> {
        Some(Self {
            id: row.id,
            name: row.name,
            fingerprint: row.fingerprint,
            mapping: serde_json::from_value(row.mapping).ok()?,
        })
    }
}

/// Whether an import looks for a template at all.
pub fn is_wanted(payload: &ImportCsv) -> bool {
    payload.mapping.is_empty() && payload.options.use_templates
}

/// What files with these headers have in common.
pub fn fingerprint(headers: &[String]) -> String {
    let unique = mapping::unique_headers(headers);
    let named = unique.iter().filter(|header| !header.is_empty());
    let own = named.filter(|header| !REPORT_COLUMNS.contains(&header.as_str()));
    let mut folded: Vec<String> = own
        .map(|header| match normalize::fold(header) {
            // Of nothing but signs (`#`, `%`): as it is.
            folded if folded.is_empty() => header.clone(),
            folded => folded,
        })
        .collect();
    folded.sort_unstable();
    let digest = Sha256::digest(folded.join("\n"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Maps the headers of a file by the payload, else by a template for them, as far as it goes.
pub(super) fn map<'t>(
    payload: &ImportCsv,
    headers: &[String],
    sample: &[Vec<String>],
    known: &'t Known,
) -> Result<(Mapping, Option<&'t Template>), MappingError> {
    let (entity, auto) = (payload.entity_type, payload.options.auto_map);
    let found = is_wanted(payload).then(|| {
        let fingerprint = fingerprint(headers);
        let mut templates = known.templates.iter();
        templates.find(|one| one.fingerprint == fingerprint)
    });
    let Some(template) = found.flatten() else {
        let mut mapping = propose(entity, headers, &payload.mapping, auto, sample)?;
        custom::apply(&mut mapping, &known.kinds, auto, &payload.mapping);
        return Ok((mapping, None));
    };
    let mut mapping = propose(entity, headers, &template.mapping, auto, sample)?;
    for column in &mut mapping.columns {
        if column.reason == Reason::Explicit {
            column.reason = Reason::Template;
        }
    }
    custom::apply(&mut mapping, &known.kinds, auto, &template.mapping);
    Ok((mapping, Some(template)))
}

/// Whether a mapping can be saved for files with these headers.
pub fn check(
    entity: EntityType,
    headers: &[String],
    mapping: &BTreeMap<String, String>,
) -> Result<(), MappingError> {
    propose(entity, headers, mapping, true, &[])?.check(entity)
}

#[cfg(test)]
mod tests {
    use super::super::custom::Kind;
    use super::*;

    fn headers(headers: &[&str]) -> Vec<String> {
        headers.iter().map(|header| (*header).to_owned()).collect()
    }

    #[test]
    fn files_with_the_same_headers_are_known_in_any_order_and_spelling() {
        let first = fingerprint(&headers(&["Company Name", "E-Mail", "#"]));
        for same in [
            &["e-mail", "#", "company name"][..],
            &["E Mail", " COMPANY_NAME ", "#", "", "_row", "_error_code"],
        ] {
            assert_eq!(fingerprint(&headers(same)), first, "{same:?}");
        }
        for other in [
            &["Company Name", "E-Mail"][..],
            &["Company Name", "E-Mail", "#", "Phone"],
            &["Company Name", "E-Mail", "%"],
            &["Company Name", "Company Name", "E-Mail", "#"],
        ] {
            assert_ne!(fingerprint(&headers(other)), first, "{other:?}");
        }
    }

    #[test]
    fn a_template_maps_what_it_names_and_the_payload_wins() {
        let names = headers(&["Wer", "Wo", "Branche"]);
        let template = Template {
            id: Uuid::nil(),
            name: "Messe".to_owned(),
            fingerprint: fingerprint(&names),
            mapping: BTreeMap::from([
                ("Wer".to_owned(), "name".to_owned()),
                ("Wo".to_owned(), "city".to_owned()),
            ]),
        };
        let known = Known {
            templates: vec![template],
            kinds: BTreeMap::from([
                ("Wann".to_owned(), Kind::Date),
                ("wo".to_owned(), Kind::Text),
            ]),
        };
        let mapped = |json: &str, names: &[String]| {
            let payload: ImportCsv = serde_json::from_str(json).unwrap();
            let (mapping, used) = map(&payload, names, &[], &known).unwrap();
            let reasons: Vec<_> = mapping.columns.iter().map(|column| column.reason).collect();
            (reasons, used.is_some())
        };
        let (template, synonym, ignored) = (Reason::Template, Reason::Synonym, Reason::Ignored);
        let plain = r#"{"file_url": "x", "entity_type": "accounts"}"#;
        let reordered = headers(&["BRANCHE", "wo", "wer"]);
        assert_eq!(
            mapped(plain, &names),
            (vec![template, template, synonym], true)
        );
        assert_eq!(
            mapped(plain, &reordered),
            (vec![synonym, template, template], true)
        );
        let own = r#"{"file_url": "x", "entity_type": "accounts", "mapping": {"Wo": "name"}}"#;
        assert_eq!(
            mapped(own, &names),
            (vec![ignored, Reason::Explicit, synonym], false),
            "a declared field takes no column that is mapped"
        );
        let without = r#"{"file_url": "x", "entity_type": "accounts",
            "options": {"use_templates": false}}"#;
        assert_eq!(
            mapped(without, &names),
            (vec![ignored, Reason::Exact, synonym], false),
            "a declared field takes the column of its name"
        );
    }
}
