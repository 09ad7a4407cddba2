//! A server of mail: takes what comes and does to it what its recipient's name says.
//!
//! | recipient | what happens |
//! |---|---|
//! | `nobody…@` | 550 5.1.1 |
//! | `policy…@` | 550 5.7.1 |
//! | `later…@` | 451, as long as the server is busy |
//! | `cut…@` | the connection ends behind the data, which were taken |
//! | `spam…@` | 554 to the data |
//!
//! What comes from `refused@` is not taken.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::stage::spawn;

/// What came.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) recipient: String,
    pub(crate) text: String,
}

impl Got {
    /// A header, unfolded.
    pub(crate) fn header(&self, name: &str) -> String {
        let head = self.text.split("\r\n\r\n").next().unwrap();
        let head = head.replace("\r\n ", " ");
        let start = format!("{name}: ");
        let line = head.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_default().to_owned()
    }

    /// The body with its long lines whole again, if it is plain text ("soft line breaks", RFC 2045
    /// section 6.7).
    pub(crate) fn lines(&self) -> String {
        let body = self
            .text
            .split_once("\r\n\r\n")
            .map_or("", |(_, body)| body);
        match self.header("Content-Transfer-Encoding").as_str() {
            "quoted-printable" => body.replace("=\r\n", ""),
            _ => body.to_owned(),
        }
    }
}

#[derive(Default)]
struct Inner {
    got: Mutex<Vec<Got>>,
    is_busy: AtomicBool,
    connections: AtomicUsize,
}

/// Listens as long as the test runs.
#[derive(Clone)]
pub(crate) struct Smtp {
    pub(crate) port: u16,
    inner: Arc<Inner>,
}

impl Smtp {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let smtp = Self {
            port: listener.local_addr().unwrap().port(),
            inner: Arc::default(),
        };
        let inner = smtp.inner.clone();
        spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                inner.connections.fetch_add(1, Ordering::Relaxed);
                spawn(serve(socket, inner.clone()));
            }
        });
        smtp
    }

    /// Everything whose data were taken, whether that was said or not.
    pub(crate) fn got(&self) -> Vec<Got> {
        self.inner.got.lock().unwrap().clone()
    }

    /// Whom it was for, in the order of the alphabet.
    pub(crate) fn recipients(&self) -> Vec<String> {
        let mut all: Vec<String> = self.got().into_iter().map(|got| got.recipient).collect();
        all.sort();
        all
    }

    pub(crate) fn be_busy(&self, is_busy: bool) {
        self.inner.is_busy.store(is_busy, Ordering::Relaxed);
    }

    pub(crate) fn connections(&self) -> usize {
        self.inner.connections.load(Ordering::Relaxed)
    }
}

async fn serve(socket: TcpStream, inner: Arc<Inner>) -> Option<()> {
    let (read, mut write) = socket.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut say = async |text: &str| write.write_all(text.as_bytes()).await.ok();
    say("220 test\r\n").await?;
    let mut recipient = String::new();
    while let Some(line) = lines.next_line().await.ok()? {
        let verb = line.split([' ', ':']).next().unwrap().to_uppercase();
        let answer = match verb.as_str() {
            "EHLO" => "250-test\r\n250-8BITMIME\r\n250 AUTH PLAIN\r\n",
            "AUTH" if line.ends_with("AGFkYQBodXNo") => "235 2.7.0 in\r\n",
            "AUTH" => "535 5.7.8 no such user or password\r\n",
            "MAIL" if line.contains("<refused@") => "553 5.7.1 not your address\r\n",
            "RCPT" => {
                recipient = line.split(['<', '>']).nth(1).unwrap().to_owned();
                match recipient.as_str() {
                    to if to.starts_with("nobody") => "550 5.1.1 no such user\r\n",
                    to if to.starts_with("policy") => "550 5.7.1 not from you\r\n",
                    to if to.starts_with("later") && inner.is_busy.load(Ordering::Relaxed) => {
                        "451 4.3.2 try again\r\n"
                    }
                    _ => "250 2.1.5 ok\r\n",
                }
            }
            "DATA" => {
                say("354 go on\r\n").await?;
                let mut text = String::new();
                loop {
                    let line = lines.next_line().await.ok()??;
                    if line == "." {
                        break;
                    }
                    text.push_str(line.strip_prefix('.').unwrap_or(&line));
                    text.push_str("\r\n");
                }
                let to = recipient.clone();
                if to.starts_with("spam") {
                    say("554 5.6.0 smells\r\n").await?;
                    continue;
                }
                let is_cut = to.starts_with("cut");
                let got = Got {
                    recipient: to,
                    text,
                };
                inner.got.lock().unwrap().push(got);
                if is_cut {
                    return None;
                }
                "250 2.0.0 queued as 4F1\r\n"
            }
            "QUIT" => {
                say("221 bye\r\n").await?;
                return None;
            }
            _ => "250 ok\r\n",
        };
        say(answer).await?;
    }
    None
}
