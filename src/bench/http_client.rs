//! A lean HTTP/1.1 client for one connection that is kept alive.
//!
//! Made for measuring: it shares the processor with what it measures, so it does no more than it
//! must. It reads answers with a `Content-Length`, which is how a server of ours answers a `POST`,
//! and refuses all others.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The largest answer.
const ANSWER_MAX: usize = 64 * 1024;

/// A connection, with the start of every request that is sent over it.
pub(super) struct Connection {
    stream: TcpStream,
    head: String,
    sent: Vec<u8>,
    read: Vec<u8>,
}

impl Connection {
    /// Connects for requests of JSON to one path.
    pub(super) async fn open(address: SocketAddr, path: &str, key: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/json\r\nContent-Length: "
        );
        Ok(Self {
            stream,
            head,
            sent: Vec::with_capacity(1024),
            read: Vec::with_capacity(4096),
        })
    }

    /// Sends a body and reads the whole answer; its status.
    pub(super) async fn post(&mut self, body: &str) -> io::Result<u16> {
        self.sent.clear();
        self.sent.extend_from_slice(self.head.as_bytes());
        let length = body.len().to_string();
        for part in [length.as_str(), "\r\n\r\n", body] {
            self.sent.extend_from_slice(part.as_bytes());
        }
        self.stream.write_all(&self.sent).await?;
        self.read.clear();
        loop {
            if let Some((status, length)) = head(&self.read)? {
                if self.read.len() >= length {
                    return Ok(status);
                }
                if length > ANSWER_MAX {
                    return Err(odd("the answer is too long"));
                }
            } else if self.read.len() > ANSWER_MAX {
                return Err(odd("the answer does not begin"));
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The last answer, for whoever wants to know why it was not the expected one.
    pub(super) fn answer(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }
}

/// The status of an answer and its length with its head, once that is there.
fn head(read: &[u8]) -> io::Result<Option<(u16, usize)>> {
    let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let lines = std::str::from_utf8(&read[..end]).map_err(|_| odd("the head is no text"))?;
    let mut lines = lines.split("\r\n");
    let status = lines.next().and_then(|line| line.get(9..12)?.parse().ok());
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok())?
    });
    match (status, length) {
        (Some(status), Some(length)) => Ok(Some((status, end + 4 + length))),
        _ => Err(odd("the answer has no status or no length")),
    }
}

fn odd(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_as_long_as_its_head_says() {
        let whole = b"HTTP/1.1 201 Created\r\nX: y\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(head(whole).unwrap(), Some((201, whole.len())));
        assert_eq!(head(&whole[..20]).unwrap(), None);
        assert!(head(b"HTTP/1.1 201 Created\r\n\r\n").is_err());
        assert!(head(b"nonsense\r\nContent-Length: 2\r\n\r\n").is_err());
    }
}
