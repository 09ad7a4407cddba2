//! Enqueue: the door through which jobs come in.
//!
//! A job is checked, committed to the record, acknowledged, and then Redis is told (law 1). Commits
//! are grouped: while one is in flight the next batch collects, so an idle system commits at once
//! and a busy one shares each flush between hundreds of jobs.
//!
//! Where the process may die, and what the next reader finds:
//!
//! * before the commit: nothing, and nobody was told otherwise;
//! * after the commit, before the answer: a pending row; with an idempotency key the caller's retry
//!   gets the same job;
//! * after the answer, before Redis: a pending row that Redis does not know; `reconcile` adds it.
//!
//! Redis being away changes nothing for the caller. PostgreSQL being away refuses the job: nothing
//! is half accepted.

mod commit;
mod deliver;
mod flow;
mod insert;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::sync::{Mutex, mpsc, oneshot};
use uuid::Uuid;

use crate::broker::Broker;
use crate::job::{JobRequest, JobTypes, NewJob, Refused};
use crate::record::enqueue::{INSERT_MAX, Inserted, insert_in};
use crate::record::{Record, RecordError, Tx};
use crate::tasks::Tasks;

pub use deliver::entry;
pub(crate) use deliver::{deliver_stored, stored_entry};
pub use flow::EnqueuedFlow;

/// Requests that wait for a commit; more callers wait outside.
const WAITING_MAX: usize = 2048;
/// Commits in flight at once.
const LANES: usize = 2;
/// The most jobs of one call; larger inputs are sent in several calls.
pub const ENQUEUE_MAX: usize = 10_000;

/// An accepted job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueued {
    pub id: Uuid,
    /// False when the idempotency key was used before: this is that job.
    pub is_new: bool,
    /// When it was accepted; unknown for a job that was there before.
    pub created_at: Option<DateTime<Utc>>,
}

/// Why a job was not accepted. Nothing of it was stored.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    /// The request is wrong; repeating it is of no use.
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the idempotency key was used for another request, which made job {id}")]
    KeyReused { id: Uuid },
    #[error("{given} jobs in one call, at most {ENQUEUE_MAX} are allowed")]
    TooMany { given: usize },
    /// Try again, with the same idempotency key if it matters that there is only one job: the
    /// record may have lost nothing but its answer.
    #[error("not accepted: {0}")]
    Record(Arc<RecordError>),
    /// The process is stopping.
    #[error("not accepted: the process is stopping")]
    Stopping,
}

impl EnqueueError {
    /// Stable name of the reason, for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(refused) => refused.code(),
            Self::KeyReused { .. } => "idempotency_key_reused",
            Self::TooMany { .. } => "too_many_jobs",
            Self::Record(error) if error.is_unavailable() => "record_unavailable",
            Self::Record(_) => "record_error",
            Self::Stopping => "stopping",
        }
    }

    /// True when the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Record(error) => error.is_unavailable(),
            Self::Stopping => true,
            Self::Refused(_) | Self::KeyReused { .. } | Self::TooMany { .. } => false,
        }
    }
}

type Answer = Result<Vec<Result<Enqueued, EnqueueError>>, EnqueueError>;

/// Jobs of one caller that wait for their commit, at most [`INSERT_MAX`].
struct Waiting {
    jobs: Vec<NewJob>,
    answer: oneshot::Sender<Answer>,
}

/// The way in. Clones share the group commit.
#[derive(Debug, Clone)]
pub struct Enqueue {
    types: Arc<std::sync::RwLock<JobTypes>>,
    sender: mpsc::Sender<Waiting>,
    flows: flow::Flows,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting")
            .field("jobs", &self.jobs.len())
            .finish_non_exhaustive()
    }
}

impl Enqueue {
    /// Starts the group commit. It ends when `tasks` stop or the last handle is dropped, after
    /// committing and delivering what was accepted; later calls are refused.
    pub fn start(record: Record, broker: Broker, types: JobTypes, tasks: &Tasks) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        let flows = flow::Flows::start(record.clone(), broker.clone(), tasks);
        let deliver = deliver::start(broker, tasks);
        for _ in 0..LANES {
            let lane = commit::Lane {
                record: record.clone(),
                receiver: receiver.clone(),
                deliver: deliver.clone(),
                stopping: tasks.stopping().clone(),
            };
            tasks.spawn("enqueue", lane.run());
        }
        Self {
            types: Arc::new(std::sync::RwLock::new(types)),
            sender,
            flows,
        }
    }

    /// The job types that are accepted now.
    pub fn types(&self) -> JobTypes {
        self.types
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// Replaces the accepted types, when a type was declared.
    pub fn set_types(&self, types: JobTypes) {
        *self
            .types
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = types;
    }

    /// Accepts one job. When this returns `Ok`, the job is on disk and will be run.
    pub async fn enqueue(&self, request: JobRequest) -> Result<Enqueued, EnqueueError> {
        let job = self.check(request)?;
        let mut answers = self.commit(vec![job]).await?;
        answers.pop().unwrap_or(Err(EnqueueError::Stopping))
    }

    /// Accepts many jobs; one answer each, in order. A wrong request does not keep the others
    /// out. Not atomic over more than [`INSERT_MAX`] jobs: earlier ones stay when the record goes
    /// away or the process stops in the middle, and the answers say so.
    pub async fn enqueue_many(
        &self,
        requests: Vec<JobRequest>,
    ) -> Result<Vec<Result<Enqueued, EnqueueError>>, EnqueueError> {
        if requests.len() > ENQUEUE_MAX {
            return Err(EnqueueError::TooMany {
                given: requests.len(),
            });
        }
        let mut answers: Vec<Result<Enqueued, EnqueueError>> = Vec::with_capacity(requests.len());
        let mut places = Vec::new();
        let mut jobs = Vec::new();
        for (place, request) in requests.into_iter().enumerate() {
            match self.check(request) {
                Ok(job) => {
                    places.push(place);
                    jobs.push(job);
                    answers.push(Err(EnqueueError::Stopping));
                }
                Err(refused) => answers.push(Err(refused.into())),
            }
        }
        let mut places = places.into_iter();
        while !jobs.is_empty() {
            let rest = jobs.split_off(jobs.len().min(INSERT_MAX));
            let chunk = std::mem::replace(&mut jobs, rest);
            let size = chunk.len();
            let chunk_answers = match self.commit(chunk).await {
                Ok(chunk_answers) => chunk_answers,
                Err(EnqueueError::Record(error)) => (0..size)
                    .map(|_| Err(EnqueueError::Record(error.clone())))
                    .collect(),
                // The rest was not stored, as its answers say already; what was keeps its own.
                Err(_) => break,
            };
            for (answer, place) in chunk_answers.into_iter().zip(places.by_ref()) {
                answers[place] = answer;
            }
        }
        Ok(answers)
    }

    /// Writes jobs inside the caller's transaction: they exist if and only if that commits. They
    /// are delivered by the relay, within a second after the commit.
    ///
    /// All or nothing: one wrong request refuses the call before anything is written.
    pub async fn enqueue_in(
        &self,
        tx: &mut Tx,
        requests: Vec<JobRequest>,
    ) -> Result<Vec<Enqueued>, EnqueueError> {
        if requests.len() > INSERT_MAX {
            return Err(EnqueueError::TooMany {
                given: requests.len(),
            });
        }
        let jobs: Vec<NewJob> = requests
            .into_iter()
            .map(|request| self.check(request))
            .collect::<Result<_, _>>()?;
        let inserted = insert_in(tx, &jobs)
            .await
            .map_err(|e| EnqueueError::Record(Arc::new(e)))?;
        jobs.iter()
            .zip(inserted)
            .map(|(job, inserted)| answer(job.id, &inserted))
            .collect()
    }

    fn check(&self, request: JobRequest) -> Result<NewJob, Refused> {
        self.types
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .check(request)
    }

    async fn commit(&self, jobs: Vec<NewJob>) -> Answer {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { jobs, answer };
        self.sender
            .send(waiting)
            .await
            .map_err(|_| EnqueueError::Stopping)?;
        answered.await.map_err(|_| EnqueueError::Stopping)?
    }
}

fn answer(id: Uuid, inserted: &Inserted) -> Result<Enqueued, EnqueueError> {
    match *inserted {
        Inserted::New { created_at } => Ok(Enqueued {
            id,
            is_new: true,
            created_at: Some(created_at),
        }),
        Inserted::Existing { id } => Ok(Enqueued {
            id,
            is_new: false,
            created_at: None,
        }),
        Inserted::KeyReused { id } => Err(EnqueueError::KeyReused { id }),
    }
}
