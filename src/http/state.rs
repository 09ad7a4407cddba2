//! What the routes share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::allowance::Allowances;
use super::auth::{Caller, Callers};
use super::bounds::Bounds;
use super::events::Feed;
use super::health::WELL;
use super::problem::Problem;
use super::redact::Redaction;
use super::{HttpOptions, Services};
use crate::control;
use crate::record::{View, Viewer};
use crate::tasks::Tasks;
use crate::uploads::Uploads;

/// Actions that are carried out at once where they were accepted; upkeep does the others.
const ACTIONS_MAX: usize = 4;

/// Shared by all routes.
#[derive(Debug, Clone)]
pub(super) struct State(Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) services: Services,
    pub(super) options: HttpOptions,
    pub(super) callers: Callers,
    pub(super) uploads: Uploads,
    /// What goes on beside the requests.
    pub(super) tasks: Tasks,
    pub(super) events: Feed,
    /// The state of Redis when it was looked at last.
    redis: Mutex<&'static str>,
    pub(super) bounds: Bounds,
    pub(super) allowances: Allowances,
    pub(super) redaction: Arc<Redaction>,
    actions: Arc<Semaphore>,
}

impl std::ops::Deref for State {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl State {
    pub(super) fn new(
        services: Services,
        options: HttpOptions,
        stopping: CancellationToken,
    ) -> Self {
        Self(Arc::new(Shared {
            events: Feed::new(stopping),
            uploads: Uploads::new(&services.data_dir),
            tasks: Tasks::new().with_failing(&services.failing),
            services,
            callers: Callers::new(&options.tokens),
            allowances: Allowances::new(options.jobs_per_hour),
            redaction: Arc::new(Redaction::new(options.redacted.as_deref())),
            options,
            redis: Mutex::new(WELL),
            bounds: Bounds::default(),
            actions: Arc::new(Semaphore::new(ACTIONS_MAX)),
        }))
    }
}

impl Shared {
    /// Whether Redis could take jobs when it was looked at last.
    pub(super) fn is_redis_well(&self) -> bool {
        *self.redis() == WELL
    }

    pub(super) fn note_redis(&self, state: &'static str) {
        let before = std::mem::replace(&mut *self.redis(), state);
        if before == state {
            return;
        }
        match state {
            WELL => tracing::info!(before, "redis takes jobs again"),
            _ => tracing::warn!(state, "jobs are accepted, and go to redis later"),
        }
    }

    /// A turn to read the record.
    pub(super) async fn read_turn(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.bounds.read_turn().await
    }

    fn redis(&self) -> MutexGuard<'_, &'static str> {
        self.redis.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record as this caller may see it, and a turn to read it.
    pub(super) async fn view(&self, caller: Caller) -> Result<Reading, Problem> {
        self.view_for(caller.viewer()).await
    }

    /// The same for whoever may see what this viewer sees.
    pub(super) async fn view_for(&self, viewer: Viewer) -> Result<Reading, Problem> {
        let turn = self.read_turn().await?;
        let view = self.services.record.view_for(viewer).await?;
        Ok(self.reading(view, turn))
    }

    /// A view of everything, for callers who may see all.
    pub(super) async fn view_of_all(&self) -> Result<Reading, Problem> {
        let turn = self.read_turn().await?;
        let view = self.services.record.view().await?;
        Ok(self.reading(view, turn))
    }

    fn reading(&self, view: View, turn: OwnedSemaphorePermit) -> Reading {
        Reading {
            view,
            redaction: Arc::clone(&self.redaction),
            _turn: turn,
        }
    }

    /// Carries out an action that was just written down. Whatever keeps this server from it, upkeep
    /// does it.
    pub(super) fn carry_out(&self, id: Uuid) {
        let Ok(turn) = Arc::clone(&self.actions).try_acquire_owned() else {
            return;
        };
        let (record, broker) = (self.services.record.clone(), self.services.broker.clone());
        let stopping = self.tasks.stopping().clone();
        self.tasks.spawn("action", async move {
            let _turn = turn;
            let done = control::actions::carry_out(&record, &broker, id, &stopping).await;
            if let Err(error) = done {
                tracing::warn!(%error, action = %id, "action not carried out; upkeep will");
            }
        });
    }
}

/// A view of the record with the turn that it takes.
#[derive(Debug)]
pub(super) struct Reading {
    view: View,
    /// What of it is shown to admins only.
    pub(super) redaction: Arc<Redaction>,
    _turn: OwnedSemaphorePermit,
}

impl std::ops::Deref for Reading {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl std::ops::DerefMut for Reading {
    fn deref_mut(&mut self) -> &mut View {
        &mut self.view
    }
}
