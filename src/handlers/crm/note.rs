//! What became of rows that were sent: links, conflicts, errors and counts, in one transaction.

use serde_json::json;
use uuid::Uuid;

use super::client::{Crm, Outcome, Refusal};
use super::merge::Values;
use super::plan::{Meant, Plan, not_visible};
use super::push::PUSH;
use super::sending::Sending;
use super::state::State;
use super::take::refusal;
use super::target::Target;
use super::{Run, hash};
use crate::record::crm::errors::{self, NewError};
use crate::record::crm::links::{self, Link};
use crate::record::crm::{self, conflicts};
use crate::record::{RecordError, Tx};

impl<C: Crm> Run<'_, C> {
    /// Writes down what became of rows.
    pub(super) async fn note(
        &self,
        tx: &mut Tx,
        target: &Target,
        (sent, outcomes): (Vec<Plan>, Vec<Outcome>),
        (quiet, mut failed): (Vec<Plan>, Vec<(Uuid, &'static str, Refusal)>),
        (before, next): (Option<&Sending>, &mut State),
    ) -> Result<(), RecordError> {
        let (entity, scope) = (target.entity(), self.scope(target.entity()));
        let job_id = self.ctx.job_id();
        let counts = next.count(entity);
        let mut taken = Vec::new();
        for plan in sent.iter().chain(&quiet) {
            counts.decided += plan.decided;
            counts.matched += u64::from(plan.meant == Meant::Match);
            if !plan.disputes.is_empty() {
                counts.conflicts += 1;
                let about = (plan.local, plan.remote_id.as_deref().unwrap_or_default());
                conflicts::open(tx, scope, about, &json!(plan.disputes), job_id).await?;
            } else if plan.had_dispute {
                conflicts::close(tx, scope, plan.local).await?;
            }
        }
        let mut links = Vec::new();
        for plan in quiet {
            let Some(id) = plan.remote_id.clone() else {
                continue;
            };
            // Nothing is left to be sent of what an attempt before has sent.
            match plan.meant {
                Meant::New => counts.created_there += 1,
                Meant::Match | Meant::Change => {
                    let was_sent = before.is_some_and(|all| all.has_changed(plan.local));
                    counts.updated_there += u64::from(was_sent);
                }
            }
            links.push((plan, id, None));
        }
        for (plan, outcome) in sent.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Done {
                    id,
                    is_new,
                    modified_at,
                } => {
                    // One that was made by an attempt before is not new to the CRM.
                    let was_made = plan.was_tried || plan.remote_id.is_some();
                    match is_new || (plan.meant == Meant::New && was_made) {
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
                    if was_sent || plan.was_tried || plan.meant != Meant::Change {
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
