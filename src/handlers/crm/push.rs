//! From here to the CRM: rows whose hash differs from what was agreed on.
//!
//! Every row is looked at, whoever wrote it and however: what is the same by its hash costs nothing
//! more. What differs is read there first, so that a field that was changed there meanwhile is not
//! written over; what is not linked is looked for there ([`super::matching`]). What is about to be
//! sent is written down before ([`super::sending`]), and what became of it behind.

use std::iter::Peekable;

use serde_json::json;
use uuid::Uuid;

use super::super::ending::record_error;
use super::client::{BULK_MAX, Crm, CrmError, Identity, Outcome, Push, UPSERT_MAX};
use super::mapping::PARENT;
use super::merge::Values;
use super::plan::{Fate, Plan};
use super::state::{Counts, State};
use super::target::Target;
use super::{Run, hash};
use crate::fault::{self, Point};
use crate::record::crm::cursors::{self, Come};
use crate::record::crm::locals::{self, Local};
use crate::record::crm::{self, errors};

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
        let (mut looked_at, mut changed) = (Vec::new(), Vec::new());
        for row in rows {
            let is_skipped = row.state.as_deref().is_some_and(|state| state != "linked");
            looked_at.push((row.id, is_skipped));
            if is_skipped {
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
        let mut looked_at = looked_at.into_iter().peekable();
        while !changed.is_empty() {
            let rest = changed.split_off(changed.len().min(chunk));
            let mut next = at.clone();
            let to = changed.last().map_or(at.after, |(row, _)| row.id);
            next.after = to;
            count(next.count(entity), &mut looked_at, Some(to));
            self.send(target, changed, at, &mut next).await?;
            *at = next;
            changed = rest;
        }
        let mut next = at.clone();
        count(next.count(entity), &mut looked_at, None);
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

    /// Sends rows from where it is, and commits what became of them with the place behind them.
    async fn send(
        &self,
        target: &Target,
        rows: Vec<(Local, Values)>,
        at: &State,
        next: &mut State,
    ) -> Result<(), CrmError> {
        let entity = target.entity();
        let fates = self.plan(target, rows, at.sending.as_ref()).await?;
        let mut plans = Vec::new();
        let mut refused = Vec::new();
        for fate in fates {
            match fate {
                Fate::Send(plan) => plans.push(plan),
                Fate::Refused(id, class, why) => refused.push((id, class, why)),
            }
        }
        let (to_send, quiet): (Vec<Plan>, Vec<Plan>) =
            plans.into_iter().partition(|plan| !plan.sent.is_empty());
        let pushes: Vec<Push> = to_send
            .iter()
            .map(|plan| self.push_of(target, plan))
            .collect();
        if !pushes.is_empty() && !self.payload.dry_run {
            let mut sending = at.sending.clone().unwrap_or_default();
            sending.add(next.after, to_send.iter().chain(&quiet));
            next.sending = Some(sending.clone());
            let mut before = at.clone();
            before.sending = Some(sending);
            let begun = self.ctx.begin_checkpoint().await?;
            let (checkpoint, progress) = (before.write(), before.progress());
            begun.commit_without_gain(checkpoint, progress).await?;
        }
        next.sending = next.sending.take().and_then(|all| all.behind(next.after));
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
            .note(
                tx,
                target,
                (to_send, outcomes),
                (quiet, refused),
                (at.sending.as_ref(), next),
            )
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

/// Counts the rows up to this one, or all, as looked at: each with the commit of what is behind it.
fn count(
    counts: &mut Counts,
    rows: &mut Peekable<impl Iterator<Item = (Uuid, bool)>>,
    to: Option<Uuid>,
) {
    while let Some((_, is_skipped)) = rows.next_if(|(id, _)| to.is_none_or(|to| *id <= to)) {
        counts.scanned += 1;
        counts.skipped += u64::from(is_skipped);
    }
}
