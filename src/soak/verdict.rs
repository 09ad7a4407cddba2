//! The verdict: both stores, the record and the ledger, after everything has come to rest.

use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use uuid::Uuid;

use super::check::Check;
use super::plan::Plan;
use super::report::{self, Report};
use super::space::queues;
use super::state::State;
use super::violations::{Law, Violations};
use super::{growth, order, watch};
use crate::broker::{Broker, BrokerState};
use crate::job::QueueName;
use crate::reconcile;
use crate::record::{Record, soak};

/// How often both stores are compared until they agree: what a killed worker had committed and not
/// told Redis is told by the rescue.
const LOOKS_MAX: u32 = 30;
const PAUSE: Duration = Duration::from_secs(1);

/// What the verdict needs to know of the run.
pub(super) struct Witness<'a> {
    pub(super) dir: &'a Path,
    pub(super) plan: Plan,
    pub(super) state: &'a State,
    pub(super) drift: u64,
    pub(super) repeated_calls: u64,
    pub(super) looks: u64,
    pub(super) workers: usize,
    pub(super) slots: usize,
}

/// I6: both stores agree about every job. Returns about how many they do not.
pub(super) async fn agreement(
    record: &Record,
    broker: &Broker,
    violations: &mut Violations,
) -> anyhow::Result<u64> {
    for look in 1.. {
        let verdict = reconcile::verify(record, broker).await?;
        if verdict.agree {
            break;
        }
        if look == LOOKS_MAX {
            for differs in &verdict.differences {
                let text = format!(
                    "job {}: {} ({} in the record, {} in Redis)",
                    differs.job_id, differs.problem, differs.record, differs.redis
                );
                violations.add(Law::Agreement, text);
            }
            return Ok(verdict.differences.len() as u64);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(0)
}

/// I6: nobody holds anything any more.
pub(super) async fn orphans(
    broker: &Broker,
    queue: &QueueName,
    violations: &mut Violations,
) -> anyhow::Result<()> {
    let mut left = Vec::new();
    for _ in 0..LOOKS_MAX {
        left.clear();
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let page = broker.locks(queue, at).await?;
            left.extend(
                page.keys
                    .into_iter()
                    .map(|id| format!("the lock of job {id}")),
            );
            cursor = page.next;
        }
        let active = broker.list(queue, BrokerState::Active, 0, 10).await?;
        left.extend(active.ids.into_iter().map(|id| format!("active: job {id}")));
        if left.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    for text in left {
        violations.add(Law::Agreement, format!("left in Redis: {text}"));
    }
    Ok(())
}

/// Reads the ledger and the record, and puts the report together.
pub(super) async fn judge(
    witness: Witness<'_>,
    record: &Record,
    violations: Violations,
) -> anyhow::Result<Report> {
    let mut check = Check::new(witness.plan);
    check.violations = violations;
    let ledger = std::fs::File::open(witness.dir.join("ledger"))?;
    check.read_ledger(BufReader::with_capacity(1024 * 1024, ledger))?;
    order::check(&check.order, &mut check.violations);
    let mut after = Uuid::nil();
    loop {
        let page = soak::page(record, &queues(), after).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        for job in &page {
            check.take_job(job);
        }
    }
    check.end();
    let wrongs = soak::wrongs(record).await?;
    let effects_doubled = wrongs.doubled.len();
    for (law, found) in [
        (Law::OnceEffects, wrongs.doubled),
        (Law::OnceEffects, wrongs.missing),
        (Law::NoZombie, wrongs.late),
        (Law::History, wrongs.broken),
    ] {
        for example in found {
            check.violations.add(law, example);
        }
    }
    let samples = watch::samples(witness.dir);
    let largest = report::largest(&samples);
    report::check_bounds(&largest, &mut check.violations);
    let growth = growth::measure(&samples);
    growth::check(&growth, &mut check.violations);
    let passed = check.violations.is_empty();
    Ok(Report {
        passed,
        seed: witness.state.seed,
        dir: witness.dir.display().to_string(),
        build: match cfg!(debug_assertions) {
            true => "debug",
            false => "release",
        },
        parts: witness.state.parts,
        seconds: largest.seconds.round(),
        workers: witness.workers,
        slots: witness.slots,
        repeated_calls: witness.repeated_calls,
        looks: witness.looks,
        effects: wrongs.effects,
        effects_doubled,
        drift: witness.drift,
        slopes: report::slopes(&samples),
        growth,
        throughput: report::throughput(&samples),
        largest,
        history: match passed {
            true => Vec::new(),
            false => check.history(),
        },
        violations: check.violations,
        tally: check.tally,
    })
}
