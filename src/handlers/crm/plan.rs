//! What is to be sent of a row: against what is there now, or as a new record.

use std::collections::BTreeMap;

use serde_json::json;
use uuid::Uuid;

use super::super::ending::record_error;
use super::Run;
use super::client::{Crm, CrmError, FIND_MAX, Refusal, Remote};
use super::mapping::{Flow, PARENT};
use super::merge::{Dispute, Merged, Values, Ways, merge};
use super::sending::Sending;
use super::take::{agreed_of, refusal};
use super::target::Target;
use crate::record::crm::locals::Local;
use crate::record::{RecordError, Tx};

/// What a row is, for those who count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meant {
    /// Nobody there is the same: it is made, unless this run has made it already.
    New,
    /// Somebody there is the same, and they are linked.
    Match,
    /// It is linked.
    Change,
}

/// What is to be done with a row.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) local: Uuid,
    /// There, if it is known.
    pub(super) remote_id: Option<String>,
    pub(super) meant: Meant,
    /// It may have been sent before, by an attempt that could not note it.
    pub(super) was_tried: bool,
    pub(super) remote_modified_at: Option<chrono::DateTime<chrono::Utc>>,
    /// What is agreed on before anything is sent.
    pub(super) agreed: Values,
    pub(super) sent: Values,
    pub(super) disputes: BTreeMap<String, Dispute>,
    pub(super) had_dispute: bool,
    pub(super) decided: u64,
}

/// What becomes of a row.
pub(super) enum Fate {
    Send(Plan),
    /// It is not sent: `retryable` or `permanent`, and why.
    Refused(Uuid, &'static str, Refusal),
}

/// A record there that is known and was not found. That is no deletion: rights that were taken from
/// us look the same, and what is deleted the CRM lists.
pub(super) fn not_visible(remote_id: &str, told: Option<&Refusal>) -> Refusal {
    let told = told.map(|told| format!(" ({}: {})", told.code, told.message));
    let why = format!(
        "record {remote_id} there was not found{}: it was deleted, which the CRM tells the next \
         run, or the connection may not see it any more",
        told.unwrap_or_default()
    );
    refusal("not_visible", why)
}

impl<C: Crm> Run<'_, C> {
    /// What is to be done with each row.
    pub(super) async fn plan(
        &self,
        target: &Target,
        rows: Vec<(Local, Values)>,
        sending: Option<&Sending>,
    ) -> Result<Vec<Fate>, CrmError> {
        let entity = target.entity();
        let names = target.fields.remote_names();
        let ids: Vec<String> = rows
            .iter()
            .filter_map(|(row, _)| row.remote_id.clone())
            .collect();
        let mut there: BTreeMap<String, Remote> = BTreeMap::new();
        for ids in ids.chunks(FIND_MAX) {
            let found = self.crm.read(entity, ids, &names).await?;
            there.extend(found.into_iter().map(|remote| (remote.id.clone(), remote)));
        }
        let matches = self.matches(target, &rows).await?;
        let mut begun = self.ctx.record().begin().await.map_err(record_error)?;
        let mut fates = Vec::new();
        for (row, ours) in rows {
            let found = match &row.remote_id {
                Some(id) => match there.get(id) {
                    Some(remote) => Some(remote),
                    None => {
                        let why = not_visible(id, None);
                        fates.push(Fate::Refused(row.id, "retryable", why));
                        continue;
                    }
                },
                None => match matches.get(&row.id) {
                    Some(Ok(remote)) => Some(remote),
                    Some(Err(why)) => {
                        let why = refusal("several_there", why.clone());
                        fates.push(Fate::Refused(row.id, "permanent", why));
                        continue;
                    }
                    None => None,
                },
            };
            let sending = sending.filter(|sending| sending.has(row.id));
            let fate = self.fate(&mut begun, target, (row, ours), found, sending);
            fates.push(fate.await.map_err(record_error)?);
        }
        begun.rollback().await.map_err(record_error)?;
        Ok(fates)
    }

    async fn fate(
        &self,
        tx: &mut Tx,
        target: &Target,
        (row, ours): (Local, Values),
        remote: Option<&Remote>,
        sending: Option<&Sending>,
    ) -> Result<Fate, RecordError> {
        let merged = match remote {
            None => Merged {
                to_them: ours
                    .iter()
                    .filter(|(field, our)| {
                        target.fields.flow(field) != Flow::Pull && !our.is_null()
                    })
                    .map(|(field, our)| (field.clone(), our.clone()))
                    .collect(),
                agreed: ours.into_iter().filter(|(_, our)| our.is_null()).collect(),
                ..Merged::default()
            },
            Some(remote) => {
                let mut theirs = match target.fields.theirs(&remote.fields) {
                    Ok(theirs) => theirs,
                    Err((field, why)) => {
                        let refusal = Refusal {
                            code: "invalid_value".to_owned(),
                            message: format!("`{field}` there {why}"),
                            fields: vec![field],
                        };
                        return Ok(Fate::Refused(row.id, "permanent", refusal));
                    }
                };
                if target.has_parent() {
                    theirs.insert(PARENT.to_owned(), json!(remote.parent_id));
                }
                let before = agreed_of(&row);
                let about = (row.id, row.updated_at);
                let winners = self
                    .winners(tx, about, remote, (&before, &ours, &theirs))
                    .await?;
                // What they have changed is for the next pull.
                let ways = Ways {
                    pulls: false,
                    pushes: true,
                };
                merge(
                    ways,
                    (&before, &ours, &theirs),
                    |field| target.fields.flow(field),
                    |field| winners.get(field).copied(),
                )
            }
        };
        let is_new = remote.is_none();
        if let Err(refusal) = target.precheck(&merged.to_them, is_new) {
            return Ok(Fate::Refused(row.id, "permanent", refusal));
        }
        let decided = sending.map(|sending| sending.decided(row.id));
        Ok(Fate::Send(Plan {
            local: row.id,
            remote_id: remote.map(|remote| remote.id.clone()),
            meant: meant(&row, remote, sending),
            was_tried: sending.is_some(),
            remote_modified_at: remote.map(|remote| remote.modified_at),
            agreed: merged.agreed,
            sent: merged.to_them,
            disputes: merged.disputes,
            had_dispute: row.disputed.is_some(),
            decided: merged.decided.max(decided.unwrap_or_default()),
        }))
    }
}

/// What a row counts as. One that this run was about to send keeps what it was then; one that bears
/// our id was made by us, in a run that could not note it.
fn meant(row: &Local, remote: Option<&Remote>, sending: Option<&Sending>) -> Meant {
    match (&row.remote_id, remote, sending) {
        (Some(_), ..) => Meant::Change,
        (None, Some(_), Some(sending)) if sending.has_matched(row.id) => Meant::Match,
        (None, None, _) | (None, Some(_), Some(_)) => Meant::New,
        (None, Some(remote), None) if remote.local_id == Some(row.id) => Meant::New,
        (None, Some(_), None) => Meant::Match,
    }
}
