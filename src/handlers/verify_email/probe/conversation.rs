//! One connection to one mail server: `EHLO`, `MAIL`, some `RCPT`, `QUIT`. Never `DATA`.
//!
//! The first recipient is one that can not exist: a server that takes it takes everybody, and is
//! asked no more. One that says "not now" or "not from you" to it is left alone as well.
//!
//! Refuses to wait longer than it was told for an answer, or for all of them, and to read more than
//! [`HEARD_MAX`] bytes.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use lettre::transport::smtp::Error;
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream};
use lettre::transport::smtp::commands::{Mail, Quit, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::super::address::Address;
use super::Finding;
use super::reply::{self, Says};

/// What a server may say in one connection: a dozen answers, each with some lines.
const HEARD_MAX: usize = 64 * 1024;
/// How long the end may take, which nobody waits for longer.
const QUIT_TIME: Duration = Duration::from_secs(2);

/// Whose connections these are, and how long they may take.
#[derive(Debug, Clone)]
pub(super) struct Manner {
    pub(super) from: lettre::Address,
    pub(super) step: Duration,
    /// When all of it has to be over.
    pub(super) until: Instant,
}

/// Why there is no conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotOpen {
    /// There is no connection.
    Unreached,
    /// There is one, and no greeting, or none for now.
    Unwelcome,
    /// The server wants nothing of us.
    Refused,
}

/// What a conversation came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Talk {
    TakesAll,
    /// What was found of each address.
    Found(Vec<Finding>),
    /// The same of the first ones. There is no more to hear.
    Broken(Vec<Finding>),
}

/// A server that has said who it is.
pub(super) struct Conversation {
    smtp: AsyncSmtpConnection,
    manner: Manner,
}

impl Conversation {
    pub(super) async fn open(address: SocketAddr, manner: &Manner) -> Result<Self, NotOpen> {
        let by = |steps: u32| (Instant::now() + manner.step * steps).min(manner.until);
        let stream = match timeout_at(by(1), TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(_)) | Err(_) => return Err(NotOpen::Unreached),
        };
        let stream = Box::new(Limited {
            stream,
            left: HEARD_MAX,
        });
        let hello = ClientId::Domain(manner.from.domain().to_owned());
        // The greeting, and the answer to EHLO.
        let greeting = AsyncSmtpConnection::connect_with_transport(stream, &hello);
        match timeout_at(by(2), greeting).await {
            Ok(Ok(smtp)) => Ok(Self {
                smtp,
                manner: manner.clone(),
            }),
            Ok(Err(error)) if error.is_permanent() => Err(NotOpen::Refused),
            Ok(Err(_)) | Err(_) => Err(NotOpen::Unwelcome),
        }
    }

    /// Asks for each address, all of one domain.
    pub(super) async fn ask(mut self, domain: &str, addresses: &[&Address]) -> Talk {
        let mut found = Vec::with_capacity(addresses.len());
        let is_whole = self.ask_into(domain, addresses, &mut found).await;
        let by = (Instant::now() + QUIT_TIME).min(self.manner.until);
        match is_whole {
            Ok(takes_all) => {
                let _ = timeout_at(by, self.smtp.command(Quit)).await;
                match takes_all {
                    true => Talk::TakesAll,
                    false => Talk::Found(found),
                }
            }
            // It is at the beginning of a command, and can be ended as is due.
            Err(Broken::Unwilling) => {
                let _ = timeout_at(by, self.smtp.command(Quit)).await;
                Talk::Broken(found)
            }
            Err(Broken::Lost) => Talk::Broken(found),
        }
    }

    /// Whether it takes everybody; if it does not, what was found of each address.
    async fn ask_into(
        &mut self,
        domain: &str,
        addresses: &[&Address],
        found: &mut Vec<Finding>,
    ) -> Result<bool, Broken> {
        let takes_utf8 = self
            .smtp
            .server_info()
            .supports_feature(Extension::SmtpUtfEight);
        let is_utf8 = takes_utf8 && addresses.iter().any(|address| address.needs_smtputf8());
        let parameters = is_utf8.then_some(MailParameter::SmtpUtfEight);
        let mail = Mail::new(
            Some(self.manner.from.clone()),
            parameters.into_iter().collect(),
        );
        match self.say(mail).await? {
            (250 | 251, _) => {}
            (421, _) => return Err(Broken::Lost),
            _ => return Err(Broken::Unwilling),
        }
        let nobody = format!("no-such-mailbox-{}", Uuid::new_v4().simple());
        match self.recipient(&nobody, domain).await? {
            Says::Taken => return Ok(true),
            Says::NoMailbox | Says::PlainNo | Says::OtherNo => {}
            // A mailbox that is not there is full, or nothing is said.
            Says::Full | Says::Nothing => return Err(Broken::Unwilling),
            Says::Leaves => return Err(Broken::Lost),
        }
        let mut is_plain_no_sure = None;
        for address in addresses {
            let says = match !address.needs_smtputf8() || is_utf8 {
                true => self.recipient(&address.local, domain).await?,
                false => Says::Nothing,
            };
            found.push(match says {
                Says::Taken => Finding::Confirmed,
                Says::NoMailbox => Finding::NoMailbox,
                Says::Full => Finding::Full,
                Says::Leaves => return Err(Broken::Lost),
                Says::OtherNo | Says::Nothing => Finding::Unclear,
                Says::PlainNo => {
                    let is_sure = match is_plain_no_sure {
                        Some(is_sure) => is_sure,
                        // Everybody has this one (RFC 5321, 4.5.1): who refuses it refuses us.
                        None => self.recipient("postmaster", domain).await? == Says::Taken,
                    };
                    is_plain_no_sure = Some(is_sure);
                    match is_sure {
                        true => Finding::NoMailbox,
                        false => Finding::Unclear,
                    }
                }
            });
        }
        Ok(false)
    }

    async fn recipient(&mut self, local: &str, domain: &str) -> Result<Says, Broken> {
        let Ok(address) = lettre::Address::new(local, domain) else {
            return Ok(Says::Nothing);
        };
        let recipient = address.to_string();
        let (code, words) = self.say(Rcpt::new(address, Vec::new())).await?;
        Ok(reply::read(code, &words, &recipient))
    }

    /// The answer to a command: its code, and its words.
    async fn say(&mut self, command: impl Display) -> Result<(u16, String), Broken> {
        let by = (Instant::now() + self.manner.step).min(self.manner.until);
        let answer = timeout_at(by, self.smtp.command(command)).await;
        match answer.map_err(|_| Broken::Lost)? {
            Ok(answer) => {
                let words: Vec<&str> = answer.message().collect();
                Ok((u16::from(answer.code()), words.join(" ")))
            }
            Err(error) => refused(&error).ok_or(Broken::Lost),
        }
    }
}

/// Why not everybody was asked for.
enum Broken {
    /// There is no answer, and none will come.
    Lost,
    /// The server says that it tells us nothing.
    Unwilling,
}

/// What a server said that refused; none: it said nothing that can be understood.
fn refused(error: &Error) -> Option<(u16, String)> {
    let code = error.status()?;
    let words = std::error::Error::source(error).map(ToString::to_string);
    Some((u16::from(code), words.unwrap_or_default()))
}

/// A connection that ends when it has been heard enough of: lines have no end in themselves.
#[derive(Debug)]
struct Limited {
    stream: TcpStream,
    left: usize,
}

impl AsyncTokioStream for Limited {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

impl AsyncRead for Limited {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::Error::other("the server does not stop talking")));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let heard = buffer.filled().len() - before;
        self.left = self.left.saturating_sub(heard);
        polled
    }
}

impl AsyncWrite for Limited {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
