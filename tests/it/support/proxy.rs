//! A proxy before PostgreSQL that loses one commit, or the answer to it, or leads elsewhere.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bullwark::tasks::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// The simple query that ends a transaction, as it is on the wire.
const COMMIT: &[u8] = b"COMMIT\0";

/// What becomes of the next commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Lose {
    Nothing,
    /// The server commits; the connection breaks before it can say so.
    Answer,
    /// The connection breaks before the server hears of it.
    Commit,
}

#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: String,
    upstream: Arc<Mutex<String>>,
    next: Arc<AtomicU8>,
    lost: Arc<AtomicU32>,
    tasks: Tasks,
}

impl Proxy {
    /// A proxy before `upstream`, which loses nothing yet.
    pub(crate) async fn before(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let proxy = Self {
            address,
            upstream: Arc::new(Mutex::new(upstream.to_owned())),
            next: Arc::default(),
            lost: Arc::default(),
            tasks: Tasks::new(),
        };
        let (next, lost) = (proxy.next.clone(), proxy.lost.clone());
        let (tasks, upstream) = (proxy.tasks.clone(), proxy.upstream.clone());
        proxy.tasks.spawn("proxy", async move {
            while let Ok((client, _)) = listener.accept().await {
                let upstream = upstream.lock().unwrap().clone();
                let Ok(server) = TcpStream::connect(upstream).await else {
                    continue;
                };
                let (next, lost) = (next.clone(), lost.clone());
                tasks.spawn("proxied", pass(client, server, next, lost));
            }
        });
        proxy
    }

    /// New connections go to another server, as after a failover.
    pub(crate) fn lead_to(&self, upstream: &str) {
        upstream.clone_into(&mut self.upstream.lock().unwrap());
    }

    /// Loses this of the next commit that comes through.
    pub(crate) fn lose(&self, what: Lose) {
        self.next.store(what as u8, Ordering::SeqCst);
    }

    /// How much was lost so far.
    pub(crate) fn lost(&self) -> u32 {
        self.lost.load(Ordering::SeqCst)
    }
}

async fn pass(client: TcpStream, server: TcpStream, next: Arc<AtomicU8>, lost: Arc<AtomicU32>) {
    let (mut client_in, client_out) = client.into_split();
    let (server_in, mut server_out) = server.into_split();
    let breaking = CancellationToken::new();
    let answers = answer(server_in, client_out, breaking.clone());
    let requests = async {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = client_in.read(&mut bytes).await {
            let bytes = &bytes[..count];
            if bytes.windows(COMMIT.len()).any(|part| part == COMMIT) {
                let what = next.swap(Lose::Nothing as u8, Ordering::SeqCst);
                if what != Lose::Nothing as u8 {
                    lost.fetch_add(1, Ordering::SeqCst);
                    if what == Lose::Commit as u8 {
                        return;
                    }
                    breaking.cancel();
                }
            }
            if server_out.write_all(bytes).await.is_err() {
                return;
            }
            if breaking.is_cancelled() {
                return std::future::pending().await; // the answer ends it
            }
        }
    };
    tokio::select! {
        () = requests => {}
        () = answers => {}
    }
}

/// Passes answers on; ends with the first one after `breaking`, which nobody hears.
async fn answer(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    breaking: CancellationToken,
) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = server.read(&mut bytes).await {
        if breaking.is_cancelled() || client.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
