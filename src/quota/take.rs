//! One call: Redis is asked, and told what only the record knows.
//!
//! Usually one round trip. A key that is cold brings a seed, a long window whose block is used up
//! brings a new one; then Redis is asked again, with the same permit.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::ask::{Ask, QuotaError, Wait, Why};
use super::known::{Known, Look, shortest};
use super::permit::Call;
use super::{Inner, Quotas, Urgency, unknown};
use crate::broker::{Broker, QuotaCredit, QuotaSeed, TakeQuota, TakenQuota};
use crate::job::quota::{Limits, Window};
use crate::record::quotas::{self, Block};

/// Units that are set aside at once: this share of a window, within these bounds.
const BLOCK_SHARE: u64 = 100;
const BLOCK_MAX: u64 = 1000;
/// Slots of a sliding window that still count, with those of its margin.
const SLOTS_COUNTED: i64 = 67;
/// Answers of Redis for one call: a seed, and a block per window, twice.
const ROUNDS_MAX: usize = 20;
/// What SQL counts by may be changed by whoever asks there: the record is asked again after this
/// time, however long its window is.
const SQL_WAIT_MAX_MS: u64 = 60_000;

impl Quotas {
    pub(super) async fn try_take(&self, ask: &Ask<'_>) -> Result<Result<Call, Wait>, QuotaError> {
        let (broker, service) = (&self.inner.broker, ask.key.service());
        let key = ask.key.to_string();
        let invalid = |why| QuotaError::Limits {
            service: service.to_owned(),
            why,
        };
        ask.limits.check().map_err(invalid)?;
        let known = match self.look(ask, &key, false).await? {
            Look::Known(known) => known,
            Look::Away(why) => return Ok(Err(unknown(service, &why))),
        };
        let limits = Arc::clone(&known.limits);
        check_cost(ask, &limits)?;
        let permit = Uuid::new_v4();
        let (mut seed, mut has_begun) = (None, false);
        let (mut credits, mut refused) = (Vec::new(), BTreeMap::new());
        let (blocks, mut turn) = (self.inner.looks.blocks(&key), None);
        for _ in 0..ROUNDS_MAX {
            let taken = broker
                .take_quota(&TakeQuota {
                    key: &key,
                    host: ask.host,
                    permit,
                    limits: &limits,
                    cost: ask.cost,
                    is_interactive: ask.urgency == Some(Urgency::Interactive),
                    lease: ask.lease,
                    ticket: ask.ticket,
                    random: rand::random(),
                    is_joined: known.row.is_joined,
                    seed: seed.as_ref(),
                    credits: &credits,
                    refused: &refused,
                })
                .await?;
            if seed.is_some() && taken != TakenQuota::Cold && !has_begun {
                has_begun = true;
                self.note_begun(&key).await;
            }
            credits.clear();
            match taken {
                TakenQuota::Granted => {
                    return Ok(Ok(Call {
                        id: permit,
                        service: service.to_owned(),
                        host: ask.host.map(str::to_owned),
                        lease: ask.lease,
                        learns: limits.learns,
                        default_window: shortest(&limits).1,
                        granted: Instant::now(),
                        key,
                    }));
                }
                TakenQuota::Denied { wait, why, which } => {
                    return Ok(Err(Wait {
                        time: wait,
                        why: Why::of(&why),
                        service: service.to_owned(),
                        detail: which,
                    }));
                }
                TakenQuota::TooExpensive { which, max } => {
                    return Err(QuotaError::TooExpensive {
                        service: service.to_owned(),
                        cost: ask.cost,
                        window: which,
                        max: u32::try_from(max).unwrap_or(u32::MAX),
                    });
                }
                TakenQuota::Cold => match self.seed(ask, &key, &known).await? {
                    Some(found) => seed = Some(found),
                    None => return Ok(Err(unknown(service, &"the record is away"))),
                },
                // Another call may have brought some meanwhile.
                TakenQuota::NeedsCredit { .. } if turn.is_none() => {
                    turn = Some(blocks.lock().await);
                }
                TakenQuota::NeedsCredit {
                    now_ms,
                    id,
                    period,
                    max,
                } => {
                    let (credit, refusal) = match id.as_str() {
                        "sql" => self.requests_block(&key, ask.cost, now_ms).await?,
                        _ => {
                            let block = block(&id, period, max, ask.cost);
                            self.window_block(&key, &block).await?
                        }
                    };
                    credits.extend(credit);
                    refused.extend(refusal.map(|ms| (id, ms)));
                }
            }
        }
        Ok(Err(unknown(
            service,
            &"others were faster, again and again",
        )))
    }

    pub(super) async fn look(
        &self,
        ask: &Ask<'_>,
        key: &str,
        anew: bool,
    ) -> Result<Look, QuotaError> {
        let Inner {
            broker,
            record,
            looks,
            ..
        } = &*self.inner;
        looks
            .look(
                record,
                (ask.key, key),
                ask.limits,
                self.memory(broker),
                anew,
            )
            .await
    }

    /// The memory of Redis, if what it does not know was never there: not where keys may vanish.
    fn memory(&self, broker: &Broker) -> Option<Arc<str>> {
        broker.served().filter(|_| !broker.allows_eviction())
    }

    /// What Redis is to begin with. What was known of another memory does not count: it is looked
    /// at anew, and then a limiter was at work.
    async fn seed(
        &self,
        ask: &Ask<'_>,
        key: &str,
        known: &Known,
    ) -> Result<Option<QuotaSeed>, QuotaError> {
        let memory = self.memory(&self.inner.broker);
        let holds = match &memory {
            Some(_) => known.epoch == memory,
            None => known.is_fresh,
        };
        let row = match holds {
            true => known.row.clone(),
            false => match self.look(ask, key, true).await? {
                Look::Known(known) => known.row,
                Look::Away(_) => return Ok(None),
            },
        };
        let is_intact = row.is_intact && memory.is_some();
        let fields = BTreeMap::deserialize(&row.said).unwrap_or_default();
        Ok(Some(QuotaSeed {
            idle_ms: match is_intact {
                true => i64::MAX as u64 / 2,
                false => u64::try_from(row.idle_ms).unwrap_or(0),
            },
            closed_ms: u64::try_from(row.closed_ms.unwrap_or(0)).unwrap_or(0),
            fields,
            spent: quotas::set_aside(&self.inner.record, key).await?,
        }))
    }

    async fn note_begun(&self, key: &str) {
        let Inner { broker, record, .. } = &*self.inner;
        let Some(memory) = self.memory(broker) else {
            return;
        };
        // Not noted, the next cold start is a careful one.
        if let Err(error) = quotas::note_begun(record, key, &memory).await {
            tracing::debug!(%error, key, "memory not noted");
        }
    }

    /// A block of a window: what to add, or that there is none.
    async fn window_block(
        &self,
        key: &str,
        block: &Block<'_>,
    ) -> Result<(Option<QuotaCredit>, Option<u64>), QuotaError> {
        let units = quotas::take_block(&self.inner.record, key, block).await?;
        let credit = QuotaCredit {
            id: block.window_id.to_owned(),
            period: block.period,
            units,
        };
        Ok(match units {
            0 => (None, Some(0)),
            _ => (Some(credit), None),
        })
    }

    /// The same of what SQL counts; until the end of its window, by Redis' clock.
    async fn requests_block(
        &self,
        key: &str,
        cost: u32,
        now_ms: i64,
    ) -> Result<(Option<QuotaCredit>, Option<u64>), QuotaError> {
        let (units, left) = quotas::take_requests(&self.inner.record, key, (cost, cost)).await?;
        let left_ms = left.as_millis() as u64;
        // From before the question: never later than it really ends.
        let credit = QuotaCredit {
            id: "sql".to_owned(),
            period: now_ms + left_ms as i64,
            units,
        };
        Ok(match units {
            0 => (None, Some(left_ms.clamp(1, SQL_WAIT_MAX_MS))),
            _ => (Some(credit), None),
        })
    }
}

/// A block that is worth the way to the record.
fn block(id: &str, period: i64, max: u64, cost: u32) -> Block<'_> {
    let share = (max / BLOCK_SHARE).clamp(1, BLOCK_MAX);
    Block {
        window_id: id,
        period,
        from_period: match id.starts_with("sliding") {
            true => period - SLOTS_COUNTED,
            false => period,
        },
        max,
        wanted: u32::try_from(share.max(u64::from(cost))).unwrap_or(cost),
        needed: cost,
    }
}

fn check_cost(ask: &Ask<'_>, limits: &Limits) -> Result<(), QuotaError> {
    let small = limits.windows.iter().min_by_key(|window| window.max());
    match small.filter(|window: &&Window| window.max() < ask.cost) {
        None => Ok(()),
        Some(window) => Err(QuotaError::TooExpensive {
            service: ask.key.service().to_owned(),
            cost: ask.cost,
            window: window.id(),
            max: window.max(),
        }),
    }
}
