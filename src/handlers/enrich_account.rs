//! `enrich_account`: fills an account with what providers know of the company.
//!
//! How is told in [`enrich`](super::enrich).

use std::time::Duration;

use super::enrich::{self, Account, Enricher, Summary};
use super::providers::Field;
use crate::job::JobError;
use crate::worker::{Handler, JobContext};

enrich::payload!(account_id, "accountId", Field);

/// Enriches accounts.
#[derive(Debug, Clone)]
pub struct EnrichAccount {
    pub enricher: Enricher,
}

impl Handler for EnrichAccount {
    const TYPE: &'static str = "enrich_account";
    type Payload = Payload;
    type Output = Summary;

    fn timeout(&self) -> Duration {
        enrich::TIMEOUT
    }

    async fn run(&self, ctx: JobContext, payload: Payload) -> Result<Summary, JobError> {
        let id = payload.account_id;
        self.enricher.run::<Account>(ctx, id, payload.wish()).await
    }
}
