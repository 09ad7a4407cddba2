//! A server of DNS that knows some domains, and counts what it is asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bullwark::tasks::Tasks;
use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, MX};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

/// What it says of a name.
#[derive(Debug, Clone)]
pub(super) enum Zone {
    /// Mail goes to this host.
    Mail(&'static str),
    /// Mail goes to these hosts, preferred ones first.
    Mails(&'static [&'static str]),
    /// It has an address, and nothing else.
    Address,
    /// The same, an address of this machine.
    Here,
    /// The same, another one, at which nobody listens.
    HereBeside,
    /// It is there, and has nothing.
    Empty,
    /// The server fails.
    Broken,
    /// The server says nothing.
    Silent,
}

#[derive(Debug, Default)]
struct Known {
    zones: BTreeMap<String, Zone>,
    asked: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Dns {
    pub(super) addr: SocketAddr,
    known: Arc<Mutex<Known>>,
}

impl Dns {
    pub(super) async fn start(tasks: &Tasks) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let dns = Self {
            addr: socket.local_addr().unwrap(),
            known: Arc::default(),
        };
        let (known, all) = (Arc::clone(&dns.known), tasks.clone());
        tasks.spawn("dns", async move {
            let mut bytes = [0_u8; 2048];
            loop {
                let got = tokio::select! {
                    got = socket.recv_from(&mut bytes) => got,
                    () = all.stopping().cancelled() => break,
                };
                let Ok((length, from)) = got else { continue };
                let answer = answer(&known, &bytes[..length]);
                if let Some(answer) = answer {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        dns
    }

    pub(super) fn knows(&self, name: &str, zone: Zone) {
        self.known
            .lock()
            .unwrap()
            .zones
            .insert(name.to_owned(), zone);
    }

    /// How often it was asked who takes mail for a domain.
    pub(super) fn asked(&self, domain: &str) -> usize {
        let known = self.known.lock().unwrap();
        known.asked.iter().filter(|name| *name == domain).count()
    }
}

fn answer(known: &Mutex<Known>, question: &[u8]) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).unwrap();
    let query = question.queries.first().unwrap().clone();
    let name = query
        .name()
        .to_ascii()
        .trim_end_matches('.')
        .to_ascii_lowercase();
    let mut known = known.lock().unwrap();
    let is_mail = query.query_type() == RecordType::MX;
    if is_mail {
        known.asked.push(name.clone());
    }
    let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    answer.metadata.recursion_available = true;
    answer.queries.push(query.clone());
    let mut says = |data: RData| {
        answer
            .answers
            .push(Record::from_rdata(query.name().clone(), 300, data));
    };
    let code = match known.zones.get(&name) {
        Some(Zone::Silent) => return None,
        Some(Zone::Broken) => ResponseCode::ServFail,
        None => ResponseCode::NXDomain,
        Some(Zone::Mail(host)) if is_mail => {
            says(RData::MX(MX::new(10, Name::from_ascii(host).unwrap())));
            ResponseCode::NoError
        }
        // In the wrong order: preferences tell.
        Some(Zone::Mails(hosts)) if is_mail => {
            for (nth, host) in hosts.iter().enumerate().rev() {
                let nth = u16::try_from(nth).unwrap();
                says(RData::MX(MX::new(nth, Name::from_ascii(host).unwrap())));
            }
            ResponseCode::NoError
        }
        Some(zone @ (Zone::Address | Zone::Here | Zone::HereBeside))
            if query.query_type() == RecordType::A =>
        {
            says(RData::A(match zone {
                Zone::Here => A::new(127, 0, 0, 1),
                Zone::HereBeside => A::new(127, 0, 0, 2),
                _ => A::new(192, 0, 2, 1),
            }));
            ResponseCode::NoError
        }
        Some(_) => ResponseCode::NoError,
    };
    answer.metadata.response_code = code;
    answer.to_vec().ok()
}
