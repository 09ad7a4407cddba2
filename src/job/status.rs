//! The states of a job and the one function that decides every transition.
//!
//! Lua and SQL enforce what this function decides; a property test throws random event sequences
//! at all three and compares. The table in `docs/ARCHITECTURE.md` is compared with it as well.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `jobs.status` in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = JobStatus))]
pub enum Status {
    /// Accepted, not started; or given back without spending an attempt.
    Pending,
    /// An attempt runs.
    Processing,
    /// An attempt failed, the next one is due at `next_retry_at`.
    Failed,
    /// Done.
    Completed,
    /// Failed for good; waits for a person.
    DeadLetter,
    /// Stopped by a person or by its parent.
    Cancelled,
}

/// What can happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// A worker took the job and holds its lease.
    Claimed,
    /// The handler returned a value.
    Succeeded,
    /// The attempt failed and counts.
    Errored { retries_left: bool },
    /// The handler said that no retry can help, or the job takes its workers down with it.
    Discarded,
    /// The handler asked to be run later; the attempt does not count.
    Snoozed,
    /// The worker gave the job back, or lost its lease; the attempt does not count.
    Released,
    /// A person, or the parent, stopped the job.
    Cancelled,
    /// A person asked for another run of a job that is over.
    Retried,
    /// A person took back that the job was cancelled.
    Undone { had_failed: bool },
}

/// An event that the state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a {status} job can not be {event}")]
pub struct IllegalTransition {
    pub status: Status,
    pub event: Event,
}

impl Status {
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Processing,
        Self::Failed,
        Self::Completed,
        Self::DeadLetter,
        Self::Cancelled,
    ];

    /// The status after `event`, or the reason why that is not allowed.
    pub fn next(self, event: Event) -> Result<Self, IllegalTransition> {
        use Event as E;
        use Status as S;
        match (self, event) {
            (S::Pending | S::Failed, E::Claimed) => Ok(S::Processing),

            (S::Processing, E::Succeeded) => Ok(S::Completed),
            (S::Processing, E::Errored { retries_left: true }) => Ok(S::Failed),
            (
                S::Processing,
                E::Errored {
                    retries_left: false,
                }
                | E::Discarded,
            ) => Ok(S::DeadLetter),
            (S::Processing, E::Snoozed | E::Released) => Ok(S::Pending),

            (S::Pending | S::Processing | S::Failed, E::Cancelled) => Ok(S::Cancelled),
            (S::Completed | S::DeadLetter | S::Cancelled, E::Retried) => Ok(S::Pending),
            (S::Cancelled, E::Undone { had_failed: true }) => Ok(S::Failed),
            (S::Cancelled, E::Undone { had_failed: false }) => Ok(S::Pending),

            (
                S::Pending | S::Failed,
                E::Succeeded | E::Errored { .. } | E::Discarded | E::Snoozed | E::Released,
            )
            | (S::Pending | S::Processing | S::Failed, E::Retried | E::Undone { .. })
            | (S::Completed | S::DeadLetter, E::Undone { .. })
            | (S::Processing, E::Claimed)
            | (
                S::Completed | S::DeadLetter | S::Cancelled,
                E::Claimed
                | E::Succeeded
                | E::Errored { .. }
                | E::Discarded
                | E::Snoozed
                | E::Released
                | E::Cancelled,
            ) => Err(IllegalTransition {
                status: self,
                event,
            }),
        }
    }

    /// True when nothing will happen to the job any more unless a person acts.
    pub fn is_final(self) -> bool {
        match self {
            Self::Completed | Self::DeadLetter | Self::Cancelled => true,
            Self::Pending | Self::Processing | Self::Failed => false,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Failed => "failed",
            Self::Completed => "completed",
            Self::DeadLetter => "dead_letter",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no status; one of pending, processing, failed, completed, dead_letter, cancelled"
)]
pub struct UnknownStatus(pub String);

impl FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Claimed => "claimed",
            Self::Succeeded => "completed",
            Self::Errored { .. } => "failed",
            Self::Discarded => "discarded",
            Self::Snoozed => "snoozed",
            Self::Released => "released",
            Self::Cancelled => "cancelled",
            Self::Retried => "retried",
            Self::Undone { .. } => "undone",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [(&str, Event); 11] = [
        ("claimed", Event::Claimed),
        ("completed", Event::Succeeded),
        (
            "failed, retries left",
            Event::Errored { retries_left: true },
        ),
        (
            "failed, none left",
            Event::Errored {
                retries_left: false,
            },
        ),
        ("discarded", Event::Discarded),
        ("snoozed", Event::Snoozed),
        ("released", Event::Released),
        ("cancelled", Event::Cancelled),
        ("retried", Event::Retried),
        (
            "undone, an attempt had failed",
            Event::Undone { had_failed: true },
        ),
        ("undone", Event::Undone { had_failed: false }),
    ];

    #[test]
    fn the_table_of_the_documentation_is_the_function() {
        let text = include_str!("../../docs/ARCHITECTURE.md");
        let table = text.split("| status | event | becomes |").nth(1).unwrap();
        let mut documented: Vec<String> = table
            .lines()
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .map(str::to_owned)
            .collect();
        let mut decided = Vec::new();
        for status in Status::ALL {
            for (name, event) in EVENTS {
                if let Ok(next) = status.next(event) {
                    decided.push(format!("| {status} | {name} | {next} |"));
                }
            }
        }
        documented.sort();
        decided.sort();
        assert_eq!(documented, decided);
    }

    #[test]
    fn only_a_retry_or_an_undo_leads_out_of_a_final_status() {
        for status in Status::ALL {
            for (_, event) in EVENTS {
                if status.is_final() {
                    let leads = match event {
                        Event::Retried => true,
                        Event::Undone { .. } => status == Status::Cancelled,
                        _ => false,
                    };
                    assert_eq!(status.next(event).is_ok(), leads);
                }
            }
        }
    }

    #[test]
    fn the_text_of_a_status_reads_back() {
        for status in Status::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        assert!("waiting".parse::<Status>().is_err());
    }
}
