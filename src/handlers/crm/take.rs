//! One record of the CRM: linked with the one here that is the same, or made here; merged, written.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use super::super::import_csv::normalize;
use super::client::{Crm, Entity, Identity, Refusal, Remote};
use super::mapping::{self, Flow, PARENT};
use super::merge::{Values, Ways, merge};
use super::payload::{Side, Strategy};
use super::state::Counts;
use super::target::Target;
use super::{Run, hash};
use crate::record::crm::links::{self, Link};
use crate::record::crm::locals::{self, Key, Local, Write};
use crate::record::crm::{Scope, conflicts};
use crate::record::{RecordError, Tx};

/// What became of a record.
pub(super) enum Taken {
    Yes,
    /// Taken, but its account is not known here: it is looked at again.
    WithoutParent,
    No(Refusal),
}

/// What a page is merged with.
pub(super) struct Page<'a> {
    pub(super) target: &'a Target,
    pub(super) scope: Scope,
    pub(super) identity: &'a Identity,
    /// By the id there: ours.
    pub(super) links: BTreeMap<String, Uuid>,
    pub(super) locals: BTreeMap<Uuid, Local>,
    /// Accounts, by their id there.
    pub(super) parents: BTreeMap<String, Uuid>,
}

impl<C: Crm> Run<'_, C> {
    pub(super) async fn take_one(
        &self,
        tx: &mut Tx,
        page: &mut Page<'_>,
        remote: &Remote,
        counts: &mut Counts,
    ) -> Result<Taken, RecordError> {
        let target = page.target;
        let mut theirs = match target.fields.theirs(&remote.fields) {
            Ok(theirs) => theirs,
            Err((field, why)) => {
                return Ok(Taken::No(Refusal {
                    code: "invalid_value".to_owned(),
                    message: format!("`{field}` {why}"),
                    fields: vec![field],
                }));
            }
        };
        if target.has_parent() {
            theirs.insert(PARENT.to_owned(), json!(remote.parent_id));
        }
        let linked = page.links.get(&remote.id).copied();
        let local = match linked {
            Some(id) => match page.locals.get(&id) {
                Some(local) => Some(local.clone()),
                None => {
                    // It was deleted here, and is not made anew.
                    counts.skipped += 1;
                    return Ok(Taken::Yes);
                }
            },
            None => match self.same(tx, page, remote, &theirs).await? {
                Some(id) => {
                    let local = locals::hold(tx, page.scope, &[id]).await?.pop();
                    let other = local.as_ref().and_then(|local| local.remote_id.clone());
                    if let Some(other) = other {
                        let why =
                            format!("record {id} here is the same, and is linked with {other}");
                        return Ok(Taken::No(refusal("linked_elsewhere", why)));
                    }
                    counts.matched += 1;
                    local
                }
                None => None,
            },
        };
        match local {
            None => self.create(tx, page, remote, theirs, counts).await,
            Some(local) => self.change(tx, page, remote, (local, theirs), counts).await,
        }
    }

    /// The record here that one there is, without a link.
    async fn same(
        &self,
        tx: &mut Tx,
        page: &Page<'_>,
        remote: &Remote,
        theirs: &Values,
    ) -> Result<Option<Uuid>, RecordError> {
        let scope = page.scope;
        if let Some(id) = remote.local_id
            && let Some(found) = locals::find(tx, scope, Key::Id(id)).await?
        {
            return Ok(Some(found));
        }
        let text = |name: &str| theirs.get(name).and_then(Value::as_str);
        match page.target.entity() {
            Entity::Accounts => {
                if let Some(domain) = domain(theirs) {
                    return locals::find(tx, scope, Key::Domain(&domain)).await;
                }
                match text("name") {
                    Some(name) => locals::find(tx, scope, Key::Name(name)).await,
                    None => Ok(None),
                }
            }
            Entity::Contacts => match text("email") {
                Some(email) => locals::find(tx, scope, Key::Email(email)).await,
                None => Ok(None),
            },
            Entity::Opportunities => Ok(None),
        }
    }

    async fn create(
        &self,
        tx: &mut Tx,
        page: &mut Page<'_>,
        remote: &Remote,
        theirs: Values,
        counts: &mut Counts,
    ) -> Result<Taken, RecordError> {
        let target = page.target;
        let mut agreed: Values = theirs
            .into_iter()
            .filter(|(field, _)| target.fields.flow(field) != Flow::Push)
            .collect();
        let mut known = agreed.clone();
        let (parent, is_orphan) = self.parent(page, remote);
        if is_orphan {
            agreed.remove(PARENT);
        }
        if target.entity() == Entity::Accounts && !known.contains_key("domain") {
            // Where nobody maps it, the site says it: the next import finds the account by it.
            if let Some(domain) = domain(&known) {
                known.insert("domain".to_owned(), Value::from(domain));
            }
        }
        let (mut columns, custom) = mapping::row(&known);
        let is_empty = |name: &str| columns.get(name).is_none_or(Value::is_null);
        let mut external_id = None;
        match target.entity() {
            Entity::Contacts if is_empty("email") && is_empty("linkedin_url") => {
                let provider = self.crm.connection().provider.as_str();
                external_id = Some(format!("{provider}:{}", remote.id));
            }
            Entity::Accounts if is_empty("name") => {
                let Some(domain) = columns.get("domain").cloned().filter(Value::is_string) else {
                    let why = "it has no name, and no domain in its place".to_owned();
                    return Ok(Taken::No(refusal("no_name", why)));
                };
                columns.insert("name".to_owned(), domain);
            }
            Entity::Opportunities if is_empty("name") => {
                return Ok(Taken::No(refusal("no_name", "it has no name".to_owned())));
            }
            _ => {}
        }
        let write = Write {
            columns,
            custom,
            account_id: Some(parent),
            external_id,
        };
        let id = Uuid::now_v7();
        locals::insert(tx, page.scope, id, &write).await?;
        self.link(tx, page.scope, remote, (id, &agreed)).await?;
        page.links.insert(remote.id.clone(), id);
        counts.created_here += 1;
        Ok(match is_orphan {
            true => Taken::WithoutParent,
            false => Taken::Yes,
        })
    }

    async fn change(
        &self,
        tx: &mut Tx,
        page: &Page<'_>,
        remote: &Remote,
        (local, theirs): (Local, Values),
        counts: &mut Counts,
    ) -> Result<Taken, RecordError> {
        let (target, scope) = (page.target, page.scope);
        let ours = target.ours(&local);
        let before = agreed_of(&local);
        let is_echo = local.state.as_deref() == Some("linked")
            && theirs
                .iter()
                .all(|(field, their)| before.get(field) == Some(their));
        if is_echo {
            let by_us =
                page.identity.user_id.is_some() && page.identity.user_id == remote.modified_by;
            let is_known = local.remote_modified_at >= Some(remote.modified_at);
            counts.echoes += u64::from(by_us || is_known);
        }
        let winners = self.winners(
            tx,
            (local.id, local.updated_at),
            remote,
            (&before, &ours, &theirs),
        );
        let winners = winners.await?;
        let ways = Ways {
            pulls: true,
            pushes: self.payload.sync_direction.pushes(),
        };
        let mut merged = merge(
            ways,
            (&before, &ours, &theirs),
            |field| target.fields.flow(field),
            |field| winners.get(field).copied(),
        );
        let (parent, is_orphan) = self.parent(page, remote);
        let mut account_id = None;
        if merged.to_us.remove(PARENT).is_some() {
            match is_orphan {
                false => account_id = Some(parent),
                true => {
                    merged.agreed.remove(PARENT);
                }
            }
        }
        if !merged.to_us.is_empty() || account_id.is_some() {
            let (columns, custom) = mapping::row(&merged.to_us);
            let write = Write {
                columns,
                custom,
                account_id,
                external_id: None,
            };
            locals::update(tx, scope, local.id, &write).await?;
            counts.updated_here += 1;
        }
        counts.decided += merged.decided;
        match merged.disputes.is_empty() {
            false => {
                counts.conflicts += 1;
                let about = (local.id, remote.id.as_str());
                let fields = json!(merged.disputes);
                conflicts::open(tx, scope, about, &fields, self.ctx.job_id()).await?;
            }
            true if local.disputed.is_some() => conflicts::close(tx, scope, local.id).await?,
            true => {}
        }
        self.link(tx, scope, remote, (local.id, &merged.agreed))
            .await?;
        Ok(
            match is_orphan && theirs.get(PARENT) != merged.agreed.get(PARENT) {
                true => Taken::WithoutParent,
                false => Taken::Yes,
            },
        )
    }

    /// Who is right, of the fields that both have changed; nobody: a person decides.
    pub(super) async fn winners(
        &self,
        tx: &mut Tx,
        (id, updated_at): (Uuid, chrono::DateTime<chrono::Utc>),
        remote: &Remote,
        (agreed, ours, theirs): (&Values, &Values, &Values),
    ) -> Result<BTreeMap<String, Side>, RecordError> {
        let mut winners = BTreeMap::new();
        for (field, our) in ours {
            let (was, their) = (agreed.get(field), theirs.get(field));
            if Some(our) == their || was == Some(our) || was == their {
                continue;
            }
            let side = match self.payload.strategy {
                Strategy::SourceWins => self.payload.source(),
                // Nobody can be asked for a link.
                Strategy::ManualReview if field == PARENT => self.payload.source(),
                Strategy::ManualReview => continue,
                Strategy::LastWriteWins => {
                    let column = match field.starts_with("custom.") {
                        true => "custom",
                        false if field == PARENT => "account_id",
                        false => field.as_str(),
                    };
                    let changed = locals::changed_at(tx, id, column).await?;
                    match changed.unwrap_or(updated_at) > remote.modified_at {
                        true => Side::Bullwark,
                        false => Side::Crm,
                    }
                }
            };
            winners.insert(field.clone(), side);
        }
        Ok(winners)
    }

    /// The account here; and whether it should have one, and it is not known.
    fn parent(&self, page: &Page<'_>, remote: &Remote) -> (Option<Uuid>, bool) {
        let id = remote
            .parent_id
            .as_ref()
            .filter(|_| page.target.has_parent());
        let known = id.and_then(|id| page.parents.get(id)).copied();
        // Accounts that nobody syncs never come.
        let is_orphan = id.is_some() && known.is_none() && self.syncs(Entity::Accounts);
        (known, is_orphan)
    }

    async fn link(
        &self,
        tx: &mut Tx,
        scope: Scope,
        remote: &Remote,
        (id, agreed): (Uuid, &Values),
    ) -> Result<(), RecordError> {
        let agreed = json!(agreed);
        let link = Link {
            local_id: id,
            remote_id: &remote.id,
            agreed: &agreed,
            hash: &hash(&agreed),
            remote_modified_at: Some(remote.modified_at),
        };
        links::put(tx, scope, &link).await
    }
}

/// What a record last agreed on.
pub(super) fn agreed_of(local: &Local) -> Values {
    let agreed = local.agreed.as_ref().and_then(Value::as_object).cloned();
    agreed.unwrap_or_default().into_iter().collect()
}

/// What an account is found by.
fn domain(values: &Values) -> Option<String> {
    let text = |name: &str| values.get(name).and_then(Value::as_str);
    match text("domain") {
        Some(domain) => Some(domain.to_owned()),
        None => normalize::domain(text("website")?).ok(),
    }
}

pub(super) fn refusal(code: &str, message: String) -> Refusal {
    Refusal {
        code: code.to_owned(),
        message,
        fields: Vec::new(),
    }
}
