//! Why a call to Redis did not work, in the three kinds that callers tell apart.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::trouble::Trouble;
use crate::job::InvalidSchedule;
use crate::job::bullmq_options::InvalidOptions;

/// A failed call.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    /// Redis can't answer now: try again later. Nothing is known about what was done.
    #[error("{doing}: redis is unavailable: {reason}")]
    Unavailable {
        doing: &'static str,
        trouble: Trouble,
        reason: String,
    },
    /// Redis came back with another memory, which has not been compared with the record yet.
    /// Nothing was done.
    #[error("{doing}: redis has another memory, which is being compared with the record")]
    OtherMemory { doing: &'static str },
    /// It took too long to reach Redis, and somebody else may have done it. Nothing was done.
    #[error("{doing}: redis was reached too late")]
    TooLate { doing: &'static str },
    /// A rule says no; trying again changes nothing.
    #[error("{0}")]
    Refused(Refusal),
    /// Redis answered something that our scripts never answer: a bug, or foreign data.
    #[error("{doing}: {reason}")]
    Corrupt { doing: &'static str, reason: String },
}

/// The rules that can say no.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "redis may evict keys under memory pressure (maxmemory-policy is `{0}`) and would lose \
         jobs: run `redis-cli CONFIG SET maxmemory-policy noeviction`, or allow eviction in the \
         settings because lost jobs are rebuilt from the record"
    )]
    EvictionPolicy(String),
    #[error("redis {0} is too old: 6.2 is needed")]
    ServerTooOld(String),
    #[error("the redis url is not usable: {0}")]
    Url(String),
    #[error("job id `{0}` is empty or is the name of a key of the queue itself")]
    JobId(String),
    #[error("priority {0} is out of range: at most {max} is allowed", max = super::PRIORITY_MAX)]
    Priority(u32),
    #[error("redis denies access: {0}")]
    Access(String),
    #[error(transparent)]
    Options(#[from] InvalidOptions),
    #[error("a job of a flow that has children can not be deduplicated")]
    FlowDeduplication,
    #[error("more than {max} jobs in one flow", max = super::FLOW_NODES_MAX)]
    FlowNodes,
    #[error("more than {max} bytes in one flow", max = super::FLOW_BYTES_MAX)]
    FlowBytes,
    #[error(
        "all keys of a cluster's queues must be in one slot, which the prefix `{0}` does not say: \
         put a part of it in braces, as in `{{bull}}`; BullMQ clients need the same prefix"
    )]
    Prefix(String),
    #[error(transparent)]
    Schedule(InvalidSchedule),
    #[error("the job of the schedule's next moment exists already and is not waiting")]
    ScheduleCollision,
    #[error("the jobs of the schedule's next moments exist already")]
    ScheduleBusy,
}

impl Refusal {
    /// Stable text for logs and programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::EvictionPolicy(_) => "eviction_policy",
            Self::ServerTooOld(_) => "server_too_old",
            Self::Url(_) => "redis_url",
            Self::JobId(_) => "job_id",
            Self::Priority(_) => "priority",
            Self::Access(_) => "redis_access",
            Self::Options(_) => "options",
            Self::FlowDeduplication => "flow_deduplication",
            Self::FlowNodes => "flow_nodes",
            Self::FlowBytes => "flow_bytes",
            Self::Prefix(_) => "prefix",
            Self::Schedule(_) => "schedule",
            Self::ScheduleCollision => "schedule_collision",
            Self::ScheduleBusy => "schedule_busy",
        }
    }
}

impl BrokerError {
    /// Whether the same call may work later.
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. } | Self::OtherMemory { .. } | Self::TooLate { .. }
        )
    }

    /// What is the matter with Redis; none: nothing, this call alone did not work.
    pub fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::Unavailable { trouble, .. } => Some(*trouble),
            Self::OtherMemory { .. } => Some(Trouble::Comparing),
            Self::Refused(Refusal::Access(_)) => Some(Trouble::Misconfigured),
            Self::TooLate { .. } | Self::Refused(_) | Self::Corrupt { .. } => None,
        }
    }

    pub(super) fn away(doing: &'static str, reason: impl Into<String>) -> Self {
        Self::Unavailable {
            doing,
            trouble: Trouble::Away,
            reason: reason.into(),
        }
    }

    pub(super) fn corrupt(doing: &'static str, reason: impl Into<String>) -> Self {
        Self::Corrupt {
            doing,
            reason: reason.into(),
        }
    }

    pub(super) fn from_redis(doing: &'static str, error: &RedisError) -> Self {
        let reason = error.to_string();
        if is_access(error) {
            return Self::Refused(Refusal::Access(reason));
        }
        if error.kind() == ErrorKind::InvalidClientConfig {
            return Self::Refused(Refusal::Url(reason));
        }
        match Outcome::of(error) {
            Outcome::NotRun | Outcome::MaybeRun => Self::Unavailable {
                doing,
                trouble: Trouble::of(error),
                reason,
            },
            Outcome::Bug => Self::Corrupt { doing, reason },
        }
    }
}

/// What an error says about the command that met it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Redis refused it before it began: any command may be sent again.
    NotRun,
    /// The reply was lost: only a repeatable command may be sent again.
    MaybeRun,
    /// It will fail again.
    Bug,
}

impl Outcome {
    pub(super) fn of(error: &RedisError) -> Self {
        if error.is_connection_refusal() {
            return Self::NotRun;
        }
        match error.kind() {
            ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => Self::MaybeRun,
            ErrorKind::Server(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::Moved
                // The slot is on its way to another node. Not followed there: a script sees only
                // the keys that have arrived, and would take the others for absent.
                | ServerErrorKind::Ask
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::NoScript,
            )
            | ErrorKind::MasterNameNotFoundBySentinel => Self::NotRun,
            _ if is_full_or_busy(error) => Self::NotRun,
            _ if is_cut_short(error) => Self::MaybeRun,
            _ => Self::Bug,
        }
    }
}

/// Replies that the client library has no kind for. Redis 6.2 wraps the error of a command in a
/// script into a text, later versions keep its code; both deny a script before its first write.
fn is_full_or_busy(error: &RedisError) -> bool {
    // A blocked client is sent away with `UNBLOCKED` when its server becomes a replica.
    const CODES: [&str; 6] = [
        "OOM",
        "MISCONF",
        "BUSY",
        "NOREPLICAS",
        "READONLY",
        "UNBLOCKED",
    ];
    has_code(error, &CODES)
}

pub(super) fn has_code(error: &RedisError, codes: &[&str]) -> bool {
    let detail = error.detail().unwrap_or_default();
    codes.iter().any(|code| {
        error.code() == Some(code)
            || detail.contains(&format!("-{code} "))
            || detail.starts_with(&format!("{code} "))
    })
}

/// A script that touches a job whose key has left for another node ends there, in the middle.
/// What it wrote stays, as after a lost reply: rescue and the record repair it.
fn is_cut_short(error: &RedisError) -> bool {
    let detail = error.detail().unwrap_or_default();
    detail.contains("attempted to access a non local key")
}

/// Whether our server may be another one now, so that it must be searched.
pub(super) fn is_elsewhere(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => true,
        ErrorKind::Server(
            ServerErrorKind::Moved
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ReadOnly,
        ) => true,
        _ => has_code(error, &["READONLY", "UNBLOCKED"]),
    }
}

/// The server said that our keys are somewhere else.
pub(super) fn is_moved(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::Moved)
}

fn is_access(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::AuthenticationFailed)
        || matches!(error.code(), Some("NOAUTH" | "NOPERM" | "WRONGPASS"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What the client library makes of an error reply.
    pub(in crate::broker) fn reply(line: &str) -> RedisError {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes());
        match value.and_then(redis::Value::extract_error) {
            Err(error) => error,
            Ok(value) => panic!("{value:?} is no error"),
        }
    }

    #[test]
    fn errors_are_told_apart() {
        for (line, outcome) in [
            (
                "LOADING Redis is loading the dataset in memory",
                Outcome::NotRun,
            ),
            (
                "READONLY You can't write against a read only replica.",
                Outcome::NotRun,
            ),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                Outcome::NotRun,
            ),
            ("MISCONF Errors writing to the AOF file", Outcome::NotRun),
            ("BUSY Redis is busy running a script.", Outcome::NotRun),
            ("MOVED 9319 127.0.0.1:7001", Outcome::NotRun),
            ("ASK 9319 127.0.0.1:7001", Outcome::NotRun),
            (
                "TRYAGAIN Multiple keys request during rehashing of slot",
                Outcome::NotRun,
            ),
            ("CLUSTERDOWN The cluster is down", Outcome::NotRun),
            ("MASTERDOWN Link with MASTER is down", Outcome::NotRun),
            (
                "UNBLOCKED force unblock from blocking operation",
                Outcome::NotRun,
            ),
            (
                "ERR Script attempted to access a non local key in a cluster node script: f",
                Outcome::MaybeRun,
            ),
            ("CROSSSLOT Keys in request don't hash", Outcome::Bug),
            ("NOSCRIPT No matching script.", Outcome::NotRun),
            (
                "ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed",
                Outcome::NotRun,
            ),
            ("WRONGTYPE Operation against a key", Outcome::Bug),
            (
                "ERR user_script:1: attempt to index a nil value",
                Outcome::Bug,
            ),
        ] {
            assert_eq!(Outcome::of(&reply(line)), outcome, "{line}");
        }
        let denied = BrokerError::from_redis("add", &reply("NOAUTH Authentication required."));
        assert!(
            matches!(denied, BrokerError::Refused(Refusal::Access(_))),
            "{denied}"
        );
    }

    #[test]
    fn an_error_tells_whether_to_search_for_our_server() {
        for line in [
            "MOVED 9319 127.0.0.1:7001",
            "CLUSTERDOWN The cluster is down",
            "MASTERDOWN Link with MASTER is down",
            "READONLY You can't write against a read only replica.",
            "UNBLOCKED force unblock from blocking operation",
            "ERR Error running script (call to f_1): @user_script:1: -READONLY You can't write",
        ] {
            assert!(is_elsewhere(&reply(line)), "{line}");
        }
        assert!(is_elsewhere(
            &std::io::Error::from(std::io::ErrorKind::TimedOut).into()
        ));
        for line in [
            "LOADING x",
            "TRYAGAIN x",
            "ASK 1 a:1",
            "OOM x",
            "NOSCRIPT x",
            "ERR x",
        ] {
            assert!(!is_elsewhere(&reply(line)), "{line}");
        }
    }
}
