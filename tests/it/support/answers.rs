//! A proxy before PostgreSQL that loses one answer, and may let nobody through from then on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bullwark::tasks::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What is in the way of answers.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// The next answer with it is dropped, and its connection cut.
    mark: Mutex<Option<Vec<u8>>>,
    shuts: AtomicBool,
    is_shut: AtomicBool,
}

impl Answers {
    /// Starts a proxy before `upstream`, which loses nothing yet; gives its address.
    pub(crate) async fn before(upstream: &str, tasks: &Tasks) -> (Arc<Self>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answers = Arc::<Self>::default();
        let (shared, group, upstream) = (answers.clone(), tasks.clone(), upstream.to_owned());
        tasks.spawn("proxy", async move {
            loop {
                let client = tokio::select! {
                    client = listener.accept() => client.unwrap().0,
                    () = group.stopping().cancelled() => return,
                };
                let Ok(server) = TcpStream::connect(&upstream).await else {
                    continue;
                };
                group.spawn("proxied", pass(client, server, shared.clone()));
            }
        });
        (answers, address)
    }

    /// Loses the next answer that has these bytes.
    pub(crate) fn lose(&self, mark: &[u8]) {
        *self.mark.lock().unwrap() = Some(mark.to_vec());
    }

    /// The same, and then nothing gets through until [`Self::open`].
    pub(crate) fn lose_and_shut(&self, mark: &[u8]) {
        self.shuts.store(true, Ordering::SeqCst);
        self.lose(mark);
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.mark.lock().unwrap().is_none()
    }

    pub(crate) fn open(&self) {
        self.shuts.store(false, Ordering::SeqCst);
        self.is_shut.store(false, Ordering::SeqCst);
    }

    fn passes(&self, answer: &[u8]) -> bool {
        let mut mark = self.mark.lock().unwrap();
        let has = |mark: &Vec<u8>| {
            answer
                .windows(mark.len())
                .any(|part| part == mark.as_slice())
        };
        if mark.as_ref().is_some_and(has) {
            *mark = None;
            let shuts = self.shuts.load(Ordering::SeqCst);
            self.is_shut.store(shuts, Ordering::SeqCst);
            return false;
        }
        true
    }

    fn is_shut(&self) -> bool {
        self.is_shut.load(Ordering::SeqCst)
    }
}

async fn pass(mut client: TcpStream, mut server: TcpStream, answers: Arc<Answers>) {
    let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    while !answers.is_shut() {
        let is_passed = tokio::select! {
            read = client.read(&mut asked) => match read {
                Ok(bytes) if bytes > 0 && !answers.is_shut() => {
                    server.write_all(&asked[..bytes]).await
                }
                _ => return,
            },
            read = server.read(&mut answered) => match read {
                Ok(bytes) if bytes > 0 && answers.passes(&answered[..bytes]) => {
                    client.write_all(&answered[..bytes]).await
                }
                _ => return,
            },
        };
        if is_passed.is_err() {
            return;
        }
    }
}
