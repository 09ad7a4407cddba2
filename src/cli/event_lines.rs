//! Event lines on standard output, written by a thread of their own.
//!
//! A line is on its way before the caller goes on, so that lines keep their order with what the
//! caller does next. A reader that does not read must not stop the worker: from then on lines wait,
//! up to a bound. Past the bound, and when the reader is gone, lines are dropped and counted: the
//! worker has no listener any more and should end. Nothing follows the last line, whoever still has
//! something to say, and whoever says it waits until it is written.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Lines that may wait for the reader.
pub(crate) const LINES_MAX: usize = 10_000;
/// How long a caller waits for its line to be written before it goes on without. It holds a thread
/// of the worker meanwhile.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long the last line, and those that wait before it, may take to be written: the process ends
/// after it, and takes along what was not.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

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
    /// Held while a line gets its place, so that none gets one behind the last.
    has_ended: Mutex<bool>,
    waiting: AtomicUsize,
    /// The reader does not keep up: nobody waits for it.
    lags: AtomicBool,
    stuck: CancellationToken,
    /// Why nobody gets lines any more.
    why: OnceLock<String>,
}

impl State {
    fn give_up(&self, why: String) {
        self.why.get_or_init(|| why);
        self.stuck.cancel();
    }
}

fn count_dropped() {
    metrics::counter!("bullwark_event_lines_dropped_total").increment(1);
}

impl EventLines {
    /// `print` writes one line; it may block for as long as the reader likes. After its first
    /// error it is not called again: the reader is gone.
    pub(crate) fn start(
        print: impl Fn(&str) -> std::io::Result<()> + Send + 'static,
    ) -> std::io::Result<Self> {
        let (lines, receiver) = sync_channel(LINES_MAX);
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::Builder::new()
            .name("bullwark-events".to_owned())
            .spawn(move || write_all(&receiver, &shared, print))?;
        Ok(Self { lines, state })
    }

    pub(crate) fn write(&self, text: String) {
        self.place(text, false);
    }

    /// Whatever comes after this line is not written.
    pub(crate) fn write_last(&self, text: String) {
        self.place(text, true);
    }

    fn place(&self, text: String, is_last: bool) {
        let (written, is_written) = sync_channel(1);
        {
            let ended = self.state.has_ended.lock();
            let mut has_ended = ended.unwrap_or_else(PoisonError::into_inner);
            if *has_ended {
                return;
            }
            *has_ended = is_last;
            self.state.waiting.fetch_add(1, Ordering::Relaxed);
            match self.lines.try_send(Line { text, written }) {
                Ok(()) => {}
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                    self.state.waiting.fetch_sub(1, Ordering::Relaxed);
                    count_dropped();
                    let why = "event lines wait on standard output: nobody reads it";
                    self.state.give_up(format!("{LINES_MAX} {why}"));
                    return;
                }
            }
        }
        let patience = match is_last {
            true => LAST_PATIENCE,
            false if self.state.lags.load(Ordering::Relaxed) => return,
            false => PATIENCE,
        };
        if is_written.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            self.state.lags.store(true, Ordering::Relaxed);
            tracing::warn!("standard output is not read; event lines wait");
        }
    }

    /// Is cancelled when more lines wait than may, or the reader is gone.
    pub(crate) fn stuck(&self) -> &CancellationToken {
        &self.state.stuck
    }

    /// Why it was cancelled.
    pub(crate) fn why_stuck(&self) -> &str {
        self.state.why.get().map_or("", String::as_str)
    }
}

fn write_all(lines: &Receiver<Line>, state: &State, print: impl Fn(&str) -> std::io::Result<()>) {
    let mut is_read = true;
    while let Ok(line) = lines.recv() {
        if is_read && let Err(error) = print(&line.text) {
            is_read = false;
            state.give_up(format!(
                "event lines can not be written to standard output: {error}"
            ));
        }
        match is_read {
            true => {
                line.written.send(()).ok();
            }
            // Whoever waits for it goes on at once: its channel ends here.
            false => count_dropped(),
        }
        if state.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            state.lags.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn nothing_follows_the_last_line() {
        let printed = Arc::new(Mutex::new(Vec::new()));
        let printed_clone = printed.clone();
        let print = move |line: &str| {
            printed_clone.lock().unwrap().push(line.to_owned());
            Ok(())
        };
        let lines = EventLines::start(print).unwrap();
        let others: Vec<_> = (0..4)
            .map(|_| {
                let lines = lines.clone();
                std::thread::spawn(move || (0..100).for_each(|_| lines.write("a".to_owned())))
            })
            .collect();
        lines.write_last("closed".to_owned());
        for other in others {
            other.join().unwrap();
        }
        lines.write("late".to_owned());
        assert_eq!(printed.lock().unwrap().last().unwrap(), "closed");
    }

    #[test]
    fn a_reader_that_does_not_read_holds_nobody_up_and_costs_lines_past_the_bound() {
        let (gate, opened) = sync_channel::<()>(0);
        let print = move |_: &str| {
            assert!(opened.recv().is_err());
            Ok(())
        };
        let lines = EventLines::start(print).unwrap();
        let began = Instant::now();
        // One is being written.
        for _ in 0..=LINES_MAX {
            lines.write("waits".to_owned());
        }
        assert!(!lines.stuck().is_cancelled());
        lines.write("dropped".to_owned());
        assert!(lines.stuck().is_cancelled());
        let took = began.elapsed();
        assert!(
            took < Duration::from_secs(5),
            "{took:?} for all lines together"
        );
        drop(gate);
    }

    /// The reader was slow for a moment, so that nobody waits for it; the process ends right after
    /// the last line.
    #[test]
    fn the_last_line_is_written_when_its_caller_goes_on_however_many_wait_before_it() {
        let (gate, opened) = sync_channel::<()>(0);
        let printed = Arc::new(Mutex::new(Vec::new()));
        let printed_clone = printed.clone();
        let print = move |line: &str| {
            opened.recv().ok(); // passes once the gate is gone
            printed_clone.lock().unwrap().push(line.to_owned());
            Ok(())
        };
        let lines = EventLines::start(print).unwrap();
        for _ in 0..1000 {
            lines.write("waits".to_owned());
        }
        let opener = std::thread::spawn(move || {
            std::thread::sleep(PATIENCE * 2);
            drop(gate);
        });
        lines.write_last("closed".to_owned());
        let printed = printed.lock().unwrap();
        assert_eq!(printed.len(), 1001);
        assert_eq!(printed.last().unwrap(), "closed");
        opener.join().unwrap();
    }

    #[test]
    fn a_reader_that_is_gone_is_noticed_at_once_and_holds_nobody_up() {
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = tries.clone();
        let print = move |_: &str| match counted.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err(std::io::ErrorKind::BrokenPipe.into()),
        };
        let lines = EventLines::start(print).unwrap();
        lines.write("read".to_owned());
        assert!(!lines.stuck().is_cancelled());
        let began = Instant::now();
        for _ in 0..100 {
            lines.write("lost".to_owned());
        }
        lines.write_last("closed".to_owned());
        assert!(lines.stuck().is_cancelled());
        assert!(
            lines.why_stuck().contains("broken pipe"),
            "{}",
            lines.why_stuck()
        );
        assert_eq!(tries.load(Ordering::Relaxed), 2, "not tried again");
        let took = began.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}
