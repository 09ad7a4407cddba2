//! Settings: a flag, then the environment, then the default.
//!
//! The only place that reads the environment. The command line is parsed elsewhere; what it says
//! arrives here as `Some`.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::job::smtp_probe::SmtpProbe;
use crate::sealed::{Keys, Sealer};
use crate::secret::Secret;
use crate::storage::StorageOptions;

/// Every variable that Bullwark reads.
pub const ENVIRONMENT: &[&str] = &[
    "BULLWARK_DATABASE_URL",
    "BULLWARK_REDIS_URL",
    "BULLWARK_HTTP_ADDR",
    "BULLWARK_PREFIX",
    "BULLWARK_JWT_SECRET",
    "BULLWARK_JWKS_URL",
    "BULLWARK_JWT_AUDIENCE",
    "BULLWARK_JWT_ISSUER",
    "BULLWARK_LOG",
    "BULLWARK_DATA_DIR",
    "BULLWARK_API_KEY",
    "BULLWARK_DIAGNOSTICS",
    "BULLWARK_IMPORT_DIR",
    "BULLWARK_ALLOW_PRIVATE_ADDRESSES",
    "BULLWARK_ALLOW_EVICTION",
    "BULLWARK_FORWARD_SECRET",
    "BULLWARK_BULLMQ_V5_PEERS",
    "BULLWARK_MAX_STALLED_COUNT",
    "BULLWARK_JOBS_PER_HOUR",
    "BULLWARK_CORS_ORIGINS",
    "BULLWARK_REDACT",
    "BULLWARK_ENCRYPTION_KEY",
    "BULLWARK_PUBLIC_URL",
    "BULLWARK_DNS_SERVERS",
    "BULLWARK_PROVIDER_SECONDS",
    "BULLWARK_SMTP_PROBE_FROM",
    "BULLWARK_SMTP_PROBE_PORT",
    "BULLWARK_SMTP_PROBE_SECONDS",
    "BULLWARK_STORAGE_URL",
    "BULLWARK_STORAGE_ENDPOINT",
    "BULLWARK_STORAGE_REGION",
    "BULLWARK_STORAGE_KEY_ID",
    "BULLWARK_STORAGE_SECRET",
];

/// Where the HTTP server listens when nothing else is said.
pub const HTTP_ADDR: &str = "127.0.0.1:8080";
/// Where uploads, reports and the private stores live when nothing else is said.
pub const DATA_DIR: &str = ".bullwark";

/// As many bytes as the hash has: a shorter secret is weaker than the signature (RFC 7518, 3.2).
const JWT_SECRET_MIN: usize = 32;

/// `BullMQ`'s own default.
pub const MAX_STALLED_COUNT: u32 = 1;

/// Settings of a process, settled.
#[derive(Debug, Clone)]
pub struct Config {
    pub database_url: Secret,
    /// One server, a cluster or sentinels: the forms are those of `BrokerOptions::url`.
    pub redis_url: Secret,
    /// Start of all keys in Redis; with a hash tag, as `{bull}`, if that is a cluster.
    pub prefix: String,
    pub http_addr: SocketAddr,
    pub data_dir: PathBuf,
    /// A key that is made valid for the default workspace at the start of the server.
    pub api_key: Option<Secret>,
    /// Signs the tokens of users that the API takes (HS256), as Supabase's does.
    pub jwt_secret: Option<Secret>,
    /// Where the public keys are that sign tokens of users.
    pub jwks_url: Option<String>,
    /// What tokens must name as their audience; `authenticated` if nothing is said.
    pub jwt_audience: Option<String>,
    /// Who must have made them.
    pub jwt_issuer: Option<String>,
    /// Also offer `noop`, `sleep`, `fail` and `crash`.
    pub has_diagnostics: bool,
    /// The only directory that `file://` imports may read.
    pub import_dir: Option<PathBuf>,
    /// Let jobs fetch from loopback and private networks.
    pub allows_private_addresses: bool,
    /// Start although Redis may evict keys: what it loses is rebuilt from the record.
    pub allows_eviction: bool,
    /// Workers of `BullMQ` 5 share the queues: jobs of a paused queue wait where those look.
    pub bullmq_v5_peers: bool,
    /// How often a job that a client added may lose its worker before it fails; `BullMQ`'s option.
    pub max_stalled_count: u32,
    /// Jobs that a workspace may create in an hour over HTTP, unless its plan says otherwise.
    pub jobs_per_hour: Option<u32>,
    /// Whose pages may use the API from a browser: `https://app.example`, or `*`.
    pub cors_origins: Vec<String>,
    /// Ends of the names of members of payloads that only admins are shown; none: the usual ones.
    pub redacted: Option<Vec<String>>,
    /// Where people outside reach this installation, for links in mails. No slash at its end.
    pub public_url: Option<String>,
    /// Servers of DNS that verifications of addresses ask; none: those that this machine asks.
    pub dns_servers: Vec<SocketAddr>,
    /// How long a provider of data may take for one answer.
    pub provider_patience: std::time::Duration,
    /// How verifications ask mail servers; none: they ask none.
    pub smtp_probe: Option<SmtpProbe>,
    /// Where whole files go; none: they stay in the data directory.
    pub storage: Option<StorageOptions>,
    /// Seal what is stored of secrets; none: the key of the data directory does.
    pub encryption_keys: Option<Keys>,
}

/// Settings as they were given on the command line.
#[derive(Clone, Default)]
pub struct Given {
    pub database_url: Option<String>,
    pub redis_url: Option<String>,
    pub prefix: Option<String>,
    pub http_addr: Option<String>,
    pub data_dir: Option<PathBuf>,
    pub has_diagnostics: bool,
    pub jobs_per_hour: Option<u32>,
    pub cors_origins: Option<String>,
}

impl std::fmt::Debug for Given {
    /// Not what was given: the addresses may hold passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Given").finish_non_exhaustive()
    }
}

/// A setting that is missing or can not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "no {what} is known: give {flag} or set {variable}; `bullwark dev` and `bullwark stores` \
         start private ones"
    )]
    Missing {
        what: &'static str,
        flag: &'static str,
        variable: &'static str,
    },
    #[error("{name} is `{value}`: {why}")]
    Invalid {
        name: &'static str,
        value: String,
        why: String,
    },
}

impl Config {
    /// Puts the settings together. `discovered` are the stores of a data directory that
    /// `bullwark dev` or `bullwark stores` serves right now.
    pub fn settle(
        given: Given,
        read: impl Fn(&str) -> Option<String>,
        discovered: impl FnOnce(&std::path::Path) -> Option<(String, String)>,
    ) -> Result<Self, ConfigError> {
        let read = |name: &str| read(name).filter(|value| !value.is_empty());
        let data_dir = given
            .data_dir
            .or_else(|| read("BULLWARK_DATA_DIR").map(PathBuf::from))
            .unwrap_or_else(|| PathBuf::from(DATA_DIR));
        let database_url = given
            .database_url
            .or_else(|| read("BULLWARK_DATABASE_URL"))
            .or_else(|| read("DATABASE_URL"));
        let redis_url = given
            .redis_url
            .or_else(|| read("BULLWARK_REDIS_URL"))
            .or_else(|| read("REDIS_URL"));
        let (redis_url, database_url) = match (redis_url, database_url) {
            (Some(redis), Some(database)) => (redis, database),
            // Never one given store with one discovered: they would not belong together.
            (None, None) => discovered(&data_dir).ok_or(ConfigError::Missing {
                what: "database and no Redis",
                flag: "--database-url and --redis-url",
                variable: "BULLWARK_DATABASE_URL and BULLWARK_REDIS_URL",
            })?,
            (None, Some(_)) => {
                return Err(ConfigError::Missing {
                    what: "Redis",
                    flag: "--redis-url",
                    variable: "BULLWARK_REDIS_URL",
                });
            }
            (Some(_), None) => {
                return Err(ConfigError::Missing {
                    what: "database",
                    flag: "--database-url",
                    variable: "BULLWARK_DATABASE_URL",
                });
            }
        };
        let prefix = given
            .prefix
            .or_else(|| read("BULLWARK_PREFIX"))
            .unwrap_or_else(|| "bull".to_owned());
        if prefix.is_empty() || prefix.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(ConfigError::Invalid {
                name: "BULLWARK_PREFIX",
                value: prefix,
                why: "it must be a text without blanks".to_owned(),
            });
        }
        let http_addr = given
            .http_addr
            .or_else(|| read("BULLWARK_HTTP_ADDR"))
            .unwrap_or_else(|| HTTP_ADDR.to_owned());
        let http_addr = http_addr.parse().map_err(|_| ConfigError::Invalid {
            name: "BULLWARK_HTTP_ADDR",
            value: http_addr.clone(),
            why: "it must be an address and a port, such as 127.0.0.1:8080".to_owned(),
        })?;
        let max_stalled_count = match read("BULLWARK_MAX_STALLED_COUNT") {
            None => MAX_STALLED_COUNT,
            Some(value) => value.parse().map_err(|_| ConfigError::Invalid {
                name: "BULLWARK_MAX_STALLED_COUNT",
                value: value.clone(),
                why: "it must be a whole number, such as 1".to_owned(),
            })?,
        };
        let jobs_per_hour = match (given.jobs_per_hour, read("BULLWARK_JOBS_PER_HOUR")) {
            (Some(jobs), _) => Some(jobs),
            (None, None) => None,
            (None, Some(value)) => Some(value.parse().map_err(|_| ConfigError::Invalid {
                name: "BULLWARK_JOBS_PER_HOUR",
                value: value.clone(),
                why: "it must be a whole number, such as 100".to_owned(),
            })?),
        };
        let cors_origins = given.cors_origins.or_else(|| read("BULLWARK_CORS_ORIGINS"));
        let cors_origins = listed(&cors_origins.unwrap_or_default());
        if let Some(value) = cors_origins.iter().find(|origin| !is_origin(origin)) {
            return Err(ConfigError::Invalid {
                name: "BULLWARK_CORS_ORIGINS",
                value: value.clone(),
                why: "origins have a scheme, a host and maybe a port, and nothing after it, such \
                    as https://app.example; `*` alone stands for all"
                    .to_owned(),
            });
        }
        let jwt_secret = read("BULLWARK_JWT_SECRET");
        if jwt_secret
            .as_ref()
            .is_some_and(|s| s.len() < JWT_SECRET_MIN)
        {
            return Err(ConfigError::Invalid {
                name: "BULLWARK_JWT_SECRET",
                value: "(not shown)".to_owned(),
                why: format!("it must have at least {JWT_SECRET_MIN} bytes"),
            });
        }
        let encryption_keys = read("BULLWARK_ENCRYPTION_KEY").map(|text| Keys::parse(&text));
        let encryption_keys = encryption_keys.transpose();
        let encryption_keys = encryption_keys.map_err(|error| ConfigError::Invalid {
            name: "BULLWARK_ENCRYPTION_KEY",
            value: "(not shown)".to_owned(),
            why: error.to_string(),
        })?;
        let public_url = read("BULLWARK_PUBLIC_URL");
        let public_url = public_url.map(|url| url.trim_end_matches('/').to_owned());
        if let Some(value) = public_url.clone().filter(|url| !is_plain_address(url)) {
            return Err(ConfigError::Invalid {
                name: "BULLWARK_PUBLIC_URL",
                value,
                why: "it must be an address such as https://jobs.example.com, maybe with a path, \
                    and nothing behind that"
                    .to_owned(),
            });
        }
        let dns_servers = read("BULLWARK_DNS_SERVERS").map(|names| listed(&names));
        let dns_servers = dns_servers.unwrap_or_default();
        let dns_servers = dns_servers.iter().map(|text| dns_server(text));
        let dns_servers = dns_servers.collect::<Result<Vec<_>, _>>()?;
        let jwks_url = read("BULLWARK_JWKS_URL");
        if let Some(value) = jwks_url.clone().filter(|url| !is_protected(url)) {
            return Err(ConfigError::Invalid {
                name: "BULLWARK_JWKS_URL",
                value,
                why: "it must begin with https://: whoever can change the keys can be anybody"
                    .to_owned(),
            });
        }
        Ok(Self {
            database_url: Secret(database_url),
            redis_url: Secret(redis_url),
            prefix,
            http_addr,
            data_dir,
            api_key: read("BULLWARK_API_KEY").map(Secret),
            jwt_secret: jwt_secret.map(Secret),
            jwks_url,
            jwt_audience: read("BULLWARK_JWT_AUDIENCE"),
            jwt_issuer: read("BULLWARK_JWT_ISSUER"),
            has_diagnostics: given.has_diagnostics || is_on(read("BULLWARK_DIAGNOSTICS")),
            import_dir: read("BULLWARK_IMPORT_DIR").map(PathBuf::from),
            allows_private_addresses: is_on(read("BULLWARK_ALLOW_PRIVATE_ADDRESSES")),
            allows_eviction: is_on(read("BULLWARK_ALLOW_EVICTION")),
            bullmq_v5_peers: is_on(read("BULLWARK_BULLMQ_V5_PEERS")),
            max_stalled_count,
            jobs_per_hour,
            cors_origins,
            redacted: read("BULLWARK_REDACT").map(|names| match names.as_str() {
                "none" => Vec::new(),
                names => listed(names),
            }),
            public_url,
            dns_servers,
            provider_patience: number::seconds("BULLWARK_PROVIDER_SECONDS", read, (30, 30))?,
            smtp_probe: smtp_probe::settle(read)?,
            storage: storage::settle(read)?,
            encryption_keys,
        })
    }
}

impl Config {
    /// Seals and opens stored secrets.
    pub fn sealer(&self) -> Sealer {
        Sealer::new(self.encryption_keys.clone(), &self.data_dir)
    }

    /// Where files are kept. Asks nobody yet.
    #[cfg(any(feature = "handlers", feature = "server"))]
    pub fn files(&self) -> Result<crate::storage::Storage, crate::storage::StorageError> {
        crate::storage::Storage::open(&self.data_dir, self.storage.as_ref())
    }
}

/// Nobody on the way can change what comes from there.
fn is_protected(url: &str) -> bool {
    let here = ["http://127.0.0.1:", "http://localhost:", "http://[::1]:"];
    url.starts_with("https://") || here.iter().any(|start| url.starts_with(start))
}

/// It may stand in a header of a mail. Mail programs follow links to `https://` only.
fn is_plain_address(url: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]%".contains(c);
    is_protected(url) && url.len() <= 200 && url.chars().all(is_plain)
}

/// The parts of a list with commas, without blanks.
fn listed(text: &str) -> Vec<String> {
    let parts = text.split(',').map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A server of DNS: its address, and its port unless that is 53.
fn dns_server(text: &str) -> Result<SocketAddr, ConfigError> {
    let plain = text.parse().map(|ip| SocketAddr::new(ip, 53));
    plain
        .or_else(|_| text.parse::<SocketAddr>())
        .map_err(|_| ConfigError::Invalid {
            name: "BULLWARK_DNS_SERVERS",
            value: text.to_owned(),
            why: "it must be addresses with commas between, such as 10.0.0.2 or 10.0.0.2:5353"
                .to_owned(),
        })
}

/// As browsers write origins: they compare them as texts.
fn is_origin(text: &str) -> bool {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let is_plain = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '.' | ':' | '[' | ']');
    text == "*" || host.is_some_and(|host| !host.is_empty() && host.chars().all(is_plain))
}

fn is_on(value: Option<String>) -> bool {
    value.is_some_and(|value| matches!(value.as_str(), "1" | "true" | "yes" | "on"))
}

/// A variable of the environment; unreadable ones count as absent.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

mod number;
mod smtp_probe;
mod storage;
#[cfg(test)]
mod tests;
