//! Records whose other half was deleted: they are noted, or deleted as well, as far as the brake
//! allows. What the brake holds back stays marked, for a run that may, or one that keeps it.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::super::ending::record_error;
use super::Run;
use super::client::{
    Crm, CrmError, Deletions as CrmDeletions, Entity, Identity, Outcome, UPSERT_MAX,
};
use super::note::told;
use super::payload::Deletions;
use super::push::PUSH;
use super::state::State;
use super::target::Target;
use crate::record::crm::cursors::{self, Come};
use crate::record::crm::links::Loss;
use crate::record::crm::{self, errors, links, locals};

/// The direction of the cursor.
const DELETIONS: &str = "deletions";

impl<C: Crm> Run<'_, C> {
    /// Where the reading of deletions goes on; none: where that of changes does.
    ///
    /// A cursor of its own: the brake, or whatever ends a run between the two, must not lose what
    /// was deleted before the last change that was read.
    pub(super) async fn deleted_since(
        &self,
        entity: Entity,
    ) -> Result<Option<DateTime<Utc>>, CrmError> {
        if self.payload.full {
            return Ok(None);
        }
        let cursor = cursors::get(self.ctx.record(), self.scope(entity), DELETIONS).await;
        let since = cursor
            .map_err(record_error)?
            .and_then(|cursor| cursor.since);
        Ok(since.map(|since| since - self.payload.overlap()))
    }

    /// What becomes here of what is deleted there.
    pub(super) fn loss(&self) -> Loss {
        let mirrors = self.payload.deletions == Deletions::Mirror;
        match mirrors && self.payload.sync_direction.pulls() {
            true => Loss::Leaving,
            false => Loss::Kept,
        }
    }

    /// The next page of what was deleted there: it is marked, nothing is deleted yet.
    pub(super) async fn pull_deletions(
        &self,
        target: &Target,
        at: &mut State,
        identity: &Identity,
    ) -> Result<(), CrmError> {
        let (entity, scope) = (target.entity(), self.scope(target.entity()));
        let since = at.deleted_since.get(&entity).or(at.since.get(&entity));
        let since = since.copied().unwrap_or_default();
        // Nobody asks a CRM for all that was ever deleted in it before there is a link.
        let is_worth_it = at.deletions_after.is_some() || {
            let linked = links::count(self.ctx.record(), scope).await;
            linked.map_err(record_error)?.0 > 0
        };
        let page = match is_worth_it {
            true => {
                let after = at.deletions_after.as_deref();
                self.crm.deletions(entity, since, after).await?
            }
            false => CrmDeletions::default(),
        };
        if page.next.is_some() && page.next == at.deletions_after {
            let what = "the CRM's page of deletions leads to itself";
            return Err(CrmError::PermanentRun(what.to_owned()));
        }
        let last = page.records.iter().map(|deletion| deletion.deleted_at);
        let last = last.chain(at.deleted_last).max();
        let gone: Vec<String> = page.records.into_iter().map(|one| one.id).collect();
        let (mut next, is_last) = (at.clone(), page.next.is_none());
        (next.deletions_after, next.deleted_last) = (page.next, last);
        let mut begun = self.ctx.begin_checkpoint().await?;
        let tx = begun.tx();
        if self.payload.dry_run {
            crm::dry_begin(tx).await.map_err(record_error)?;
        }
        let fresh = links::set_gone(tx, scope, &gone, self.loss()).await;
        let mut fresh = fresh.map_err(record_error)?;
        if self.payload.deletions == Deletions::Keep {
            // Those of a run that the brake stopped: this one says that they stay.
            fresh += links::keep_leaving(tx, scope).await.map_err(record_error)?;
        }
        if is_last {
            let come = Come {
                direction: DELETIONS,
                since: last.max(Some(since)),
                org_id: identity.org_id.as_deref(),
                job_id: self.ctx.job_id(),
                ended: Some(at.begun),
            };
            cursors::put(tx, scope, &come).await.map_err(record_error)?;
            next.go_on();
        }
        if self.payload.dry_run {
            crm::dry_undo(tx).await.map_err(record_error)?;
        }
        match (self.loss(), self.payload.dry_run) {
            (Loss::Kept, _) => next.count(entity).skipped += fresh,
            (Loss::Leaving, true) => next.count(entity).deleted_here += fresh,
            (Loss::Leaving, false) => {}
        }
        begun.commit(next.write(), next.progress()).await?;
        *at = next;
        Ok(())
    }

    /// Deletes here the next of those that are marked: whether that is too many is one decision,
    /// made before the first.
    pub(super) async fn mirror_deletions(
        &self,
        target: &Target,
        at: &mut State,
    ) -> Result<(), CrmError> {
        let (entity, scope) = (target.entity(), self.scope(target.entity()));
        let record = self.ctx.record();
        let mut next = at.clone();
        let is_first = at.after.is_nil();
        if is_first {
            let (linked, leaving) = links::count(record, scope).await.map_err(record_error)?;
            let (all, mut leaving) = ((linked + leaving) as u64, leaving as u64);
            if self.payload.dry_run {
                // Those that were seen now are not marked.
                let counts = next.count(entity);
                counts.deleted_here += leaving;
                leaving = counts.deleted_here;
            }
            self.brake("here", leaving, all, target)?;
        }
        let limit = UPSERT_MAX as i64;
        let page = match self.payload.dry_run {
            true => Vec::new(),
            false => links::leaving(record, scope, limit)
                .await
                .map_err(record_error)?,
        };
        match page.last() {
            Some(last) if page.len() == UPSERT_MAX => next.after = *last,
            _ => next.go_on(),
        }
        let mut begun = self.ctx.begin_checkpoint().await?;
        let tx = begun.tx();
        // The records before their links, as everywhere. One that came back meanwhile stays.
        locals::hold(tx, scope, &page).await.map_err(record_error)?;
        let leaving = links::delete_leaving(tx, scope, &page).await;
        let deleted = locals::delete(tx, scope, &leaving.map_err(record_error)?).await;
        next.count(entity).deleted_here += deleted.map_err(record_error)?;
        begun.commit(next.write(), next.progress()).await?;
        *at = next;
        Ok(())
    }

    /// The next of those that were deleted here.
    pub(super) async fn push_deletions(
        &self,
        target: &Target,
        at: &mut State,
    ) -> Result<(), CrmError> {
        let (entity, scope) = (target.entity(), self.scope(target.entity()));
        let record = self.ctx.record();
        if at.after.is_nil() {
            let (linked, _) = links::count(record, scope).await.map_err(record_error)?;
            let deleted = links::count_deleted_here(record, scope)
                .await
                .map_err(record_error)?;
            self.brake("in the CRM", deleted as u64, linked as u64, target)?;
        }
        let limit = UPSERT_MAX as i64;
        let page = links::deleted_here(record, scope, at.after, limit).await;
        let page = page.map_err(record_error)?;
        let mut next = at.clone();
        match page.last() {
            Some((last, _)) if page.len() == UPSERT_MAX => next.after = *last,
            _ => next.go_on(),
        }
        let ids: Vec<String> = page.iter().map(|(_, remote)| remote.clone()).collect();
        let outcomes = match ids.is_empty() || self.payload.dry_run {
            true => Vec::new(),
            false => self.crm.archive(entity, &ids).await?,
        };
        let mut begun = self.ctx.begin_checkpoint().await?;
        let tx = begun.tx();
        if self.payload.dry_run {
            next.count(entity).deleted_there += page.len() as u64;
        }
        let mut done = Vec::new();
        for ((local, _), outcome) in page.iter().zip(outcomes) {
            match outcome {
                Outcome::Done { .. } | Outcome::Gone(_) => done.push(*local),
                Outcome::Duplicate { refusal, .. } | Outcome::Permanent(refusal) => {
                    next.count(entity).errors += 1;
                    let id = local.to_string();
                    let new = told(&id, "permanent", &refusal, self.ctx.job_id());
                    errors::put(tx, scope, &new).await.map_err(record_error)?;
                }
                Outcome::Retryable(refusal) => {
                    next.count(entity).errors += 1;
                    let id = local.to_string();
                    let new = told(&id, "retryable", &refusal, self.ctx.job_id());
                    errors::put(tx, scope, &new).await.map_err(record_error)?;
                }
            }
        }
        next.count(entity).deleted_there += done.len() as u64;
        links::delete(tx, scope, &done)
            .await
            .map_err(record_error)?;
        let texts: Vec<String> = done.iter().map(Uuid::to_string).collect();
        errors::clear(tx, scope, PUSH, &texts)
            .await
            .map_err(record_error)?;
        begun.commit(next.write(), next.progress()).await?;
        *at = next;
        Ok(())
    }

    fn brake(
        &self,
        place: &str,
        deleting: u64,
        linked: u64,
        target: &Target,
    ) -> Result<(), CrmError> {
        if self.payload.may_delete(deleting, linked) {
            return Ok(());
        }
        let (percent, entity) = (self.payload.brake_percent(), target.entity().as_str());
        Err(CrmError::PermanentRun(format!(
            "the brake: {deleting} of {linked} linked {entity} would be deleted {place}, more than \
             {percent} %. Nothing was deleted. If that is meant, run it with a larger \
             `brake_percent`"
        )))
    }
}
