//! A way to Redis that holds back what is sent, for a process that is slow at a bad moment.

use std::sync::Arc;

use bullwark::tasks::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) address: String,
    is_held: watch::Sender<bool>,
    /// Told of everything that is held back.
    waiting: Arc<Notify>,
    _tasks: Tasks,
}

impl Held {
    /// A way to `upstream`, which is open.
    pub(crate) async fn before(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (is_held, held) = watch::channel(false);
        let (waiting, tasks) = (Arc::new(Notify::new()), Tasks::new());
        let (told, passing, upstream) = (waiting.clone(), tasks.clone(), upstream.to_owned());
        tasks.spawn("held", async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&upstream).await.unwrap();
                passing.spawn("passed", pass(client, server, held.clone(), told.clone()));
            }
        });
        Self {
            address,
            is_held,
            waiting,
            _tasks: tasks,
        }
    }

    pub(crate) fn hold(&self) {
        self.is_held.send_replace(true);
    }

    /// Until something is held back.
    pub(crate) async fn holds(&self) {
        self.waiting.notified().await;
    }

    pub(crate) fn let_go(&self) {
        self.is_held.send_replace(false);
    }
}

async fn pass(
    client: TcpStream,
    server: TcpStream,
    mut held: watch::Receiver<bool>,
    told: Arc<Notify>,
) {
    let (mut client_in, mut client_out) = client.into_split();
    let (mut server_in, mut server_out) = server.into_split();
    let requests = async {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = client_in.read(&mut bytes).await {
            if *held.borrow() {
                told.notify_one();
            }
            if held.wait_for(|is_held| !is_held).await.is_err() {
                return;
            }
            server_out.write_all(&bytes[..count]).await.unwrap();
        }
    };
    tokio::select! {
        () = requests => {}
        _ = copy(&mut server_in, &mut client_out) => {}
    }
}
