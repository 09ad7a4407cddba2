//! What the url of Redis names: one server, a cluster, or servers that sentinels watch.
//!
//! Refuses what it can't read, with the right form in the message. No message holds a password.

use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use super::cluster::slot_of_prefix;
use super::error::Refusal;

const CLUSTER_FORM: &str = "a cluster is `redis-cluster://[user:password@]host:port,host:port`";
const SENTINEL_FORM: &str = "servers behind sentinels are \
    `redis-sentinel://[user:password@]sentinel:port,sentinel:port/[database/]name-of-the-primary`";
/// Where sentinels listen when the url does not say.
const SENTINEL_PORT: u16 = 26379;
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Unanswered bytes end a half-open link after this time; the client library alone would not.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// A url that was read.
#[derive(Debug)]
pub(super) enum Target {
    Single(Box<ConnectionInfo>),
    Group(Box<Group>),
}

/// Servers of which one at a time is ours.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) kind: Kind,
    /// Who is asked first where our server is: nodes of the cluster, or sentinels.
    pub(super) seeds: Vec<ConnectionInfo>,
    /// How to connect to a server; only its address is still to be found.
    pub(super) server: ConnectionInfo,
}

/// How the right server is found.
#[derive(Debug)]
pub(super) enum Kind {
    /// All our keys are in this slot, because the prefix has a hash tag.
    Cluster { slot: u16 },
    /// The sentinels know the primary by this name.
    Sentinel { primary: String },
}

/// A url in parts.
struct Parts<'a> {
    /// `redis` or `rediss`.
    scheme: &'a str,
    /// `user:password`, still encoded.
    login: Option<&'a str>,
    hosts: Vec<&'a str>,
    /// Without the slashes around.
    path: &'a str,
    query: Vec<&'a str>,
    /// With its `#`, or empty.
    fragment: &'a str,
}

impl Target {
    pub(super) fn read(url: &str, prefix: &str) -> Result<Self, Refusal> {
        let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
        let (scheme, kind) = match scheme {
            "redis" | "rediss" if split(scheme, rest).hosts.len() > 1 => (scheme, "cluster"),
            "redis-cluster" => ("redis", "cluster"),
            "rediss-cluster" => ("rediss", "cluster"),
            "redis-sentinel" => ("redis", "sentinel"),
            "rediss-sentinel" => ("rediss", "sentinel"),
            _ => return Ok(Self::Single(Box::new(connection_info(url)?))),
        };
        let parts = split(scheme, rest);
        if rest.contains("://") || parts.hosts.iter().any(|host| host.is_empty()) {
            let form = if kind == "cluster" {
                CLUSTER_FORM
            } else {
                SENTINEL_FORM
            };
            return Err(Refusal::Url(format!(
                "name each server once, as in: {form}"
            )));
        }
        let group = match kind {
            "cluster" => cluster(&parts, prefix)?,
            _ => sentinels(&parts)?,
        };
        Ok(Self::Group(Box::new(group)))
    }
}

fn cluster(parts: &Parts<'_>, prefix: &str) -> Result<Group, Refusal> {
    if !matches!(parts.path, "" | "0") {
        let reason = format!("a cluster has only the database 0; {CLUSTER_FORM}");
        return Err(Refusal::Url(reason));
    }
    let slot = slot_of_prefix(prefix).ok_or_else(|| Refusal::Prefix(prefix.to_owned()))?;
    let mut seeds = Vec::with_capacity(parts.hosts.len());
    for host in &parts.hosts {
        seeds.push(parts.server(host, parts.login, "")?);
    }
    let server = seeds[0].clone();
    let kind = Kind::Cluster { slot };
    Ok(Group {
        kind,
        seeds,
        server,
    })
}

fn sentinels(parts: &Parts<'_>) -> Result<Group, Refusal> {
    let (database, primary) = parts.path.rsplit_once('/').unwrap_or(("", parts.path));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if primary.is_empty() || !is_number(database) {
        return Err(Refusal::Url(SENTINEL_FORM.to_owned()));
    }
    let option = |name: &str| parts.query.iter().find_map(|pair| pair.strip_prefix(name));
    let user = option("sentinel_username=").unwrap_or_default();
    let login = option("sentinel_password=").map(|password| {
        let [user, password] = [user, password].map(encode_login);
        format!("{user}:{password}")
    });
    let mut seeds = Vec::with_capacity(parts.hosts.len());
    for host in &parts.hosts {
        let address = match has_port(host) {
            true => (*host).to_owned(),
            false => format!("{host}:{SENTINEL_PORT}"),
        };
        seeds.push(parts.server(&address, login.as_deref(), "")?);
    }
    let server = parts.server(parts.hosts[0], parts.login, database)?;
    let primary = primary.to_owned();
    let kind = Kind::Sentinel { primary };
    Ok(Group {
        kind,
        seeds,
        server,
    })
}

impl Parts<'_> {
    fn server(
        &self,
        host: &str,
        login: Option<&str>,
        database: &str,
    ) -> Result<ConnectionInfo, Refusal> {
        let login = login.map(|login| format!("{login}@")).unwrap_or_default();
        let query: Vec<&str> = self
            .query
            .iter()
            .copied()
            .filter(|pair| !pair.starts_with("sentinel_"))
            .collect();
        connection_info(&format!(
            "{}://{login}{host}/{database}?{}{}",
            self.scheme,
            query.join("&"),
            self.fragment
        ))
    }
}

/// The part of a url after its scheme. A password may hold a comma; it ends at the last `@`.
fn split<'a>(scheme: &'a str, rest: &'a str) -> Parts<'a> {
    let (rest, fragment) = rest.split_at(rest.find('#').unwrap_or(rest.len()));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (Some(login), hosts),
        None => (None, authority),
    };
    Parts {
        scheme,
        login,
        hosts: hosts.split(',').map(str::trim).collect(),
        path: path.trim_matches('/'),
        query: query.split('&').filter(|pair| !pair.is_empty()).collect(),
        fragment,
    }
}

fn has_port(host: &str) -> bool {
    let after_brackets = host.rsplit_once(']').map_or(host, |(_, rest)| rest);
    after_brackets.contains(':')
}

/// What a query may hold as it is, a login may not.
fn encode_login(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '/' | ':' | '@' | '?' | '[' | ']' => {
                encoded.push_str(&format!("%{:02X}", u32::from(character)));
            }
            _ => encoded.push(character),
        }
    }
    encoded
}

fn connection_info(url: &str) -> Result<ConnectionInfo, Refusal> {
    let info = url.into_connection_info().map_err(|error| {
        Refusal::Url(format!(
            "{error}; one server is `redis://[user:password@]host:port[/database]`, \
             {CLUSTER_FORM}, {SENTINEL_FORM}; `rediss` instead of `redis` for TLS"
        ))
    })?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE);
    let tcp = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(USER_TIMEOUT);
    let settings = info
        .redis_settings()
        .clone()
        .set_lib_name("bullwark", crate::broker::VERSION);
    Ok(info.set_tcp_settings(tcp).set_redis_settings(settings))
}

/// What to say when the url names one server and finds another thing there.
pub(super) fn wrong_kind(mode: &str) -> String {
    match mode {
        "sentinel" => format!("this is a sentinel; {SENTINEL_FORM}"),
        _ => format!("this is a node of a cluster; {CLUSTER_FORM}"),
    }
}

/// The same way to connect, to another address.
pub(super) fn at_address(server: &ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
    let mut addr = server.addr().clone();
    match &mut addr {
        ConnectionAddr::TcpTls {
            host: its_host,
            port: its_port,
            ..
        } => {
            host.clone_into(its_host);
            *its_port = port;
        }
        _ => addr = ConnectionAddr::Tcp(host.to_owned(), port),
    }
    server.clone().set_addr(addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(url: &str) -> Group {
        match Target::read(url, "{bull}") {
            Ok(Target::Group(group)) => *group,
            other => panic!("{url}: {other:?}"),
        }
    }

    fn addresses(group: &Group) -> Vec<String> {
        group
            .seeds
            .iter()
            .map(|seed| seed.addr().to_string())
            .collect()
    }

    #[test]
    fn one_server_is_read_as_before() {
        for url in [
            "redis://h:1",
            "redis://h",
            "redis://u:p@h:1/3",
            "rediss://h:1/#insecure",
            "redis://:pass,word@h:1",
            "redis+unix:///tmp/redis.sock?db=1",
            "unix:///tmp/redis.sock",
        ] {
            let target = Target::read(url, "bull");
            assert!(matches!(target, Ok(Target::Single(_))), "{url}: {target:?}");
        }
    }

    #[test]
    fn a_cluster_is_named_by_any_of_its_nodes() {
        let cluster = group("redis-cluster://u:p,w@a:7000,b,[::1]:7002/0?protocol=resp3");
        assert_eq!(addresses(&cluster), ["a:7000", "b:6379", "::1:7002"]);
        assert_eq!(cluster.server.redis_settings().username(), Some("u"));
        assert_eq!(cluster.server.redis_settings().password(), Some("p,w"));
        assert!(
            matches!(cluster.kind, Kind::Cluster { slot: 9263 }),
            "{cluster:?}"
        );
        assert_eq!(addresses(&group("redis://a:1,b:2")), ["a:1", "b:2"]);
        let secure = group("rediss-cluster://a:1");
        assert!(matches!(
            secure.seeds[0].addr(),
            ConnectionAddr::TcpTls { .. }
        ));
        let moved = at_address(&secure.server, "b", 2);
        assert!(
            matches!(moved.addr(), ConnectionAddr::TcpTls { host, port: 2, .. } if host == "b")
        );
    }

    #[test]
    fn sentinels_have_a_login_of_their_own() {
        let url = "redis-sentinel://app:secret@a,b:5000/2/main\
                   ?sentinel_username=watch&sentinel_password=x/y&protocol=resp3";
        let group = group(url);
        assert_eq!(addresses(&group), ["a:26379", "b:5000"]);
        let seed = group.seeds[0].redis_settings();
        assert_eq!(
            (seed.username(), seed.password()),
            (Some("watch"), Some("x/y"))
        );
        let server = group.server.redis_settings();
        assert_eq!(
            (server.username(), server.password()),
            (Some("app"), Some("secret"))
        );
        assert_eq!((server.db(), seed.db()), (2, 0));
        assert!(matches!(group.kind, Kind::Sentinel { primary } if primary == "main"));
    }

    #[test]
    fn a_wrong_url_is_answered_with_the_right_form() {
        for (url, form) in [
            ("redis-sentinel://:secret@a:1,b:2", SENTINEL_FORM),
            ("redis-sentinel://:secret@a:1/x/main", SENTINEL_FORM),
            ("redis-sentinel://:secret@,b:2/main", SENTINEL_FORM),
            (
                "redis-cluster://:secret@a:1,redis://:secret@b:2",
                CLUSTER_FORM,
            ),
            ("redis-cluster://:secret@a:1/3", CLUSTER_FORM),
            ("redis-cluster://:secret@a:port", CLUSTER_FORM),
            ("cluster://:secret@a:1", CLUSTER_FORM),
            ("localhost:6379", SENTINEL_FORM),
        ] {
            let error = Target::read(url, "{bull}").unwrap_err();
            let text = error.to_string();
            assert!(text.contains(form), "{url}: {text}");
            assert!(!text.contains("secret"), "{text}");
            assert_eq!(error.code(), "redis_url");
        }
    }

    #[test]
    fn a_cluster_needs_a_prefix_with_a_hash_tag() {
        let error = Target::read("redis-cluster://a:1", "bull").unwrap_err();
        assert_eq!(error, Refusal::Prefix("bull".to_owned()));
        assert!(error.to_string().contains("{bull}"), "{error}");
        assert!(Target::read("redis-sentinel://a:1/main", "bull").is_ok());
    }
}
