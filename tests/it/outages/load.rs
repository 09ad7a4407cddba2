//! Callers that send job after job, and again what was not confirmed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bullwark::tasks::Tasks;
use uuid::Uuid;

use super::site::{Caller, id_of};
use crate::worker::rig::{eventually, within};

/// How many callers there are, and how long each rests after a job.
const CALLERS: usize = 4;
const REST: Duration = Duration::from_millis(20);

/// Running callers.
pub(crate) struct Load {
    heard: Arc<Heard>,
    tasks: Tasks,
}

/// What callers were told.
#[derive(Default)]
struct Heard {
    accepted: Mutex<Vec<Uuid>>,
    refused: AtomicUsize,
}

impl Heard {
    fn accepted(&self) -> usize {
        self.accepted.lock().unwrap().len()
    }
}

impl Load {
    pub(crate) fn start(caller: &Caller) -> Self {
        let (heard, tasks) = (Arc::<Heard>::default(), Tasks::new());
        for n in 0..CALLERS {
            let (caller, heard) = (caller.clone(), heard.clone());
            let stopping = tasks.stopping().clone();
            tasks.spawn("caller", async move {
                for nth in 0_u32.. {
                    let name = format!("caller{n}-{nth}");
                    // As an application does: the same request with the same key.
                    while !send(&caller, &heard, &name).await {
                        tokio::time::sleep(REST).await;
                    }
                    tokio::time::sleep(REST).await;
                    if stopping.is_cancelled() {
                        return;
                    }
                }
            });
        }
        Self { heard, tasks }
    }

    /// Waits until so many more jobs were accepted.
    pub(crate) async fn more(&self, count: usize) {
        let until = self.heard.accepted() + count;
        eventually("accepted jobs", async || {
            (self.heard.accepted() >= until).then_some(())
        })
        .await;
    }

    /// How often a caller was told to try again.
    pub(crate) fn refused(&self) -> usize {
        self.heard.refused.load(Ordering::Relaxed)
    }

    /// Ends when the last job of each caller is accepted; gives all of them.
    pub(crate) async fn end(self) -> Vec<Uuid> {
        self.tasks.stopping().cancel();
        within("the callers", self.tasks.drained()).await;
        std::mem::take(&mut self.heard.accepted.lock().unwrap())
    }
}

/// False: not accepted, and told to come again.
async fn send(caller: &Caller, heard: &Heard, name: &str) -> bool {
    let answer = caller.post(name, &[]).await;
    match answer.status {
        200..=202 => heard.accepted.lock().unwrap().push(id_of(&answer.body)),
        503 => {
            assert_ne!(answer.header("retry-after"), "", "{answer:?}");
            heard.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        _ => panic!("neither accepted nor to be tried again: {answer:?}"),
    }
    true
}
