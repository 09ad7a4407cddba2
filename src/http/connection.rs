//! Connections: accepting them, bounding them and ending them.
//!
//! So many are open at once; further clients wait in the kernel's queue, and those that do nothing
//! make room for them (`places`). A client that is slow to send its headers, idle for long, or does
//! not read its answer is cut off in any case, so that nobody holds a place by doing nothing. Nor
//! does anybody hold much memory: the head of a request and what is read ahead of its body have
//! [`BUFFER_MAX`] bytes together, and a head has 100 lines at most; more is answered with 431.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;

use super::places::{Places, Seat};
use crate::tasks::Tasks;

/// Connections that are open at once, if nothing else is said.
pub(super) const CONNECTIONS_MAX: usize = 2048;
/// What is read of a connection and not yet used, and what is written and not yet sent. A single
/// read may go past it, to twice as much.
const BUFFER_MAX: usize = 64 * 1024;
/// How long headers may take to arrive, and how long an idle connection is kept.
const HEADERS_PATIENCE: Duration = Duration::from_secs(60);
/// How long a client may leave an answer unread.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer that a client reads each second at least, on the average: one that takes a
/// little now and then would hold the memory of its answer for hours.
const READ_RATE_MIN: u64 = 16 * 1024;
/// The pause after a failed accept: the process may be out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves until `shutdown`, then lets requests in flight end for at most `stop_limit`.
pub(super) async fn serve(
    router: Router,
    listener: TcpListener,
    shutdown: CancellationToken,
    stop_limit: Duration,
    connections_max: usize,
) {
    let tasks = Tasks::new();
    let cut = CancellationToken::new();
    let places = Places::new(connections_max, cut.clone());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // An answer is written in few pieces; holding one back for the client's acknowledgement
        // would cost 40 ms.
        stream.set_nodelay(true).ok();
        let seat = tokio::select! {
            seat = places.seat() => seat,
            () = shutdown.cancelled() => break,
        };
        let (router, stopping) = (router.clone(), tasks.stopping().clone());
        tasks.spawn("http connection", async move {
            let needed = seat.cut().clone();
            tokio::select! {
                () = converse(stream, router, stopping, seat) => {}
                () = needed.cancelled() => {}
            }
        });
    }
    drop((listener, router));
    if !tasks.stop(stop_limit).await {
        cut.cancel();
        tasks.drained().await;
    }
}

/// All requests of one connection.
async fn converse(stream: TcpStream, router: Router, stopping: CancellationToken, seat: Seat) {
    let io = TokioIo::new(Patient::new(stream, WRITE_PATIENCE, Some(seat.clone())));
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request| {
        let (answering, answer) = (seat.answering(), router.call(request));
        async move {
            let answer = answer.await;
            drop(answering);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_PATIENCE)
        .max_buf_size(BUFFER_MAX)
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    let mut is_stopping = false;
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = stopping.cancelled(), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = ended {
        // Clients leave as they like; only somebody who looks for it wants to know.
        tracing::debug!(%error, "connection ended");
    }
}

/// A stream whose writes fail when the other side takes nothing for `patience`, or less than
/// [`READ_RATE_MIN`] for long: waiting for it uses patience up, and what it takes restores some.
struct Patient<S> {
    stream: S,
    patience: Duration,
    /// What is left of it while nobody waits.
    left: Duration,
    deadline: Pin<Box<Sleep>>,
    is_waiting: bool,
    /// Is told of what was sent.
    seat: Option<Seat>,
}

impl<S> Patient<S> {
    fn new(stream: S, patience: Duration, seat: Option<Seat>) -> Self {
        Self {
            stream,
            seat,
            patience,
            left: patience,
            deadline: Box::pin(sleep(patience)),
            is_waiting: false,
        }
    }

    fn note(&mut self, written: &Poll<io::Result<usize>>) {
        let Poll::Ready(Ok(bytes @ 1..)) = *written else {
            return;
        };
        if self.is_waiting {
            self.left = self.deadline.deadline() - Instant::now();
            self.is_waiting = false;
        }
        let earned = Duration::from_micros(bytes as u64 * 1_000_000 / READ_RATE_MIN);
        self.left = self.patience.min(self.left + earned);
        if let Some(seat) = &self.seat {
            seat.sent();
        }
    }

    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            return written;
        }
        if !std::mem::replace(&mut self.is_waiting, true) {
            let deadline = Instant::now() + self.left;
            self.deadline.as_mut().reset(deadline);
        }
        ready!(self.deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(&written);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note(&written);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_client_that_does_not_read_is_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        let (mut client, (stream, _)) = (client.unwrap(), accepted.unwrap());
        let mut patient = Patient::new(stream, Duration::from_millis(100), None);

        // What is read is written, however long it takes in all.
        let mut read = vec![0; 3];
        for _ in 0..3 {
            patient.write_all(b"abc").await.unwrap();
            client.read_exact(&mut read).await.unwrap();
            sleep(Duration::from_millis(60)).await;
        }
        // More than both sides buffer.
        let error = patient.write_all(&vec![0; 64 << 20]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_client_that_reads_a_little_now_and_then_is_cut_off_as_well() {
        let (near, mut far) = tokio::io::duplex(512);
        let mut patient = Patient::new(near, Duration::from_millis(200), None);
        let drip = async {
            let mut read = [0; 64];
            loop {
                sleep(Duration::from_millis(20)).await;
                far.read_exact(&mut read).await.unwrap();
            }
        };
        // A fifth of the rate: never for long without a byte, and much longer than the patience.
        let began = Instant::now();
        let whole = [0; 64 * 1024];
        let written = tokio::select! {
            written = patient.write_all(&whole) => written,
            () = drip => unreachable!("it reads for ever"),
        };
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() < Duration::from_secs(5), "{began:?}");
    }

    #[tokio::test]
    async fn a_client_that_reads_fast_enough_may_take_longer_than_the_patience() {
        let (near, mut far) = tokio::io::duplex(512);
        let mut patient = Patient::new(near, Duration::from_millis(100), None);
        let reading = async {
            let (mut all, mut read) = (0, [0; 2048]);
            while all < 16 * 1024 {
                sleep(Duration::from_millis(5)).await;
                all += far.read(&mut read).await.unwrap();
            }
        };
        let whole = [0; 16 * 1024];
        let (written, ()) = tokio::join!(patient.write_all(&whole), reading);
        written.unwrap();
    }
}
