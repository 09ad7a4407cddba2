//! The Lua scripts: what there is, and how each is put together.
//!
//! Scripts are addressed by the hash of their text, so old and new workers run side by side.

use std::sync::LazyLock;

/// A script as it lies in `lua/`.
#[derive(Debug)]
pub struct Script {
    /// The file's name without `.lua`.
    pub name: &'static str,
    /// How many KEYS its header lists and its caller sends.
    pub keys: usize,
    /// The preludes joined before it.
    pub preludes: &'static [&'static str],
    /// The text of its own file.
    pub file: &'static str,
    /// What Redis runs.
    pub source: &'static str,
}

macro_rules! lua {
    ($name:literal) => {
        include_str!(concat!("../../lua/", $name, ".lua"))
    };
}

macro_rules! scripts {
    ($($id:ident = $name:literal, keys $keys:literal, after $($prelude:literal)+;)+) => {
        /// Names of the scripts in this crate.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum ScriptId { $($id,)+ }

        /// All scripts, in the order of their ids.
        pub static SCRIPTS: &[Script] = &[$(Script {
            name: $name,
            keys: $keys,
            preludes: &[$($prelude,)+],
            file: lua!($name),
            source: concat!($(lua!($prelude), "\n",)+ lua!($name)),
        },)+];
    };
}

scripts! {
    Add = "add", keys 10, after "prelude" "prelude_fair" "prelude_place";
    AddLinked = "add_linked", keys 2,
        after "prelude" "prelude_fair" "prelude_place" "prelude_parent"
        "prelude_dedup" "prelude_dedup_add" "prelude_store";
    AddLog = "add_log", keys 2, after "prelude";
    AddLogs = "add_logs", keys 0, after "prelude";
    Arrange = "arrange", keys 8, after "prelude" "prelude_fair" "prelude_place";
    Cancel = "cancel", keys 13,
        after "prelude" "prelude_fair" "prelude_place"
        "prelude_parent" "prelude_dedup" "prelude_remove";
    ChangeDelay = "change_delay", keys 4, after "prelude" "prelude_fair" "prelude_place";
    ChangePriority = "change_priority", keys 7, after "prelude" "prelude_fair" "prelude_place";
    Claim = "claim", keys 11,
        after "prelude" "prelude_fair" "prelude_place" "prelude_promote" "prelude_claim";
    Clean = "clean", keys 6,
        after "prelude" "prelude_fair" "prelude_place"
        "prelude_parent" "prelude_dedup" "prelude_remove";
    Confirm = "confirm", keys 1, after "prelude";
    Counts = "counts", keys 9, after "prelude";
    DetachChild = "detach_child", keys 1,
        after "prelude" "prelude_fair" "prelude_place" "prelude_parent";
    EndQuota = "end_quota", keys 3,
        after "prelude" "prelude_quota" "prelude_quota_told" "prelude_breaker";
    Extend = "extend", keys 1, after "prelude";
    Fail = "fail", keys 11,
        after "prelude" "prelude_fair" "prelude_place"
        "prelude_parent" "prelude_dedup" "prelude_settle";
    FindOrphans = "find_orphans", keys 8, after "prelude" "prelude_states";
    Finish = "finish", keys 11,
        after "prelude" "prelude_fair" "prelude_place"
        "prelude_parent" "prelude_dedup" "prelude_settle";
    MarkOwners = "mark_owners", keys 1, after "prelude";
    MoveTurns = "move_turns", keys 2, after "prelude";
    MoveToWaitingChildren = "move_to_waiting_children", keys 6,
        after "prelude" "prelude_fair" "prelude_place" "prelude_settle";
    Obliterate = "obliterate", keys 1,
        after "prelude" "prelude_fair" "prelude_place"
        "prelude_parent" "prelude_dedup" "prelude_remove";
    PassTurn = "pass_turn", keys 3, after "prelude" "prelude_quota_turns";
    Pause = "pause", keys 5, after "prelude";
    Promote = "promote", keys 9, after "prelude" "prelude_fair" "prelude_place" "prelude_promote";
    ReadJobs = "read_jobs", keys 6, after "prelude";
    ReadQuota = "read_quota", keys 3, after "prelude" "prelude_quota";
    ReadTurns = "read_turns", keys 2, after "prelude" "prelude_quota_turns";
    Readmit = "readmit", keys 7, after "prelude";
    Release = "release", keys 8, after "prelude" "prelude_fair" "prelude_place" "prelude_settle";
    Remove = "remove", keys 1,
        after "prelude" "prelude_fair" "prelude_place" "prelude_parent" "prelude_dedup"
        "prelude_remove" "prelude_tree";
    RemoveChildren = "remove_children", keys 1,
        after "prelude" "prelude_fair" "prelude_place" "prelude_parent" "prelude_dedup"
        "prelude_remove" "prelude_tree";
    RemoveDeduplication = "remove_deduplication", keys 1, after "prelude";
    RemoveOrphans = "remove_orphans", keys 8,
        after "prelude" "prelude_fair" "prelude_place" "prelude_parent" "prelude_dedup"
        "prelude_remove" "prelude_states";
    Reprocess = "reprocess", keys 8, after "prelude" "prelude_fair" "prelude_place" "prelude_again";
    ReprocessMany = "reprocess_many", keys 8,
        after "prelude" "prelude_fair" "prelude_place" "prelude_promote" "prelude_again";
    Requeue = "requeue", keys 13,
        after "prelude" "prelude_fair" "prelude_place" "prelude_states" "prelude_again";
    Rescue = "rescue", keys 8, after "prelude" "prelude_fair" "prelude_place";
    Resume = "resume", keys 8, after "prelude" "prelude_fair" "prelude_place";
    Retry = "retry", keys 9,
        after "prelude" "prelude_fair" "prelude_place" "prelude_promote" "prelude_settle";
    ScheduleLegacy = "schedule_legacy", keys 10,
        after "prelude" "prelude_fair" "prelude_place"
        "prelude_parent" "prelude_dedup" "prelude_schedule";
    ScheduleNext = "schedule_next", keys 10,
        after "prelude" "prelude_fair" "prelude_place"
        "prelude_parent" "prelude_dedup" "prelude_schedule";
    ScheduleRemove = "schedule_remove", keys 3, after "prelude";
    ScheduleRepair = "schedule_repair", keys 10,
        after "prelude" "prelude_fair" "prelude_place"
        "prelude_parent" "prelude_dedup" "prelude_schedule";
    ScheduleRestore = "schedule_restore", keys 1, after "prelude";
    ScheduleUpsert = "schedule_upsert", keys 10,
        after "prelude" "prelude_fair" "prelude_place"
        "prelude_parent" "prelude_dedup" "prelude_schedule";
    States = "states", keys 8, after "prelude" "prelude_states";
    TakeQuota = "take_quota", keys 7,
        after "prelude" "prelude_claim" "prelude_quota" "prelude_quota_told"
        "prelude_quota_turns" "prelude_quota_take" "prelude_quota_line";
    TellParents = "tell_parents", keys 1,
        after "prelude" "prelude_fair" "prelude_place" "prelude_parent";
    UpdateData = "update_data", keys 1, after "prelude";
    UpdateProgress = "update_progress", keys 2, after "prelude";
}

impl ScriptId {
    pub(super) fn script(self) -> &'static Script {
        &SCRIPTS[self as usize]
    }

    /// What Redis knows the script by.
    pub(super) fn hash(self) -> &'static str {
        static HASHES: LazyLock<Vec<String>> = LazyLock::new(|| {
            let hash = |script: &Script| redis::Script::new(script.source).get_hash().to_owned();
            SCRIPTS.iter().map(hash).collect()
        });
        &HASHES[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_in_lua_is_registered() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("lua");
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let known: BTreeSet<String> = SCRIPTS
            .iter()
            .flat_map(|script| script.preludes.iter().chain([&script.name]))
            .map(|name| format!("{name}.lua"))
            .collect();
        assert_eq!(files, known);
    }

    #[test]
    fn the_header_of_a_script_tells_its_keys_and_what_it_does() {
        for Script {
            name, keys, file, ..
        } in SCRIPTS
        {
            let header: Vec<&str> = file.lines().take_while(|l| l.starts_with("--")).collect();
            assert!(
                header[0].starts_with(&format!("-- {name}: ")),
                "{name}: {}",
                header[0]
            );
            let listed = header
                .iter()
                .filter(|line| line.starts_with("-- KEYS["))
                .count();
            assert_eq!(listed, *keys, "{name}: KEYS in the header");
            for part in ["-- Returns  ", "-- Moves    ", "-- Repeat   "] {
                assert!(
                    header.iter().any(|l| l.starts_with(part)),
                    "{name} lacks `{part}`"
                );
            }
            assert!(
                file.lines().count() <= 120,
                "{name} is longer than 120 lines"
            );
        }
    }
}
