//! Providers that are left alone for the rest of an attempt.
//!
//! A page has up to a hundred records. If one learns that the provider may not be asked now, the
//! others need not learn it anew: each would take a place in the line of the quota. They use what
//! is kept, and wait for the rest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::super::providers::DataSource;
use crate::job::JobError;

/// Who rests, and what is told to whoever would ask. A cheap handle.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Resting(Arc<Mutex<BTreeMap<DataSource, JobError>>>);

impl Resting {
    pub(super) fn of(&self, source: DataSource) -> Option<JobError> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&source).cloned()
    }

    /// Nobody of this attempt asks it any more.
    pub(in super::super) fn rest(&self, source: DataSource, error: JobError) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(source, error);
    }

    /// The next records may ask those again that have failed, and not said for how long.
    pub(in super::super) fn wake_failed(&self) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, error| !matches!(error, JobError::Retry(_)));
    }
}
