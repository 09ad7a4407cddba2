//! Connections as handlers use them: found, opened, and taken out of service when the provider
//! refuses their credentials.
//!
//! Promises: credentials are in memory only, and print as nothing; a job of one workspace never
//! gets the connection of another. A job that meets a paused connection waits, without spending an
//! attempt, until somebody has mended it; one that names a connection which is not there fails for
//! good, with words for whoever can make it.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::job::JobError;
use crate::job::connection::{Credentials, Provider};
use crate::record::connections::{self, Sealed, UsableRow};
use crate::sealed::{Place, Sealer};
use crate::secret::Secret;
use crate::worker::JobContext;

/// What credentials are sealed as.
pub const SEALED_AS: &str = "connection";
/// Between two looks whether a paused connection is in service again, at least; and the random
/// part.
const PAUSED_WAIT: Duration = Duration::from_secs(300);
const PAUSED_JITTER: Duration = Duration::from_secs(300);

/// Finds and opens connections. A cheap handle.
#[derive(Debug, Clone)]
pub struct Connections {
    sealer: Sealer,
}

/// A connection that was opened.
pub struct Connection {
    pub id: Uuid,
    pub provider: Provider,
    /// Without a slash at its end; none: the provider has no address of its own, and none is said.
    pub base_url: Option<String>,
    pub settings: Map<String, Value>,
    workspace_id: Uuid,
    /// Of the credentials that are used: those that it was opened with, or newer ones.
    version: AtomicI32,
    credentials: Credentials,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.id)
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

impl Connections {
    pub fn new(sealer: Sealer) -> Self {
        Self { sealer }
    }

    /// The named connection of the job's workspace, or else its oldest of the provider.
    pub async fn open(
        &self,
        ctx: &JobContext,
        provider: Provider,
        id: Option<Uuid>,
    ) -> Result<Connection, JobError> {
        let workspace_id = ctx.workspace_id().unwrap_or_default();
        let row = connections::for_use(ctx.record(), workspace_id, provider, id).await;
        let row = row.map_err(JobError::retry)?;
        let row = row.ok_or_else(|| {
            let what = match id {
                Some(id) => format!("this workspace has no connection {id}"),
                None => format!("this workspace has no connection to {provider}"),
            };
            JobError::Permanent(format!(
                "{what}: an admin makes one with `POST /api/connections`, then run the job again"
            ))
        })?;
        if row.provider != provider.as_str() {
            return Err(JobError::Permanent(format!(
                "connection {} is one to {}, and this job needs one to {provider}",
                row.id, row.provider
            )));
        }
        self.in_service(row, workspace_id, provider)
    }

    /// Whether the connection that a job would use by itself waits for an admin.
    pub async fn is_out_of_service(
        &self,
        ctx: &JobContext,
        provider: Provider,
    ) -> Result<bool, JobError> {
        let workspace_id = ctx.workspace_id().unwrap_or_default();
        let row = connections::for_use(ctx.record(), workspace_id, provider, None).await;
        let row = row.map_err(JobError::retry)?;
        Ok(row.is_some_and(|row| !row.is_active))
    }

    /// The named connection of the job's workspace that sends mails, or else its oldest that does.
    pub async fn open_mailing(
        &self,
        ctx: &JobContext,
        id: Option<Uuid>,
    ) -> Result<Connection, JobError> {
        let workspace_id = ctx.workspace_id().unwrap_or_default();
        let row = connections::for_mail(ctx.record(), workspace_id, id).await;
        let row = row.map_err(JobError::retry)?.ok_or_else(|| {
            let which = id.map(|id| format!(" {id}")).unwrap_or_default();
            JobError::Permanent(format!(
                "this workspace has no connection{which} that sends mails (smtp, sendgrid or ses): \
                 an admin makes one with `POST /api/connections`, then run the job again"
            ))
        })?;
        let provider = row.provider.parse().map_err(JobError::Permanent)?;
        self.in_service(row, workspace_id, provider)
    }

    fn in_service(
        &self,
        row: UsableRow,
        workspace_id: Uuid,
        provider: Provider,
    ) -> Result<Connection, JobError> {
        if !row.is_active {
            let why = row.paused_reason.as_deref().unwrap_or("an admin did that");
            let wait = PAUSED_WAIT + PAUSED_JITTER.mul_f64(rand::random());
            let why = format!("connection {} is out of service: {why}", row.id);
            return Err(JobError::Snooze(wait, why));
        }
        self.opened(row, workspace_id, provider)
    }

    fn opened(
        &self,
        row: UsableRow,
        workspace_id: Uuid,
        provider: Provider,
    ) -> Result<Connection, JobError> {
        let place = place(workspace_id, row.id);
        // Whoever runs the installation can help: it is tried again.
        let text = self
            .sealer
            .open(&place, &row.credentials)
            .map_err(|error| {
                tracing::error!(%error, connection.id = %row.id, "credentials do not open");
                JobError::Retry(format!(
                    "the credentials of connection {} do not open; the log of the worker says why",
                    row.id
                ))
            })?;
        let credentials = serde_json::from_str(&text).map_err(|_| {
            JobError::Permanent(format!(
                "connection {} has no credentials: renew them",
                row.id
            ))
        })?;
        let settings = match row.settings {
            Value::Object(settings) => settings,
            _ => Map::new(),
        };
        Ok(Connection {
            id: row.id,
            provider,
            base_url: row
                .base_url
                .or_else(|| provider.base_url().map(str::to_owned)),
            settings,
            workspace_id,
            version: AtomicI32::new(row.version),
            credentials,
        })
    }

    /// Stores credentials that were refreshed; the connection has their version then. False:
    /// somebody was faster, or has changed them; the next who opens the connection has theirs.
    pub async fn refresh(
        &self,
        ctx: &JobContext,
        connection: &Connection,
        credentials: &Credentials,
    ) -> Result<bool, JobError> {
        let text = Secret(serde_json::json!(credentials).to_string());
        let place = place(connection.workspace_id, connection.id);
        let sealed = Sealed {
            names: credentials.keys().cloned().collect(),
            text: self.sealer.seal(&place, &text).map_err(JobError::retry)?,
        };
        let about = (connection.id, connection.version());
        let refreshed = connections::refresh(ctx.record(), about, &sealed).await;
        let refreshed = refreshed.map_err(JobError::retry)?;
        if refreshed {
            connection.uses(connection.version() + 1);
        }
        Ok(refreshed)
    }
}

impl Connection {
    /// One of its credentials.
    pub fn credential(&self, name: &str) -> Option<Secret> {
        self.credentials.get(name).cloned().map(Secret)
    }

    /// Grows with each change of the credentials.
    pub fn version(&self) -> i32 {
        self.version.load(Ordering::Relaxed)
    }

    /// From now on the provider is called with what credentials of this version gave: if it is
    /// refused, that is about them.
    pub fn uses(&self, version: i32) {
        self.version.fetch_max(version, Ordering::Relaxed);
    }

    /// All of them, for who refreshes some.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// A setting that is a text.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).and_then(Value::as_str)
    }

    /// How long one call may take: as its settings say, or else this long.
    pub fn call_timeout(&self, usual: Duration) -> Duration {
        let seconds = self.settings.get("call_timeout_seconds");
        let seconds = seconds.and_then(Value::as_u64);
        seconds.map_or(usual, Duration::from_secs)
    }

    /// Takes it out of service: the provider refuses its credentials, and asking on and on may get
    /// the account locked. Says how the job goes on: it waits.
    pub async fn refused(&self, ctx: &JobContext, why: &str) -> JobError {
        let reason = format!("{} refuses its credentials: {why}", self.provider);
        match connections::pause(ctx.record(), (self.id, self.version()), &reason).await {
            Ok(true) => {
                tracing::warn!(connection.id = %self.id, %reason, "connection is out of service");
                let provider = self.provider.as_str();
                metrics::counter!("bullwark_connections_paused_total", "provider" => provider)
                    .increment(1);
            }
            // Others have seen it, or it was changed since: the next look tells.
            Ok(false) => {}
            Err(error) => return JobError::retry(error),
        }
        let wait = PAUSED_WAIT + PAUSED_JITTER.mul_f64(rand::random());
        JobError::Snooze(wait, format!("connection {}: {reason}", self.id))
    }
}

fn place(workspace_id: Uuid, id: Uuid) -> Place {
    Place {
        kind: SEALED_AS,
        workspace_id,
        id,
    }
}
