//! The ledger: a process of its own with an append-only file. It is the witness of a run, so it
//! shares nothing with what it watches: no store, no code of the queue.
//!
//! A client sends lines and is told how many of them are on disk. Whoever waits for that before it
//! goes on has left a trace that no later crash takes away. Writers are grouped: while one flush
//! runs, lines of all clients collect for the next.
//!
//! Killed between a write and its flush, the ledger may leave half a line, which nobody was told
//! of: it is cut off at the next start.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use super::line::Line;
use crate::tasks::Tasks;

/// Bytes of one portion of lines.
const PORTION_MAX: usize = 256 * 1024;
/// Portions that wait for the disk.
const PORTIONS_MAX: usize = 256;
/// Lines of a client that wait for the ledger.
const LINES_MAX: usize = 4096;
/// The longest line.
const LINE_MAX: usize = 512;

/// Whole lines, and who waits for them.
type Portion = (Vec<u8>, oneshot::Sender<()>);

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
    while let Some((mut bytes, waiting)) = inbox.blocking_recv() {
        let mut told = vec![waiting];
        while let Ok((more, waiting)) = inbox.try_recv() {
            bytes.extend_from_slice(&more);
            told.push(waiting);
        }
        file.write_all(&bytes)?;
        file.sync_data()?;
        for waiting in told {
            waiting.send(()).ok();
        }
    }
    Ok(())
}

async fn serve_client(mut stream: TcpStream, sender: mpsc::Sender<Portion>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
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
        let count = lines.iter().filter(|byte| **byte == b'\n').count() as u32;
        let (told, durable) = oneshot::channel();
        sender.send((lines, told)).await.ok()?;
        durable.await.ok()?;
        stream.write_all(&count.to_le_bytes()).await.ok()?;
    }
}

/// A line that waits for the disk.
type Waiting = (String, oneshot::Sender<()>);

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
            if let Err(error) = forward(stream, inbox).await {
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
            text.push_str(&line.to_string());
            text.push('\n');
        }
        let (told, durable) = oneshot::channel();
        self.sender.send((text, told)).await.map_err(|_| away())?;
        durable.await.map_err(|_| away())
    }
}

async fn forward(mut stream: TcpStream, mut inbox: mpsc::Receiver<Waiting>) -> std::io::Result<()> {
    while let Some((mut text, waiting)) = inbox.recv().await {
        let mut told = vec![waiting];
        while text.len() < PORTION_MAX {
            let Ok((more, waiting)) = inbox.try_recv() else {
                break;
            };
            text.push_str(&more);
            told.push(waiting);
        }
        stream.write_all(text.as_bytes()).await?;
        let mut missing = text.bytes().filter(|byte| *byte == b'\n').count() as u32;
        while missing > 0 {
            missing = missing.saturating_sub(stream.read_u32_le().await?);
        }
        for waiting in told {
            waiting.send(()).ok();
        }
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
