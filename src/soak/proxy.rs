//! A bad network between the processes under test and one store.
//!
//! Everything that the processes send to the store goes through here. What happens to it is one
//! [`Weather`] for all connections, changed by the nemesis while they are open.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::tasks::Tasks;

/// Bytes that are passed on at once.
const PIECE: usize = 64 * 1024;

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weather {
    /// Passes everything on.
    Fair,
    /// Each piece, in each direction, comes late by the first time, and up to the second more.
    Slow { ms: u64, jitter_ms: u64 },
    /// Connections stay open, and nothing is read or passed on any more.
    HalfOpen,
    /// Requests reach the store; of the answer nothing comes back, and then the connection breaks.
    AnswersLost,
    /// Every connection breaks, and new ones are closed at once.
    Refused,
}

/// A proxy to one store.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    weather: Weather,
    /// Connections of an earlier number are to break.
    cuts: u64,
}

impl Proxy {
    /// Listens on a port of the loopback address until `tasks` stop.
    pub(super) async fn start(store: SocketAddr, tasks: &Tasks) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (state, watched) = watch::channel(State {
            weather: Weather::Fair,
            cuts: 0,
        });
        let group = tasks.clone();
        tasks.spawn("proxy", async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = group.stopping().cancelled() => return,
                };
                let Ok((client, _)) = accepted else { continue };
                let (watched, stopping) = (watched.clone(), group.stopping().clone());
                group.spawn("proxy connection", async move {
                    tokio::select! {
                        () = connect(client, store, watched) => {}
                        () = stopping.cancelled() => {}
                    }
                });
            }
        });
        Ok(Self { address, state })
    }

    pub(super) fn set(&self, weather: Weather) {
        self.state.send_modify(|state| {
            state.weather = weather;
            // What hung in the old weather was in no state to go on.
            if weather == Weather::Refused {
                state.cuts += 1;
            }
        });
    }

    /// Breaks every connection, without a goodbye.
    pub(super) fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }
}

async fn connect(client: TcpStream, store: SocketAddr, mut watched: watch::Receiver<State>) {
    let born = watched.borrow_and_update().cuts;
    if watched.borrow().weather == Weather::Refused {
        reset(&client);
        return;
    }
    let Ok(server) = TcpStream::connect(store).await else {
        reset(&client);
        return;
    };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    reset(&client);
    reset(&server);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = pass(from_client, to_server, watched.clone(), false);
    let back = pass(from_server, to_client, watched.clone(), true);
    let cut = watched.wait_for(|state| state.cuts > born);
    tokio::select! {
        () = there => {}
        () = back => {}
        _ = cut => {}
    }
}

/// When it is dropped, the other side is told by a reset and not by a farewell.
fn reset(stream: &TcpStream) {
    stream.set_zero_linger().ok();
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut watched: watch::Receiver<State>,
    is_answer: bool,
) {
    let mut piece = vec![0; PIECE];
    loop {
        let open = watched.wait_for(|state| state.weather != Weather::HalfOpen);
        if open.await.is_err() {
            return;
        }
        let Ok(length @ 1..) = from.read(&mut piece).await else {
            return;
        };
        let weather = watched.borrow().weather;
        match weather {
            Weather::Slow { ms, jitter_ms } => {
                let jitter = rand::random::<u64>() % jitter_ms.max(1);
                tokio::time::sleep(Duration::from_millis(ms + jitter)).await;
            }
            // The piece is kept, as by a network that may come back.
            Weather::HalfOpen => {
                let open = watched.wait_for(|state| state.weather != Weather::HalfOpen);
                if open.await.is_err() {
                    return;
                }
            }
            Weather::AnswersLost if is_answer => return,
            Weather::Fair | Weather::AnswersLost | Weather::Refused => {}
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each byte with the next higher one, and counts what it got.
    async fn server(tasks: &Tasks) -> (SocketAddr, watch::Receiver<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (count, counted) = watch::channel(0);
        let group = tasks.clone();
        tasks.spawn("server", async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let count = count.clone();
                group.spawn("answers", async move {
                    while let Ok(byte) = stream.read_u8().await {
                        count.send_modify(|count| *count += 1);
                        if stream.write_u8(byte + 1).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        (address, counted)
    }

    async fn ask(stream: &mut TcpStream, byte: u8) -> std::io::Result<u8> {
        stream.write_u8(byte).await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn each_weather_does_what_its_name_says() {
        let tasks = Tasks::new();
        let (address, mut counted) = server(&tasks).await;
        let proxy = Proxy::start(address, &tasks).await.unwrap();
        let connect = async || TcpStream::connect(proxy.address).await.unwrap();

        let mut stream = connect().await;
        assert_eq!(ask(&mut stream, 1).await.unwrap(), 2);
        proxy.set(Weather::Slow {
            ms: 5,
            jitter_ms: 5,
        });
        assert_eq!(ask(&mut stream, 2).await.unwrap(), 3);
        proxy.set(Weather::Fair);
        proxy.cut();
        assert!(ask(&mut stream, 3).await.is_err(), "a cut breaks it");

        // Half open: nothing is answered and nothing breaks; what was sent comes later.
        let mut stream = connect().await;
        assert_eq!(ask(&mut stream, 4).await.unwrap(), 5);
        proxy.set(Weather::HalfOpen);
        stream.write_u8(5).await.unwrap();
        let wait = Duration::from_millis(100);
        assert!(tokio::time::timeout(wait, stream.read_u8()).await.is_err());
        proxy.set(Weather::Fair);
        assert_eq!(stream.read_u8().await.unwrap(), 6);

        // Lost: the server has the request, the client has no answer.
        let before = *counted.borrow_and_update();
        proxy.set(Weather::AnswersLost);
        assert!(ask(&mut stream, 6).await.is_err());
        counted.wait_for(|count| *count > before).await.unwrap();

        proxy.set(Weather::Refused);
        let refused = match TcpStream::connect(proxy.address).await {
            Ok(mut stream) => ask(&mut stream, 7).await.is_err(),
            Err(_) => true,
        };
        assert!(refused);
        proxy.set(Weather::Fair);
        assert_eq!(ask(&mut connect().await, 8).await.unwrap(), 9);
    }
}
