//! The intended differences between what the npm package and Bullwark leave in Redis.
//!
//! `docs/bullmq.md` shows the same table; a test compares them. An entry that no history needs is
//! an error, too.

use super::keyspace::Keyspace;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Five,
    Six,
}

impl Version {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Five => 5,
            Self::Six => 6,
        }
    }
}

/// One difference that is wanted.
pub(crate) struct Difference {
    /// How a history calls it.
    name: &'static str,
    /// What differs, in words: the first column of the table.
    what: &'static str,
    /// From which version it differs.
    versions: &'static [Version],
    why: &'static str,
    /// Takes it out of both sides; true if it was there. None: only a history that names it meets
    /// it.
    forgive: Option<fn(&mut Keyspace, &mut Keyspace) -> bool>,
}

const BOTH: &[Version] = &[Version::Five, Version::Six];

pub(crate) const DIFFERENCES: &[Difference] = &[
    Difference {
        name: "version",
        what: "`meta` field `version`",
        versions: BOTH,
        why: "it names the library that wrote it: `bullwark:<version>`",
        forgive: Some(|theirs, ours| {
            let is_it = |place: &str| place.ends_with(":meta field version");
            forget_lines(theirs, ours, is_it)
        }),
    },
    Difference {
        name: "v5-peers",
        what: "`meta` field `bullwark.v5Peers`",
        versions: &[Version::Five],
        why: "set by `bullmq_v5_peers`: a paused queue's jobs are in `paused`, as version 5 has it",
        forgive: Some(|theirs, ours| {
            let is_it = |place: &str| place.ends_with(":meta field bullwark.v5Peers");
            forget_lines(theirs, ours, is_it)
        }),
    },
    Difference {
        name: "deferred-failure",
        what: "a job with a deferred failure fails when it is run, not when it is taken by hand",
        versions: &[Version::Five],
        why: "version 6's rule; a running worker does both in one step",
        forgive: None,
    },
    Difference {
        name: "release-last",
        what: "a flow whose children are all done releases its parent after all its events",
        versions: &[Version::Five],
        why: "version 6's rule: a later child may not be done",
        forgive: None,
    },
    Difference {
        name: "pause-again",
        what: "pausing a paused queue, or resuming a running one, announces nothing",
        versions: BOTH,
        why: "nothing changed, and every step may be repeated",
        forgive: None,
    },
    Difference {
        name: "remove-tree",
        what: "a parent that is removed with its children is not released first",
        versions: BOTH,
        why: "it must not be announced as waiting when it is about to go",
        forgive: None,
    },
    Difference {
        name: "drop-children",
        what: "when open children are removed, `removed` comes before the parent's `waiting`",
        versions: BOTH,
        why: "the parent is released once, after the last child has gone",
        forgive: None,
    },
    Difference {
        name: "promote-all",
        what: "promoting all delayed jobs sets their `delay` to 0",
        versions: BOTH,
        why: "as promoting one of them does",
        forgive: None,
    },
    Difference {
        name: "oldest-first",
        what: "with `limit`, jobs kept too long are removed oldest first, not newest first",
        versions: BOTH,
        why: "the ones that were due to go first go first",
        forgive: None,
    },
];

/// Takes every intended difference out; returns those that were there.
pub(crate) fn forgive(
    version: Version,
    theirs: &mut Keyspace,
    ours: &mut Keyspace,
) -> Vec<&'static str> {
    let of_version = DIFFERENCES
        .iter()
        .filter(|one| one.versions.contains(&version));
    of_version
        .filter(|one| one.forgive.is_some_and(|forgive| forgive(theirs, ours)))
        .map(|one| one.name)
        .collect()
}

/// The entry that a history names, if it is one of this version.
pub(crate) fn named(version: Version, name: Option<&str>) -> Option<&'static str> {
    let name = name?;
    let one = DIFFERENCES.iter().find(|one| one.name == name);
    let one = one.unwrap_or_else(|| panic!("no intended difference is called {name}"));
    one.versions.contains(&version).then_some(one.name)
}

/// Fails if an entry of the table describes nothing that happened.
pub(crate) fn expect_all_used(version: Version, used: &[&str]) {
    for one in DIFFERENCES {
        if one.versions.contains(&version) {
            assert!(used.contains(&one.name), "no history needs {}", one.name);
        }
    }
}

/// Takes the same lines out of both, if both or one has them and they differ.
fn forget_lines(theirs: &mut Keyspace, ours: &mut Keyspace, is_it: impl Fn(&str) -> bool) -> bool {
    let mut places: Vec<String> = Vec::new();
    for place in theirs.lines.keys().chain(ours.lines.keys()) {
        if is_it(place) && theirs.lines.get(place) != ours.lines.get(place) {
            places.push(place.clone());
        }
    }
    for place in &places {
        theirs.lines.remove(place);
        ours.lines.remove(place);
    }
    !places.is_empty()
}

#[test]
fn the_documentation_lists_the_same_differences() {
    let rows = DIFFERENCES.iter().map(|one| {
        let versions: Vec<String> = one
            .versions
            .iter()
            .map(|v| v.number().to_string())
            .collect();
        format!("| {} | {} | {} |", one.what, versions.join(", "), one.why)
    });
    let rows: Vec<String> = rows.collect();
    let page = include_str!("../../../docs/bullmq.md");
    let (_, table) = page.split_once("<!-- differences -->").unwrap();
    let (table, _) = table.split_once("<!-- end of differences -->").unwrap();
    let shown = table.lines().filter(|line| line.starts_with("| "));
    // The heading is no row.
    let shown: Vec<&str> = shown.skip(1).collect();
    assert_eq!(shown, rows, "the table should be:\n{}", rows.join("\n"));
}
