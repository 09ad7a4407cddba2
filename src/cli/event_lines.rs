//! Event lines on standard output, written by a thread of their own.
//!
//! A line is on its way before the caller goes on, so that lines keep their order with what the
//! caller does next. A reader that does not read must not stop the worker: from then on lines wait,
//! up to a bound, and past the bound the worker has no listener any more and should end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::output;

/// Lines that may wait for the reader.
pub(crate) const LINES_MAX: usize = 10_000;
/// How long a caller waits for its line to be written before it goes on without.
const PATIENCE: Duration = Duration::from_secs(1);

struct Line {
    text: String,
    written: SyncSender<()>,
}

/// The way to standard output. Clones share it.
#[derive(Clone)]
pub(crate) struct EventLines {
    lines: SyncSender<Line>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    waiting: AtomicUsize,
    /// The reader does not keep up: nobody waits for it.
    lags: AtomicBool,
    stuck: CancellationToken,
}

impl EventLines {
    pub(crate) fn start() -> std::io::Result<Self> {
        let (lines, receiver) = sync_channel(LINES_MAX);
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::Builder::new()
            .name("bullwark-events".to_owned())
            .spawn(move || write_all(&receiver, &shared))?;
        Ok(Self { lines, state })
    }

    pub(crate) fn write(&self, text: String) {
        let (written, is_written) = sync_channel(1);
        self.state.waiting.fetch_add(1, Ordering::Relaxed);
        match self.lines.try_send(Line { text, written }) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.state.stuck.cancel();
                return;
            }
        }
        if !self.state.lags.load(Ordering::Relaxed) && is_written.recv_timeout(PATIENCE).is_err() {
            self.state.lags.store(true, Ordering::Relaxed);
            tracing::warn!("standard output is not read; event lines wait");
        }
    }

    /// Is cancelled when more lines wait than may.
    pub(crate) fn stuck(&self) -> &CancellationToken {
        &self.state.stuck
    }
}

fn write_all(lines: &Receiver<Line>, state: &State) {
    while let Ok(line) = lines.recv() {
        output::line(&line.text);
        line.written.send(()).ok();
        if state.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            state.lags.store(false, Ordering::Relaxed);
        }
    }
}
