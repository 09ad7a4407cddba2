//! The smaller parts of the load, beside the main one: flows, a schedule, limits, and a second
//! workspace. They go on as long as the main part does, at rates of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::try_join_all;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::generator::{Generator, Load, Place};
use super::ledger::Ledger;
use super::plan::{Kind, Payload, Plan, TYPE};
use super::space::{FAMILY, Space};
use crate::broker::Broker;
use crate::control;
use crate::job::QueueChange;
use crate::job::schedule::{Schedule, Template};
use crate::record::access::By;
use crate::record::workspaces::DEFAULT_WORKSPACE;
use crate::record::{Record, api_keys, schedules, soak, stats};

/// The second workspace.
pub(super) const NEIGHBOUR: Uuid = Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_50a6_0002);
/// Jobs that may run at once in the gated queue.
pub(super) const AT_ONCE: u64 = 4;
/// Jobs that may start per window in the metered queue.
pub(super) const STARTS: u64 = 50;
pub(super) const WINDOW_MS: u64 = 1_000;
/// Between two iterations of the schedule.
pub(super) const TICK_MS: u64 = 1_000;
const SCHEDULE: &str = "tick";
/// Iterations that Redis keeps after their end.
const TICKS_KEPT: u64 = 1_000;

/// Callers and how many jobs each sends per call. Fewer per second than the limits allow, and more
/// at once, so that each limit is met again and again.
const SIDES: [(Space, u64, &[u64]); 4] = [
    (Space::Flows, 24, &[FAMILY]),
    (Space::Gated, 12, &[24]),
    (Space::Metered, 30, &[150]),
    (Space::Neighbour, 40, &[1, 20]),
];

/// How far each of them is.
pub(super) type Marks = [u64; SIDES.len()];

/// Makes what they need. Doing it again changes nothing.
pub(super) async fn prepare(record: &Record, broker: &Broker, key: &str) -> anyhow::Result<()> {
    soak::ensure_workspace(record, NEIGHBOUR, "Neighbour").await?;
    api_keys::ensure(record, key, NEIGHBOUR, "soak").await?;
    for (space, change) in [
        (
            Space::Gated,
            QueueChange {
                concurrency: Some(Some(AT_ONCE)),
                ..QueueChange::default()
            },
        ),
        (
            Space::Metered,
            QueueChange {
                rate_limit: Some(Some((STARTS, WINDOW_MS))),
                ..QueueChange::default()
            },
        ),
    ] {
        control::change_queue(
            record,
            broker,
            &space.queue().parse()?,
            &change,
            (&By::OPERATOR, None),
        )
        .await?;
    }
    let queue = Space::Ticks.queue().parse()?;
    let ids = [SCHEDULE.to_owned()];
    let known = schedules::known(record, broker.prefix(), &queue, &ids).await?;
    if known.iter().any(|known| !known.is_removed) {
        return Ok(()); // a part of the run that goes on: its iterations keep their moments
    }
    let payload = Payload {
        seq: Space::Ticks.from(),
        kind: Kind::Noop,
        ms: 0,
        fails: 0,
    };
    let template = Template {
        name: TYPE.to_owned(),
        data: json!(payload).to_string(),
        opts: json!({ "removeOnComplete": { "count": TICKS_KEPT } }).to_string(),
    };
    let schedule = Schedule::every(TICK_MS);
    control::upsert_schedule(
        record,
        broker,
        &queue,
        SCHEDULE,
        &schedule,
        &template,
        &By::OPERATOR,
    )
    .await?;
    Ok(())
}

/// No more iterations.
pub(super) async fn end_schedule(record: &Record, broker: &Broker) -> anyhow::Result<()> {
    let queue = Space::Ticks.queue().parse()?;
    Ok(control::remove_schedule(record, broker, &queue, SCHEDULE, &By::OPERATOR).await?)
}

/// The number of the iteration with this id: `repeat:tick:MILLISECONDS`.
pub(super) fn tick(wire_id: &str) -> Option<u64> {
    let ms: u64 = wire_id.rsplit(':').next()?.parse().ok()?;
    Some(Space::Ticks.from() + ms / TICK_MS)
}

/// Open jobs of both workspaces.
pub(super) async fn open(record: &Record) -> anyhow::Result<u64> {
    let mut open = 0;
    let mut view = record.view().await?;
    for workspace in [DEFAULT_WORKSPACE, NEIGHBOUR] {
        let counts = stats::count_open(&mut view, workspace).await?;
        open += counts.iter().map(|c| c.jobs.unsigned_abs()).sum::<u64>();
    }
    Ok(open)
}

/// All parts of the load.
pub(super) struct Generators {
    pub(super) main: Generator,
    sides: Vec<Generator>,
    open: Arc<AtomicU64>,
}

impl Generators {
    /// `keys` open the default workspace and the neighbour's; `main` goes on where it was, and so
    /// do the sides.
    pub(super) fn new(
        base: &str,
        keys: &[String; 2],
        (plan, ledger): (Plan, &Ledger),
        main: Load,
        marks: Marks,
    ) -> anyhow::Result<Self> {
        let open = Arc::new(AtomicU64::new(0));
        let generator = |load: Load| {
            let key = &keys[usize::from(load.space == Space::Neighbour)];
            let place = Place::new(base, key)?;
            anyhow::Ok(Generator::new(
                place,
                plan,
                ledger.clone(),
                load,
                open.clone(),
            ))
        };
        let sides = SIDES.iter().zip(marks).map(|((space, rate, lanes), next)| {
            generator(Load {
                space: *space,
                next,
                end: Space::Order.from(),
                rate: *rate,
                lanes,
            })
        });
        Ok(Self {
            sides: sides.collect::<anyhow::Result<_>>()?,
            main: generator(main)?,
            open,
        })
    }

    /// Sends until the main part is done or `stop`; what is under way is brought to its end.
    pub(super) async fn send(&self, stop: &CancellationToken) -> anyhow::Result<()> {
        let main = async {
            let sent = self.main.send(stop).await;
            stop.cancel();
            sent
        };
        let sides = try_join_all(self.sides.iter().map(|side| Box::pin(side.send(stop))));
        tokio::try_join!(main, sides).map(drop)
    }

    pub(super) fn note_open(&self, jobs: u64) {
        self.open.store(jobs, Ordering::Relaxed);
    }

    /// How far the main part and the sides are.
    pub(super) fn marks(&self) -> (u64, Marks) {
        let mut marks = Marks::default();
        for (mark, side) in marks.iter_mut().zip(&self.sides) {
            *mark = side.low_water();
        }
        (self.main.low_water(), marks)
    }

    pub(super) fn repeated_calls(&self) -> u64 {
        let all = self.sides.iter().chain([&self.main]);
        all.map(|generator| generator.repeated_calls.load(Ordering::Relaxed))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_iteration_is_known_by_its_second() {
        let first = tick("repeat:tick:1700000000250").unwrap();
        assert_eq!(Space::of(first), Some(Space::Ticks));
        assert_eq!(tick("repeat:tick:1700000000999"), Some(first));
        assert_eq!(tick("repeat:tick:1700000001250"), Some(first + 1));
        assert_eq!(tick("repeat:tick:soon"), None);
    }
}
