//! A server of mail that is asked for mailboxes: what it says is told by the name of the mailbox,
//! and by that of its domain. It keeps what it is told.
//!
//! | recipient | answer |
//! |---|---|
//! | any of `takes-all.com` | 250 |
//! | `no-such-mailbox…`, `gone` | 550 5.1.1 |
//! | the same of `strict.com`, `plain` | 550, without an enhanced code |
//! | the same of `grey.com`, `later` | 450 |
//! | `full` | 452 4.2.2 |
//! | `policy` | 550 5.7.1 |
//! | `cut` | the connection ends |
//! | `postmaster` of `strict.com` | 550 |
//! | all other | 250 |

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::stage::spawn;

/// How it meets those that connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Fine,
    /// It says nothing.
    Silent,
    /// It says no to everybody.
    Closed,
    /// It wants a connection that is encrypted.
    Secret,
    /// Its first line has no end.
    Endless,
}

#[derive(Debug, Default)]
struct Heard {
    mood: Option<Mood>,
    /// What each connection was told, a line each.
    conversations: Vec<Vec<String>>,
    /// How many ask for a domain now, and how many did so at most.
    open: BTreeMap<String, (usize, usize)>,
}

/// Listens as long as the test runs.
#[derive(Debug, Clone)]
pub(super) struct Post {
    pub(super) port: u16,
    heard: Arc<Mutex<Heard>>,
}

impl Post {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let post = Self {
            port: listener.local_addr().unwrap().port(),
            heard: Arc::default(),
        };
        let all = post.clone();
        spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let post = all.clone();
                let nth = {
                    let mut heard = post.heard.lock().unwrap();
                    heard.conversations.push(Vec::new());
                    heard.conversations.len() - 1
                };
                spawn(async move {
                    let mut domain = None;
                    let _ = post.serve(socket, nth, &mut domain).await;
                    post.leave(domain);
                });
            }
        });
        post
    }

    pub(super) fn is(&self, mood: Mood) {
        self.heard.lock().unwrap().mood = Some(mood);
    }

    /// What each connection was told.
    pub(super) fn conversations(&self) -> Vec<Vec<String>> {
        self.heard.lock().unwrap().conversations.clone()
    }

    /// The mailboxes that were asked for, but for those that can not exist and postmasters.
    pub(super) fn asked(&self) -> Vec<String> {
        let all = self.conversations().concat();
        let recipients = all.iter().filter_map(|line| recipient(line));
        let is_one = |to: &&str| !to.starts_with("no-such") && !to.starts_with("postmaster");
        recipients.filter(is_one).map(str::to_owned).collect()
    }

    /// How many connections asked for a domain at the same time, at most.
    pub(super) fn at_once(&self, domain: &str) -> usize {
        self.heard.lock().unwrap().open[domain].1
    }

    fn leave(&self, domain: Option<String>) {
        if let Some(domain) = domain {
            let mut heard = self.heard.lock().unwrap();
            heard.open.get_mut(&domain).unwrap().0 -= 1;
        }
    }

    async fn serve(
        &self,
        socket: TcpStream,
        nth: usize,
        domain: &mut Option<String>,
    ) -> Option<()> {
        let mood = self.heard.lock().unwrap().mood.unwrap_or(Mood::Fine);
        let (read, mut write) = socket.into_split();
        let mut lines = BufReader::new(read).lines();
        match mood {
            Mood::Fine | Mood::Secret => write.write_all(b"220-a\r\n220 test\r\n").await.ok()?,
            Mood::Silent => {}
            Mood::Closed => write.write_all(b"554 5.7.1 no\r\n").await.ok()?,
            Mood::Endless => loop {
                write.write_all(&[b'2'; 4096]).await.ok()?;
            },
        }
        while let Some(line) = lines.next_line().await.ok()? {
            let verb = line.split([' ', ':']).next().unwrap().to_uppercase();
            let to = recipient(&line).map(str::to_owned);
            self.heard.lock().unwrap().conversations[nth].push(line);
            if mood == Mood::Silent {
                continue;
            }
            let answer = match (verb.as_str(), to) {
                ("MAIL", _) if mood == Mood::Secret => "530 5.7.0 STARTTLS first\r\n",
                ("RCPT", Some(to)) => {
                    let (local, of) = to.split_once('@').unwrap();
                    if domain.is_none() {
                        *domain = Some(of.to_owned());
                        let mut heard = self.heard.lock().unwrap();
                        let (now, most) = heard.open.entry(of.to_owned()).or_default();
                        *now += 1;
                        *most = (*most).max(*now);
                    }
                    if local == "cut" {
                        return None;
                    }
                    answer(local, of)
                }
                ("QUIT", _) => {
                    // Before the answer: behind it the next connection may be there already.
                    self.leave(domain.take());
                    write.write_all(b"221 bye\r\n").await.ok()?;
                    return None;
                }
                _ => "250 ok\r\n",
            };
            write.write_all(answer.as_bytes()).await.ok()?;
        }
        None
    }
}

fn answer(local: &str, domain: &str) -> &'static str {
    let is_nobody = local.starts_with("no-such-mailbox-");
    match (local, domain) {
        (_, "takes-all.com") => "250 2.1.5 ok\r\n",
        ("plain" | "postmaster", "strict.com") => "550 not for you\r\n",
        (_, "strict.com") if is_nobody => "550 not for you\r\n",
        (_, "grey.com") if is_nobody => "450 4.7.1 come back later\r\n",
        ("gone", _) => "550-5.1.1 there is\r\n550 5.1.1 nobody\r\n",
        ("plain", _) => "550 no such user\r\n",
        ("full", _) => "452 4.2.2 over quota\r\n",
        ("later", _) => "450 4.2.0 not now\r\n",
        ("policy", _) => "550 5.7.1 not from you\r\n",
        _ if is_nobody => "550 5.1.1 nobody\r\n",
        _ => "250 2.1.5 ok\r\n",
    }
}

/// Whom a line asks for.
pub(super) fn recipient(line: &str) -> Option<&str> {
    line.strip_prefix("RCPT TO:<")?.strip_suffix('>')
}
