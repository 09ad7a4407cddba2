//! From the CRM to here: a page of changes, each record on its own, in one transaction with the
//! links and the place to go on from.

use uuid::Uuid;

use super::super::ending::record_error;
use super::Run;
use super::client::{Crm, CrmError, Cursor, Entity, FIND_MAX, Identity, Remote};
use super::state::{Counts, State};
use super::take::{Page, Taken, refusal};
use super::target::Target;
use crate::record::crm::cursors::{self, Come};
use crate::record::crm::errors::{self, NewError};
use crate::record::crm::{self, links, locals};
use crate::record::{RecordError, Tx};

pub(super) const PULL: &str = "pull";

impl<C: Crm> Run<'_, C> {
    /// The next page of what was changed there.
    pub(super) async fn pull(
        &self,
        target: &Target,
        at: &mut State,
        identity: &Identity,
    ) -> Result<(), CrmError> {
        let entity = target.entity();
        let cursor = at.cursor.clone().unwrap_or_else(|| Cursor {
            since: at.since.get(&entity).copied().unwrap_or_default(),
            after: None,
        });
        let names = target.fields.remote_names();
        let page = self.crm.changes(entity, &names, &cursor).await?;
        let mut next = at.clone();
        let high = page.records.iter().map(|remote| remote.modified_at).max();
        let is_last = page.next.is_none();
        match page.next {
            Some(cursor) => next.cursor = Some(cursor),
            None => next.go_on(),
        }
        let come = Come {
            direction: PULL,
            since: high,
            org_id: identity.org_id.as_deref(),
            job_id: self.ctx.job_id(),
            ended: is_last.then_some(at.begun),
        };
        self.take(target, page.records, &mut next, identity, Some(come))
            .await?;
        *at = next;
        Ok(())
    }

    /// The next records that were not taken before: as they are now.
    pub(super) async fn pull_again(
        &self,
        target: &Target,
        at: &mut State,
        identity: &Identity,
    ) -> Result<(), CrmError> {
        let entity = target.entity();
        let (scope, job_id) = (self.scope(entity), self.ctx.job_id());
        let from = (at.after_error.as_str(), job_id);
        let due = errors::due(self.ctx.record(), scope, PULL, from, FIND_MAX as i64).await;
        let due = due.map_err(record_error)?;
        let mut next = at.clone();
        match due.last() {
            Some(last) if due.len() == FIND_MAX => next.after_error.clone_from(last),
            _ => next.go_on(),
        }
        let records = match due.is_empty() {
            true => Vec::new(),
            false => {
                self.crm
                    .read(entity, &due, &target.fields.remote_names())
                    .await?
            }
        };
        let gone: Vec<String> = due
            .into_iter()
            .filter(|id| !records.iter().any(|remote| remote.id == *id))
            .collect();
        if !gone.is_empty() && !self.payload.dry_run {
            let mut begun = self.ctx.begin_checkpoint().await?;
            let cleared = errors::clear(begun.tx(), scope, PULL, &gone).await;
            cleared.map_err(record_error)?;
            begun.commit_without_gain(at.write(), at.progress()).await?;
        }
        self.take(target, records, &mut next, identity, None)
            .await?;
        *at = next;
        Ok(())
    }

    /// Takes records, and commits them with where to go on.
    async fn take(
        &self,
        target: &Target,
        records: Vec<Remote>,
        next: &mut State,
        identity: &Identity,
        come: Option<Come<'_>>,
    ) -> Result<(), CrmError> {
        let scope = self.scope(target.entity());
        let mut begun = self.ctx.begin_checkpoint().await?;
        let tx = begun.tx();
        if self.payload.dry_run {
            crm::dry_begin(tx).await.map_err(record_error)?;
        }
        let mut counts = next.count(target.entity()).clone();
        let taken = self
            .take_all(tx, target, &records, &mut counts, identity)
            .await;
        taken.map_err(record_error)?;
        if let Some(come) = come {
            cursors::put(tx, scope, &come).await.map_err(record_error)?;
        }
        if self.payload.dry_run {
            crm::dry_undo(tx).await.map_err(record_error)?;
        }
        *next.count(target.entity()) = counts;
        begun.commit(next.write(), next.progress()).await?;
        Ok(())
    }

    async fn take_all(
        &self,
        tx: &mut Tx,
        target: &Target,
        records: &[Remote],
        counts: &mut Counts,
        identity: &Identity,
    ) -> Result<(), RecordError> {
        let scope = self.scope(target.entity());
        let ids: Vec<String> = records.iter().map(|remote| remote.id.clone()).collect();
        let linked = links::locals_of(tx, scope, &ids).await?;
        let local_ids: Vec<Uuid> = linked.iter().map(|(_, local)| *local).collect();
        let held = locals::hold(tx, scope, &local_ids).await?;
        let parents: Vec<String> = records
            .iter()
            .filter_map(|remote| remote.parent_id.clone())
            .collect();
        let accounts = self.scope(Entity::Accounts);
        let parents = match target.has_parent() {
            true => links::locals_of(tx, accounts, &parents).await?,
            false => Vec::new(),
        };
        let mut page = Page {
            target,
            scope,
            identity,
            links: linked.into_iter().collect(),
            locals: held.into_iter().map(|local| (local.id, local)).collect(),
            parents: parents.into_iter().collect(),
        };
        let mut taken = Vec::new();
        for remote in records {
            counts.read += 1;
            crm::try_begin(tx).await?;
            let mut tried = counts.clone();
            let refusal = match self.take_one(tx, &mut page, remote, &mut tried).await {
                Ok(Taken::Yes) => {
                    crm::try_keep(tx).await?;
                    *counts = tried;
                    taken.push(remote.id.clone());
                    continue;
                }
                Ok(Taken::WithoutParent) => {
                    crm::try_keep(tx).await?;
                    *counts = tried;
                    let id = remote.parent_id.as_deref().unwrap_or_default();
                    refusal(
                        "parent_unknown",
                        format!("its account {id} is not here yet"),
                    )
                }
                Ok(Taken::No(refusal)) => {
                    crm::try_undo(tx).await?;
                    refusal
                }
                Err(RecordError::Refused {
                    constraint,
                    message,
                }) => {
                    crm::try_undo(tx).await?;
                    refusal(constraint.as_deref().unwrap_or("refused_here"), message)
                }
                Err(error) => return Err(error),
            };
            if self.payload.dry_run && refusal.code == "parent_unknown" {
                continue;
            }
            counts.errors += 1;
            let class = match refusal.code.as_str() {
                "parent_unknown" => "retryable",
                _ => "permanent",
            };
            let new = NewError {
                direction: PULL,
                record_id: &remote.id,
                class,
                code: &refusal.code,
                message: &refusal.message,
                fields: &refusal.fields,
                job_id: self.ctx.job_id(),
            };
            errors::put(tx, scope, &new).await?;
        }
        errors::clear(tx, scope, PULL, &taken).await
    }
}
