//! What the payload and the file together decide: number format, updates, the mapping as a record.

use serde_json::json;

use super::dialect::Dialect;
use super::fields;
use super::mapping::Target;
use super::payload::{EntityType, ImportCsv, NumberFormat};
use super::policies;
use super::prepare::Prepared;
use crate::record::import_chunk::OnExisting;

/// Header, field and reason of every column, for the record and the log.
pub(super) fn header_mapping(entity: EntityType, prepared: &Prepared) -> serde_json::Value {
    let columns = prepared.mapping.columns.iter().map(|column| {
        let field = match &column.target {
            Target::Field(field) => fields::def_of(entity, *field).map(|def| def.name.to_owned()),
            Target::Custom(name) => Some(format!("custom.{name}")),
            Target::Ignored => None,
        };
        json!({"header": column.header, "field": field, "reason": column.reason})
    });
    columns.collect()
}

/// Files with semicolons come from places where the comma is the decimal mark.
pub(super) fn number_format(payload: &ImportCsv, dialect: &Dialect) -> NumberFormat {
    let usual = match dialect.delimiter {
        b';' => NumberFormat::Comma,
        _ => NumberFormat::Point,
    };
    payload.options.number_format.unwrap_or(usual)
}

/// What happens to rows whose record exists.
pub(super) fn on_existing(payload: &ImportCsv, prepared: &Prepared) -> OnExisting {
    let options = &payload.options;
    if !options.update_existing {
        return if options.skip_duplicates {
            OnExisting::Skip
        } else {
            OnExisting::Reject
        };
    }
    OnExisting::Update(policies::merge(
        payload.entity_type,
        options,
        &prepared.mapping,
    ))
}
