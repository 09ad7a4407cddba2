//! How mail servers are asked whether a mailbox is there: what whoever runs the server decides.

use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmtpProbe {
    /// The sender that they are told, in front of the `@` and behind it. What is behind is also how
    /// this machine calls itself.
    pub from: (String, String),
    pub port: u16,
    /// How long a server may take for one answer.
    pub step: Duration,
}
