//! What the server does beside answering: looks at the stores and queues, feeds the event streams,
//! gives unused allowance back, and removes files that are over.

use std::sync::Arc;
use std::time::Duration;

use super::gauges::Gauges;
use super::state::State;
use super::{events, health};
use crate::handlers::export::{self, SweepError};
use crate::periodic::{Next, every};
use crate::reconcile::ReconcileError;
use crate::record::RecordError;
use crate::storage::{Removed, Round};
use crate::tasks::Tasks;

/// How often the stores are looked at, for gauges and for what answers say about it.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// How often the object storage is looked at, which costs money elsewhere.
const STORAGE_EVERY: Duration = Duration::from_secs(30);
/// How often queues are looked at, for gauges.
const GAUGES_EVERY: Duration = Duration::from_secs(10);
/// How often allowance that nobody used is given back.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(10);
/// How often the remains of unfinished uploads, and files of old exports, are removed.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// Starts all of them; they end with `duties`.
pub(super) fn start(state: &State, duties: &Tasks) {
    let (keeping, tasks) = (state.clone(), duties.clone());
    duties.spawn("token keys", async move {
        keeping.callers.run(&tasks).await;
    });
    let probed = state.clone();
    every(duties, "http probe", PROBE_EVERY, move || {
        let state = probed.clone();
        async move {
            health::look(&state).await;
            Ok::<_, std::convert::Infallible>(Next::Rest)
        }
    });
    if let Some(objects) = state.services.storage.objects() {
        let (state, objects) = (state.clone(), objects.clone());
        every(duties, "storage probe", STORAGE_EVERY, move || {
            let (state, objects) = (state.clone(), objects.clone());
            async move {
                health::look_at_storage(&state, &objects).await;
                Ok::<_, std::convert::Infallible>(Next::Rest)
            }
        });
    }
    if let Some(metrics) = &state.options.metrics {
        metrics.keep_small(duties);
        let gauges = Arc::new(tokio::sync::Mutex::new(Gauges::new(&state.services.broker)));
        let seen = state.clone();
        every(duties, "gauges", GAUGES_EVERY, move || {
            let (state, gauges) = (seen.clone(), gauges.clone());
            async move {
                gauges.lock().await.look(&state).await?;
                Ok::<_, ReconcileError>(Next::Rest)
            }
        });
    }
    events::start(state, duties);
    let keeping = state.clone();
    every(duties, "unused allowance", GIVE_BACK_EVERY, move || {
        let state = keeping.clone();
        async move {
            let record = &state.services.record;
            state.allowances.give_back(record, false).await?;
            Ok::<_, RecordError>(Next::Rest)
        }
    });
    sweep(state, duties);
}

fn sweep(state: &State, duties: &Tasks) {
    let round = || Arc::new(tokio::sync::Mutex::new(Round::default()));
    let (sweeping, kept) = (state.clone(), round());
    every(duties, "export sweep", SWEEP_EVERY, move || {
        let (state, round) = (sweeping.clone(), kept.clone());
        async move {
            let services = &state.services;
            let mut round = round.lock().await;
            let swept = export::sweep(&services.record, &services.storage, &mut round).await?;
            let (removed, refused) = (swept.removed, swept.refused);
            if removed + refused > 0 {
                tracing::info!(removed, refused, "files of old exports removed");
            }
            let next = if swept.is_more {
                Next::Again
            } else {
                Next::Rest
            };
            Ok::<_, SweepError>(next)
        }
    });
    let (uploads, kept) = (state.uploads.clone(), round());
    every(duties, "upload sweep", SWEEP_EVERY, move || {
        let (uploads, round) = (uploads.clone(), kept.clone());
        async move {
            let Removed {
                removed, refused, ..
            } = uploads.sweep(&mut *round.lock().await).await?;
            if removed + refused > 0 {
                tracing::info!(removed, refused, "remains of unfinished uploads removed");
            }
            Ok::<_, std::io::Error>(Next::Rest)
        }
    });
}
