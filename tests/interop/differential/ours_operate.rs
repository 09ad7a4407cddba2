//! The steps of a history that somebody takes from outside, and those that a running job takes
//! itself, as Bullwark's broker takes them.

use std::time::Duration;

use bullwark::broker::{
    BrokerState, ChildrenAwaited, Detached, FinishedState, Moved, Obliterated, Removed, Reprocess,
};

use super::history::{Step, TOKEN};
use super::ours::{NO_SUCH_STEP, Ours, Refused, done};

/// More than any history has.
const ALL: u64 = 1000;

impl Ours {
    pub(super) async fn operate(&self, step: &Step) -> Result<(), Refused> {
        self.ensure_queue().await;
        let (broker, queue) = (&self.broker, &self.queue);
        match step.op.as_str() {
            "snooze" => {
                let (id, delay_ms) = (step.text(0), step.number(1));
                let moved = broker.move_to_delayed(queue, id, TOKEN, delay_ms, true);
                done(&[moved.await?])
            }
            "back" => done(&[broker.move_to_wait(queue, step.text(0), TOKEN).await?.0]),
            "wait-children" => {
                let awaited = broker.move_to_waiting_children(queue, step.text(0), TOKEN, None);
                match awaited.await? {
                    ChildrenAwaited::Waits | ChildrenAwaited::NothingPending => Ok(()),
                    refused => Err(Refused(format!("{refused:?}"))),
                }
            }
            "data" => {
                let data = step.json(1).to_string();
                is_there(broker.update_data(queue, step.text(0), &data).await?)
            }
            "log" => {
                let keep = self.job(step.text(0)).await.options.keep_logs.unwrap_or(0);
                let rows = broker.add_log(queue, step.text(0), step.text(1), keep as u32);
                is_there(rows.await?.is_some())
            }
            "promote" => {
                let promoted = broker.promote(queue, &[step.text(0).to_owned()]).await?;
                is_there(promoted == [true])
            }
            "change-delay" => {
                let changed = broker.change_delay(queue, step.text(0), step.number(1));
                moved(changed.await?)
            }
            "change-priority" => {
                let how = step.json(1);
                let priority = how["priority"].as_u64().unwrap_or(0) as u32;
                let lifo = how["lifo"].as_bool().unwrap_or(false);
                let changed = broker.change_priority(queue, step.text(0), priority, lifo);
                moved(changed.await?)
            }
            "retry" => {
                let how = step.json(2);
                let is_set = |name: &str| how[name].as_bool().unwrap_or(false);
                let how = Reprocess {
                    lifo: self.job(step.text(0)).await.options.lifo,
                    resets_attempts_made: is_set("resetAttemptsMade"),
                    resets_attempts_started: is_set("resetAttemptsStarted"),
                };
                let state = finished(step.text(1));
                moved(broker.reprocess(queue, step.text(0), state, how).await?)
            }
            "retry-all" => {
                let how = step.json(0);
                let state = finished(how["state"].as_str().unwrap());
                let until_ms = how["timestamp"].as_i64();
                broker.reprocess_many(queue, state, until_ms, ALL).await?;
                Ok(())
            }
            "promote-all" => {
                broker.promote_many(queue, ALL).await?;
                Ok(())
            }
            "remove" => match broker.remove(queue, step.text(0), true).await? {
                Removed::Done => Ok(()),
                refused => Err(Refused(format!("{refused:?}"))),
            },
            "detach" => {
                let job = self.job(step.text(0)).await;
                let detached = broker.detach_child(queue, step.text(0), &job.fields["parentKey"]);
                match detached.await? {
                    Detached::Done => Ok(()),
                    refused => Err(Refused(format!("{refused:?}"))),
                }
            }
            "drop-children" => {
                broker.remove_children(queue, step.text(0)).await?;
                Ok(())
            }
            "free" => {
                broker
                    .remove_deduplication(queue, step.text(0), None)
                    .await?;
                Ok(())
            }
            _ => self.operate_queue(step).await,
        }
    }

    /// Steps that are about no single job.
    async fn operate_queue(&self, step: &Step) -> Result<(), Refused> {
        let (broker, queue) = (&self.broker, &self.queue);
        match step.op.as_str() {
            "pause" => {
                broker.pause(queue).await?;
            }
            "resume" => {
                broker.resume(queue).await?;
            }
            "drain" => {
                broker.drain(queue, step.has(0)).await?;
            }
            "clean" => {
                let grace = Duration::from_millis(step.number(1) as u64);
                let max = step.number(2) as usize;
                broker.clean(queue, state(step.text(0)), grace, max).await?;
            }
            "obliterate" => {
                // As the package's method does.
                broker.pause(queue).await?;
                let force = step.json(0)["force"].as_bool().unwrap_or(false);
                match broker.obliterate(queue, force).await? {
                    Obliterated::Done => {}
                    refused => return Err(Refused(format!("{refused:?}"))),
                }
            }
            "concurrency" => {
                let concurrency = Some(step.number(0) as u64);
                broker.set_concurrency(queue, concurrency).await?;
            }
            "rate" => {
                let window = Duration::from_millis(step.number(1) as u64);
                let limit = Some((step.number(0) as u64, window));
                broker.set_rate_limit(queue, limit).await?;
            }
            "limit" => {
                let pause = Duration::from_millis(step.number(0) as u64);
                broker.rate_limit(queue, pause).await?;
            }
            "schedule" => self.schedule(step).await?,
            "unschedule" => {
                broker.remove_schedule(queue, step.text(0)).await?;
            }
            "unlimit" => {
                broker.remove_rate_limit_key(queue).await?;
            }
            other => return Err(Refused(format!("{NO_SUCH_STEP}: {other}"))),
        }
        Ok(())
    }
}

fn is_there(is_there: bool) -> Result<(), Refused> {
    match is_there {
        true => Ok(()),
        false => Err(Refused("no such job in that state".to_owned())),
    }
}

fn moved(moved: Moved) -> Result<(), Refused> {
    match moved {
        Moved::Done => Ok(()),
        refused => Err(Refused(format!("{refused:?}"))),
    }
}

fn finished(state: &str) -> FinishedState {
    match state {
        "completed" => FinishedState::Completed,
        "failed" => FinishedState::Failed,
        other => panic!("{other} is no finished state"),
    }
}

fn state(name: &str) -> BrokerState {
    match name {
        "wait" => BrokerState::Wait,
        "active" => BrokerState::Active,
        "delayed" => BrokerState::Delayed,
        "prioritized" => BrokerState::Prioritized,
        "completed" => BrokerState::Completed,
        "failed" => BrokerState::Failed,
        other => panic!("nobody cleans {other}"),
    }
}
