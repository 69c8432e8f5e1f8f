//! The life of the listener: accepting, refusing, staying silent, coming back.
//!
//! Owns what whoever connects meets. What happens on a connection is owned by `serve`. Invariant: the address stays the
//! same, whatever becomes of the listener.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::http::Conn;
use super::play::reset;
use super::serve::connection;
use super::state::{Power, State};
use super::words::Network;

/// What a black hole's queue of connections is to hold; the system may round it up.
const FEW: u32 = 1;
/// Connections that certainly fill such a queue.
const MANY: usize = 64;
/// On one machine a handshake takes far less than this, so one that does not come about in it is not answered.
const UNANSWERED: Duration = Duration::from_millis(50);

/// What stands at the address.
enum Door {
    /// Nothing: connecting is refused.
    Shut,
    /// A listener whose connections are taken.
    Open(TcpListener),
    /// A listener whose queue is full, with what fills it: the system drops every further handshake.
    Full { _listener: TcpListener, _fill: Vec<TcpStream> },
}

impl Door {
    async fn for_network(self, network: Network, address: SocketAddr) -> io::Result<Door> {
        match (network, self) {
            (Network::Refuse, _) => Ok(Door::Shut),
            (Network::Blackhole, Door::Full { _listener, _fill }) => Ok(Door::Full { _listener, _fill }),
            (Network::Blackhole, open) => {
                drop(open);
                full(address).await
            }
            (_, Door::Open(listener)) => Ok(Door::Open(listener)),
            (_, shut) => {
                drop(shut);
                TcpListener::bind(address).await.map(Door::Open)
            }
        }
    }
}

/// A listener that answers no handshake: its queue is short, full of our own connections, and nobody takes them out. A
/// stranger who gets in first is silent company.
async fn full(address: SocketAddr) -> io::Result<Door> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(FEW)?;
    let mut fill = Vec::new();
    while fill.len() < MANY {
        match tokio::time::timeout(UNANSWERED, TcpStream::connect(address)).await {
            Ok(connected) => fill.push(connected?),
            Err(_) => break,
        }
    }
    Ok(Door::Full { _listener: listener, _fill: fill })
}

/// Listens as the state says, beginning with `listener`, until it says to stop.
pub async fn listen(state: Arc<State>, listener: TcpListener, address: SocketAddr) {
    let mut power = state.power.subscribe();
    let mut door = Door::Open(listener);
    loop {
        let now = *power.borrow_and_update();
        let Power::On(network, until, turn) = now else {
            drop(door);
            state.in_force.send_replace((u64::MAX, None));
            state.kills.send_modify(|n| *n += 1);
            return;
        };
        door = match door.for_network(network, address).await {
            Ok(door) => door,
            Err(_) => {
                // The port is somebody else's for a moment.
                tokio::time::sleep(Duration::from_millis(20)).await;
                door = Door::Shut;
                continue;
            }
        };
        if matches!(network, Network::Refuse | Network::Reset) {
            state.kills.send_modify(|n| *n += 1);
        }
        state.in_force.send_replace((turn, Some(network)));
        let over = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => {
                let up = Power::On(Network::Up, None, turn);
                state.power.send_if_modified(|power| *power == now && std::mem::replace(power, up) == now);
            }
            () = take_all(&state, &door, network) => {}
            changed = power.changed() => if changed.is_err() { return },
        }
    }
}

async fn take_all(state: &Arc<State>, door: &Door, network: Network) {
    let Door::Open(listener) = door else { return std::future::pending().await };
    loop {
        match listener.accept().await {
            Ok((stream, _)) if network == Network::Reset => {
                state.turned_away();
                reset(&Conn::new(stream));
            }
            Ok((stream, _)) => serve(state, stream),
            // No file descriptors, most likely: wait rather than spin.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn serve(state: &Arc<State>, stream: TcpStream) {
    let state = state.clone();
    let mut kills = state.kills.subscribe();
    tokio::spawn(async move {
        let mut conn = Conn::new(stream);
        let killed = tokio::select! {
            biased;
            _ = kills.changed() => true,
            () = state.while_thawed(connection(&state, &mut conn)) => false,
        };
        if killed {
            reset(&conn);
        }
    });
}
