//! Limits of the server that an operator may change.

use std::time::Duration;

use super::{Exposition, TokenOptions, connection};

/// What an operator may change, and for what it is otherwise.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// How long a request may take.
    pub request_patience: Duration,
    /// How long an upload may take.
    pub upload_patience: Duration,
    /// How long an upload may stand still.
    pub upload_pause_max: Duration,
    /// The largest upload.
    pub upload_max_bytes: u64,
    /// Event streams of this server, and of one workspace on it. Each is an open connection.
    pub streams_max: usize,
    pub workspace_streams_max: usize,
    /// How often a stream on which nothing happens says that it is there.
    pub heartbeat_every: Duration,
    /// How long a body may stand still, but for uploads.
    pub body_pause_max: Duration,
    /// Connections that are open at once.
    pub connections_max: usize,
    /// Requests that one caller may have under way at once.
    pub requests_per_caller: usize,
    /// Jobs that a workspace may create in an hour, unless its plan says otherwise.
    pub jobs_per_hour: Option<u32>,
    /// Whose pages may use the API from a browser.
    pub cors_origins: Vec<String>,
    /// Ends of the names of members of payloads that only admins are shown; none: the usual ones.
    pub redacted: Option<Vec<String>>,
    /// How long requests in flight may take to end at a stop.
    pub stop_limit: Duration,
    /// Whose tokens are taken, beside API keys.
    pub tokens: TokenOptions,
    /// The figures of this process; none are shown without it.
    pub metrics: Option<Exposition>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            request_patience: Duration::from_secs(30),
            upload_patience: Duration::from_secs(600),
            upload_pause_max: Duration::from_secs(30),
            upload_max_bytes: 2 * 1024 * 1024 * 1024,
            streams_max: 500,
            workspace_streams_max: 100,
            heartbeat_every: Duration::from_secs(15),
            body_pause_max: Duration::from_secs(10),
            connections_max: connection::CONNECTIONS_MAX,
            requests_per_caller: 512,
            jobs_per_hour: None,
            cors_origins: Vec::new(),
            redacted: None,
            stop_limit: Duration::from_secs(10),
            tokens: TokenOptions::default(),
            metrics: None,
        }
    }
}
