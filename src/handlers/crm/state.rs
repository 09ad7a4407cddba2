//! How far a sync is, and what it comes to.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::client::{Cursor, Entity};
use super::payload::{Direction, Payload};
use super::sending::Sending;
use crate::job::Progress;

/// Raised when a checkpoint of an older program could be misread.
const VERSION: u32 = 1;

/// One part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    /// Records there that were not taken before.
    PullAgain(Entity),
    Pull(Entity),
    /// What was deleted there.
    PullDeletions(Entity),
    /// The same is deleted here.
    MirrorDeletions(Entity),
    Push(Entity),
    /// What was deleted here.
    PushDeletions(Entity),
}

impl Step {
    pub(super) fn entity(self) -> Entity {
        match self {
            Self::PullAgain(entity)
            | Self::Pull(entity)
            | Self::PullDeletions(entity)
            | Self::MirrorDeletions(entity)
            | Self::Push(entity)
            | Self::PushDeletions(entity) => entity,
        }
    }

    /// All of a run: parents before children, but children are deleted before their parents.
    fn all(direction: Direction, entities: &[Entity], mirrors: bool) -> Vec<Self> {
        let mut steps = Vec::new();
        if direction.pulls() {
            for entity in entities {
                steps.extend([Self::PullAgain(*entity), Self::Pull(*entity)]);
            }
        }
        // Also a push must know what is gone, or it would send to it for ever.
        let children_first = || entities.iter().rev();
        steps.extend(children_first().map(|entity| Self::PullDeletions(*entity)));
        if mirrors && direction.pulls() {
            steps.extend(children_first().map(|entity| Self::MirrorDeletions(*entity)));
        }
        if direction.pushes() {
            steps.extend(entities.iter().map(|entity| Self::Push(*entity)));
            if mirrors {
                steps.extend(children_first().map(|entity| Self::PushDeletions(*entity)));
            }
        }
        steps
    }
}

/// What became of the records of an entity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Records there that were looked at.
    pub read: u64,
    /// Records here that were looked at.
    pub scanned: u64,
    pub created_here: u64,
    pub updated_here: u64,
    pub deleted_here: u64,
    pub created_there: u64,
    pub updated_there: u64,
    pub deleted_there: u64,
    /// Records that were there on both sides and were linked.
    pub matched: u64,
    /// Our own writes that came back.
    pub echoes: u64,
    /// Fields that both had changed and that the strategy decided.
    pub decided: u64,
    /// Records with fields that wait for a person.
    pub conflicts: u64,
    /// Records whose other half was deleted.
    pub skipped: u64,
    /// Records that were not taken: `GET /api/crm/errors`.
    pub errors: u64,
}

impl Counts {
    fn done(&self) -> u64 {
        self.read + self.scanned
    }
}

/// The checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    pub(super) begun: DateTime<Utc>,
    pub(super) connection_id: Uuid,
    /// Where the connection led when it began; not known in checkpoints of older programs.
    #[serde(default)]
    pub(super) org_id: Option<String>,
    steps: Vec<Step>,
    at: usize,
    /// Where the pull of an entity begins.
    pub(super) since: BTreeMap<Entity, DateTime<Utc>>,
    /// Where the reading of its deletions begins; not known in checkpoints of older programs.
    #[serde(default)]
    pub(super) deleted_since: BTreeMap<Entity, DateTime<Utc>>,
    /// The provider's page of deletions to go on with, and the latest of those before it.
    #[serde(default)]
    pub(super) deletions_after: Option<String>,
    #[serde(default)]
    pub(super) deleted_last: Option<DateTime<Utc>>,
    /// In the middle of a step.
    pub(super) cursor: Option<Cursor>,
    pub(super) after: Uuid,
    pub(super) after_error: String,
    /// What was about to be sent from here.
    #[serde(default)]
    pub(super) sending: Option<Sending>,
    pub(super) counts: BTreeMap<Entity, Counts>,
    /// Pages of this attempt.
    #[serde(skip)]
    pub(super) pages: u64,
}

impl State {
    pub(super) fn new(payload: &Payload, connection_id: Uuid, begun: DateTime<Utc>) -> Self {
        let mirrors = payload.deletions == super::payload::Deletions::Mirror;
        Self {
            version: VERSION,
            begun,
            connection_id,
            org_id: None,
            steps: Step::all(payload.sync_direction, &payload.entities(), mirrors),
            at: 0,
            since: BTreeMap::new(),
            deleted_since: BTreeMap::new(),
            deletions_after: None,
            deleted_last: None,
            cursor: None,
            after: Uuid::nil(),
            after_error: String::new(),
            sending: None,
            counts: BTreeMap::new(),
            pages: 0,
        }
    }

    pub(super) fn read(checkpoint: &serde_json::Value) -> Option<Self> {
        let state = Self::deserialize(checkpoint).ok()?;
        (state.version == VERSION).then_some(state)
    }

    pub(super) fn write(&self) -> serde_json::Value {
        serde_json::json!(self)
    }

    pub(super) fn step(&self) -> Option<Step> {
        self.steps.get(self.at).copied()
    }

    /// The step is done.
    pub(super) fn go_on(&mut self) {
        self.at += 1;
        self.cursor = None;
        self.after = Uuid::nil();
        self.after_error.clear();
        self.deletions_after = None;
        self.deleted_last = None;
        self.sending = None;
    }

    /// Whether records were worked off since. A run has only so many: one that gets on each time
    /// comes to its end. Steps without any do not count.
    pub(super) fn has_got_on(&self, since: &Self) -> bool {
        let of = |at: &Self| {
            let done = at.sum(|counts| {
                counts.read + counts.scanned + counts.deleted_here + counts.deleted_there
            });
            (done, at.cursor.clone(), at.deletions_after.clone())
        };
        of(self) != of(since)
    }

    pub(super) fn count(&mut self, entity: Entity) -> &mut Counts {
        self.counts.entry(entity).or_default()
    }

    fn sum(&self, of: impl Fn(&Counts) -> u64) -> u64 {
        self.counts.values().map(of).sum()
    }

    pub(super) fn message(&self) -> String {
        format!(
            "{} written here, {} there, {} conflicts, {} errors",
            self.sum(|counts| counts.created_here + counts.updated_here),
            self.sum(|counts| counts.created_there + counts.updated_there),
            self.sum(|counts| counts.conflicts),
            self.sum(|counts| counts.errors),
        )
    }

    /// How many records there are is not known before; how many steps are.
    pub(super) fn progress(&self) -> Progress {
        let failed = self.sum(|counts| counts.errors);
        let (all, done) = (self.steps.len() as u64, self.at as u64);
        Progress::new(all, done, failed, self.message())
    }

    pub(super) fn summary(self, payload: &Payload) -> Summary {
        let errors = self.sum(|counts| counts.errors);
        Summary {
            status: match errors {
                0 => "completed",
                _ => "completed_with_errors",
            },
            dry_run: payload.dry_run,
            connection_id: self.connection_id,
            sync_direction: payload.sync_direction,
            last_sync_at: self.begun,
            total: self.sum(Counts::done),
            errors,
            conflicts: self.sum(|counts| counts.conflicts),
            entities: self.counts,
        }
    }
}

/// The result of the job.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// `completed`, or `completed_with_errors`.
    status: &'static str,
    /// Nothing was written on either side: the counts are what would be.
    dry_run: bool,
    connection_id: Uuid,
    sync_direction: Direction,
    /// When the run began.
    last_sync_at: DateTime<Utc>,
    total: u64,
    errors: u64,
    conflicts: u64,
    entities: BTreeMap<Entity, Counts>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_go_before_children_and_are_deleted_after_them() {
        use Entity::{Accounts, Contacts};
        let steps = Step::all(Direction::Bidirectional, &[Accounts, Contacts], true);
        let expected = [
            Step::PullAgain(Accounts),
            Step::Pull(Accounts),
            Step::PullAgain(Contacts),
            Step::Pull(Contacts),
            Step::PullDeletions(Contacts),
            Step::PullDeletions(Accounts),
            Step::MirrorDeletions(Contacts),
            Step::MirrorDeletions(Accounts),
            Step::Push(Accounts),
            Step::Push(Contacts),
            Step::PushDeletions(Contacts),
            Step::PushDeletions(Accounts),
        ];
        assert_eq!(steps, expected);
        let pull = Step::all(Direction::Pull, &[Contacts], true);
        assert!(!pull.iter().any(|step| matches!(step, Step::Push(_))));
    }
}
