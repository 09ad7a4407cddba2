//! Turns to read rows, so that exports leave connections to the record to everybody else, however
//! many of them run in this process and however long their statements take.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use uuid::Uuid;

/// Statements of exports that are under way at the same time.
const READS_MAX: usize = 3;
/// Of these, those of one workspace: one with many exports leaves a turn to the others.
const OWN_READS_MAX: usize = 2;

static ALL: Semaphore = Semaphore::const_new(READS_MAX);
/// Of workspaces that read or wait.
static OWN: Mutex<Vec<(Option<Uuid>, Weak<Semaphore>)>> = Mutex::new(Vec::new());

/// Leave to read. It ends when it is dropped.
#[derive(Debug)]
pub(in crate::handlers) struct Turn {
    _own: Option<OwnedSemaphorePermit>,
    _all: Option<SemaphorePermit<'static>>,
}

/// Waits for a turn; in the order in which they came, within a workspace and among those.
pub(in crate::handlers) async fn turn(workspace_id: Option<Uuid>) -> Turn {
    // Nobody closes either of them, so there always is a permit.
    Turn {
        _own: own(workspace_id).acquire_owned().await.ok(),
        _all: ALL.acquire().await.ok(),
    }
}

fn own(workspace_id: Option<Uuid>) -> Arc<Semaphore> {
    let mut all = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|(_, turns)| turns.strong_count() > 0);
    let found = all.iter().find(|(id, _)| *id == workspace_id);
    if let Some(turns) = found.and_then(|(_, turns)| turns.upgrade()) {
        return turns;
    }
    let turns = Arc::new(Semaphore::new(OWN_READS_MAX));
    all.push((workspace_id, Arc::downgrade(&turns)));
    turns
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_workspace_with_many_reads_leaves_a_turn_to_the_others() {
        let [many, other, late] = [1, 2, 3].map(|n| Some(Uuid::from_u128(n)));
        let first = turn(many).await;
        let _second = turn(many).await;
        assert!(turn(many).now_or_never().is_none());
        let _other = turn(other).now_or_never().unwrap();
        assert!(turn(late).now_or_never().is_none());
        drop(first);
        assert!(turn(late).now_or_never().is_some());
        assert!(turn(many).now_or_never().is_some());
    }
}
