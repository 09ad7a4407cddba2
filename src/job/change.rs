//! What people do to jobs, and to which jobs it can be done.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Event, Status};

/// Something that a person does to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub enum Change {
    /// It does not run any more.
    Cancel,
    /// Another run with fresh attempts.
    Retry,
    /// It goes, with all that it holds.
    Delete,
    /// It does not wait for its time any more.
    Promote,
}

/// Why a change can not be made to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub enum Unfit {
    /// Nothing will happen to it any more.
    IsOver,
    /// An attempt runs.
    IsRunning,
    /// It waits for its first start anyway.
    Waits,
    /// An attempt failed, and the next one comes by itself.
    HasNextAttempt,
    /// It waits for no time: it may start already.
    IsDue,
}

impl Change {
    pub const ALL: [Self; 4] = [Self::Cancel, Self::Retry, Self::Delete, Self::Promote];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Retry => "retry",
            Self::Delete => "delete",
            Self::Promote => "promote",
        }
    }

    /// Why it can not be made to a job of this status, if so. `is_delayed`: the job waits for a
    /// time that has not come.
    pub fn misfit(self, status: Status, is_delayed: bool) -> Option<Unfit> {
        let allows = |event| status.next(event).is_ok();
        match (self, status) {
            (Self::Cancel, _) => (!allows(Event::Cancelled)).then_some(Unfit::IsOver),
            (Self::Retry, _) if allows(Event::Retried) => None,
            (Self::Retry, Status::Failed) => Some(Unfit::HasNextAttempt),
            (Self::Retry, Status::Pending) => Some(Unfit::Waits),
            (Self::Retry | Self::Delete | Self::Promote, Status::Processing) => {
                Some(Unfit::IsRunning)
            }
            (Self::Delete, _) => None,
            (Self::Promote, Status::Pending | Status::Failed) => {
                (!is_delayed).then_some(Unfit::IsDue)
            }
            (Self::Retry | Self::Promote, _) => Some(Unfit::IsOver),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Change {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut all = Self::ALL.into_iter();
        all.find(|change| change.as_str() == text).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_fits_the_statuses_that_it_is_for() {
        use Status as S;
        let fits = |change: Change, is_delayed| -> Vec<Status> {
            let all = S::ALL.into_iter();
            all.filter(|status| change.misfit(*status, is_delayed).is_none())
                .collect()
        };
        let open = [S::Pending, S::Processing, S::Failed];
        let over = [S::Completed, S::DeadLetter, S::Cancelled];
        let still = [
            S::Pending,
            S::Failed,
            S::Completed,
            S::DeadLetter,
            S::Cancelled,
        ];
        for is_delayed in [true, false] {
            assert_eq!(fits(Change::Cancel, is_delayed), open);
            assert_eq!(fits(Change::Retry, is_delayed), over);
            assert_eq!(fits(Change::Delete, is_delayed), still);
        }
        assert_eq!(fits(Change::Promote, true), [S::Pending, S::Failed]);
        assert_eq!(fits(Change::Promote, false), []);
    }

    #[test]
    fn what_does_not_fit_is_told_why() {
        for (change, status, why) in [
            (Change::Cancel, Status::Completed, Unfit::IsOver),
            (Change::Retry, Status::Pending, Unfit::Waits),
            (Change::Retry, Status::Processing, Unfit::IsRunning),
            (Change::Retry, Status::Failed, Unfit::HasNextAttempt),
            (Change::Delete, Status::Processing, Unfit::IsRunning),
            (Change::Promote, Status::Processing, Unfit::IsRunning),
            (Change::Promote, Status::Pending, Unfit::IsDue),
            (Change::Promote, Status::Cancelled, Unfit::IsOver),
        ] {
            assert_eq!(change.misfit(status, false), Some(why), "{change} {status}");
        }
    }

    #[test]
    fn the_text_of_a_change_reads_back() {
        for change in Change::ALL {
            assert_eq!(change.as_str().parse(), Ok(change));
        }
        assert_eq!("undo".parse::<Change>(), Err(()));
    }
}
