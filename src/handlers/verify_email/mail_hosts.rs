//! Who takes mail for a domain, as DNS says it.
//!
//! | DNS says | it means |
//! |---|---|
//! | `MX` records with hosts that have addresses | mail is taken |
//! | one `MX` of `.` (RFC 7505) | the domain takes no mail |
//! | no `MX`, an address (RFC 5321, 5.1) | the domain itself may take mail |
//! | no `MX` and no address, or hosts without addresses | nobody takes mail |
//! | the domain is not there | nobody takes mail |
//! | no answer in time, a failure, a refusal | nobody knows |
//!
//! Answers are kept for as long as DNS says (an hour at most), so many addresses of one domain are
//! one question. Promises: what could not be asked is never taken for a "no".

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ProtocolConfig, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData};
use hickory_resolver::{Resolver, TokioResolver};
use tokio::sync::Semaphore;

/// One question, and how often it is asked.
const PATIENCE: Duration = Duration::from_secs(3);
const ATTEMPTS: usize = 2;
/// Answers that are kept, and for how long at most.
const KEPT_MAX: u64 = 20_000;
const KEPT_FOR: Duration = Duration::from_secs(3600);
const NO_KEPT_FOR: Duration = Duration::from_secs(600);
/// Domains that are asked for at the same time, by the whole process.
const AT_ONCE: usize = 16;
/// Hosts of a domain whose addresses are looked for.
const HOSTS_MAX: usize = 3;

/// What DNS says of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MailHosts {
    Some,
    /// The domain itself, by its address.
    Implicit,
    /// It says that it takes none.
    Null,
    NoDomain,
    None,
    /// Nobody could be asked.
    Unknown,
}

/// Asks DNS. A cheap handle.
#[derive(Clone)]
pub(super) struct Dns {
    servers: Vec<SocketAddr>,
    /// Made at the first question; none in it: this machine does not say whom to ask.
    resolver: Arc<OnceLock<Option<TokioResolver>>>,
    seats: Arc<Semaphore>,
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dns").finish_non_exhaustive()
    }
}

/// Answers to one question.
enum Found {
    /// Perhaps none of the kind.
    Records(Vec<RData>),
    NoDomain,
    Unknown,
}

impl Dns {
    /// Asks these servers; without any, those that this machine asks.
    pub(super) fn new(servers: &[SocketAddr]) -> Self {
        Self {
            servers: servers.to_vec(),
            resolver: Arc::default(),
            seats: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    fn resolver(&self) -> Option<&TokioResolver> {
        let make = || {
            let builder = match self.servers.is_empty() {
                true => TokioResolver::builder_tokio(),
                false => {
                    let config = ResolverConfig::from_name_servers(named(&self.servers));
                    let provider = TokioRuntimeProvider::default();
                    Ok(Resolver::builder_with_config(config, provider))
                }
            };
            let made = builder.and_then(|builder| builder.with_options(options()).build());
            if let Err(error) = &made {
                tracing::warn!(%error, "addresses of mail can not be verified: there is no DNS");
            }
            made.ok()
        };
        self.resolver.get_or_init(make).as_ref()
    }

    /// Who takes mail for a domain.
    pub(super) async fn mail_hosts(&self, domain: &str) -> MailHosts {
        let (Some(resolver), Ok(_seat)) = (self.resolver(), self.seats.acquire().await) else {
            return MailHosts::Unknown;
        };
        // With its dot at the end it is asked for as it is, not below this machine's own domain.
        let Ok(name) = Name::from_ascii(format!("{domain}.")) else {
            return MailHosts::NoDomain;
        };
        let mut hosts = match exchanges(resolver, &name).await {
            Ok(hosts) => hosts,
            Err(said) => return said,
        };
        if hosts.is_empty() {
            return match has_address(resolver, &name).await {
                Some(true) => MailHosts::Implicit,
                Some(false) => MailHosts::None,
                None => MailHosts::Unknown,
            };
        }
        hosts.retain(|host| !host.is_root());
        if hosts.is_empty() {
            return MailHosts::Null;
        }
        let mut is_sure = hosts.len() <= HOSTS_MAX;
        for host in hosts.iter().take(HOSTS_MAX) {
            match has_address(resolver, host).await {
                Some(true) => return MailHosts::Some,
                Some(false) => {}
                None => is_sure = false,
            }
        }
        match is_sure {
            true => MailHosts::None,
            false => MailHosts::Unknown,
        }
    }

    /// The addresses of the hosts that take mail for a domain, in the order in which mail goes
    /// there. None: there are no such hosts, or nobody could be asked.
    pub(super) async fn addresses(&self, domain: &str) -> Vec<Vec<IpAddr>> {
        let (Some(resolver), Ok(_seat)) = (self.resolver(), self.seats.acquire().await) else {
            return Vec::new();
        };
        let Ok(name) = Name::from_ascii(format!("{domain}.")) else {
            return Vec::new();
        };
        let Ok(mut hosts) = exchanges(resolver, &name).await else {
            return Vec::new();
        };
        if hosts.is_empty() {
            hosts.push(name);
        }
        hosts.retain(|host| !host.is_root());
        let mut all = Vec::new();
        for host in hosts.iter().take(HOSTS_MAX) {
            let addresses = addresses_of(resolver, host).await;
            if !addresses.is_empty() {
                all.push(addresses);
            }
        }
        all
    }
}

/// The hosts that `MX` records of a domain name, preferred ones first; perhaps the root, which
/// takes no mail.
async fn exchanges(resolver: &TokioResolver, name: &Name) -> Result<Vec<Name>, MailHosts> {
    let records = match found(resolver.mx_lookup(name.clone()).await) {
        Found::Records(records) => records,
        Found::NoDomain => return Err(MailHosts::NoDomain),
        Found::Unknown => return Err(MailHosts::Unknown),
    };
    let mut hosts: Vec<(u16, Name)> = records
        .into_iter()
        .filter_map(|record| match record {
            RData::MX(mx) => Some((mx.preference, mx.exchange)),
            _ => None,
        })
        .collect();
    // What is preferred alike stays in the order of the answer, which servers of DNS change.
    hosts.sort_by_key(|(preference, _)| *preference);
    Ok(hosts.into_iter().map(|(_, host)| host).collect())
}

/// The addresses of a host, those of version 4 first: mail from the other is trusted less.
async fn addresses_of(resolver: &TokioResolver, host: &Name) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for answer in [
        found(resolver.ipv4_lookup(host.clone()).await),
        found(resolver.ipv6_lookup(host.clone()).await),
    ] {
        let Found::Records(records) = answer else {
            continue;
        };
        addresses.extend(records.iter().filter_map(|record| match record {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        }));
    }
    addresses
}

/// Whether a host has an address; none: nobody knows.
async fn has_address(resolver: &TokioResolver, host: &Name) -> Option<bool> {
    let mut is_sure = true;
    for answer in [
        found(resolver.ipv4_lookup(host.clone()).await),
        found(resolver.ipv6_lookup(host.clone()).await),
    ] {
        match answer {
            Found::Records(records) => {
                let is_address = |record: &RData| matches!(record, RData::A(_) | RData::AAAA(_));
                if records.iter().any(is_address) {
                    return Some(true);
                }
            }
            Found::NoDomain => {}
            Found::Unknown => is_sure = false,
        }
    }
    is_sure.then_some(false)
}

fn found(answer: Result<hickory_resolver::lookup::Lookup, NetError>) -> Found {
    match answer {
        Ok(lookup) => {
            let records = lookup.answers().iter();
            Found::Records(records.map(|record| record.data.clone()).collect())
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
            ResponseCode::NoError => Found::Records(Vec::new()),
            ResponseCode::NXDomain => Found::NoDomain,
            _ => Found::Unknown,
        },
        Err(_) => Found::Unknown,
    }
}

fn named(servers: &[SocketAddr]) -> Vec<NameServerConfig> {
    let connections = |port: u16| {
        [ProtocolConfig::Udp, ProtocolConfig::Tcp].map(|protocol| {
            let mut connection = ConnectionConfig::new(protocol);
            connection.port = port;
            connection
        })
    };
    let server = |server: &SocketAddr| {
        NameServerConfig::new(server.ip(), true, connections(server.port()).to_vec())
    };
    servers.iter().map(server).collect()
}

fn options() -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = PATIENCE;
    options.attempts = ATTEMPTS;
    options.cache_size = KEPT_MAX;
    options.positive_max_ttl = Some(KEPT_FOR);
    options.negative_max_ttl = Some(NO_KEPT_FOR);
    options.max_active_requests = AT_ONCE * 4;
    options
}
