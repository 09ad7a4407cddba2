//! What is remembered of jobs that were looked at: of those that were told how they stood, and of
//! those that nobody listens to that they need no look.

use std::collections::HashMap;
use std::time::Instant;

use uuid::Uuid;

use super::life::Stood;

/// Jobs that are remembered for sure: those looked at last. Twice as many at most.
const JOBS: usize = 10_000;

/// What is remembered of a job.
#[derive(Debug)]
pub(super) enum Knowledge {
    Told {
        stood: Stood,
        progress_at: Option<Instant>,
    },
    /// It is of this workspace, to which nobody listened.
    Elsewhere(Option<Uuid>),
}

impl Knowledge {
    pub(super) fn stood(&self) -> Option<&Stood> {
        match self {
            Self::Told { stood, .. } => Some(stood),
            Self::Elsewhere(_) => None,
        }
    }

    /// When progress of it was told last.
    pub(super) fn progress_at(&self) -> Option<Instant> {
        match self {
            Self::Told { progress_at, .. } => *progress_at,
            Self::Elsewhere(_) => None,
        }
    }
}

/// Two generations: when the younger one is full, the older one is forgotten.
#[derive(Debug, Default)]
pub(super) struct Known {
    young: HashMap<Uuid, Knowledge>,
    old: HashMap<Uuid, Knowledge>,
}

impl Known {
    pub(super) fn of(&self, id: Uuid) -> Option<&Knowledge> {
        self.young.get(&id).or_else(|| self.old.get(&id))
    }

    pub(super) fn note(&mut self, id: Uuid, stood: Stood, progress_at: Option<Instant>) {
        self.insert(id, Knowledge::Told { stood, progress_at });
    }

    pub(super) fn note_elsewhere(&mut self, id: Uuid, workspace_id: Option<Uuid>) {
        self.insert(id, Knowledge::Elsewhere(workspace_id));
    }

    fn insert(&mut self, id: Uuid, knowledge: Knowledge) {
        if self.young.len() >= JOBS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, knowledge);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_looked_at_last_is_remembered() {
        let mut known = Known::default();
        let id = |n: usize| Uuid::from_u128(n as u128);
        for n in 0..3 * JOBS {
            known.note_elsewhere(id(n), None);
        }
        assert!(known.of(id(3 * JOBS - 1)).is_some() && known.of(id(2 * JOBS)).is_some());
        assert!(known.of(id(0)).is_none());
        assert!(known.young.len() + known.old.len() <= 2 * JOBS);
    }
}
