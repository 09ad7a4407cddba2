//! A call that wants to be made, and the answer that it has to wait.

use std::fmt;
use std::time::Duration;

use crate::broker::{BrokerError, QuotaTicket};
use crate::job::quota::{InvalidLimits, Limits, QuotaKey};
use crate::job::{JobError, QueueName};
use crate::record::RecordError;

/// After this time a call counts as over, unless it asks for another.
pub const LEASE: Duration = Duration::from_secs(60);
/// The longest that a call may hold its place.
pub const LEASE_MAX: Duration = Duration::from_secs(900);

/// Who may use what is kept in reserve. A job says it by its priority, see [`Ask::urgency`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Urgency {
    #[default]
    Batch,
    /// Somebody waits for it.
    Interactive,
}

/// One call to a service.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    pub(super) key: &'a QuotaKey,
    pub(super) limits: &'a Limits,
    pub(super) cost: u32,
    pub(super) urgency: Option<Urgency>,
    pub(super) host: Option<&'a str>,
    pub(super) ticket: Option<QuotaTicket<'a>>,
    pub(super) lease: Duration,
}

impl<'a> Ask<'a> {
    /// A call of cost 1. `limits` are what the service is known for; what an administrator set for
    /// the key, or for the service in its workspace, goes before.
    pub fn new(key: &'a QuotaKey, limits: &'a Limits) -> Self {
        Self {
            key,
            limits,
            cost: 1,
            urgency: None,
            host: None,
            ticket: None,
            lease: LEASE,
        }
    }

    /// So many units: records of a batch, recipients, credits.
    pub fn cost(mut self, units: u32) -> Self {
        self.cost = units;
        self
    }

    /// Without it, a call of a job of priority 8 to 10 is interactive, and others are of a batch.
    pub fn urgency(mut self, urgency: Urgency) -> Self {
        self.urgency = Some(urgency);
        self
    }

    /// Where nothing else was said.
    pub(crate) fn usual_urgency(mut self, urgency: Urgency) -> Self {
        self.urgency.get_or_insert(urgency);
        self
    }

    /// The host that is called: while it fails, nobody calls it. Only for hosts that all workspaces
    /// call in the same way; never for an address that a user gave.
    pub fn host(mut self, host: &'a str) -> Self {
        self.host = Some(host);
        self
    }

    /// The job that calls, by its id on the wire: when it comes back at the moment that it was
    /// told, it finds its turn kept.
    pub fn job(mut self, job_id: &'a str, queue: &'a QueueName) -> Self {
        self.ticket = Some(QuotaTicket { queue, job_id });
        self
    }

    /// How long the call may take at most, with all that it does before it says how it ended.
    pub fn lease(mut self, time: Duration) -> Self {
        self.lease = time.clamp(Duration::from_secs(1), LEASE_MAX);
        self
    }
}

/// What stands against a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A window is used up.
    Window,
    /// The service asked not to be called for a while.
    Closed,
    /// The service said that nothing is left.
    Told,
    /// As many calls are under way as may be.
    Concurrency,
    /// The host fails.
    Breaker,
    /// Redis or the record is away: nobody knows what is left.
    Unknown,
}

impl Why {
    /// For metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Window => "window",
            Self::Closed => "closed",
            Self::Told => "told",
            Self::Concurrency => "concurrency",
            Self::Breaker => "breaker",
            Self::Unknown => "unknown",
        }
    }

    pub(super) fn of(text: &str) -> Self {
        match text {
            "window" => Self::Window,
            "closed" => Self::Closed,
            "told" => Self::Told,
            "concurrency" => Self::Concurrency,
            "breaker" => Self::Breaker,
            _ => Self::Unknown,
        }
    }
}

/// Not now: when to come back, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    pub time: Duration,
    pub why: Why,
    pub service: String,
    /// The window, or what failed.
    pub detail: String,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (service, detail) = (&self.service, &self.detail);
        match self.why {
            Why::Window => write!(f, "the quota of {service} is used up ({detail})"),
            Why::Closed => write!(f, "{service} asked not to be called for a while"),
            Why::Told => write!(f, "{service} said that its quota is used up ({detail})"),
            Why::Concurrency => write!(f, "as many calls to {service} are under way as may be"),
            Why::Breaker => write!(f, "{service} fails, and is not called for a while"),
            Why::Unknown => write!(f, "the quota of {service} is not known now: {detail}"),
        }?;
        write!(f, "; again in {:.1} s", self.time.as_secs_f64())
    }
}

impl From<Wait> for JobError {
    /// The job comes back then. It spends no attempt and holds no slot.
    fn from(wait: Wait) -> Self {
        Self::Snooze(wait.time, wait.to_string())
    }
}

/// A call that can never be made so.
#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    #[error(
        "a call of {cost} units to {service} fits into no `{window}` of {max}: split it, or set \
         another limit"
    )]
    TooExpensive {
        service: String,
        cost: u32,
        window: String,
        max: u32,
    },
    #[error("the limits of {service} can not be kept: {why}")]
    Limits { service: String, why: InvalidLimits },
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl From<QuotaError> for JobError {
    fn from(error: QuotaError) -> Self {
        match error {
            QuotaError::TooExpensive { .. } | QuotaError::Limits { .. } => Self::permanent(error),
            QuotaError::Broker(_) | QuotaError::Record(_) => Self::retry(error),
        }
    }
}
