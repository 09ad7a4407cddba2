//! Apollo's answers about up to ten people or organizations at once, taken apart.
//!
//! `matches` of people are in the order of the question, null for unknown ones. `organizations` are
//! told by their domain, or by their place.
//!
//! Source: docs.apollo.io ("Bulk People Enrichment", "Bulk Organization Enrichment").

use serde_json::{Value, json};

use super::facts::at;

pub(super) const MANY_COMPANIES: &str = "/api/v1/organizations/bulk_enrich";
pub(super) const MANY_PEOPLE: &str = "/api/v1/people/bulk_match";
/// What one question may be about.
pub(super) const MANY_MAX: usize = 10;

/// Of an answer about several people, those to each question, in the form that an answer to one
/// has. None: it is no such answer.
pub(super) fn each_person(answer: &Value, asked: usize) -> Option<Vec<Option<Value>>> {
    let matches = answer.get("matches")?.as_array()?;
    if matches.len() != asked {
        return None;
    }
    let each = matches.iter().map(|found| Some(json!({ "person": found })));
    Some(each.collect())
}

/// Of an answer about several companies, those to each domain; none where nobody can tell which of
/// its companies is meant. None at all: it is no such answer.
pub(super) fn each_company(answer: &Value, domains: &[&str]) -> Option<Vec<Option<Value>>> {
    let found = answer.get("organizations")?.as_array()?;
    let named = |one: &Value| at(one, "/primary_domain").map(str::to_ascii_lowercase);
    let place = |one: &Value| {
        domains
            .iter()
            .position(|domain| named(one).as_deref() == Some(domain))
    };
    // A company that goes by another domain now has the place of the one that was asked for.
    let is_in_order = found.len() == domains.len()
        && found
            .iter()
            .enumerate()
            .all(|(nth, one)| place(one).is_none_or(|place| place == nth));
    let are_all_named = found
        .iter()
        .all(|one| one.is_null() || place(one).is_some());
    let each = domains.iter().enumerate().map(|(nth, _)| {
        let own = found.iter().find(|one| place(one) == Some(nth));
        match own {
            Some(own) => Some(json!({ "organization": own })),
            None if is_in_order => Some(json!({ "organization": found.get(nth) })),
            None if are_all_named => Some(json!({})),
            None => None,
        }
    });
    Some(each.collect())
}

#[cfg(test)]
mod tests {
    use super::super::apollo::{read, read_person, says_unknown};
    use super::*;

    #[test]
    fn answers_to_several_questions_are_taken_apart_or_not_believed() {
        let answer = json!({ "matches": [{"email": "a@b.com", "first_name": "Ann"}, null] });
        let each = each_person(&answer, 2).unwrap();
        let ann = read_person(each[0].as_ref().unwrap()).unwrap();
        let expected = json!({ "email": "a@b.com", "first_name": "Ann" });
        assert_eq!(json!(ann.values), expected);
        assert!(says_unknown(each[1].as_ref().unwrap()));
        assert_eq!(each_person(&answer, 3), None, "whose is which?");

        let domains = ["a.com", "b.com"];
        let one = |domain: &str| json!({ "primary_domain": domain });
        let each = |found: Vec<Value>| {
            let each = each_company(&json!({ "organizations": found }), &domains).unwrap();
            let named = each.iter().map(|one| {
                let facts = read(one.as_ref()?);
                Some(facts.and_then(|facts| facts.domain))
            });
            named.collect::<Vec<_>>()
        };
        let some = |domain: &str| Some(Some(domain.to_owned()));
        let unknown = Some(None);
        let in_order = each(vec![one("renamed.com"), json!(null)]);
        assert_eq!(in_order, [some("renamed.com"), unknown.clone()]);
        assert_eq!(each(vec![one("b.com")]), [unknown, some("b.com")]);
        assert_eq!(
            each(vec![one("b.com"), one("a.com")]),
            [some("a.com"), some("b.com")]
        );
        // Whose is the first one?
        assert_eq!(each(vec![one("renamed.com")]), [None, None]);
        assert_eq!(
            each(vec![one("b.com"), one("renamed.com")]),
            [None, some("b.com")]
        );
    }
}
