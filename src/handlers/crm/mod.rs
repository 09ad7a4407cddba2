//! `sync_crm`: keeps accounts, contacts and opportunities the same here and in a CRM.
//!
//! ```text
//! per entity, parents first:  errors of before ─► changes there ─► merge ─► written here
//! then, parents first:        rows here ─► hash differs ─► read there ─► merge ─► written there
//! ```
//!
//! A link says which record here is which one there, and what both last agreed on; against that
//! [`merge`] tells who has changed which field. Each page is committed with its links and the place
//! to go on from. What is written there is committed after it was written: who dies in between
//! writes it again, to the same record, because it is addressed by its id there or by ours.
//!
//! Promises: nothing of another workspace; no field that a person has to decide is written on
//! either side; our own writes that come back change nothing; a record that is refused is kept as
//! an error and tried by the next run, and stops nobody else; not more is deleted than the brake
//! allows, and nothing that the CRM does not list as deleted; ids of one organization are never
//! used in another; each record counts once, whatever interrupts the run. A dry run writes to
//! neither side.

pub mod client;
mod defaults;
mod deletions;
mod form;
mod hubspot;
mod mapping;
mod matching;
mod merge;
mod note;
mod organization;
mod patience;
mod payload;
mod plan;
mod pull;
mod push;
pub mod salesforce;
mod sending;
mod state;
mod take;
mod target;

use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::connection::Connections;
use super::ending::record_error;
use crate::job::JobError;
use crate::outbound::Caller;
use crate::record::crm::runs::{self, Hold};
use crate::record::crm::{Scope, cursors};
use crate::record::logs::LogLevel;
use crate::uploads::hex;
use crate::worker::{Handler, JobContext};
use client::{Crm, CrmError, Entity, Identity, Outside};
use hubspot::Hubspot;
use mapping::Fields;
pub use mapping::{Choice, Flow};
pub use payload::{CrmProvider, Deletions, Direction, Payload, Side, Strategy};
use salesforce::Salesforce;
pub use state::{Counts, Summary};
use state::{State, Step};
use target::Target;

/// After this long an attempt makes room for others and goes on later.
const SLICE: Duration = Duration::from_secs(10 * 60);
/// How long a job waits for another one of its connection, before it looks again.
const TURN: Duration = Duration::from_secs(5);
/// The pauses behind an error in a run that gets on: the longer, the less it got on.
const PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// How long one attempt may take: a slice, and its last page with its calls.
const ATTEMPT_MAX: Duration = Duration::from_secs(30 * 60);

/// The handler of `sync_crm` jobs.
#[derive(Debug, Clone)]
pub struct SyncCrm {
    outside: Outside,
}

impl SyncCrm {
    pub fn new(caller: Caller, connections: Connections) -> Self {
        Self {
            outside: Outside {
                caller,
                connections,
            },
        }
    }
}

impl Handler for SyncCrm {
    const TYPE: &'static str = "sync_crm";
    type Payload = Payload;
    type Output = Summary;

    fn timeout(&self) -> Duration {
        ATTEMPT_MAX
    }

    async fn run(&self, ctx: JobContext, payload: Payload) -> Result<Summary, JobError> {
        let workspace_id = ctx.workspace_id().ok_or_else(|| {
            JobError::permanent("the job has no workspace: records and connections belong to one")
        })?;
        let at = ctx.checkpoint().and_then(State::read);
        // A run ends over the connection that it began with.
        let id = at
            .as_ref()
            .map(|at| at.connection_id)
            .or(payload.connection_id);
        let provider = payload.crm_provider.provider();
        let connection = self.outside.connections.open(&ctx, provider, id).await?;
        let (outside, context) = (self.outside.clone(), ctx.clone());
        match payload.crm_provider {
            CrmProvider::Hubspot => {
                let crm = Hubspot::new(outside, context, connection);
                sync(ctx, workspace_id, payload, &crm, at).await
            }
            CrmProvider::Salesforce => {
                let crm = Salesforce::new(outside, context, connection);
                sync(ctx, workspace_id, payload, &crm, at).await
            }
        }
    }
}

/// One attempt.
async fn sync<C: Crm>(
    ctx: JobContext,
    workspace_id: Uuid,
    payload: Payload,
    crm: &C,
    at: Option<State>,
) -> Result<Summary, JobError> {
    let run = Run::new(ctx, workspace_id, payload, crm)?;
    let ended = match run.all(at).await {
        Ok(at) => Ok(at),
        Err(error) => Err(error.into_job(&run.ctx, crm.connection()).await),
    };
    // One that only makes room goes on soon, and one that has lost its job is not to take the hold
    // from whoever goes on with it. A hold that stays behind runs out.
    if !matches!(ended, Err(JobError::Snooze(..) | JobError::LeaseLost)) {
        let (connection_id, job_id) = (crm.connection().id, run.ctx.job_id());
        if let Err(error) = runs::release(run.ctx.record(), connection_id, job_id).await {
            tracing::warn!(%error, job.id = %job_id, "the connection is held a little longer");
        }
    }
    let at = ended?;
    run.ctx.log(LogLevel::Info, &at.message(), None);
    Ok(at.summary(&run.payload))
}

/// A sync under way.
struct Run<'a, C: Crm> {
    ctx: JobContext,
    workspace_id: Uuid,
    payload: Payload,
    crm: &'a C,
    targets: Vec<Target>,
}

impl<'a, C: Crm> Run<'a, C> {
    fn new(
        ctx: JobContext,
        workspace_id: Uuid,
        payload: Payload,
        crm: &'a C,
    ) -> Result<Self, JobError> {
        let of = |entity| {
            let (provider, connection) = (payload.crm_provider, crm.connection());
            Fields::of(provider, entity, connection, &payload.mapping).map(Target::new)
        };
        let targets = payload
            .entities()
            .into_iter()
            .map(of)
            .collect::<Result<_, _>>();
        Ok(Self {
            targets: targets.map_err(JobError::Permanent)?,
            ctx,
            workspace_id,
            payload,
            crm,
        })
    }

    async fn all(&self, at: Option<State>) -> Result<State, CrmError> {
        let begun = Instant::now();
        self.hold().await?;
        let identity = self.crm.identity().await?;
        self.same_organization(at.as_ref(), &identity).await?;
        let mut at = match at {
            Some(at) => at,
            None => self.begin(&identity).await?,
        };
        at.org_id = at.org_id.or_else(|| identity.org_id.clone());
        let before = at.clone();
        match self.steps(&mut at, &identity, begun).await {
            Ok(()) => Ok(at),
            Err(error) if at.has_got_on(&before) => Err(behind_pages(error, at.pages)),
            Err(error) => Err(error),
        }
    }

    async fn steps(
        &self,
        at: &mut State,
        identity: &Identity,
        begun: Instant,
    ) -> Result<(), CrmError> {
        while let Some(step) = at.step() {
            let is_stopped = self.ctx.cancelled().is_cancelled();
            if is_stopped || (begun.elapsed() > SLICE && at.pages > 0) {
                return Err(later(at).into());
            }
            self.hold().await?;
            let target = self.target(step.entity())?;
            match step {
                Step::PullAgain(_) => self.pull_again(target, at, identity).await?,
                Step::Pull(_) => self.pull(target, at, identity).await?,
                Step::PullDeletions(_) => self.pull_deletions(target, at, identity).await?,
                Step::MirrorDeletions(_) => self.mirror_deletions(target, at).await?,
                Step::Push(_) => self.push(target, at, identity).await?,
                Step::PushDeletions(_) => self.push_deletions(target, at).await?,
            }
            at.pages += 1;
        }
        Ok(())
    }

    /// Has the connection to itself, or goes on later: before every page, so that one that was
    /// away for long finds out that another has taken its place.
    async fn hold(&self) -> Result<(), CrmError> {
        if self.payload.dry_run {
            return Ok(());
        }
        let about = (self.workspace_id, self.crm.connection().id);
        let held = runs::hold(self.ctx.record(), about, self.ctx.job_id()).await;
        match held.map_err(record_error)? {
            Hold::Ours => Ok(()),
            Hold::Other(other) => {
                let other = other.map_or("another job".to_owned(), |id| format!("job {id}"));
                let why = format!("{other} syncs this connection: goes on when that has ended");
                Err(JobError::Snooze(TURN, why).into())
            }
        }
    }

    /// Looks whether everything is as it must be, and decides where to begin.
    async fn begin(&self, identity: &Identity) -> Result<State, CrmError> {
        let connection = self.crm.connection();
        let mut at = State::new(&self.payload, connection.id, crate::clock::now());
        at.org_id.clone_from(&identity.org_id);
        for target in &self.targets {
            let entity = target.fields.entity;
            let described = self.crm.describe(entity).await?;
            target.check(&described).map_err(CrmError::PermanentRun)?;
            let cursor = cursors::get(self.ctx.record(), self.scope(entity), "pull").await;
            let cursor = cursor.map_err(record_error)?;
            let last = cursor
                .and_then(|cursor| cursor.since)
                .filter(|_| !self.payload.full);
            let since = last.map(|last| last - self.payload.overlap());
            let since = since.or(self.payload.last_sync_at).unwrap_or_default();
            at.since.insert(entity, since);
            let deleted = self.deleted_since(entity).await?;
            at.deleted_since.insert(entity, deleted.unwrap_or(since));
        }
        let begun = self.ctx.begin_checkpoint().await?;
        begun.commit_without_gain(at.write(), at.progress()).await?;
        Ok(at)
    }

    fn target(&self, entity: Entity) -> Result<&Target, CrmError> {
        let found = self
            .targets
            .iter()
            .find(|target| target.fields.entity == entity);
        found.ok_or_else(|| {
            // The payload of a job never changes.
            CrmError::PermanentRun(format!("{} are not of this run", entity.as_str()))
        })
    }

    fn syncs(&self, entity: Entity) -> bool {
        self.targets
            .iter()
            .any(|target| target.fields.entity == entity)
    }

    fn scope(&self, entity: Entity) -> Scope {
        Scope {
            workspace_id: self.workspace_id,
            connection_id: self.crm.connection().id,
            entity: entity.as_str(),
        }
    }
}

/// An error behind pages that are done spends no retry.
///
/// In a run of a day those that a CRM has now and then would be too many. Without a page it spends
/// one, so that a run that gets nowhere comes to its end.
fn behind_pages(error: CrmError, pages: u64) -> CrmError {
    let (wait, why) = match error {
        CrmError::Retryable(wait, why) => (wait, why),
        CrmError::Ambiguous(why) | CrmError::Job(JobError::Retry(why)) => (None, why),
        CrmError::Job(JobError::RetryAfter(wait, why)) => (Some(wait), why),
        other => return other,
    };
    let pause = PAUSE.1 / u32::try_from(pages.clamp(1, 100)).unwrap_or(1);
    let wait = wait.unwrap_or_else(|| pause.max(PAUSE.0));
    JobError::Snooze(wait, format!("goes on later, behind an error: {why}")).into()
}

/// An attempt that got on spends no retry.
fn later(at: &State) -> JobError {
    let why = format!("goes on later: {}", at.message());
    match at.pages > 0 {
        true => JobError::Snooze(Duration::from_secs(1), why),
        false => JobError::Retry(why),
    }
}

/// What a link keeps of what is agreed on.
pub fn hash(agreed: &Value) -> String {
    let digest = Sha256::digest(agreed.to_string());
    hex(&digest[..16])
}

/// Columns of values by field, and what of them goes into `custom`.
pub fn columns(values: &Map<String, Value>) -> (Map<String, Value>, Map<String, Value>) {
    mapping::row(&values.clone().into_iter().collect())
}
