//! SMTP (RFC 5321), by `lettre`.
//!
//! | it ends | the mail |
//! |---|---|
//! | before the server asks for the data, in whatever way | was not sent |
//! | 4yz to `RCPT` or to the data | was not sent: later |
//! | 5yz to `RCPT` or to the data | was not sent, and will not be |
//! | 5yz to `MAIL` | was not sent, and no other of this sender would be |
//! | behind that, without an answer | nobody knows |
//!
//! Promises: a password goes over an encrypted connection, or to this machine; names are resolved
//! behind the guard of addresses, and connected to as they were resolved. Refuses to go on in the
//! clear when a server says that it has no `STARTTLS`.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail as MailFrom, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};
use lettre::transport::smtp::response::{Code, Response};
use serde_json::Value;
use tokio::time::timeout;

use super::super::super::connection::Connection;
use super::super::message::Mail;
use super::Handed;
use crate::outbound::{ResolveError, resolve};
use crate::secret::Secret;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may take for one answer, and for that to the data: it may look into them.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const DATA_TIMEOUT: Duration = Duration::from_secs(120);
/// Addresses of a host that are tried.
const ADDRESSES_MAX: usize = 3;
/// What is told of an answer, in characters.
const TOLD_MAX: usize = 300;
/// Ports of mail below those that anybody may have.
const MAIL_PORTS: [u16; 3] = [25, 465, 587];
const FREE_PORTS: u16 = 1024;
/// Enhanced status codes (RFC 3463) that say that there is no such address.
const NO_ADDRESS: [&str; 5] = ["5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Security {
    Tls,
    StartTls,
    /// To this machine alone.
    None,
}

pub(in crate::handlers) struct Smtp {
    host: String,
    port: u16,
    security: Security,
    credentials: Option<(String, Secret)>,
    allow_private: bool,
    idle: Mutex<Vec<AsyncSmtpConnection>>,
}

/// Why there is no connection.
type NotOpen = Handed;

impl Smtp {
    pub(super) fn new(connection: &Connection, allow_private: bool) -> Result<Self, String> {
        let host = connection.setting("host").unwrap_or_default().to_owned();
        let port = connection.settings.get("port").and_then(Value::as_u64);
        let port = port.and_then(|port| u16::try_from(port).ok());
        let security = match (connection.setting("security"), port) {
            (Some("tls"), _) | (None, Some(465)) => Security::Tls,
            (Some("none"), _) => Security::None,
            _ => Security::StartTls,
        };
        let port = port.unwrap_or(match security {
            Security::Tls => 465,
            Security::StartTls => 587,
            Security::None => 25,
        });
        if !allow_private && port < FREE_PORTS && !MAIL_PORTS.contains(&port) {
            return Err(format!(
                "the connection names port {port}; mail goes to 25, 465, 587, or from {FREE_PORTS} \
                 on"
            ));
        }
        let credential = |name| connection.credential(name);
        let credentials = credential("username").zip(credential("password"));
        Ok(Self {
            host,
            port,
            security,
            credentials: credentials.map(|(name, password)| (name.to_string(), password)),
            allow_private,
            idle: Mutex::default(),
        })
    }

    pub(super) async fn hand_over(&self, mail: &Mail) -> Handed {
        let bytes = match mail.mime() {
            Ok(bytes) => bytes,
            Err(message) => {
                return Handed::Rejected {
                    code: "message_invalid",
                    message,
                    is_bounce: false,
                };
            }
        };
        let idle = self.idle().pop();
        if let Some(mut connection) = idle {
            match transact(&mut connection, mail, &bytes).await {
                // The server had closed it meanwhile: nothing was said, let alone sent.
                Handed::Unavailable(..) => {}
                handed => return self.keep(connection, handed).await,
            }
        }
        let mut connection = match self.open().await {
            Ok(connection) => connection,
            Err(not_open) => return not_open,
        };
        let handed = transact(&mut connection, mail, &bytes).await;
        self.keep(connection, handed).await
    }

    /// Keeps the connection for the next mail, if it is at the beginning of one.
    async fn keep(&self, mut connection: AsyncSmtpConnection, handed: Handed) -> Handed {
        match handed {
            Handed::Sent(_) => self.idle().push(connection),
            _ => drop(timeout(ANSWER_TIMEOUT, connection.abort()).await),
        }
        handed
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<AsyncSmtpConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn close(self) {
        let idle = std::mem::take(&mut *self.idle());
        for mut connection in idle {
            let _ = timeout(Duration::from_secs(2), connection.quit()).await;
        }
    }

    /// Connected, encrypted and signed in.
    async fn open(&self) -> Result<AsyncSmtpConnection, NotOpen> {
        let addresses = resolve(&self.host, self.port, self.allow_private).await;
        let addresses = addresses.map_err(|error| match error {
            ResolveError::Forbidden(why) => Handed::Misconfigured(why.to_string()),
            ResolveError::Unknown(..) => Handed::Unavailable(error.to_string(), None),
        })?;
        let is_here = addresses.iter().all(|address| address.ip().is_loopback());
        if self.security == Security::None && !is_here {
            return Err(Handed::Misconfigured(format!(
                "`security` is `none`, and {} is another machine: mail and password would be read \
                 by whoever is on the way; take `starttls` or `tls`",
                self.host
            )));
        }
        let mut connection = self.connect(&addresses).await?;
        let hello = hello();
        if self.security == Security::StartTls {
            if !connection.can_starttls() {
                return Err(Handed::Misconfigured(format!(
                    "{} does not offer STARTTLS: its mail would be read on the way",
                    self.host
                )));
            }
            let tls = self.tls()?;
            within(ANSWER_TIMEOUT, connection.starttls(tls, &hello))
                .await
                .map_err(|error| error.unavailable("STARTTLS"))?;
        }
        if let Some((name, password)) = &self.credentials {
            let credentials = Credentials::new(name.clone(), password.to_string());
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            let signed_in = within(ANSWER_TIMEOUT, connection.auth(&mechanisms, &credentials));
            signed_in.await.map_err(|error| match error.code() {
                Some(code) if is_permanent(code) => Handed::CredentialsRefused(error.told("AUTH")),
                _ => error.unavailable("AUTH"),
            })?;
        }
        Ok(connection)
    }

    async fn connect(&self, addresses: &[SocketAddr]) -> Result<AsyncSmtpConnection, NotOpen> {
        let mut failed = Handed::Unavailable("no address".to_owned(), None);
        for address in addresses.iter().take(ADDRESSES_MAX) {
            let tls = match self.security {
                Security::Tls => Some(self.tls()?),
                Security::StartTls | Security::None => None,
            };
            let hello = hello();
            let wait = Some(CONNECT_TIMEOUT);
            let connecting = AsyncSmtpConnection::connect_tokio1(*address, wait, &hello, tls, None);
            match within(CONNECT_TIMEOUT + ANSWER_TIMEOUT, connecting).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failed = error.unavailable(&self.host),
            }
        }
        Err(failed)
    }

    fn tls(&self) -> Result<TlsParameters, NotOpen> {
        let tls = TlsParameters::new_rustls(self.host.clone());
        tls.map_err(|error| Handed::Misconfigured(format!("TLS to {}: {error}", self.host)))
    }
}

/// How this machine calls itself.
fn hello() -> ClientId {
    ClientId::default()
}

/// One mail over a connection that is at the beginning of one.
async fn transact(connection: &mut AsyncSmtpConnection, mail: &Mail, bytes: &[u8]) -> Handed {
    let mut parameters = Vec::new();
    if !mail.to.to_string().is_ascii() {
        if !connection
            .server_info()
            .supports_feature(Extension::SmtpUtfEight)
        {
            return Handed::Rejected {
                code: "address_not_ascii",
                message: "the server takes no addresses but in ASCII".to_owned(),
                is_bounce: false,
            };
        }
        parameters.push(MailParameter::SmtpUtfEight);
    }
    let from = MailFrom::new(Some(mail.sender.from.email.clone()), parameters);
    if let Err(error) = within(ANSWER_TIMEOUT, connection.command(from)).await {
        return match error.code() {
            // True of every mail of this sender.
            Some(code) if is_permanent(code) => Handed::Misconfigured(error.told("MAIL")),
            _ => error.before_data("MAIL", "message_rejected"),
        };
    }
    let to = Rcpt::new(mail.to.clone(), Vec::new());
    if let Err(error) = within(ANSWER_TIMEOUT, connection.command(to)).await {
        return error.before_data("RCPT", "recipient_rejected");
    }
    if let Err(error) = within(ANSWER_TIMEOUT, connection.command(Data)).await {
        return error.before_data("DATA", "message_rejected");
    }
    match within(DATA_TIMEOUT, connection.message(bytes)).await {
        Ok(taken) => Handed::Sent(queue_id(&taken)),
        Err(error) => match error.code() {
            Some(code) if is_permanent(code) => error.rejected("the data", "message_rejected"),
            Some(_) => Handed::Deferred(error.told("the data")),
            None => Handed::Ambiguous(error.told("the data")),
        },
    }
}

/// The last line of what it says, which has the name that it gave the mail.
fn queue_id(taken: &Response) -> Option<String> {
    let said = taken.message().last()?.trim();
    let said: String = said.chars().filter(|c| !c.is_control()).take(200).collect();
    (!said.is_empty()).then_some(said)
}

/// What went wrong.
enum Trouble {
    Slow(Duration),
    Smtp(lettre::transport::smtp::Error),
}

async fn within<T>(
    time: Duration,
    step: impl Future<Output = Result<T, lettre::transport::smtp::Error>>,
) -> Result<T, Trouble> {
    match timeout(time, step).await {
        Ok(done) => done.map_err(Trouble::Smtp),
        Err(_) => Err(Trouble::Slow(time)),
    }
}

impl Trouble {
    /// What the server answered; none: it did not.
    fn code(&self) -> Option<Code> {
        match self {
            Self::Slow(_) => None,
            Self::Smtp(error) => error.status(),
        }
    }

    /// What the server said, without its code.
    fn words(&self) -> String {
        match self {
            Self::Slow(time) => format!("nothing came within {time:?}"),
            Self::Smtp(error) => match std::error::Error::source(error) {
                Some(source) => source.to_string(),
                None => error.to_string(),
            },
        }
    }

    fn told(&self, step: &str) -> String {
        let code = self.code().map(|code| format!("{code} "));
        let all = format!("{step}: {}{}", code.unwrap_or_default(), self.words());
        all.chars()
            .filter(|c| !c.is_control())
            .take(TOLD_MAX)
            .collect()
    }

    fn unavailable(&self, step: &str) -> Handed {
        Handed::Unavailable(self.told(step), None)
    }

    fn rejected(&self, step: &str, code: &'static str) -> Handed {
        let words = self.words();
        let first = words.split_whitespace().next().unwrap_or_default();
        Handed::Rejected {
            code,
            message: self.told(step),
            is_bounce: NO_ADDRESS.contains(&first),
        }
    }

    /// Nothing was sent: the data were not.
    fn before_data(&self, step: &str, code: &'static str) -> Handed {
        match self.code() {
            Some(answer) if is_permanent(answer) => self.rejected(step, code),
            // It goes away, and says so to whatever comes (RFC 5321, 3.8).
            Some(answer) if answer.to_string() == "421" => self.unavailable(step),
            Some(_) => Handed::Deferred(self.told(step)),
            None => self.unavailable(step),
        }
    }
}

fn is_permanent(code: Code) -> bool {
    code.to_string().starts_with('5')
}
