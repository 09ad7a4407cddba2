//! What a run has to know to go on after it was ended: one small file, replaced as a whole.

use std::path::Path;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::plan::Mix;
use super::sides::Marks;

const FILE: &str = "state.json";

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) seed: u64,
    /// How many jobs there shall be; none: as many as the time allows.
    pub(super) jobs: Option<u64>,
    /// Which jobs those are.
    #[serde(default)]
    pub(super) mix: Mix,
    /// Every number below is acknowledged, and in the ledger.
    pub(super) next: u64,
    /// The same of the other parts of the load.
    #[serde(default)]
    pub(super) sides: Marks,
    /// Seconds so far.
    pub(super) seconds: f64,
    /// How often it has begun.
    pub(super) parts: u64,
}

impl State {
    /// The state of the run in this directory, or a new one. Refuses another seed or another volume
    /// than it began with: the jobs would not be the same.
    pub(super) fn open(
        dir: &Path,
        seed: Option<u64>,
        jobs: Option<u64>,
        mix: Mix,
    ) -> anyhow::Result<Self> {
        let path = dir.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self {
                    seed: seed.unwrap_or_else(|| rand::random::<u32>().into()),
                    jobs,
                    mix,
                    next: 0,
                    sides: Marks::default(),
                    seconds: 0.0,
                    parts: 1,
                });
            }
            text => text.with_context(|| path.display().to_string())?,
        };
        let state: Self = serde_json::from_str(&text).context("state of the run")?;
        let is_other_seed = seed.is_some_and(|seed| seed != state.seed);
        if is_other_seed || (jobs, mix) != (state.jobs, state.mix) {
            let (dir, seed, jobs, mix) = (dir.display(), state.seed, state.jobs, state.mix);
            bail!("{dir} holds a run with seed {seed} and {jobs:?} {mix:?} jobs: give the same");
        }
        let parts = state.parts + 1;
        Ok(Self { parts, ..state })
    }

    /// Replaces the file. Dying on the way leaves the old one.
    pub(super) fn save(&self, dir: &Path) -> anyhow::Result<()> {
        let new = dir.join("state.new");
        std::fs::write(&new, serde_json::to_string(self)?)?;
        std::fs::File::open(&new)?.sync_all()?;
        Ok(std::fs::rename(&new, dir.join(FILE))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_goes_on_where_it_was_and_only_as_the_same_run() {
        let dir = tempfile::tempdir().unwrap();
        let first = State::open(dir.path(), Some(5), Some(100), Mix::Brisk).unwrap();
        assert_eq!((first.next, first.parts), (0, 1));
        let later = State {
            next: 40,
            sides: [4, 3, 2, 1],
            seconds: 2.5,
            ..first
        };
        later.save(dir.path()).unwrap();
        let again = State::open(dir.path(), None, Some(100), Mix::Brisk).unwrap();
        assert_eq!((again.seed, again.next, again.parts), (5, 40, 2));
        assert_eq!(again.sides, [4, 3, 2, 1]);
        let other_seed = State::open(dir.path(), Some(6), Some(100), Mix::Brisk).unwrap_err();
        assert!(other_seed.to_string().contains("seed 5"), "{other_seed}");
        assert!(State::open(dir.path(), Some(5), None, Mix::Brisk).is_err());
        assert!(State::open(dir.path(), Some(5), Some(100), Mix::Rich).is_err());
    }
}
