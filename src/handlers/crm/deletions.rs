//! Records whose other half was deleted: they are noted, or deleted as well, as far as the brake
//! allows.

use uuid::Uuid;

use super::super::ending::record_error;
use super::Run;
use super::client::{Crm, CrmError, Outcome, UPSERT_MAX};
use super::payload::Deletions;
use super::push::{PUSH, told};
use super::state::State;
use super::target::Target;
use crate::record::crm::{errors, links, locals};

/// Pages of deletions that one run reads; there are more only where somebody has emptied a CRM.
const PAGES_MAX: usize = 1000;

impl<C: Crm> Run<'_, C> {
    /// All that was deleted there: it is one decision.
    pub(super) async fn pull_deletions(
        &self,
        target: &Target,
        at: &mut State,
    ) -> Result<(), CrmError> {
        let (entity, scope) = (target.entity(), self.scope(target.entity()));
        let mut next = at.clone();
        next.go_on();
        let linked = links::count(self.ctx.record(), scope)
            .await
            .map_err(record_error)?;
        let mut gone: Vec<String> = Vec::new();
        if linked > 0 {
            let since = at.since.get(&entity).copied().unwrap_or_default();
            let mut after = None;
            for _ in 0..PAGES_MAX {
                let page = self.crm.deletions(entity, since, after.as_deref()).await?;
                gone.extend(page.records.into_iter().map(|deletion| deletion.id));
                after = page.next;
                if after.is_none() || self.ctx.cancelled().is_cancelled() {
                    break;
                }
            }
        }
        let is_mirror =
            self.payload.deletions == Deletions::Mirror && self.payload.sync_direction.pulls();
        let mut begun = self.ctx.begin_checkpoint().await?;
        let tx = begun.tx();
        let known = links::locals_of(tx, scope, &gone)
            .await
            .map_err(record_error)?;
        let ids: Vec<Uuid> = known.iter().map(|(_, local)| *local).collect();
        let here = locals::hold(tx, scope, &ids).await.map_err(record_error)?;
        let fresh: Vec<Uuid> = here
            .iter()
            .filter(|local| local.state.as_deref() == Some("linked"))
            .map(|local| local.id)
            .collect();
        if is_mirror {
            self.brake("here", fresh.len() as u64, linked as u64, target)?;
        }
        let counts = next.count(entity);
        match is_mirror {
            true => counts.deleted_here += fresh.len() as u64,
            false => counts.skipped += fresh.len() as u64,
        }
        if !self.payload.dry_run {
            links::set_gone(tx, scope, &gone)
                .await
                .map_err(record_error)?;
            if is_mirror {
                locals::delete(tx, scope, &fresh)
                    .await
                    .map_err(record_error)?;
                links::delete(tx, scope, &fresh)
                    .await
                    .map_err(record_error)?;
            }
        }
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
            let linked = links::count(record, scope).await.map_err(record_error)?;
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
