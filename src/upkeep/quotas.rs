//! Jobs that wait for quotas whose limits were changed.

use std::time::Duration;

use uuid::Uuid;

use super::again_if;
use crate::broker::Broker;
use crate::periodic::{Next, every};
use crate::quota::{self, QuotaError};
use crate::record::Record;
use crate::tasks::Tasks;

const EVERY: Duration = Duration::from_secs(2);
const DUTY: &str = "quota_turns";

/// Brings them forward; one process at a time.
pub(super) fn bring_forward(record: &Record, broker: &Broker, tasks: &Tasks) {
    let (record, broker) = (record.clone(), broker.clone());
    let token = Uuid::new_v4().to_string();
    every(tasks, DUTY, EVERY, move || {
        let (record, broker, token) = (record.clone(), broker.clone(), token.clone());
        async move {
            if !broker.take_duty(DUTY, &token, EVERY * 2).await? {
                return Ok(Next::Rest);
            }
            let more = quota::bring_forward(&record, &broker).await?;
            Ok::<_, QuotaError>(again_if(more))
        }
    });
}
