//! What may be the matter with Redis, in the words that people and programs are told.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::error::has_code;

/// Why Redis can not be worked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It does not answer, or is not to be found.
    Away,
    /// Its memory is used up: it takes nothing that would need more.
    Full,
    /// It is a replica, or has too few replicas of its own: it takes no writes.
    ReadOnly,
    /// It runs a script that does not end, or still loads its data.
    Busy,
    /// It can not save to its disk and takes no writes therefore, or it denies access.
    Misconfigured,
    /// It has another memory, which is being compared with the record.
    Comparing,
}

impl Trouble {
    pub const ALL: [Self; 6] = [
        Self::Away,
        Self::Full,
        Self::ReadOnly,
        Self::Busy,
        Self::Misconfigured,
        Self::Comparing,
    ];

    /// Stable text for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Full => "full",
            Self::ReadOnly => "read_only",
            Self::Busy => "busy",
            Self::Misconfigured => "misconfigured",
            Self::Comparing => "comparing",
        }
    }

    pub(super) fn of(error: &RedisError) -> Self {
        let kind = error.kind();
        let is = |wanted: ServerErrorKind| kind == ErrorKind::Server(wanted);
        if has_code(error, &["OOM"]) {
            Self::Full
        } else if is(ServerErrorKind::ReadOnly)
            || has_code(error, &["READONLY", "UNBLOCKED", "NOREPLICAS"])
        {
            Self::ReadOnly
        } else if is(ServerErrorKind::BusyLoading) || has_code(error, &["BUSY", "LOADING"]) {
            Self::Busy
        } else if has_code(error, &["MISCONF"]) {
            Self::Misconfigured
        } else {
            Self::Away
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::BrokerError;
    use super::super::error::tests::reply;
    use super::*;

    #[test]
    fn an_error_tells_what_is_the_matter() {
        for (line, trouble) in [
            ("LOADING Redis is loading the dataset", "busy"),
            ("BUSY Redis is busy running a script.", "busy"),
            ("READONLY You can't write against a read only", "read_only"),
            ("NOREPLICAS Not enough good replicas", "read_only"),
            ("OOM command not allowed", "full"),
            (
                "ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed",
                "full",
            ),
            ("MISCONF Errors writing to the AOF file", "misconfigured"),
            ("NOPERM this user has no permissions", "misconfigured"),
            ("CLUSTERDOWN The cluster is down", "away"),
        ] {
            let error = BrokerError::from_redis("probe", &reply(line));
            assert_eq!(
                error.trouble().map(Trouble::as_str),
                Some(trouble),
                "{line}"
            );
        }
        let refused = BrokerError::from_redis("probe", &reply("WRONGTYPE Operation against a key"));
        assert_eq!(refused.trouble(), None);
    }
}
