//! Carrying out actions: what people do to all jobs that match a filter.
//!
//! Decided in the record batch by batch; Redis is told of a batch while the next one is decided, or
//! by the relay. Any number of processes may be at the same action: each batch is one's alone, and
//! whoever dies leaves it to the others.

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::tell;
use crate::broker::Broker;
pub use crate::record::actions::prune;
use crate::record::actions::{self, Step};
use crate::record::{Record, RecordError};

/// Carries an action out until it is over, somebody else is at it, or `stopping`. Then, and after
/// an error, upkeep goes on with it.
pub async fn carry_out(
    record: &Record,
    broker: &Broker,
    id: Uuid,
    stopping: &CancellationToken,
) -> Result<(), RecordError> {
    let (mut changed, mut is_told) = (Vec::new(), true);
    loop {
        // When Redis is away, each batch would wait for that.
        let telling =
            async { !is_told || changed.is_empty() || tell(record, broker, &changed).await };
        let (step, told) = tokio::join!(actions::step(record, id), telling);
        is_told &= told;
        match step? {
            Step::Left => return Ok(()),
            Step::Went {
                changed: new,
                is_over,
            } => {
                changed = new;
                if is_over || stopping.is_cancelled() {
                    break;
                }
            }
        }
    }
    if is_told && !changed.is_empty() {
        tell(record, broker, &changed).await;
    }
    Ok(())
}

/// Carries out one batch of each action that runs. Returns whether there is more to do. One that
/// can not be carried out does not keep the others from it.
pub async fn go_on(record: &Record, broker: &Broker) -> Result<bool, RecordError> {
    let (mut more, mut first_error) = (false, Ok(()));
    for id in actions::running(record).await? {
        match actions::step(record, id).await {
            Ok(Step::Left) => {}
            Ok(Step::Went { changed, is_over }) => {
                more |= !is_over;
                if !changed.is_empty() {
                    tell(record, broker, &changed).await;
                }
            }
            Err(error) => first_error = first_error.and(Err(error)),
        }
    }
    first_error.map(|()| more)
}
