//! From here to the CRM: rows whose hash differs from what was agreed on.
//!
//! Every row is looked at, whoever wrote it and however: what is the same by its hash costs nothing
//! more. What differs is read there first, so that a field that was changed there meanwhile is not
//! written over; what is not linked is looked for there ([`super::matching`]).

use serde_json::json;
use uuid::Uuid;

use super::super::ending::record_error;
use super::client::{BULK_MAX, Crm, CrmError, Identity, Outcome, Push, Refusal, UPSERT_MAX};
use super::mapping::PARENT;
use super::merge::Values;
use super::plan::{Fate, Plan, not_visible};
use super::state::State;
use super::take::refusal;
use super::target::Target;
use super::{Run, hash};
use crate::fault::{self, Point};
use crate::record::crm::cursors::{self, Come};
use crate::record::crm::errors::{self, NewError};
use crate::record::crm::links::{self, Link};
use crate::record::crm::locals::{self, Local};
use crate::record::crm::{self, conflicts};
use crate::record::{RecordError, Tx};

pub(super) const PUSH: &str = "push";

impl<C: Crm> Run<'_, C> {
    /// The next page of rows.
    pub(super) async fn push(
        &self,
        target: &Target,
        at: &mut State,
        identity: &Identity,
    ) -> Result<(), CrmError> {
        let (entity, scope) = (target.entity(), self.scope(target.entity()));
        if !target.is_described() {
            let described = self.crm.describe(entity).await?;
            target.check(&described).map_err(CrmError::PermanentRun)?;
        }
        let limit = match self.crm.bulk_from() {
            Some(_) => BULK_MAX,
            None => UPSERT_MAX,
        };
        let rows = locals::page(self.ctx.record(), scope, at.after, limit as i64).await;
        let rows = rows.map_err(record_error)?;
        let last = rows
            .last()
            .map(|row| row.id)
            .filter(|_| rows.len() == limit);
        let (scanned, mut skipped) = (rows.len() as u64, 0);
        let mut changed = Vec::new();
        for row in rows {
            if row.state.as_deref().is_some_and(|state| state != "linked") {
                skipped += 1;
                continue;
            }
            let ours = target.ours(&row);
            let is_same = row.hash.as_deref() == Some(hash(&json!(ours)).as_str());
            if !is_same && (row.remote_id.is_none() || target.is_changed(&row, &ours)) {
                changed.push((row, ours));
            }
        }
        let chunk = match self.crm.bulk_from() {
            Some(from) if changed.len() >= from => BULK_MAX,
            _ => UPSERT_MAX,
        };
        while !changed.is_empty() {
            let rest = changed.split_off(changed.len().min(chunk));
            let mut next = at.clone();
            next.after = changed.last().map_or(at.after, |(row, _)| row.id);
            self.send(target, changed, &mut next).await?;
            *at = next;
            changed = rest;
        }
        let mut next = at.clone();
        next.count(entity).scanned += scanned;
        next.count(entity).skipped += skipped;
        let mut begun = self.ctx.begin_checkpoint().await?;
        match last {
            Some(last) => next.after = last,
            None => {
                next.go_on();
                let come = Come {
                    direction: PUSH,
                    since: None,
                    org_id: identity.org_id.as_deref(),
                    job_id: self.ctx.job_id(),
                    ended: Some(at.begun),
                };
                if !self.payload.dry_run {
                    let tx = begun.tx();
                    cursors::put(tx, scope, &come).await.map_err(record_error)?;
                    let job_id = self.ctx.job_id();
                    let cleared = errors::clear_older(tx, scope, PUSH, job_id).await;
                    cleared.map_err(record_error)?;
                }
            }
        }
        begun.commit(next.write(), next.progress()).await?;
        *at = next;
        Ok(())
    }

    /// Sends rows, and commits what became of them.
    async fn send(
        &self,
        target: &Target,
        rows: Vec<(Local, Values)>,
        next: &mut State,
    ) -> Result<(), CrmError> {
        let entity = target.entity();
        let fates = self.plan(target, rows).await?;
        let mut plans = Vec::new();
        let mut others = Vec::new();
        for fate in fates {
            match fate {
                Fate::Send(plan) => plans.push(plan),
                refused @ Fate::Refused(..) => others.push(refused),
            }
        }
        let (to_send, quiet): (Vec<Plan>, Vec<Plan>) =
            plans.into_iter().partition(|plan| !plan.sent.is_empty());
        let pushes: Vec<Push> = to_send
            .iter()
            .map(|plan| self.push_of(target, plan))
            .collect();
        let outcomes = match pushes.is_empty() || self.payload.dry_run {
            true => to_send.iter().map(dry).collect(),
            false => self.crm.upsert(entity, &pushes).await?,
        };
        if outcomes.len() != pushes.len() {
            let why = "the CRM's client gave another number of outcomes than of records";
            return Err(CrmError::PermanentRun(why.to_owned()));
        }
        fault::point(Point::AfterCrmSent);
        let mut begun = self.ctx.begin_checkpoint().await?;
        let tx = begun.tx();
        if self.payload.dry_run {
            crm::dry_begin(tx).await.map_err(record_error)?;
        }
        let noted = self
            .note(tx, target, (to_send, outcomes), (quiet, others), next)
            .await;
        noted.map_err(record_error)?;
        if self.payload.dry_run {
            crm::dry_undo(tx).await.map_err(record_error)?;
        }
        begun.commit(next.write(), next.progress()).await?;
        Ok(())
    }

    fn push_of(&self, target: &Target, plan: &Plan) -> Push {
        let parent = plan.sent.get(PARENT);
        Push {
            local_id: plan.local,
            id: plan.remote_id.clone(),
            fields: target.fields.sent(&plan.sent),
            parent_id: parent.map(|id| id.as_str().map(str::to_owned)),
            trace: format!("{}-{}", self.ctx.job_id(), plan.local),
        }
    }

    /// Writes down what became of rows.
    async fn note(
        &self,
        tx: &mut Tx,
        target: &Target,
        (sent, outcomes): (Vec<Plan>, Vec<Outcome>),
        (quiet, others): (Vec<Plan>, Vec<Fate>),
        next: &mut State,
    ) -> Result<(), RecordError> {
        let (entity, scope) = (target.entity(), self.scope(target.entity()));
        let job_id = self.ctx.job_id();
        let counts = next.count(entity);
        let mut taken = Vec::new();
        let mut failed: Vec<(Uuid, &'static str, Refusal)> = Vec::new();
        for plan in sent.iter().chain(&quiet) {
            counts.decided += plan.decided;
            counts.matched += u64::from(plan.is_match);
            if !plan.disputes.is_empty() {
                counts.conflicts += 1;
                let about = (plan.local, plan.remote_id.as_deref().unwrap_or_default());
                conflicts::open(tx, scope, about, &json!(plan.disputes), job_id).await?;
            } else if plan.had_dispute {
                conflicts::close(tx, scope, plan.local).await?;
            }
        }
        for fate in others {
            match fate {
                Fate::Refused(id, class, refusal) => failed.push((id, class, refusal)),
                Fate::Send(_) => {}
            }
        }
        let quiet = quiet.into_iter().filter_map(|plan| {
            let id = plan.remote_id.clone()?;
            Some((plan, id, None))
        });
        let mut links = quiet.collect::<Vec<_>>();
        for (plan, outcome) in sent.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Done {
                    id,
                    is_new,
                    modified_at,
                } => {
                    match is_new {
                        true => counts.created_there += 1,
                        false => counts.updated_there += 1,
                    }
                    links.push((plan, id, modified_at));
                }
                Outcome::Duplicate { id, refusal } => {
                    let class = match &id {
                        Some(_) => "retryable",
                        None => "permanent",
                    };
                    failed.push((plan.local, class, refusal));
                    if let (Some(id), None) = (id, &plan.remote_id) {
                        // The next run merges the two.
                        let (agreed, sent) = (Values::new(), Values::new());
                        links.push((
                            Plan {
                                agreed,
                                sent,
                                ..plan
                            },
                            id,
                            None,
                        ));
                    }
                }
                Outcome::Gone(refusal) => {
                    let id = plan.remote_id.as_deref().unwrap_or_default();
                    let why = not_visible(id, Some(&refusal));
                    failed.push((plan.local, "retryable", why));
                }
                Outcome::Retryable(refusal) => failed.push((plan.local, "retryable", refusal)),
                Outcome::Permanent(refusal) => failed.push((plan.local, "permanent", refusal)),
            }
        }
        for (mut plan, id, modified_at) in links {
            let was_sent = !plan.sent.is_empty();
            plan.agreed.append(&mut plan.sent);
            let agreed = json!(plan.agreed);
            let link = Link {
                local_id: plan.local,
                remote_id: &id,
                agreed: &agreed,
                hash: &hash(&agreed),
                remote_modified_at: modified_at.or(plan.remote_modified_at),
            };
            crm::try_begin(tx).await?;
            match links::put(tx, scope, &link).await {
                Ok(()) => {
                    crm::try_keep(tx).await?;
                    if was_sent || plan.is_match {
                        taken.push(plan.local.to_string());
                    }
                }
                Err(RecordError::Refused { .. }) => {
                    crm::try_undo(tx).await?;
                    let why = format!("{id} there is linked with another record here");
                    failed.push((plan.local, "permanent", refusal("linked_elsewhere", why)));
                }
                Err(error) => return Err(error),
            }
        }
        counts.errors += failed.len() as u64;
        errors::clear(tx, scope, PUSH, &taken).await?;
        for (id, class, refusal) in &failed {
            let id = id.to_string();
            errors::put(tx, scope, &told(&id, class, refusal, job_id)).await?;
        }
        Ok(())
    }
}

/// What would become of it.
fn dry(plan: &Plan) -> Outcome {
    Outcome::Done {
        id: plan
            .remote_id
            .clone()
            .unwrap_or_else(|| plan.local.to_string()),
        is_new: plan.remote_id.is_none(),
        modified_at: None,
    }
}

/// An error of a push.
pub(super) fn told<'a>(
    record_id: &'a str,
    class: &'static str,
    refusal: &'a Refusal,
    job_id: Uuid,
) -> NewError<'a> {
    NewError {
        direction: PUSH,
        record_id,
        class,
        code: &refusal.code,
        message: &refusal.message,
        fields: &refusal.fields,
        job_id,
    }
}
