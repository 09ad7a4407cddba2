//! What a workspace's schedule is called in both stores: `ID@WORKSPACE`.
//!
//! Queues are shared, and a schedule is known by its queue and its name. With the workspace in it
//! no two workspaces can have the same one, or take each other's place; and whose it is can be
//! read from Redis alone. A name without a workspace is nobody's: a `BullMQ` client or a program
//! made it.

use std::fmt;

use uuid::Uuid;

use super::SCHEDULE_ID_MAX;

/// The length of a UUID as text.
const UUID_LENGTH: usize = 36;
/// The longest id of a workspace's schedule, in bytes.
pub const OWN_SCHEDULE_ID_MAX: usize = SCHEDULE_ID_MAX - UUID_LENGTH - 1;

/// The name of a workspace's schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleName {
    /// As the workspace calls it.
    pub id: String,
    pub workspace_id: Uuid,
}

impl ScheduleName {
    /// None: no workspace may call it so. A colon has a meaning in the names of jobs.
    pub fn new(id: &str, workspace_id: Uuid) -> Option<Self> {
        let is_good = (1..=OWN_SCHEDULE_ID_MAX).contains(&id.len())
            && id.trim() == id
            && !id.contains(|c: char| c == ':' || c.is_control());
        is_good.then(|| Self {
            id: id.to_owned(),
            workspace_id,
        })
    }

    /// None: it is no workspace's. The same rule as the record's.
    pub fn read(name: &str) -> Option<Self> {
        let (id, owner) = name.rsplit_once('@')?;
        let workspace_id = Uuid::parse_str(owner).ok()?;
        (workspace_id.to_string() == owner).then(|| Self {
            id: id.to_owned(),
            workspace_id,
        })
    }
}

impl fmt::Display for ScheduleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.workspace_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_whose_schedule_it_is() {
        let workspace_id = Uuid::now_v7();
        for id in [
            "nightly",
            "a@b",
            "every day",
            &"x".repeat(OWN_SCHEDULE_ID_MAX),
        ] {
            let name = ScheduleName::new(id, workspace_id).unwrap();
            assert!(name.to_string().len() <= SCHEDULE_ID_MAX);
            assert_eq!(ScheduleName::read(&name.to_string()), Some(name));
        }
        for id in ["", "a:b", "a\n", " a", &"x".repeat(OWN_SCHEDULE_ID_MAX + 1)] {
            assert_eq!(ScheduleName::new(id, workspace_id), None, "{id}");
        }
        let shouted = format!("a@{}", workspace_id.to_string().to_uppercase());
        let bare = format!("a@{}", workspace_id.simple());
        for name in ["nightly", "a@b", "", "@", &shouted, &bare] {
            assert_eq!(ScheduleName::read(name), None, "{name}");
        }
    }
}
