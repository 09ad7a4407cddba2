//! What a worker tells about itself while it works: the events of `BullMQ`'s worker.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::tasks::panic_text;

/// Something that happened. Ids are those on the wire.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerEvent {
    /// The worker is connected, and its queue shows it. Comes first, once.
    Ready,
    /// A job starts.
    Active {
        id: String,
    },
    /// It succeeded, and Redis shows it.
    Completed {
        id: String,
        /// JSON text.
        returnvalue: String,
        attempts_made: u32,
        finished_ms: Option<i64>,
    },
    /// An attempt failed, for good or not, and Redis shows it.
    Failed {
        id: String,
        reason: String,
        attempts_made: u32,
        /// Until the next attempt; 0: at once. None: it failed for good.
        delay_ms: Option<u64>,
        /// Only when it failed for good.
        finished_ms: Option<i64>,
        /// The whole hash, of a job that failed without having been run.
        hash: Option<Vec<(String, String)>>,
    },
    /// Its lease had ended, and this worker has put it back.
    Stalled {
        id: String,
    },
    /// Nothing more is waiting.
    Drained,
    LeasesLost {
        ids: Vec<String>,
    },
    Error {
        message: String,
    },
    Paused,
    Resumed,
    /// No new job is started.
    Closing,
    Closed,
}

/// Where events go. Without a listener they cost nothing.
#[derive(Clone, Default)]
pub struct Events(Option<Arc<dyn Fn(WorkerEvent) + Send + Sync>>);

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Events").field(&self.0.is_some()).finish()
    }
}

impl Events {
    /// The listener is called where the event happens: it must be quick.
    pub fn to(listener: impl Fn(WorkerEvent) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    pub(super) fn are_heard(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn tell(&self, event: WorkerEvent) {
        let Some(listener) = &self.0 else { return };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| listener(event))) {
            tracing::error!(panic = panic_text(panic.as_ref()), "a listener panicked");
        }
    }

    pub(super) fn error(&self, message: impl Into<String>) {
        self.tell(WorkerEvent::Error {
            message: message.into(),
        });
    }
}
