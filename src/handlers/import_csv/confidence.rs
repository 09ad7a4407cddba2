//! How sure a column's target is, and what else an unmapped column may be.
//!
//! For people who look at a file before it is imported. What they said themselves is sure; a name
//! counts as much as it is alike, and less where the values do not fit the field. An import never
//! follows a proposal by itself.

use serde::Serialize;

use super::country;
use super::fields::{self, Field, FieldDef};
use super::link;
use super::mapping::{Column, Reason, Target};
use super::normalize;
use super::number;
use super::payload::{EntityType, NumberFormat};
use super::phone;

/// Proposals for a column, and the least of which one is made.
const PROPOSALS_MAX: usize = 3;
const PROPOSAL_MIN: f64 = 0.3;
/// Of a confidence, what is left when no value fits.
const NAME_ALONE: f64 = 0.3;
/// Headers that are shorter than this are in too many words.
const PART_MIN: usize = 3;

/// A field that a column may be mapped to.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = MappingProposal))]
pub struct Proposal {
    pub target: &'static str,
    /// From 0 to 1.
    pub confidence: f64,
}

/// What the values of a file's first rows say.
pub(super) struct Evidence<'a> {
    pub(super) entity: EntityType,
    pub(super) rows: &'a [Vec<String>],
    pub(super) format: NumberFormat,
    /// Telephone numbers without a country are of this one.
    pub(super) dial: &'a str,
}

impl Evidence<'_> {
    /// How sure the target of a column is, from 0 to 1.
    pub(super) fn of_column(&self, column: &Column, at: usize) -> f64 {
        let by_name = match column.reason {
            Reason::Explicit | Reason::Template => return 1.0,
            Reason::Exact => 1.0,
            Reason::Synonym => 0.9,
            Reason::Values => 0.8,
            Reason::Similar => 0.7,
            Reason::Ignored => return 0.0,
        };
        match column.target {
            Target::Field(field) => rounded(by_name * self.factor(field, at)),
            Target::Custom(_) | Target::Ignored => by_name,
        }
    }

    /// What a column without a target may be, best first: fields that no other column has.
    pub(super) fn proposals(&self, columns: &[Column], at: usize) -> Vec<Proposal> {
        let header = normalize::fold(&columns[at].header);
        let is_free = |def: &&FieldDef| {
            let target = Target::Field(def.field);
            columns.iter().all(|column| column.target != target)
        };
        let fields = fields::fields_of(self.entity).iter().filter(is_free);
        let mut proposals: Vec<Proposal> = fields
            .map(|def| {
                let by_name = likeness(&header, def) * self.factor(def.field, at);
                let by_values = match is_unmistakable(def.field) {
                    true => 0.7 * self.share(def.field, at).unwrap_or(0.0),
                    false => 0.0,
                };
                Proposal {
                    target: def.name,
                    confidence: rounded(by_name.max(by_values)),
                }
            })
            .filter(|proposal| proposal.confidence >= PROPOSAL_MIN)
            .collect();
        proposals.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        proposals.truncate(PROPOSALS_MAX);
        proposals
    }

    /// 1 where all values fit the field, or nothing is known of them.
    fn factor(&self, field: Field, at: usize) -> f64 {
        let share = self.share(field, at);
        share.map_or(1.0, |share| NAME_ALONE + (1.0 - NAME_ALONE) * share)
    }

    /// How many of the values fit the field; none: it takes any text, or there are no values.
    fn share(&self, field: Field, at: usize) -> Option<f64> {
        let cells = self.rows.iter().filter_map(|row| row.get(at));
        let cleaned = cells.map(|cell| normalize::clean(cell));
        let (mut filled, mut fitting) = (0_u32, 0_u32);
        for value in cleaned.filter(|value| !value.is_empty()) {
            filled += 1;
            fitting += u32::from(self.fits(field, &value)?);
        }
        (filled > 0).then(|| f64::from(fitting) / f64::from(filled))
    }

    fn fits(&self, field: Field, value: &str) -> Option<bool> {
        Some(match field {
            Field::Email => normalize::email(value).is_ok(),
            Field::Domain | Field::CompanyDomain => normalize::domain(value).is_ok(),
            Field::Website => link::website(value).is_ok(),
            Field::LinkedinUrl => link::linkedin(value).is_ok(),
            Field::EmployeeCount => number::employees(value, self.format).is_ok(),
            Field::AnnualRevenue => number::amount(value, self.format).is_ok(),
            Field::Phone => phone::phone(value, self.dial).is_ok(),
            Field::Country => country::by_name(value).is_some(),
            _ => return None,
        })
    }
}

/// Fields whose values are like no others.
fn is_unmistakable(field: Field) -> bool {
    matches!(field, Field::Email | Field::LinkedinUrl)
}

/// How much a header is like the names of a field: the part of the one that the other is.
fn likeness(header: &str, def: &FieldDef) -> f64 {
    let own = normalize::fold(def.name);
    let names = def.synonyms.iter().copied().chain([own.as_str()]);
    let alike = names.map(|name| {
        let (short, long) = match header.len() < name.len() {
            true => (header, name),
            false => (name, header),
        };
        match short.chars().count() >= PART_MIN && long.contains(short) {
            true => short.chars().count() as f64 / long.chars().count() as f64,
            false => 0.0,
        }
    });
    0.8 * alike.fold(0.0, f64::max)
}

fn rounded(share: f64) -> f64 {
    (share * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::mapping::propose;
    use super::*;

    /// Header, confidence and proposals of each column.
    fn seen(headers: &[&str], rows: &[&[&str]]) -> Vec<(f64, Vec<(&'static str, f64)>)> {
        let owned = |row: &[&str]| row.iter().map(|cell| (*cell).to_owned()).collect();
        let rows: Vec<Vec<String>> = rows.iter().map(|row| owned(row)).collect();
        let headers: Vec<String> = owned(headers);
        let entity = EntityType::Contacts;
        let mapping = propose(entity, &headers, &BTreeMap::new(), true, &rows).unwrap();
        let evidence = Evidence {
            entity,
            rows: &rows,
            format: NumberFormat::Point,
            dial: "",
        };
        let columns = mapping.columns.iter().enumerate();
        columns
            .map(|(at, column)| {
                let proposals = evidence.proposals(&mapping.columns, at);
                let proposals = proposals.iter().map(|p| (p.target, p.confidence));
                (evidence.of_column(column, at), proposals.collect())
            })
            .collect()
    }

    #[test]
    fn a_name_counts_less_where_the_values_do_not_fit() {
        let seen = seen(
            &["email", "mail address", "phone", "title"],
            &[
                &["ada@x.org", "", "+49 30 1234567", "CTO"],
                &["bob", "", "call him", ""],
            ],
        );
        let sure: Vec<f64> = seen.iter().map(|(sure, _)| *sure).collect();
        assert_eq!(sure, [0.65, 0.0, 0.65, 1.0]);
    }

    #[test]
    fn columns_without_a_target_have_proposals_of_free_fields() {
        let seen = seen(
            &["email", "city of residence", "profile", "zz"],
            &[&["ada@x.org", "Rome", "linkedin.com/in/ada", "4"]],
        );
        assert_eq!(seen[1].0, 0.0);
        let targets: Vec<_> = seen[1].1.iter().map(|(target, _)| *target).collect();
        assert!(seen[3].1.is_empty(), "{:?}", seen[3]);
        // `linkedin_url` is taken by its values, and proposed to nobody else.
        assert_eq!(seen[2].0, 0.8);
        assert!(!targets.contains(&"linkedin_url") && !targets.contains(&"email"));
    }

    #[test]
    fn the_best_proposal_comes_first() {
        let seen = seen(&["email", "office phones"], &[&["ada@x.org", "+493012345"]]);
        let (_, proposals) = &seen[1];
        assert_eq!(proposals[0].0, "phone", "{proposals:?}");
        let sorted = proposals.windows(2).all(|pair| pair[0].1 >= pair[1].1);
        assert!(sorted && proposals.len() <= PROPOSALS_MAX);
    }
}
