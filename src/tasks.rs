//! Background tasks that shutdown can wait for.
//!
//! Promises: every task that was spawned here is told to stop, is waited for, and is aborted when
//! the deadline has passed; a panic is logged with the task's name and ends that task only.
//! Refuses to spawn once stopping has begun.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long aborted tasks may take to notice; only one that blocks its thread takes longer.
const ABORT_PATIENCE: Duration = Duration::from_secs(1);

/// Finished entries are swept from the list whenever it has doubled since the last sweep.
const SWEEP_FROM: usize = 64;

/// The tasks of one running application. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
    running: Arc<Mutex<Running>>,
}

#[derive(Debug, Default)]
struct Running {
    tasks: Vec<(&'static str, AbortHandle)>,
    sweep_at: usize,
}

/// How stopping went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// Every task ended by itself.
    Cleanly,
    /// These had to be aborted at the deadline.
    Aborted(Vec<&'static str>),
}

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Fires when stopping begins. A task that runs for long selects on it.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Runs a task in the background. Once stopping has begun, the task is dropped unstarted.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let Ok(mut running) = self.running.lock() else {
            return;
        };
        // Looked at under the lock that `stop` takes, so that no task slips in unseen behind it.
        if self.stopping.is_cancelled() {
            tracing::debug!(task = name, "not started: stopping");
            return;
        }
        let handle = self.tracker.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                tracing::error!(
                    task = name,
                    panic = panic_text(panic.as_ref()),
                    "a task panicked"
                );
            }
        });
        running.tasks.push((name, handle.abort_handle()));
        if running.tasks.len() >= running.sweep_at.max(SWEEP_FROM) {
            running.tasks.retain(|(_, handle)| !handle.is_finished());
            running.sweep_at = running.tasks.len() * 2;
        }
    }

    /// Tells every task to stop, waits until `deadline` has passed, and aborts those still there.
    ///
    /// Repeating it is harmless.
    pub async fn stop(&self, deadline: Duration) -> Stopped {
        if let Ok(_running) = self.running.lock() {
            self.stopping.cancel();
        }
        self.tracker.close();
        if tokio::time::timeout(deadline, self.tracker.wait())
            .await
            .is_ok()
        {
            return Stopped::Cleanly;
        }
        let mut aborted = Vec::new();
        if let Ok(running) = self.running.lock() {
            for (name, handle) in running
                .tasks
                .iter()
                .filter(|(_, handle)| !handle.is_finished())
            {
                tracing::warn!(
                    task = name,
                    ?deadline,
                    "did not stop in time and is aborted"
                );
                handle.abort();
                aborted.push(*name);
            }
        }
        let _ = tokio::time::timeout(ABORT_PATIENCE, self.tracker.wait()).await;
        Stopped::Aborted(aborted)
    }
}

/// What a panic said.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn tasks_are_told_to_stop_and_waited_for() {
        let tasks = Tasks::new();
        let done = Arc::new(AtomicBool::new(false));
        let (stopping, flag) = (tasks.stopping(), done.clone());
        tasks.spawn("tidy", async move {
            stopping.cancelled().await;
            tokio::task::yield_now().await;
            flag.store(true, Ordering::SeqCst);
        });
        assert_eq!(tasks.stop(LONG).await, Stopped::Cleanly);
        assert!(done.load(Ordering::SeqCst));
        assert_eq!(tasks.stop(LONG).await, Stopped::Cleanly);
    }

    #[tokio::test]
    async fn a_task_that_does_not_stop_is_aborted_and_named() {
        let tasks = Tasks::new();
        let (alive, gone) = oneshot::channel::<()>();
        tasks.spawn("stubborn", async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        let deadline = Duration::from_millis(20);
        assert_eq!(
            tasks.stop(deadline).await,
            Stopped::Aborted(vec!["stubborn"])
        );
        assert!(gone.await.is_err(), "what an aborted task owned is dropped");
    }

    #[tokio::test]
    async fn a_panic_ends_its_task_only() {
        let tasks = Tasks::new();
        let (tell, told) = oneshot::channel();
        tasks.spawn("broken", async { panic!("on purpose") });
        tasks.spawn("sound", async move { tell.send(()).unwrap() });
        told.await.unwrap();
        assert_eq!(tasks.stop(LONG).await, Stopped::Cleanly);
    }

    #[tokio::test]
    async fn nothing_starts_once_stopping_has_begun() {
        let tasks = Tasks::new();
        tasks.stop(LONG).await;
        let (tell, told) = oneshot::channel::<()>();
        tasks.spawn("late", async move { drop(tell.send(())) });
        assert!(told.await.is_err());
        assert_eq!(tasks.stop(LONG).await, Stopped::Cleanly);
    }

    #[tokio::test]
    async fn ended_tasks_are_not_remembered_for_ever() {
        let tasks = Tasks::new();
        for _ in 0..1000 {
            let (tell, told) = oneshot::channel();
            tasks.spawn("short", async move { tell.send(()).unwrap() });
            told.await.unwrap();
        }
        assert!(tasks.running.lock().unwrap().tasks.len() <= 2 * SWEEP_FROM);
    }

    #[test]
    fn a_panic_is_logged_with_its_words() {
        assert_eq!(panic_text(&"words"), "words");
        assert_eq!(panic_text(&"words".to_owned()), "words");
        assert_eq!(panic_text(&7), "no text");
    }
}
