//! A receiver of webhooks: a small server that keeps what it gets and answers what it is told.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::stage::{eventually, spawn};

/// What came.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) path: String,
    headers: HashMap<String, String>,
    body: String,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn body(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The signatures that this secret made, counted as a receiver would check them.
    pub(crate) fn signed_by(&self, secret: &str) -> usize {
        let key = STANDARD
            .decode(secret.strip_prefix("whsec_").unwrap())
            .unwrap();
        let (id, time) = (self.header("webhook-id"), self.header("webhook-timestamp"));
        let text = format!("{id}.{time}.{}", self.body);
        let expected = format!("v1,{}", STANDARD.encode(hmac_sha256(&key, text.as_bytes())));
        let signatures = self.header("webhook-signature").split(' ');
        signatures.filter(|given| *given == expected).count()
    }
}

/// RFC 2104, written out: not the code that signs.
fn hmac_sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
    assert!(key.len() <= 64);
    let pad = |byte: u8| -> Vec<u8> {
        let filled = key.iter().copied().chain(std::iter::repeat(0)).take(64);
        filled.map(|part| part ^ byte).collect()
    };
    let inner = Sha256::digest([pad(0x36).as_slice(), text].concat());
    Sha256::digest([pad(0x5c).as_slice(), &inner].concat()).to_vec()
}

/// Listens as long as the test runs.
pub(crate) struct Receiver {
    pub(crate) port: u16,
    got: Arc<Mutex<Vec<Got>>>,
    answers: Arc<Mutex<VecDeque<String>>>,
    gate: Arc<Semaphore>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            port: listener.local_addr().unwrap().port(),
            got: Arc::default(),
            answers: Arc::default(),
            gate: Arc::new(Semaphore::new(1)),
        };
        let (got, answers) = (receiver.got.clone(), receiver.answers.clone());
        let gate = receiver.gate.clone();
        spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                spawn(serve(socket, got.clone(), answers.clone(), gate.clone()));
            }
        });
        receiver
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The next answers, in this order: a status, and more headers, each with its line's end. After
    /// them it is 200.
    pub(crate) fn answer_with(&self, answers: &[(&str, &str)]) {
        let text = |(status, headers): &(&str, &str)| {
            format!("HTTP/1.1 {status}\r\n{headers}content-length: 5\r\n\r\nwords")
        };
        self.answers
            .lock()
            .unwrap()
            .extend(answers.iter().map(text));
    }

    /// The next answer has this body.
    pub(crate) fn answer_body(&self, status: &str, body: &str) {
        let length = body.len();
        let text = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
        self.answers.lock().unwrap().push_back(text);
    }

    /// From now on requests are read and not answered.
    pub(crate) fn close_gate(&self) {
        self.gate.forget_permits(usize::MAX);
    }

    pub(crate) fn open_gate(&self) {
        self.gate.add_permits(1);
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// Waits until so many requests have come.
    pub(crate) async fn until(&self, count: usize) -> Vec<Got> {
        let what = format!("{count} requests have come");
        eventually(&what, async || {
            let got = self.got();
            (got.len() >= count).then_some(got)
        })
        .await
    }
}

async fn serve(
    mut socket: TcpStream,
    got: Arc<Mutex<Vec<Got>>>,
    answers: Arc<Mutex<VecDeque<String>>>,
    gate: Arc<Semaphore>,
) -> Option<()> {
    loop {
        let request = read(&mut socket).await?;
        got.lock().unwrap().push(request);
        // Held as long as the answer takes, and given back.
        let _open = gate.acquire().await.unwrap();
        let answer = answers.lock().unwrap().pop_front();
        let usual = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nthanks".to_owned();
        let answer = answer.unwrap_or(usual);
        socket.write_all(answer.as_bytes()).await.ok()?;
    }
}

async fn read(socket: &mut TcpStream) -> Option<Got> {
    let mut bytes = Vec::new();
    let end = loop {
        let found = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(at) = found {
            break at + 4;
        }
        more(socket, &mut bytes).await?;
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length");
    let length: usize = length.map_or(0, |length| length.parse().unwrap());
    while bytes.len() < end + length {
        more(socket, &mut bytes).await?;
    }
    let body = String::from_utf8(bytes[end..end + length].to_vec()).unwrap();
    Some(Got {
        path,
        headers,
        body,
    })
}

async fn more(socket: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut part = [0; 4096];
    match socket.read(&mut part).await {
        Ok(0) | Err(_) => None,
        Ok(count) => {
            bytes.extend_from_slice(&part[..count]);
            Some(())
        }
    }
}
