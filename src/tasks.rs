//! Background tasks that shutdown can wait for.
//!
//! The only place that spawns: a bare `tokio::spawn` is forgotten by the shutdown, and its panic by
//! everybody. A panic is logged with the task's name and ends that task only; what still runs at a
//! deadline is named in the log. Tasks may spawn tasks while stopping: the outcome of the last job
//! has to be written by somebody.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A group of tasks with one signal to stop. Clones share the group.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
    running: Names,
    failing: Names,
}

/// How often each name is there; as large as the number of names in the code.
#[derive(Debug, Clone, Default)]
pub struct Names(Arc<Mutex<BTreeMap<&'static str, usize>>>);

impl Names {
    /// Counts this name while the result lives.
    pub fn count(&self, name: &'static str) -> Counted {
        if let Ok(mut names) = self.0.lock() {
            *names.entry(name).or_default() += 1;
        }
        Counted {
            name,
            names: self.clone(),
        }
    }

    /// The names that are there, each with how often.
    pub fn all(&self) -> Vec<(&'static str, usize)> {
        let names = self.0.lock();
        names.map_or_else(
            |_| Vec::new(),
            |names| names.iter().map(|(n, c)| (*n, *c)).collect(),
        )
    }
}

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `future` in the background. A panic ends it with a line in the log.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let counted = self.running.count(name);
        self.tracker.spawn(async move {
            let _counted = counted;
            if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await {
                tracing::error!(
                    task = name,
                    panic = panic_text(panic.as_ref()),
                    "task panicked"
                );
            }
        });
    }

    /// Is cancelled when the group should stop. A task that runs for long selects on it.
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

    /// The names of the tasks that run, each with how many there are.
    pub fn running(&self) -> Vec<(&'static str, usize)> {
        self.running.all()
    }

    /// The names of what goes on failing, for as long as it does.
    pub fn failing(&self) -> &Names {
        &self.failing
    }

    /// A handle to the same group, whose failing names are kept there.
    pub fn with_failing(&self, failing: &Names) -> Self {
        Self {
            failing: failing.clone(),
            ..self.clone()
        }
    }

    /// Waits until every task has ended, without telling them to.
    pub async fn drained(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Tells the tasks to stop and waits for them; false when some still run at the deadline.
    ///
    /// Those are named in the log and left alone. Repeating it is harmless.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.stopping.cancel();
        let ended = tokio::time::timeout(deadline, self.drained()).await.is_ok();
        if !ended {
            for (task, count) in self.running() {
                tracing::warn!(task, count, ?deadline, "still running at the deadline");
            }
        }
        ended
    }
}

/// The message of a panic, if it was a text.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a text")
}

/// Counts a name while it lives, however it ends.
#[derive(Debug)]
pub struct Counted {
    name: &'static str,
    names: Names,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Ok(mut names) = self.names.0.lock() else {
            return;
        };
        match names.get_mut(self.name) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(names.remove(self.name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn tasks_are_told_to_stop_and_waited_for() {
        let tasks = Tasks::new();
        let (tell, mut told) = oneshot::channel();
        let stopping = tasks.stopping().clone();
        tasks.spawn("tidy", async move {
            stopping.cancelled().await;
            tokio::task::yield_now().await;
            tell.send("tidied up").unwrap();
        });
        assert_eq!(tasks.running(), [("tidy", 1)]);
        assert!(tasks.stop(LONG).await);
        assert_eq!(told.try_recv(), Ok("tidied up"));
        assert!(tasks.running().is_empty() && tasks.is_empty());
        assert!(tasks.stop(LONG).await);
    }

    #[tokio::test]
    async fn what_runs_past_the_deadline_is_named() {
        let tasks = Tasks::new();
        let (finish, finished) = oneshot::channel::<()>();
        tasks.spawn("stubborn", async move { finished.await.unwrap() });
        tasks.spawn("short", async {});
        assert!(!tasks.stop(Duration::from_millis(20)).await);
        assert_eq!(tasks.running(), [("stubborn", 1)]);
        finish.send(()).unwrap();
        assert!(tasks.stop(LONG).await);
    }

    #[tokio::test]
    async fn a_panic_ends_its_task_only() {
        let tasks = Tasks::new();
        let (tell, told) = oneshot::channel();
        tasks.spawn("broken", async { panic!("on purpose") });
        let stopping = tasks.stopping().clone();
        tasks.spawn("sound", async move {
            stopping.cancelled().await;
            tell.send(()).unwrap();
        });
        assert!(tasks.stop(LONG).await);
        told.await.unwrap();
        assert!(
            tasks.running().is_empty(),
            "a broken task is not counted for ever"
        );
    }

    #[tokio::test]
    async fn a_task_may_spawn_another_while_stopping() {
        let tasks = Tasks::new();
        let (tell, mut told) = oneshot::channel();
        let group = tasks.clone();
        tasks.spawn("last job", async move {
            group.stopping().cancelled().await;
            group.spawn("its outcome", async move { tell.send(()).unwrap() });
        });
        assert!(tasks.stop(LONG).await);
        assert_eq!(told.try_recv(), Ok(()));
    }

    #[test]
    fn a_panic_is_logged_with_its_words() {
        assert_eq!(panic_text(&"words"), "words");
        assert_eq!(panic_text(&"words".to_owned()), "words");
        assert_eq!(panic_text(&7), "a panic without a text");
    }
}
