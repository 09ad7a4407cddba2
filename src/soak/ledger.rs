//! The ledger: a process of its own with an append-only file. It is the witness of a run, so it
//! shares nothing with what it watches: no store, no code of the queue.
//!
//! A client sends lines and is told how many of them are on disk. Whoever waits for that before it
//! goes on has left a trace that no later crash takes away. Writers are grouped: while one flush
//! runs, and for a moment after it, lines of all clients collect for the next. A client goes on
//! sending meanwhile: what it is told is a number of lines, in their order. So a flush costs little
//! per line, however many processes write.
//!
//! Killed between a write and its flush, the ledger may leave half a line, which nobody was told
//! of: it is cut off at the next start.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};

use super::line::Line;
use crate::tasks::Tasks;

/// Portions that wait for the disk, and go there at once.
const PORTIONS_MAX: usize = 256;
/// Lines of a client that wait for the ledger.
const LINES_MAX: usize = 4096;
/// The longest line.
const LINE_MAX: usize = 512;
/// From one flush to the next, at least: the lines of a busy run come in thousands per second, and
/// a flush for each few of them would take a core.
const FLUSH_EVERY: Duration = Duration::from_millis(2);

/// Whole lines, how many, and who waits for them.
type Portion = (Vec<u8>, u64, Arc<Durable>);

/// How many lines of one client are on disk.
#[derive(Debug, Default)]
struct Durable {
    lines: AtomicU64,
    grew: Notify,
}

/// Serves until `stop` ends.
pub(super) async fn serve(
    listener: TcpListener,
    path: &Path,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let file = open(path)?;
    let (sender, inbox) = mpsc::channel(PORTIONS_MAX);
    let writer = std::thread::Builder::new()
        .name("soak-ledger".to_owned())
        .spawn(move || write_all(file, inbox))?;
    let tasks = Tasks::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                let sender = sender.clone();
                tasks.spawn("ledger client", async move {
                    let _ended_by_the_client = serve_client(stream, sender).await;
                });
            }
            () = &mut stop => break,
            () = sender.closed() => break,
        }
    }
    drop(tasks);
    drop(sender);
    match writer.is_finished() {
        true => writer
            .join()
            .unwrap_or_else(|_| Err(std::io::Error::other("the writer panicked")))
            .map_err(Into::into),
        false => Ok(()),
    }
}

/// Opens the file for appending, without the half line that a crash may have left.
fn open(path: &Path) -> std::io::Result<File> {
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .open(path)?;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(LINE_MAX as u64);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let whole = tail.iter().rposition(|byte| *byte == b'\n');
    let whole = whole.map_or(0, |at| at as u64 + 1);
    file.set_len(from + whole)?;
    file.sync_all()?;
    Ok(file)
}

fn write_all(mut file: File, mut inbox: mpsc::Receiver<Portion>) -> std::io::Result<()> {
    let mut flushed = Instant::now();
    while let Some(first) = inbox.blocking_recv() {
        std::thread::sleep(FLUSH_EVERY.saturating_sub(flushed.elapsed()));
        let mut portions = vec![first];
        while portions.len() < PORTIONS_MAX
            && let Ok(more) = inbox.try_recv()
        {
            portions.push(more);
        }
        for (bytes, _, _) in &portions {
            file.write_all(bytes)?;
        }
        file.sync_data()?;
        flushed = Instant::now();
        for (_, lines, durable) in portions {
            durable.lines.fetch_add(lines, Ordering::Release);
            durable.grew.notify_one();
        }
    }
    Ok(())
}

async fn serve_client(stream: TcpStream, sender: mpsc::Sender<Portion>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let (lines, told) = stream.into_split();
    let durable = Arc::new(Durable::default());
    // Either end of the connection ends both.
    tokio::select! {
        ended = take_lines(lines, sender, durable.clone()) => ended,
        ended = tell(told, durable.clone()) => ended,
    }
}

async fn take_lines(
    mut stream: OwnedReadHalf,
    sender: mpsc::Sender<Portion>,
    durable: Arc<Durable>,
) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        if stream.read_buf(&mut buffer).await.ok()? == 0 {
            return None;
        }
        let Some(end) = buffer.iter().rposition(|byte| *byte == b'\n') else {
            if buffer.len() > LINE_MAX {
                return None;
            }
            continue;
        };
        let rest = buffer.split_off(end + 1);
        let lines = std::mem::replace(&mut buffer, rest);
        let count = count(&lines);
        sender.send((lines, count, durable.clone())).await.ok()?;
    }
}

async fn tell(mut stream: OwnedWriteHalf, durable: Arc<Durable>) -> Option<()> {
    let mut told = 0;
    loop {
        durable.grew.notified().await;
        let lines = durable.lines.load(Ordering::Acquire);
        stream.write_all(&(lines - told).to_le_bytes()).await.ok()?;
        told = lines;
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Lines that wait for the disk, how many, and who waits.
type Waiting = (String, u64, oneshot::Sender<()>);

/// A client of the ledger. Clones share the connection.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    sender: mpsc::Sender<Waiting>,
}

impl Ledger {
    pub(super) async fn connect(address: &str, tasks: &Tasks) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, inbox) = mpsc::channel(LINES_MAX);
        tasks.spawn("ledger", async move {
            let (told, lines) = stream.into_split();
            let (sent, unanswered) = mpsc::channel(LINES_MAX);
            // Either end of the connection ends both, and with them all who wait.
            let ended = tokio::select! {
                ended = send(lines, inbox, sent) => ended,
                ended = answer(told, unanswered) => ended,
            };
            if let Err(error) = ended {
                tracing::error!(%error, "the ledger is away");
            }
        });
        Ok(Self { sender })
    }

    /// Returns when these lines are on disk.
    pub(super) async fn write(&self, lines: &[Line]) -> std::io::Result<()> {
        let away = || std::io::Error::other("the ledger is away");
        let mut text = String::new();
        for line in lines {
            writeln!(text, "{line}").map_err(std::io::Error::other)?;
        }
        let (told, durable) = oneshot::channel();
        let waiting = (text, lines.len() as u64, told);
        self.sender.send(waiting).await.map_err(|_| away())?;
        durable.await.map_err(|_| away())
    }
}

/// Who waits for how many lines that were sent.
type Sent = (u64, oneshot::Sender<()>);

async fn send(
    mut stream: OwnedWriteHalf,
    mut inbox: mpsc::Receiver<Waiting>,
    sent: mpsc::Sender<Sent>,
) -> std::io::Result<()> {
    let mut waiting = Vec::new();
    while inbox.recv_many(&mut waiting, PORTIONS_MAX).await > 0 {
        let mut text = String::new();
        for (lines, count, told) in waiting.drain(..) {
            text.push_str(&lines);
            // Before the lines: an answer must find somebody who waits for it.
            let sent = sent.send((count, told)).await;
            sent.map_err(|_| std::io::Error::other("nobody takes its answers"))?;
        }
        stream.write_all(text.as_bytes()).await?;
    }
    Ok(())
}

async fn answer(
    mut stream: OwnedReadHalf,
    mut unanswered: mpsc::Receiver<Sent>,
) -> std::io::Result<()> {
    let mut durable = 0;
    while let Some((count, told)) = unanswered.recv().await {
        while durable < count {
            durable += stream.read_u64_le().await?;
        }
        durable -= count;
        told.send(()).ok();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn lines_are_in_the_file_when_the_writer_is_told_and_a_torn_one_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        std::fs::write(&path, "X 1 1 1\nX 2 1").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let tasks = Tasks::new();
        let (end, ended) = oneshot::channel::<()>();
        let serving_path = path.clone();
        tasks.spawn("serve", async move {
            let stop = async {
                ended.await.ok();
            };
            serve(listener, &serving_path, stop).await.unwrap();
        });
        let ledger = Ledger::connect(&address, &tasks).await.unwrap();
        let line = |seq| Line::Effect {
            seq,
            attempt: 1,
            pid: 1,
        };
        for seq in 3..2_000 {
            let ledger = ledger.clone();
            tasks.spawn("writer", async move {
                ledger.write(&[line(seq), line(seq)]).await.unwrap();
            });
        }
        ledger.write(&[line(2_000)]).await.unwrap();
        while tasks.running().iter().any(|(name, _)| *name == "writer") {
            tokio::task::yield_now().await;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1 + 2 * 1_997 + 1);
        assert_eq!(lines[0], "X 1 1 1");
        assert!(lines.iter().all(|line| line.parse::<Line>().is_ok()));
        drop(ledger);
        end.send(()).unwrap();
    }
}
