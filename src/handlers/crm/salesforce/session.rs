//! Log-ins: OAuth 2.0 with a signed assertion (JWT bearer, RS256), or with a refresh token.
//!
//! Promises: one session per connection and process; when it ends, one who waits renews it and the
//! others use what that one got. Sessions are in memory only.
//!
//! A refresh token may end with its use, and the answer then has the next one. So each log-in uses
//! what the record has at that moment, and one that is refused looks there again: another process
//! may have been faster. The next token is kept until it is in the record, and nothing is asked
//! with its session before. Whoever dies between the answer and the record takes it along, and so
//! does an answer that is lost: then people have to authorize again, as after any token that ended.
//!
//! No answer says how long a session lasts: that is a setting of the organization, so it is used
//! until it is refused.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::super::client::{CrmError, Identity};
use super::Salesforce;
use super::calls::Effect;
use super::log_in::{Granted, identity, refused, token_call};
use crate::handlers::connection::Connection;
use crate::job::connection::Credentials;
use crate::secret::Secret;

/// A session is not used for longer, though it may last.
const SESSION_KEPT: Duration = Duration::from_secs(3600);
const SESSIONS_MAX: usize = 1000;

type Place = Arc<tokio::sync::Mutex<Known>>;

/// By connection. Who logs in holds its place, so that one asks and the others wait.
static SESSIONS: LazyLock<Mutex<HashMap<Uuid, Place>>> = LazyLock::new(Mutex::default);

/// What this process has of a connection.
#[derive(Debug, Default)]
struct Known {
    session: Option<Session>,
    /// Not in the record yet.
    renewed: Option<Renewed>,
}

/// Credentials that take the place of those that a log-in was made with.
struct Renewed {
    used: Connection,
    credentials: Credentials,
}

impl std::fmt::Debug for Renewed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewed").finish_non_exhaustive()
    }
}

/// What a log-in gave.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) token: Secret,
    /// Where the organization is, without a slash at its end.
    pub(super) instance_url: String,
    pub(super) identity: Identity,
    /// Of the credentials: those that took the place of the used ones, if there are such.
    version: i32,
    since: Instant,
}

fn place(connection_id: Uuid) -> Place {
    let mut all = SESSIONS.lock().unwrap_or_else(PoisonError::into_inner);
    if all.len() >= SESSIONS_MAX {
        let has_renewed = |place: &Place| place.try_lock().is_ok_and(|all| all.renewed.is_some());
        all.retain(|_, place| Arc::strong_count(place) > 1 || has_renewed(place));
    }
    Arc::clone(all.entry(connection_id).or_default())
}

impl Salesforce {
    /// The session of the connection; made, if there is none.
    pub(super) async fn session(&self) -> Result<Session, CrmError> {
        let place = place(self.connection.id);
        let mut known = place.lock().await;
        self.store(&mut known).await?;
        let is_good = |session: &&Session| {
            session.version >= self.connection.version() && session.since.elapsed() < SESSION_KEPT
        };
        if known.session.as_ref().filter(is_good).is_none() {
            *known = self.log_in().await?;
            self.store(&mut known).await?;
        }
        let session = known.session.clone();
        let session = session.ok_or_else(|| self.unusable("it has no session"))?;
        self.connection.uses(session.version);
        self.is_of_one_organization(&session)?;
        Ok(session)
    }

    /// It was refused: nobody uses it again. One that somebody else has got since stays.
    pub(super) async fn forget(&self, refused: &Session) {
        let place = place(self.connection.id);
        let mut known = place.lock().await;
        known
            .session
            .take_if(|session| session.token == refused.token);
    }

    /// With what the record has now.
    async fn log_in(&self) -> Result<Known, CrmError> {
        let used = self.current().await?;
        let (used, error) = match self.asked_with(used).await? {
            Ok(known) => return Ok(known),
            Err(refused) => refused,
        };
        let newer = self.current().await?;
        if newer.version() == used.version() {
            return Err(error);
        }
        self.asked_with(newer).await?.map_err(|(_, error)| error)
    }

    /// Credentials of this moment. Who is refused from now on is refused because of them.
    async fn current(&self) -> Result<Connection, CrmError> {
        let (connections, id) = (&self.outside.connections, self.connection.id);
        let opened = connections.open(&self.ctx, self.connection.provider, Some(id));
        let opened = opened.await?;
        self.connection.uses(opened.version());
        Ok(opened)
    }

    /// One log-in. Within: these credentials are refused.
    async fn asked_with(
        &self,
        used: Connection,
    ) -> Result<Result<Known, (Connection, CrmError)>, CrmError> {
        let call = token_call(&used).map_err(|why| self.unusable(&why))?;
        let since = Instant::now();
        let answer = self.send(&call, Effect::Reads).await?;
        if answer.status != 200 {
            let error = refused(&answer);
            return match error {
                CrmError::Auth(_) => Ok(Err((used, error))),
                error => Err(error),
            };
        }
        let granted = serde_json::from_slice::<Granted>(&answer.bytes).map_err(|_| {
            let why = "its log-in answered with something that is no token";
            CrmError::Retryable(None, why.to_owned())
        })?;
        let session = Session {
            token: Secret(granted.access_token),
            instance_url: granted.instance_url.trim_end_matches('/').to_owned(),
            identity: identity(&granted.id),
            version: used.version(),
            since,
        };
        let before = used.credential("refresh_token");
        let renewed = granted.refresh_token.filter(|token| {
            let before = before.as_ref();
            before.is_some_and(|before| before.as_str() != token)
        });
        let renewed = renewed.map(|token| {
            let mut credentials = used.credentials().clone();
            credentials.insert("refresh_token".to_owned(), token);
            Renewed { used, credentials }
        });
        Ok(Ok(Known {
            session: Some(session),
            renewed,
        }))
    }

    /// Writes renewed credentials into the record, if there are such.
    async fn store(&self, known: &mut Known) -> Result<(), CrmError> {
        let Some(renewed) = &known.renewed else {
            return Ok(());
        };
        let (connections, used) = (&self.outside.connections, &renewed.used);
        let before = used.version();
        let stored = connections.refresh(&self.ctx, used, &renewed.credentials);
        if stored.await? {
            let of_used = known.session.as_mut();
            if let Some(session) = of_used.filter(|session| session.version == before) {
                session.version = used.version();
            }
        }
        // Else somebody has changed them meanwhile: then theirs count.
        known.renewed = None;
        Ok(())
    }

    /// Credentials may be changed while a run is under way, and its links are of one organization.
    fn is_of_one_organization(&self, session: &Session) -> Result<(), CrmError> {
        let Some(now) = &session.identity.org_id else {
            return Ok(());
        };
        match self.org_id.get_or_init(|| now.clone()) {
            first if first == now => Ok(()),
            first => Err(self.unusable(&format!(
                "it led to the organization {first} when the run began, and leads to {now} now"
            ))),
        }
    }
}
