//! Names of queues.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest queue name, in bytes: the width of `jobs.job_queue` in the record.
pub const QUEUE_NAME_MAX: usize = 255;

/// A queue name that is safe in a Redis key.
///
/// `BullMQ` joins prefix, queue and suffix with `:`, so a name must not contain one. Control
/// characters and surrounding blanks are refused because nobody could tell such queues apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QueueName(String);

/// Why a text is no queue name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQueueName {
    #[error("queue name is empty")]
    Empty,
    #[error("queue name has {0} bytes, at most {QUEUE_NAME_MAX} are allowed")]
    TooLong(usize),
    #[error("queue name contains `{0}`, which is not allowed")]
    Character(char),
    #[error("queue name starts or ends with a blank")]
    Blank,
}

impl QueueName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for QueueName {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl FromStr for QueueName {
    type Err = InvalidQueueName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(InvalidQueueName::Empty);
        }
        if text.len() > QUEUE_NAME_MAX {
            return Err(InvalidQueueName::TooLong(text.len()));
        }
        if text.trim() != text {
            return Err(InvalidQueueName::Blank);
        }
        if let Some(bad) = text.chars().find(|c| *c == ':' || c.is_control()) {
            return Err(InvalidQueueName::Character(bad));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for QueueName {
    type Error = InvalidQueueName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<QueueName> for String {
    fn from(name: QueueName) -> Self {
        name.0
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_break_a_redis_key_are_refused() {
        for (text, why) in [
            ("", InvalidQueueName::Empty),
            ("a:b", InvalidQueueName::Character(':')),
            ("a\nb", InvalidQueueName::Character('\n')),
            (" a", InvalidQueueName::Blank),
            (&"x".repeat(256), InvalidQueueName::TooLong(256)),
        ] {
            assert_eq!(text.parse::<QueueName>(), Err(why));
        }
        assert!("high_priority".parse::<QueueName>().is_ok());
        assert!("{tag}mails".parse::<QueueName>().is_ok());
    }
}
