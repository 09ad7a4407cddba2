//! Background tasks that shutdown can wait for.
//!
//! The only place that spawns: a bare `tokio::spawn` is forgotten by the shutdown, and its panic by
//! everybody.

use std::future::Future;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A group of tasks with one signal to stop. Clones share the group.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
}

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `future` in the background. A panic ends it with a line in the log.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(async move {
            if let Err(panic) = std::panic::AssertUnwindSafe(future).catch_unwind().await {
                tracing::error!(task = name, panic = panic_text(panic.as_ref()), "task panicked");
            }
        });
    }

    /// Is cancelled when the group should stop.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// How many tasks run.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Waits until every task has ended, without telling them to.
    pub async fn drained(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Tells the tasks to stop and waits for them; false when some still run at the deadline.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.stopping.cancel();
        tokio::time::timeout(deadline, self.drained()).await.is_ok()
    }
}

/// The message of a panic, if it was a text.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_in_one_task_leaves_the_others_running() {
        let tasks = Tasks::new();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        tasks.spawn("bad", async { panic!("boom") });
        let stopping = tasks.stopping().clone();
        tasks.spawn("good", async move {
            stopping.cancelled().await;
            sender.send(()).ok();
        });
        assert!(tasks.stop(Duration::from_secs(10)).await);
        assert!(receiver.await.is_ok());
    }
}
