//! Mails whose jobs ended while they were handed over, and old events of mails.

use std::time::Duration;

use super::{again_if, one_at_a_time};
use crate::broker::Broker;
use crate::record::{Record, email_events, email_log};
use crate::tasks::Tasks;

const EVERY: Duration = Duration::from_secs(30);

/// Says of mails that nobody will say any more how they went, and forgets that old events were
/// told.
pub(super) fn close_claimed(record: &Record, broker: &Broker, tasks: &Tasks) {
    let duty = ("claimed_mails", EVERY);
    one_at_a_time(record, broker, tasks, duty, |record| async move {
        let closed = email_log::close_claims(&record).await?;
        Ok(again_if(closed + email_events::prune(&record).await? > 0))
    });
}
