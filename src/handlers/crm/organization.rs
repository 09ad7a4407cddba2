//! A connection leads to one organization: ids of another one mean other records.
//!
//! Credentials are replaced by people, also while a run is paused. So each attempt, whatever it is
//! about to do, asks who is there, and compares it with what its own run began with, and with what
//! any run over the connection has read from or written to before.

use super::super::ending::record_error;
use super::Run;
use super::client::{Crm, CrmError, Identity};
use super::state::State;
use crate::record::crm::cursors;

impl<C: Crm> Run<'_, C> {
    /// Refuses to go on in another organization than before. One that does not say who it is can
    /// not be told apart.
    pub(super) async fn same_organization(
        &self,
        at: Option<&State>,
        identity: &Identity,
    ) -> Result<(), CrmError> {
        let Some(now) = identity.org_id.as_deref() else {
            return Ok(());
        };
        let id = self.crm.connection().id;
        let known = cursors::organizations(self.ctx.record(), self.workspace_id, id).await;
        let known = known.map_err(record_error)?;
        let begun = at.and_then(|at| at.org_id.clone());
        match begun.into_iter().chain(known).find(|known| known != now) {
            None => Ok(()),
            Some(known) => Err(CrmError::PermanentRun(format!(
                "connection {id} led to the organization {known} and leads to {now} now: its \
                 links are of the former, and nothing was written. Give it credentials of {known} \
                 again, or make another connection for {now}"
            ))),
        }
    }
}
