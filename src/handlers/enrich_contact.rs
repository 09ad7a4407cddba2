//! `enrich_contact`: fills a contact with what providers know of the person.
//!
//! How is told in [`enrich`](super::enrich).

use std::time::Duration;

use super::enrich::{self, Contact, Enricher, Summary};
use super::providers::ContactField;
use crate::job::JobError;
use crate::worker::{Handler, JobContext};

enrich::payload!(contact_id, "contactId", ContactField, verify_email);

/// Enriches contacts.
#[derive(Debug, Clone)]
pub struct EnrichContact {
    pub enricher: Enricher,
}

impl Handler for EnrichContact {
    const TYPE: &'static str = "enrich_contact";
    type Payload = Payload;
    type Output = Summary;

    fn timeout(&self) -> Duration {
        enrich::TIMEOUT
    }

    async fn run(&self, ctx: JobContext, payload: Payload) -> Result<Summary, JobError> {
        let id = payload.contact_id;
        self.enricher.run::<Contact>(ctx, id, payload.wish()).await
    }
}
