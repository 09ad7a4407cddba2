//! What the routes share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::allowance::Allowances;
use super::auth::{Caller, Callers};
use super::bounds::{Bounds, Turn};
use super::events::Feed;
use super::health::WELL;
use super::problem::Problem;
use super::redact::Redaction;
use super::sns::Sns;
use super::{HttpOptions, Services};
use crate::control;
use crate::record::{View, Viewer};
use crate::tasks::Tasks;
use crate::uploads::Uploads;

/// How long the end of a view may take: its last statement, and a way to PostgreSQL that is slow.
const READING_END_MAX: Duration = Duration::from_secs(15);
const TAKEN: &str = "a view is there until it is dropped";

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
    /// Looks at messages of SNS.
    pub(super) sns: Sns,
    /// What goes on beside the requests.
    pub(super) tasks: Tasks,
    pub(super) events: Feed,
    /// The state of Redis when it was looked at last.
    redis: Mutex<&'static str>,
    /// The same of the object storage; none: it was not looked at, or there is none.
    storage: Mutex<Option<&'static str>>,
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
            uploads: Uploads::new(&services.storage),
            sns: Sns::new(services.allows_private_addresses),
            tasks: Tasks::new().with_failing(&services.failing),
            services,
            callers: Callers::new(&options.tokens),
            allowances: Allowances::new(options.jobs_per_hour),
            redaction: Arc::new(Redaction::new(options.redacted.as_deref())),
            options,
            redis: Mutex::new(WELL),
            storage: Mutex::new(None),
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

    /// What the object storage was like when it was looked at last.
    pub(super) fn storage(&self) -> Option<&'static str> {
        *self.storage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note_storage(&self, state: &'static str) {
        *self.storage.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
    }

    /// A turn to read the record.
    pub(super) async fn read_turn(&self, caller: Caller) -> Result<Turn, Problem> {
        self.bounds.read_turn(caller.workspace_id).await
    }

    fn redis(&self) -> MutexGuard<'_, &'static str> {
        self.redis.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record as this caller may see it, and a turn to read it.
    pub(super) async fn view(&self, caller: Caller) -> Result<Reading, Problem> {
        let turn = self.read_turn(caller).await?;
        let view = self.services.record.view_for(caller.viewer()).await?;
        Ok(self.reading(view, turn))
    }

    /// The same for whoever may see what is this workspace's.
    pub(super) async fn view_of(&self, workspace_id: Uuid) -> Result<Reading, Problem> {
        let turn = self.bounds.read_turn(workspace_id).await?;
        let viewer = Viewer::Tenant(workspace_id);
        let view = self.services.record.view_for(viewer).await?;
        Ok(self.reading(view, turn))
    }

    /// A view of everything, for callers who may see all.
    pub(super) async fn view_of_all(&self, caller: Caller) -> Result<Reading, Problem> {
        let turn = self.read_turn(caller).await?;
        let view = self.services.record.view().await?;
        Ok(self.reading(view, turn))
    }

    fn reading(&self, view: View, turn: Turn) -> Reading {
        Reading {
            taken: Some((view, turn)),
            redaction: Arc::clone(&self.redaction),
            tasks: self.tasks.clone(),
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
///
/// A reader may leave in the middle of a statement, which goes on all the same. So the turn is
/// given back when the connection is idle again, and not when the reader has left: those who leave
/// again and again have no more statements under way than those who stay.
#[derive(Debug)]
pub(super) struct Reading {
    /// Until it is dropped.
    taken: Option<(View, Turn)>,
    /// What of it is shown to admins only.
    pub(super) redaction: Arc<Redaction>,
    tasks: Tasks,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let Some((view, turn)) = self.taken.take() else {
            return;
        };
        self.tasks.spawn("reading", async move {
            match tokio::time::timeout(READING_END_MAX, view.end()).await {
                Ok(Ok(())) => {}
                ended => tracing::debug!(?ended, "a view ended with its connection"),
            }
            drop(turn);
        });
    }
}

impl std::ops::Deref for Reading {
    type Target = View;

    fn deref(&self) -> &View {
        &self.taken.as_ref().expect(TAKEN).0
    }
}

impl std::ops::DerefMut for Reading {
    fn deref_mut(&mut self) -> &mut View {
        &mut self.taken.as_mut().expect(TAKEN).0
    }
}
