//! Asks the mail servers of a domain whether they would take mail for an address, and sends none.
//!
//! Off unless whoever runs the server says in whose name to ask, and the job wants it. A stranger
//! who asks for many addresses looks like one who collects them, so little is asked: one connection
//! to a domain at a time by the whole process, few domains at once, a few addresses in each
//! connection and of each domain, none of a domain that takes everybody, and nothing more of one
//! that refuses us.
//!
//! Promises: what is not clear is never taken for a "no"; no `DATA` is sent; addresses inside of
//! this network are not connected to, unless the server allows them; an address is waited for no
//! longer than [`DOMAIN_TIME`], a job no longer than [`PROBING_TIME`].

mod conversation;
mod reply;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::address::Address;
use super::mail_hosts::Dns;
use crate::job::smtp_probe::SmtpProbe;
use crate::outbound::may_reach;
use conversation::{Conversation, Manner, NotOpen, Talk};

/// Domains that are asked at the same time, by the whole process.
const DOMAINS_AT_ONCE: usize = 8;
/// How long a domain may take, each time that it is asked.
const DOMAIN_TIME: Duration = Duration::from_secs(60);
/// How long an attempt of a job asks mail servers: it has to end before it is stopped.
const PROBING_TIME: Duration = Duration::from_secs(40 * 60);
/// Addresses in one connection. Postfix slows down whoever was refused ten times in one, and ends
/// it at twenty (`smtpd_soft_error_limit`, `smtpd_hard_error_limit`).
const PER_CONNECTION: usize = 10;
/// Addresses of a domain that a job asks for.
const PER_DOMAIN: usize = 30;
/// Addresses of a host that are tried.
const ADDRESSES_MAX: usize = 2;
/// Domains of a job that could not be connected to, without one that could, before it asks no more:
/// then it is this network that lets nobody out to there.
const UNREACHED_MAX: usize = 10;

/// What was found of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    Confirmed,
    /// As everybody would be.
    TakesAll,
    NoMailbox,
    Full,
    Unclear,
    /// It was not asked for: others of its domain were, or there was no time.
    NotProbed,
}

/// Asks. A cheap handle.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    from: lettre::Address,
    port: u16,
    step: Duration,
    allow_private: bool,
    seats: Arc<Semaphore>,
    /// One for each domain that is asked, or waits for it.
    gates: Arc<Mutex<BTreeMap<String, Gate>>>,
}

type Gate = Arc<tokio::sync::Mutex<()>>;

/// What a job knows of the domains that it asked. It is kept with its place.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Known {
    domains: BTreeMap<String, Met>,
    reach: Reach,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Met {
    /// How many addresses it was asked for.
    asked: usize,
    takes_all: bool,
    /// It could not be asked, or does not want to be.
    is_closed: bool,
}

/// Whether mail servers can be connected to at all from here.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Reach {
    has_reached: bool,
    /// Domains that were not reached.
    missed: usize,
}

impl Reach {
    fn is_none(self) -> bool {
        !self.has_reached && self.missed >= UNREACHED_MAX
    }
}

impl Probe {
    /// None: the sender is no address.
    pub(super) fn new(settings: &SmtpProbe, allow_private: bool) -> Option<Self> {
        let (local, domain) = &settings.from;
        Some(Self {
            from: lettre::Address::new(local, domain).ok()?,
            port: settings.port,
            step: settings.step,
            allow_private,
            seats: Arc::new(Semaphore::new(DOMAINS_AT_ONCE)),
            gates: Arc::default(),
        })
    }

    /// For an attempt of a job, which knows this already.
    pub(super) fn begin(&self, known: Known) -> Probing {
        Probing {
            probe: self.clone(),
            known,
            until: Instant::now() + PROBING_TIME,
        }
    }

    fn gate(&self, domain: &str) -> Gate {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        Arc::clone(gates.entry(domain.to_owned()).or_default())
    }
}

/// The probing of one attempt of a job.
#[derive(Debug)]
pub(super) struct Probing {
    probe: Probe,
    known: Known,
    until: Instant,
}

/// Addresses of one domain, and what was found of the first ones of them.
struct Visit {
    domain: String,
    addresses: Vec<Address>,
    met: Met,
    findings: Vec<Finding>,
}

impl Visit {
    /// All others are this.
    fn others_are(&mut self, finding: Finding) {
        self.findings.resize(self.addresses.len(), finding);
    }
}

impl Probing {
    pub(super) fn known(&self) -> &Known {
        &self.known
    }

    /// No mail server at all can be connected to, as it seems.
    pub(super) fn is_shut_in(&self) -> bool {
        self.known.reach.is_none()
    }

    /// Asks for all of these.
    pub(super) async fn ask(
        &mut self,
        dns: &Dns,
        addresses: BTreeSet<Address>,
    ) -> BTreeMap<Address, Finding> {
        let mut visits: BTreeMap<String, Visit> = BTreeMap::new();
        for address in addresses {
            let domain = address.domain.clone();
            let met = self.known.domains.get(&domain).cloned();
            let visit = visits.entry(domain.clone()).or_insert_with(|| Visit {
                domain,
                addresses: Vec::new(),
                met: met.unwrap_or_default(),
                findings: Vec::new(),
            });
            visit.addresses.push(address);
        }
        let reach = Mutex::new(self.known.reach);
        let (probe, until) = (&self.probe, self.until);
        let visits = stream::iter(visits.into_values())
            .map(|visit| probe.visit(dns, visit, &reach, until))
            .buffer_unordered(DOMAINS_AT_ONCE);
        let mut visits = std::pin::pin!(visits);
        let (mut found, mut met) = (BTreeMap::new(), Vec::new());
        while let Some(visit) = visits.next().await {
            met.push((visit.domain, visit.met));
            found.extend(visit.addresses.into_iter().zip(visit.findings));
        }
        self.known.domains.extend(met);
        self.known.reach = *held(&reach);
        found
    }
}

impl Probe {
    async fn visit(
        &self,
        dns: &Dns,
        mut visit: Visit,
        reach: &Mutex<Reach>,
        until: Instant,
    ) -> Visit {
        if visit.met.takes_all {
            visit.others_are(Finding::TakesAll);
            return visit;
        }
        if visit.met.is_closed {
            visit.others_are(Finding::Unclear);
            return visit;
        }
        let gate = self.gate(&visit.domain);
        // The gate first: who waits for it takes nobody's seat.
        let turn = timeout_at(until, async {
            let entered = gate.lock().await;
            (entered, self.seats.acquire().await)
        });
        let Ok((_entered, Ok(_seat))) = turn.await else {
            visit.others_are(Finding::NotProbed);
            return visit;
        };
        if held(reach).is_none() {
            visit.others_are(Finding::Unclear);
            return visit;
        }
        let until = (Instant::now() + DOMAIN_TIME).min(until);
        // DNS has limits of its own, and was asked a moment ago.
        let doors = self.doors(dns, &visit.domain).await;
        self.talk(&doors, &mut visit, reach, until).await;
        let rest = match visit.met.is_closed {
            true => Finding::Unclear,
            false => Finding::NotProbed,
        };
        visit.others_are(rest);
        visit
    }

    /// Where a domain takes mail: preferred hosts first, addresses that may be reached.
    async fn doors(&self, dns: &Dns, domain: &str) -> Vec<SocketAddr> {
        let hosts = dns.addresses(domain).await;
        let doors = hosts.into_iter().flat_map(|addresses| {
            let allowed = addresses
                .into_iter()
                .filter(|ip| may_reach(*ip, self.allow_private));
            allowed.take(ADDRESSES_MAX)
        });
        doors.map(|ip| SocketAddr::new(ip, self.port)).collect()
    }

    /// Connects as often as it takes to ask for the addresses, or for as many as may be.
    async fn talk(
        &self,
        doors: &[SocketAddr],
        visit: &mut Visit,
        reach: &Mutex<Reach>,
        until: Instant,
    ) {
        let manner = Manner {
            from: self.from.clone(),
            step: self.step,
            until,
        };
        loop {
            let open = &visit.addresses[visit.findings.len()..];
            let room = PER_DOMAIN.saturating_sub(visit.met.asked);
            let some: Vec<&Address> = open.iter().take(room.min(PER_CONNECTION)).collect();
            if some.is_empty() {
                return;
            }
            let Some(conversation) = open_one(doors, &manner, reach).await else {
                visit.met.is_closed = true;
                return;
            };
            visit.met.asked += some.len();
            match conversation.ask(&visit.domain, &some).await {
                Talk::Found(found) => visit.findings.extend(found),
                Talk::TakesAll => {
                    visit.met.takes_all = true;
                    visit.others_are(Finding::TakesAll);
                    return;
                }
                Talk::Broken(found) => {
                    visit.findings.extend(found);
                    visit.met.is_closed = true;
                    return;
                }
            }
        }
    }
}

/// The first server that greets. One that refuses us speaks for the others.
async fn open_one(
    doors: &[SocketAddr],
    manner: &Manner,
    reach: &Mutex<Reach>,
) -> Option<Conversation> {
    let (mut has_reached, mut has_missed) = (false, false);
    let mut opened = None;
    for door in doors {
        if Instant::now() >= manner.until {
            break;
        }
        match Conversation::open(*door, manner).await {
            Ok(conversation) => opened = Some(conversation),
            Err(NotOpen::Unreached) => {
                has_missed = true;
                continue;
            }
            Err(NotOpen::Unwelcome) => {
                has_reached = true;
                continue;
            }
            Err(NotOpen::Refused) => {}
        }
        has_reached = true;
        break;
    }
    let mut reach = held(reach);
    reach.has_reached |= has_reached;
    reach.missed += usize::from(has_missed && !has_reached);
    opened
}

fn held(reach: &Mutex<Reach>) -> std::sync::MutexGuard<'_, Reach> {
    reach.lock().unwrap_or_else(PoisonError::into_inner)
}
