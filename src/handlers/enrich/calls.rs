//! One call to a provider: with a permit, and with all that is learned from how it ended.

use std::time::Duration;

use serde_json::json;

use super::super::connection::Connection;
use super::super::providers::{CALL_TIMEOUT, DataSource};
use crate::clock;
use crate::job::JobError;
use crate::outbound::{Answer, Call, CallFailure, Caller};
use crate::quota::{Ask, QuotaKey, learn};
use crate::record::logs::LogLevel;
use crate::worker::JobContext;

/// Until somebody asks again whether there are credits. Nobody else does meanwhile.
const CREDITS_WAIT: Duration = Duration::from_secs(900);

/// Makes calls. A cheap handle.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    caller: Caller,
    /// How long one may take.
    patience: Duration,
}

impl Calls {
    /// Whatever is wished for, no call is longer than all that is sized by it: claims, leases.
    pub(super) fn new(caller: Caller, patience: Duration) -> Self {
        Self {
            caller,
            patience: patience.min(CALL_TIMEOUT),
        }
    }

    /// Sends it when it may be sent; until then the job waits. `is_poor` tells whether an answer
    /// says that the credits are used up.
    pub(super) async fn send(
        &self,
        ctx: &JobContext,
        (source, connection): (DataSource, &Connection),
        (call, records): (&Call, u32),
        is_poor: impl Fn(&Answer) -> bool,
    ) -> Result<Answer, JobError> {
        if ctx.cancelled().is_cancelled() {
            return Err(JobError::Retry("told to stop".to_owned()));
        }
        let key = key(ctx, source)?;
        let (limits, host) = (source.limits(), host(source, connection));
        let ask = Ask::new(&key, &limits).lease(CALL_TIMEOUT * 2).host(&host);
        let ask = ask.cost(records);
        let permit = ctx.permit(ask).await?;
        let call = Call {
            timeout: self.patience,
            ..call.clone()
        };
        let answer = match self.caller.call(&call).await {
            Ok(answer) => answer,
            Err(CallFailure::Forbidden(why)) => {
                permit.ended().await;
                return Err(unusable(connection, &format!("its `baseUrl` {why}")));
            }
            Err(unavailable) => {
                permit.failed().await;
                let name = source.as_str();
                return Err(JobError::Retry(format!("{name}: {unavailable}")));
            }
        };
        let ms = answer.took.as_millis() as u64;
        let metadata = json!({ "provider": source.as_str(), "status": answer.status, "ms": ms,
            "records": records });
        ctx.log(LogLevel::Info, "the provider answered", Some(metadata));
        let headers = answer.headers.iter();
        let headers =
            headers.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let mut learned = learn(answer.status, headers, clock::now());
        let is_poor = is_poor(&answer);
        if is_poor {
            // One job in a while looks, not each of thousands.
            learned.is_limited = true;
            learned.closed_for = Some(CREDITS_WAIT);
        }
        match permit.answered(&learned).await {
            Some(wait) if is_poor => {
                let why = format!("the credits of {} are used up", source.as_str());
                Err(JobError::Snooze(wait.time, why))
            }
            Some(wait) => Err(wait.into()),
            None => Ok(answer),
        }
    }
}

/// The count that all calls of the workspace to the provider share.
pub(super) fn key(ctx: &JobContext, source: DataSource) -> Result<QuotaKey, JobError> {
    let workspace_id = ctx.workspace_id().unwrap_or_default();
    QuotaKey::new(source.as_str(), workspace_id).map_err(JobError::permanent)
}

/// Whose breaker it is: of the provider where everybody calls it, else of the connection, so that
/// what fails at an address of a user is left alone for that user only.
fn host(source: DataSource, connection: &Connection) -> String {
    let public = source.provider().base_url();
    match public.filter(|public| connection.base_url.as_deref() == Some(*public)) {
        Some(public) => public.trim_start_matches("https://").to_owned(),
        None => format!("connection.{}", connection.id),
    }
}

pub(super) fn told(source: DataSource, answer: &Answer) -> String {
    format!("{}: {}", source.as_str(), answer.told())
}

pub(super) fn unusable(connection: &Connection, why: &str) -> JobError {
    JobError::Permanent(format!(
        "connection {} can not be used: {why}",
        connection.id
    ))
}
