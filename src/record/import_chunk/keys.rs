//! Whether two chunks can be told apart by what their rows are recognised by.
//!
//! Rather too careful than not: two chunks that are said to meet are written one after the other,
//! and nothing else comes of it. So values are compared by a hash, and texts that the record
//! compares in lower case by those characters that every locale has the same lower case of.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::{Chunk, ChunkRow, Entities};
use crate::record::accounts::AccountRow;
use crate::record::contacts::ContactRow;

/// What the rows of a chunk may be recognised by.
#[derive(Debug, Clone, Default)]
pub struct Keys(HashSet<u64>);

impl Keys {
    pub fn of(chunk: &Chunk) -> Self {
        let mut keys = Self::default();
        match &chunk.entities {
            Entities::Accounts(rows) => rows.iter().for_each(|row| keys.add_account(row)),
            Entities::Contacts(rows) => rows.iter().for_each(|row| keys.add_contact(row)),
        }
        keys
    }

    /// Whether a row of one chunk may mean the same record as a row of the other, or have a part in
    /// which record a later row means.
    pub fn may_meet(&self, other: &Self) -> bool {
        !self.0.is_disjoint(&other.0)
    }

    /// The name always: of several accounts with one name the oldest is taken for it, and the one
    /// of the earlier row is to be the older one.
    fn add_account(&mut self, row: &ChunkRow<AccountRow>) {
        let account = &row.entity;
        self.0.insert(hash("key", &row.key));
        self.add("external_id", account.external_id.as_deref());
        self.add("domain", folded(account.domain.as_deref()).as_deref());
        self.add("name", folded(Some(&account.name)).as_deref());
    }

    fn add_contact(&mut self, row: &ChunkRow<ContactRow>) {
        let contact = &row.entity;
        self.0.insert(hash("key", &row.key));
        self.add("external_id", contact.external_id.as_deref());
        self.add("email", folded(contact.email.as_deref()).as_deref());
        self.add("linkedin_url", contact.linkedin_url.as_deref());
    }

    fn add(&mut self, kind: &str, value: Option<&str>) {
        self.0.extend(value.map(|value| hash(kind, value)));
    }
}

fn hash<T: Hash + ?Sized>(kind: &str, value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    kind.hash(&mut hasher);
    value.hash(&mut hasher);
    hasher.finish()
}

/// The same for whatever any server takes for the same but for the case. The record compares the
/// first 200 characters of a name.
///
/// `I` may become a dotless `ı`, and `İ` and the sign for Kelvin become ASCII letters.
fn folded(text: Option<&str>) -> Option<String> {
    let is_steady = |c: &char| c.is_ascii() && !matches!(c, 'i' | 'I' | 'k' | 'K');
    let steady = text?.chars().take(200).filter(is_steady);
    Some(steady.map(|c| c.to_ascii_lowercase()).collect())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::record::import_chunk::RowPlace;

    fn keys(rows: &[(&str, &str, &str)]) -> Keys {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let rows = rows.iter().map(|(name, domain, external_id)| ChunkRow {
            place: RowPlace {
                row_no: 1,
                line_no: 1,
                raw: 0..0,
                columns: 1,
            },
            key: Uuid::now_v7(),
            entity: AccountRow {
                name: (*name).to_owned(),
                domain: given(domain),
                external_id: given(external_id),
                ..AccountRow::default()
            },
        });
        Keys::of(&Chunk {
            entities: Entities::Accounts(rows.collect()),
            rejected: Vec::new(),
            raw: Vec::new(),
        })
    }

    #[test]
    fn chunks_meet_where_two_rows_may_mean_one_record() {
        let first = keys(&[("Acme", "acme.com", "1"), ("Only", "", "")]);
        for (rows, meets) in [
            (&[("Other", "other.com", "2")][..], false),
            // Which of the two is the older one matters to a row that has its name alone.
            (&[("Acme", "acme.org", "")], true),
            (&[("acme", "", "")], true),
            (&[("ONLY", "only.com", "")], true),
            (
                &[("New", "new.com", "3"), ("Acme Inc", "acme.com", "")],
                true,
            ),
            (&[("Acme Inc", "", "1")], true),
            // An external id is no domain.
            (&[("Else", "", "acme.com")], false),
        ] {
            assert_eq!(first.may_meet(&keys(rows)), meets, "{rows:?}");
            assert_eq!(
                keys(rows).may_meet(&first),
                meets,
                "{rows:?}, the other way"
            );
        }
    }

    #[test]
    fn letters_that_servers_disagree_about_do_not_tell_two_names_apart() {
        for (one, other) in [
            ("ISTANBUL İş", "istanbul iş"),
            ("INC", "ınc"),
            ("\u{212a}elvin", "kelvin"),
            ("MÜLLER", "müller"),
        ] {
            let (one, other) = (keys(&[(one, "", "")]), keys(&[(other, "", "")]));
            assert!(one.may_meet(&other));
        }
        let long = "x".repeat(250);
        let (a, b) = (format!("{long}a"), format!("{long}b"));
        assert!(keys(&[(&a, "", "")]).may_meet(&keys(&[(&b, "", "")])));
    }
}
