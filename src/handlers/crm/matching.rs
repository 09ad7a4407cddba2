//! Which record there a row without a link is.
//!
//! A contact is looked for by its address, an account by its domain. Where no field there is mapped
//! to the domain (Salesforce has none), it is looked for by its website in all the ways that people
//! write one, but a page of a site (`facebook.com/acme`) only as that page; and one that has
//! neither domain nor website by its name, among those there that have neither as well. What is
//! found bears the value that was asked for, and is told by that one field alone: another field
//! that can not be read must not make it look like nobody.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use uuid::Uuid;

use super::super::ending::record_error;
use super::super::import_csv::normalize;
use super::Run;
use super::client::{Crm, CrmError, Entity, FOUND_MAX, Remote, VALUES_MAX};
use super::merge::Values;
use super::target::Target;
use crate::record::crm::links;
use crate::record::crm::locals::Local;

/// So much of a name counts, in characters: as in the record (`locals::Key::Name`).
const NAME_MAX: usize = 200;

/// What a row is looked for by; each is a field here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    Domain,
    Website,
    Email,
    Name,
}

impl By {
    const ALL: [Self; 4] = [Self::Domain, Self::Website, Self::Email, Self::Name];

    fn field(self) -> &'static str {
        match self {
            Self::Domain => "domain",
            Self::Website => "website",
            Self::Email => "email",
            Self::Name => "name",
        }
    }

    /// What a record there is known by; none: it is not one that is looked for so.
    fn key(self, target: &Target, remote: &Remote) -> Option<String> {
        let text = |field: &str| target.fields.text(field, &remote.fields);
        let own = text(self.field())?;
        match self {
            Self::Domain | Self::Email => Some(own.to_lowercase()),
            Self::Website => Some(site(&own)),
            Self::Name => match (text("domain"), text("website")) {
                (None, None) => Some(name_key(&own)),
                _ => None,
            },
        }
    }
}

/// A row that is looked for.
#[derive(Debug)]
struct Sought {
    id: Uuid,
    by: By,
    /// What it is known by, any of them.
    keys: Vec<String>,
    /// What the field there may read.
    values: Vec<String>,
}

/// Records there, or why it can not be told which.
type Matches = BTreeMap<Uuid, Result<Remote, String>>;

impl<C: Crm> Run<'_, C> {
    /// Records there that rows without a link are.
    pub(super) async fn matches(
        &self,
        target: &Target,
        rows: &[(Local, Values)],
    ) -> Result<Matches, CrmError> {
        let unlinked = rows.iter().filter(|(row, _)| row.remote_id.is_none());
        let wanted = unlinked.filter_map(|(row, ours)| sought(target, row, ours));
        let mut by_way: BTreeMap<By, Vec<Sought>> = BTreeMap::new();
        for one in wanted {
            by_way.entry(one.by).or_default().push(one);
        }
        let mut there: BTreeMap<(By, String), Vec<Remote>> = BTreeMap::new();
        for by in By::ALL {
            let wanted = by_way.get(&by).map(Vec::as_slice).unwrap_or_default();
            for remote in self.bearing(target, by, wanted).await? {
                if let Some(key) = by.key(target, &remote) {
                    there.entry((by, key)).or_default().push(remote);
                }
            }
        }
        let all = there.values().flatten().map(|remote| remote.id.clone());
        let all: Vec<String> = all.collect();
        let mut tx = self.ctx.record().begin().await.map_err(record_error)?;
        let taken = links::locals_of(&mut tx, self.scope(target.entity()), &all).await;
        tx.rollback().await.map_err(record_error)?;
        let taken = taken.map_err(record_error)?.into_iter();
        let taken: BTreeSet<String> = taken.map(|(remote, _)| remote).collect();
        Ok(assigned(by_way.into_values().flatten(), &there, &taken))
    }

    /// The records there that have one of these values.
    async fn bearing(
        &self,
        target: &Target,
        by: By,
        wanted: &[Sought],
    ) -> Result<Vec<Remote>, CrmError> {
        let Some(mapped) = target.fields.get(by.field()) else {
            return Ok(Vec::new());
        };
        let names = target.fields.remote_names();
        let most = wanted.iter().map(|one| one.values.len()).max();
        let rows = VALUES_MAX / most.unwrap_or(1).max(1);
        let mut waiting: Vec<&[Sought]> = wanted.chunks(rows.max(1)).collect();
        let mut found = Vec::new();
        while let Some(part) = waiting.pop() {
            let values: Vec<String> = part.iter().flat_map(|one| one.values.clone()).collect();
            let records = self
                .crm
                .find(target.entity(), &mapped.remote, &values, &names)
                .await?;
            if records.len() >= FOUND_MAX && part.len() > 1 {
                // There may be more: whoever is not in the answer is not missing there.
                let (first, second) = part.split_at(part.len() / 2);
                waiting.extend([second, first]);
                continue;
            }
            found.extend(records);
        }
        Ok(found)
    }
}

/// Who is who, of what was found. Nobody is two rows.
fn assigned(
    wanted: impl Iterator<Item = Sought>,
    there: &BTreeMap<(By, String), Vec<Remote>>,
    taken: &BTreeSet<String>,
) -> Matches {
    let mut matches = Matches::new();
    let mut given: BTreeMap<String, Uuid> = BTreeMap::new();
    for Sought { id, by, keys, .. } in wanted {
        let found = keys.iter().filter_map(|key| there.get(&(by, key.clone())));
        let found: Vec<&Remote> = found.flatten().collect();
        let mut free = found.iter().filter(|remote| !taken.contains(&remote.id));
        // One that bears our id is ours, whoever else has the value.
        let own = found.iter().find(|remote| remote.local_id == Some(id));
        let found = match (own, free.next(), free.next()) {
            (Some(own), ..) | (None, Some(own), None) => match given.get(&own.id) {
                Some(other) => Err(format!(
                    "{} there is the same as record {other} here, too: merge them here",
                    own.id
                )),
                None => {
                    given.insert(own.id.clone(), id);
                    Ok(Remote::clone(own))
                }
            },
            (None, None, _) => continue,
            (None, Some(one), Some(other)) => Err(format!(
                "{} and {} there both have `{}`: merge them there",
                one.id,
                other.id,
                keys.join("` or `")
            )),
        };
        matches.insert(id, found);
    }
    matches
}

/// What a row is looked for by, if by anything.
fn sought(target: &Target, row: &Local, ours: &Values) -> Option<Sought> {
    // Also what is not mapped tells who it is.
    let text = |field: &str| {
        let own = ours.get(field).or_else(|| row.row.get(field));
        own.and_then(Value::as_str).filter(|text| !text.is_empty())
    };
    let is_mapped = |field: &str| target.fields.get(field).is_some();
    let one = |by, keys, values| Sought {
        id: row.id,
        by,
        keys,
        values,
    };
    match target.entity() {
        Entity::Opportunities => None,
        Entity::Contacts => {
            let email = text("email")?.to_lowercase();
            Some(one(By::Email, vec![email.clone()], vec![email]))
        }
        Entity::Accounts => {
            let website = text("website");
            let domain = text("domain").map(str::to_lowercase);
            let domain = domain.or_else(|| plain(website?));
            match (domain, website) {
                (Some(domain), _) if is_mapped("domain") => {
                    Some(one(By::Domain, vec![domain.clone()], vec![domain]))
                }
                (Some(domain), website) => {
                    let page = website.filter(|website| {
                        plain(website).is_none()
                            && normalize::domain(website).as_ref() == Ok(&domain)
                    });
                    let mut values: Vec<String> = spellings(&domain).collect();
                    values.extend(page.map(str::to_owned));
                    let keys = std::iter::once(domain).chain(page.map(site));
                    Some(one(By::Website, keys.collect(), values))
                }
                (None, Some(page)) => {
                    Some(one(By::Website, vec![site(page)], vec![page.to_owned()]))
                }
                (None, None) => {
                    let name = text("name")?;
                    Some(one(By::Name, vec![name_key(name)], vec![name.to_owned()]))
                }
            }
        }
    }
}

/// How people write the website of a domain.
fn spellings(domain: &str) -> impl Iterator<Item = String> {
    ["", "https://", "http://"]
        .into_iter()
        .flat_map(move |scheme| {
            ["", "www."]
                .into_iter()
                .flat_map(move |host| ["", "/"].map(|end| format!("{scheme}{host}{domain}{end}")))
        })
}

/// The domain that a website is no more than.
fn plain(website: &str) -> Option<String> {
    let domain = normalize::domain(website).ok()?;
    let website = website.trim().to_lowercase();
    let is_plain = spellings(&domain).any(|spelling| spelling == website);
    is_plain.then_some(domain)
}

/// What a website is known by: its domain, however that is written; else the page that it is.
fn site(website: &str) -> String {
    plain(website).unwrap_or_else(|| website.trim().to_lowercase())
}

fn name_key(name: &str) -> String {
    let start: String = name.trim().chars().take(NAME_MAX).collect();
    start.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_website_is_known_by_its_domain_however_it_is_written_and_a_page_is_not() {
        let all: Vec<String> = spellings("acme.com").collect();
        assert_eq!(all.len(), 12);
        for spelling in &all {
            assert_eq!(site(spelling), "acme.com", "{spelling}");
        }
        assert_eq!(site(" HTTPS://WWW.Acme.com/ "), "acme.com");
        assert_eq!(site("https://Acme.com/en"), "https://acme.com/en");
        assert_eq!(site("facebook.com/acme"), "facebook.com/acme");
        assert_eq!(site("shop.acme.com"), "shop.acme.com");
        assert_eq!(plain("intranet"), None);
    }

    #[test]
    fn nobody_is_two_rows_and_who_bears_the_id_goes_before_who_has_the_value() {
        let sought = |id, key: &str| Sought {
            id: Uuid::from_u128(id),
            by: By::Website,
            keys: vec![key.to_owned()],
            values: Vec::new(),
        };
        let remote = |id: &str, local_id: Option<u128>| Remote {
            id: id.to_owned(),
            fields: Default::default(),
            modified_at: Default::default(),
            modified_by: None,
            local_id: local_id.map(Uuid::from_u128),
            parent_id: None,
        };
        let key = |key: &str| (By::Website, key.to_owned());
        let there = BTreeMap::from([
            (key("a.com"), vec![remote("1", None)]),
            (key("b.com"), vec![remote("2", None), remote("3", Some(12))]),
            (key("c.com"), vec![remote("4", None), remote("5", None)]),
            (key("d.com"), vec![remote("6", None), remote("7", None)]),
        ]);
        let wanted = [
            sought(10, "a.com"),
            sought(11, "a.com"),
            sought(12, "b.com"),
            sought(13, "c.com"),
            sought(14, "d.com"),
            sought(15, "e.com"),
        ];
        let taken = BTreeSet::from(["6".to_owned()]);
        let matches = assigned(wanted.into_iter(), &there, &taken);
        let of = |id| matches.get(&Uuid::from_u128(id)).cloned();
        let found = |id| of(id).unwrap().map(|remote| remote.id);
        assert_eq!(found(10).as_deref(), Ok("1"));
        assert!(found(11).unwrap_err().contains("merge them here"));
        assert_eq!(found(12).as_deref(), Ok("3"));
        assert!(found(13).unwrap_err().contains("4 and 5"));
        assert_eq!(found(14).as_deref(), Ok("7"));
        assert_eq!(of(15), None);
    }
}
