//! What the network before the whole server does, seen by whoever connects and by who was connected before.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::Interest;

use super::*;
use crate::mock::Network;

const CHAT: &str = "/v1/chat/completions";
/// For what is to be there soon: longer than any busy machine takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// For what is never to be there. Everything else on a loopback takes a small part of it.
const NEVER: Duration = Duration::from_millis(300);

async fn connects(mock: &Running) -> Result<TcpStream, ErrorKind> {
    match tokio::time::timeout(NEVER, TcpStream::connect(mock.addr())).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(error)) => Err(error.kind()),
        Err(_) => Err(ErrorKind::TimedOut),
    }
}

/// A kept connection that has had one answer.
async fn kept(mock: &Running) -> TcpStream {
    reading(mock, &post(CHAT, &chat(true), false), "0\r\n\r\n").await.0
}

/// Whether the connection gives neither a byte nor an end.
async fn silent(socket: &TcpStream) -> bool {
    tokio::time::timeout(NEVER, socket.ready(Interest::READABLE)).await.is_err()
}

async fn reset_comes(socket: &mut TcpStream) -> bool {
    let end = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut Vec::new())).await.expect("it ends");
    end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

async fn rest(mut socket: TcpStream) -> Got {
    let mut bytes = Vec::new();
    tokio::time::timeout(PATIENCE, socket.read_to_end(&mut bytes)).await.expect("it ends").expect("reads");
    parse(&bytes, false)
}

#[tokio::test]
async fn refused_means_that_nothing_listens_and_what_was_open_is_reset() {
    let mock = mock("").await;
    let mut before = kept(&mock).await;
    mock.network(Network::Refuse, None).await;
    assert_eq!(connects(&mock).await.err(), Some(ErrorKind::ConnectionRefused));
    assert!(reset_comes(&mut before).await);
    mock.network(Network::Up, None).await;
    assert_eq!(say(&mock, false).await.status, 200, "the same port answers again");
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_black_hole_answers_no_handshake() {
    let mock = mock("").await;
    let mut before = kept(&mock).await;
    for _ in 0..2 {
        mock.network(Network::Blackhole, None).await;
        for _ in 0..3 {
            assert_eq!(connects(&mock).await.err(), Some(ErrorKind::TimedOut));
        }
    }
    before.write_all(&post(CHAT, &chat(true), true)).await.expect("the system takes it");
    assert!(silent(&before).await, "what was open stands still");
    mock.network(Network::Up, None).await;
    assert_eq!(say(&mock, false).await.status, 200);
    assert_eq!(rest(before).await.status, 200, "what was asked meanwhile is answered late");
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn who_knocks_at_a_black_hole_gets_in_when_it_is_over() {
    let mock = mock("").await;
    mock.network(Network::Blackhole, None).await;
    let knocking = tokio::spawn(TcpStream::connect(mock.addr()));
    assert_eq!(connects(&mock).await.err(), Some(ErrorKind::TimedOut));
    mock.network(Network::Up, None).await;
    let socket = tokio::time::timeout(PATIENCE, knocking).await.expect("in time").expect("no panic");
    assert!(socket.is_ok(), "the system tries again by itself");
}

#[tokio::test]
async fn half_open_means_a_handshake_and_then_nothing() {
    let mock = mock("").await;
    let mut before = kept(&mock).await;
    mock.network(Network::HalfOpen, None).await;
    let mut during = connects(&mock).await.expect("a connection comes about");
    for socket in [&mut before, &mut during] {
        socket.write_all(&post(CHAT, &chat(false), true)).await.expect("the system takes it");
        assert!(silent(socket).await);
    }
    assert_eq!(mock.stats().calls, 1, "nothing was read");
    mock.network(Network::Up, None).await;
    assert_eq!((rest(before).await.status, rest(during).await.status), (200, 200), "late answers come");
}

#[tokio::test]
async fn a_stream_stands_still_while_the_network_does() {
    let mock = start("answer: { tokens: 200, first_token: 0, per_token: 5ms }").await;
    let (mut socket, _) = reading(&mock, &post(CHAT, &chat(true), true), "content").await;
    mock.network(Network::HalfOpen, None).await;
    // What was under way arrives.
    while !silent(&socket).await {
        assert!(socket.read_buf(&mut Vec::new()).await.expect("reads") > 0, "it ended");
    }
    assert_eq!(mock.stats().active, 1);
    mock.network(Network::Up, None).await;
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).await.expect("reads");
    assert!(String::from_utf8_lossy(&bytes).ends_with("0\r\n\r\n"), "and goes on to its end");
}

#[tokio::test]
async fn reset_lets_nobody_stay() {
    let mock = mock("").await;
    let mut before = kept(&mock).await;
    mock.network(Network::Reset, None).await;
    assert!(reset_comes(&mut before).await);
    let (bytes, reset) = raw(&mock, &post(CHAT, &chat(false), true)).await;
    assert!(bytes.is_empty() && reset);
    assert_eq!((mock.stats().connections, mock.stats().calls), (2, 1));
    mock.network(Network::Up, None).await;
    assert_eq!(say(&mock, false).await.status, 200);
}

#[tokio::test]
async fn a_time_ends_by_itself() {
    let mock = mock("").await;
    for network in [Network::Refuse, Network::Blackhole, Network::HalfOpen, Network::Reset] {
        mock.network(network, Some(Duration::from_millis(20))).await;
        let mut in_force = mock.state.in_force.subscribe();
        let up = in_force.wait_for(|(_, now)| *now == Some(Network::Up));
        drop(tokio::time::timeout(PATIENCE, up).await.expect("it ends").expect("it runs"));
        assert_eq!(say(&mock, false).await.status, 200, "{network:?}");
    }
}

#[tokio::test]
async fn a_connection_is_reset_at_the_head_or_after_the_request() {
    for (moment, remembered) in [("head", 0), ("request", 1)] {
        let mock = faulty(&format!("reset: {moment}")).await;
        let (bytes, reset) = raw(&mock, &post(CHAT, &chat(true), false)).await;
        assert!(bytes.is_empty() && reset, "{moment}");
        let stats = mock.until(|stats| stats.broken == 1).await;
        let whole = stats.last_requests.iter().filter(|seen| seen.body_length > 0).count();
        assert_eq!((stats.calls, whole), (1, remembered), "{moment}");
    }
}

#[tokio::test]
async fn the_network_is_switched_from_outside() {
    let mut mock = mock("").await;
    let control = mock.control(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
    let tell = async |to: SocketAddr, words: &str| {
        let mut socket = TcpStream::connect(to).await.expect("connects");
        let head =
            format!("POST /_mock/network HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", words.len());
        socket.write_all(format!("{head}{words}").as_bytes()).await.expect("sends");
        rest(socket).await.status
    };
    for wrong in ["", "refuse soon", "refuse 1s 2s", "explode"] {
        assert_eq!(tell(control, wrong).await, 400, "{wrong}");
    }
    let mut in_force = mock.state.in_force.subscribe();
    for (to, words, network) in [
        (mock.addr(), "refuse 1h", Network::Refuse),
        (control, "half_open", Network::HalfOpen),
        (control, "blackhole", Network::Blackhole),
        (control, "reset", Network::Reset),
        (control, "up", Network::Up),
    ] {
        assert_eq!(tell(to, words).await, 200, "{words}");
        drop(in_force.wait_for(|(_, now)| *now == Some(network)).await.expect("it runs"));
    }
    assert_eq!(say(&mock, false).await.status, 200);
    let (bytes, _) = raw_to(control, b"GET /_mock/stats HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    assert_eq!(parse(&bytes, false).json()["calls"], 1);
}

async fn raw_to(address: SocketAddr, request: &[u8]) -> (Vec<u8>, bool) {
    let mut socket = TcpStream::connect(address).await.expect("connects");
    let mut bytes = Vec::new();
    socket.write_all(request).await.expect("sends");
    let reset = socket.read_to_end(&mut bytes).await.is_err();
    (bytes, reset)
}
