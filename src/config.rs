//! Settings: a flag, then the environment, then the default.
//!
//! The only place that reads the environment. The command line is parsed elsewhere; what it says
//! arrives here as `Some`.

use std::net::SocketAddr;
use std::path::PathBuf;

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
    pub database_url: String,
    /// One server, a cluster or sentinels: the forms are those of `BrokerOptions::url`.
    pub redis_url: String,
    /// Start of all keys in Redis; with a hash tag, as `{bull}`, if that is a cluster.
    pub prefix: String,
    pub http_addr: SocketAddr,
    pub data_dir: PathBuf,
    /// A key that is made valid for the default workspace at the start of the server.
    pub api_key: Option<String>,
    /// Signs the tokens of users that the API takes (HS256), as Supabase's does.
    pub jwt_secret: Option<String>,
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
}

/// Settings as they were given on the command line.
#[derive(Debug, Clone, Default)]
pub struct Given {
    pub database_url: Option<String>,
    pub redis_url: Option<String>,
    pub prefix: Option<String>,
    pub http_addr: Option<String>,
    pub data_dir: Option<PathBuf>,
    pub has_diagnostics: bool,
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
            database_url,
            redis_url,
            prefix,
            http_addr,
            data_dir,
            api_key: read("BULLWARK_API_KEY"),
            jwt_secret,
            jwks_url,
            jwt_audience: read("BULLWARK_JWT_AUDIENCE"),
            jwt_issuer: read("BULLWARK_JWT_ISSUER"),
            has_diagnostics: given.has_diagnostics || is_on(read("BULLWARK_DIAGNOSTICS")),
            import_dir: read("BULLWARK_IMPORT_DIR").map(PathBuf::from),
            allows_private_addresses: is_on(read("BULLWARK_ALLOW_PRIVATE_ADDRESSES")),
            allows_eviction: is_on(read("BULLWARK_ALLOW_EVICTION")),
            bullmq_v5_peers: is_on(read("BULLWARK_BULLMQ_V5_PEERS")),
            max_stalled_count,
        })
    }
}

/// Nobody on the way can change what comes from there.
fn is_protected(url: &str) -> bool {
    let here = ["http://127.0.0.1:", "http://localhost:", "http://[::1]:"];
    url.starts_with("https://") || here.iter().any(|start| url.starts_with(start))
}

fn is_on(value: Option<String>) -> bool {
    value.is_some_and(|value| matches!(value.as_str(), "1" | "true" | "yes" | "on"))
}

/// A variable of the environment; unreadable ones count as absent.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let read = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Config::settle(Given::default(), read, |_| None)
    }

    #[test]
    fn secrets_that_protect_nothing_are_refused() {
        let stores = [("DATABASE_URL", "postgres://d"), ("REDIS_URL", "redis://r")];
        let with = |name, value| settle(&[stores[0], stores[1], (name, value)]);
        let long = "a secret of thirty-two bytes, at least";
        assert!(with("BULLWARK_JWT_SECRET", long).is_ok());
        let short = with("BULLWARK_JWT_SECRET", "short")
            .unwrap_err()
            .to_string();
        assert!(
            short.contains("32 bytes") && !short.contains("`short`"),
            "{short}"
        );
        for url in ["https://id.example/keys", "http://127.0.0.1:9/keys"] {
            assert!(with("BULLWARK_JWKS_URL", url).is_ok(), "{url}");
        }
        for url in [
            "http://id.example/keys",
            "http://127.0.0.1.example/",
            "keys",
        ] {
            assert!(with("BULLWARK_JWKS_URL", url).is_err(), "{url}");
        }
    }

    #[test]
    fn our_own_variables_go_before_the_common_ones() {
        let config = settle(&[
            ("DATABASE_URL", "postgres://common"),
            ("BULLWARK_DATABASE_URL", "postgres://ours"),
            ("REDIS_URL", "redis://common"),
        ])
        .unwrap();
        assert_eq!(config.database_url, "postgres://ours");
        assert_eq!(config.redis_url, "redis://common");
        assert_eq!(
            (config.prefix.as_str(), config.http_addr.port()),
            ("bull", 8080)
        );
    }

    #[test]
    fn one_store_alone_is_not_mixed_with_a_discovered_one() {
        let read = |name: &str| (name == "DATABASE_URL").then(|| "postgres://x".to_owned());
        let found = |_: &std::path::Path| Some(("redis://y".to_owned(), "postgres://y".to_owned()));
        let error = Config::settle(Given::default(), read, found).unwrap_err();
        assert!(error.to_string().contains("BULLWARK_REDIS_URL"), "{error}");
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let stores = [("DATABASE_URL", "postgres://x"), ("REDIS_URL", "redis://x")];
        let mut wrong = stores.to_vec();
        wrong.push(("BULLWARK_HTTP_ADDR", "8080"));
        let error = settle(&wrong).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("BULLWARK_HTTP_ADDR is `8080`"),
            "{error}"
        );
    }
}
