//! Processes that die at one fault point each, started anew until every point was hit often enough.

use std::collections::HashMap;
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bullwark::fault::Point;
use futures_util::future::join_all;
use tokio::process::{Child, Command};

use super::doomed::ROLE;
use crate::stage::Stage;

/// How often a process dies at each point.
pub(crate) const HITS: usize = 100;
/// Starts per hit, before the point counts as out of reach.
const STARTS_PER_HIT: usize = 5;
/// A process that has not met its point by then is killed.
const LIFE: Duration = Duration::from_secs(10);

/// The points of one test, and how often each was hit.
pub(crate) struct Siege {
    points: &'static [Point],
    dir: tempfile::TempDir,
    starts: Mutex<HashMap<&'static str, usize>>,
    began: Instant,
}

/// One process's part: where it dies, at its how manieth pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) point: Point,
    pub(crate) start: usize,
}

impl Siege {
    pub(crate) fn of(points: &'static [Point]) -> Self {
        Self {
            points,
            dir: tempfile::tempdir().unwrap(),
            starts: Mutex::default(),
            began: Instant::now(),
        }
    }

    /// Lets so many processes at a time die, each through `once`, until all points were hit.
    pub(crate) async fn run(&self, at_once: usize, once: impl AsyncFn(Part)) {
        let lane = async || {
            while let Some(part) = self.next() {
                once(part).await;
            }
        };
        join_all((0..at_once).map(|_| lane())).await;
        let hits = self.hits();
        for point in self.points {
            let (hits, starts) = (hits[point.name()], self.starts()[point.name()]);
            println!("{}: {hits} deaths of {starts} processes", point.name());
        }
        println!("besieged for {:.1?}", self.began.elapsed());
    }

    /// The point that fewest processes were started for, of those that are not done.
    fn next(&self) -> Option<Part> {
        let hits = self.hits();
        let mut starts = self.starts();
        let open = self.points.iter().filter(|point| {
            let hits = hits.get(point.name()).copied().unwrap_or_default();
            hits < HITS
        });
        let point = *open.min_by_key(|point| starts.get(point.name()).copied())?;
        let start = starts.entry(point.name()).or_default();
        let hits = hits.get(point.name()).copied().unwrap_or_default();
        assert!(
            *start < HITS * STARTS_PER_HIT,
            "{} was hit by {hits} of {start} processes only",
            point.name()
        );
        *start += 1;
        Some(Part {
            point,
            start: *start,
        })
    }

    fn starts(&self) -> std::sync::MutexGuard<'_, HashMap<&'static str, usize>> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hits(&self) -> HashMap<String, usize> {
        let mut hits = HashMap::new();
        let said = std::fs::read_to_string(self.dir.path().join("hits")).unwrap_or_default();
        for line in said.lines() {
            *hits.entry(line.to_owned()).or_default() += 1;
        }
        hits
    }

    /// A process of this role that dies at its how manieth pass.
    pub(crate) fn doom(&self, stage: &Stage, role: &str, part: Part, pass: usize) -> Command {
        let mut command = stage.own_command("faults::doomed::doomed_process");
        command.env(ROLE, role);
        self.arm(&mut command, part, pass);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Arms a process that is still to be started, for its how manieth pass.
    pub(crate) fn arm(&self, command: &mut Command, part: Part, pass: usize) {
        let fault = format!("{}:abort:nth={pass}", part.point.name());
        command
            .env("BULLWARK_FAULT", fault)
            .env("BULLWARK_FAULT_LOG", self.dir.path().join("hits"))
            .env("BULLWARK_DATA_DIR", self.dir.path());
    }
}

/// Waits for its end, and brings that about if it takes too long.
pub(crate) async fn end(mut child: Child) -> ExitStatus {
    match tokio::time::timeout(LIFE, child.wait()).await {
        Ok(status) => status.unwrap(),
        Err(_) => {
            child.start_kill().unwrap();
            child.wait().await.unwrap()
        }
    }
}
