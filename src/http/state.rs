//! What the routes share, and the bounds that keep one kind of request from starving the others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::auth::{Caller, Callers};
use super::events::Feed;
use super::health::WELL;
use super::problem::{Code, Problem};
use super::{HttpOptions, Services};
use crate::control;
use crate::record::{View, Viewer};
use crate::tasks::Tasks;
use crate::uploads::Uploads;

/// Bytes of bodies that are held in memory at once, in KiB.
const BODIES_MAX_KIB: u32 = 256 * 1024;
/// Requests that read the record at once: fewer than it has connections, so that pages never keep
/// upkeep and handlers waiting.
const READS_MAX: usize = 6;
/// Uploads that arrive at once.
const UPLOADS_MAX: usize = 32;
/// Files that are looked at at once, each by a thread of its own.
const LOOKS_MAX: usize = 2;
/// Actions that are carried out at once where they were accepted; upkeep does the others.
const ACTIONS_MAX: usize = 4;
/// How long a request waits for its turn.
const TURN_MAX: Duration = Duration::from_secs(5);

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
    bodies: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    arriving: Arc<Semaphore>,
    looks: Arc<Semaphore>,
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
            options,
            redis: Mutex::new(WELL),
            bodies: Arc::new(Semaphore::new(BODIES_MAX_KIB as usize)),
            reads: Arc::new(Semaphore::new(READS_MAX)),
            arriving: Arc::new(Semaphore::new(UPLOADS_MAX)),
            looks: Arc::new(Semaphore::new(LOOKS_MAX)),
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

    fn redis(&self) -> MutexGuard<'_, &'static str> {
        self.redis.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for a body of at most so many bytes; held while the request lives.
    pub(super) async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        turn(&self.bodies, kib.clamp(1, BODIES_MAX_KIB)).await
    }

    /// The record as this caller may see it, and a turn to read it.
    pub(super) async fn view(&self, caller: Caller) -> Result<Reading, Problem> {
        self.view_for(caller.viewer()).await
    }

    /// The same for whoever may see what this viewer sees.
    pub(super) async fn view_for(&self, viewer: Viewer) -> Result<Reading, Problem> {
        let turn = self.read_turn().await?;
        let view = self.services.record.view_for(viewer).await?;
        Ok(Reading { view, _turn: turn })
    }

    /// A view of everything, for callers who may see all.
    pub(super) async fn view_of_all(&self) -> Result<Reading, Problem> {
        let turn = self.read_turn().await?;
        let view = self.services.record.view().await?;
        Ok(Reading { view, _turn: turn })
    }

    /// A turn to read the record.
    pub(super) async fn read_turn(&self) -> Result<OwnedSemaphorePermit, Problem> {
        turn(&self.reads, 1).await
    }

    /// A turn to look at a file.
    pub(super) async fn look_turn(&self) -> Result<OwnedSemaphorePermit, Problem> {
        turn(&self.looks, 1).await
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

    /// A turn to upload.
    pub(super) async fn upload_turn(&self) -> Result<OwnedSemaphorePermit, Problem> {
        turn(&self.arriving, 1).await
    }
}

/// A view of the record with the turn that it takes.
#[derive(Debug)]
pub(super) struct Reading {
    view: View,
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

async fn turn(gate: &Arc<Semaphore>, permits: u32) -> Result<OwnedSemaphorePermit, Problem> {
    let acquired = Arc::clone(gate).acquire_many_owned(permits);
    match tokio::time::timeout(TURN_MAX, acquired).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_)) | Err(_) => {
            let detail = "the server has too many requests of this kind; try again shortly";
            Err(Problem::new(Code::Overloaded, detail))
        }
    }
}
