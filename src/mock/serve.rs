//! The life of the listener and of each connection.
//!
//! Owns accepting, dying and coming back, and the order of a call's phases. Invariant: a connection ends only by its
//! client, by a script, or by the server's death.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::answer::answer;
use super::control;
use super::fault::{Fault, Phase};
use super::http::{Conn, Request, Unread, watch};
use super::play::{Played, play, reset};
use super::script::{Draft, script};
use super::state::{Power, State};
use super::units::Span;
use super::words::Hang;

/// Accepts on `listener` until the state says to stop.
pub async fn accept(state: Arc<State>, listener: TcpListener, address: SocketAddr) {
    let mut power = state.power.subscribe();
    let mut listener = Some(listener);
    loop {
        let now = *power.borrow_and_update();
        match (now, listener.take()) {
            (Power::Up, Some(open)) => {
                tokio::select! {
                    accepted = open.accept() => take(&state, accepted).await,
                    changed = power.changed() => if changed.is_err() { return },
                }
                listener = Some(open);
            }
            (Power::Up, None) => match TcpListener::bind(address).await {
                Ok(open) => {
                    listener = Some(open);
                    state.listening.send_replace(true);
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            (Power::Down(until), open) => {
                drop(open);
                state.listening.send_replace(false);
                state.kills.send_modify(|n| *n += 1);
                let back = async {
                    match until {
                        Some(until) => tokio::time::sleep_until(until).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = back => { state.power.send_if_modified(|p| std::mem::replace(p, Power::Up) == now); }
                    changed = power.changed() => if changed.is_err() { return },
                }
            }
            (Power::Stopped, open) => {
                drop(open);
                state.listening.send_replace(false);
                state.kills.send_modify(|n| *n += 1);
                return;
            }
        }
    }
}

async fn take(state: &Arc<State>, accepted: io::Result<(TcpStream, SocketAddr)>) {
    state.unpaused().await;
    match accepted {
        Ok((stream, _)) => {
            let state = state.clone();
            let mut kills = state.kills.subscribe();
            tokio::spawn(async move {
                let mut conn = Conn::new(stream);
                let killed = tokio::select! {
                    biased;
                    _ = kills.changed() => true,
                    () = connection(&state, &mut conn) => false,
                };
                if killed {
                    reset(&conn);
                }
            });
        }
        // No file descriptors, most likely: wait rather than spin.
        Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
    }
}

async fn connection(state: &Arc<State>, conn: &mut Conn) {
    // Each write is to be seen as it is written; without this the system would join them.
    let _ = conn.stream.set_nodelay(true);
    let mut early = state.accepted();
    if let Some((_, fault)) = &early
        && let Some(played) = strike(state, conn, fault).await
    {
        state.begin("(accept)").end(played);
        return;
    }
    loop {
        let request = match conn.head().await {
            Ok(request) => request,
            Err(Unread::Gone) => return,
            Err(Unread::Bad) => {
                let bad = Draft::whole(400, "text/plain", b"not HTTP\n".to_vec());
                play(conn, &script(bad, &Fault { until_close: true, ..Fault::default() }, false)).await;
                return;
            }
        };
        if request.path().starts_with("/_mock") {
            if !control::serve(state, conn, request).await {
                return;
            }
        } else if !call(state, conn, request, early.take()).await {
            return;
        }
    }
}

/// One call. Says whether the connection may serve another.
async fn call(state: &Arc<State>, conn: &mut Conn, mut request: Request, early: Option<(u64, Fault)>) -> bool {
    let mut active = state.begin(request.path());
    let (number, mut fault) = match early {
        Some((number, fault)) => (Some(number), Some(fault)),
        None => (state.number(&request), None),
    };
    state.unpaused().await;
    if fault.is_none() {
        fault = state.pick(Phase::Accept, number, &request);
        if let Some(fault) = &fault
            && let Some(played) = strike(state, conn, fault).await
        {
            active.end(played);
            return false;
        }
    }
    let fault = fault.or_else(|| state.pick(Phase::Head, number, &request));
    if let Some(fault) = fault.as_ref().filter(|fault| fault.early_413) {
        let refused = Fault { status: Some(413), until_close: true, ..fault.clone() };
        let played = play(conn, &answer(&state.scenario().0, &request, number.unwrap_or(0), &refused)).await;
        state.saw(number, &request);
        linger(conn).await;
        active.end(played);
        return false;
    }
    let rate = fault.as_ref().and_then(|fault| fault.slow_read).map(|size| size.0);
    request.body = match conn.body(&request, rate).await {
        Ok(body) => body,
        Err(_) => {
            active.end(Played::Left);
            return false;
        }
    };
    state.saw(number, &request);
    active.asked(&request);
    let fault = fault.or_else(|| state.pick(Phase::Request, number, &request)).unwrap_or_default();
    let (scenario, slots) = state.scenario();
    let slot = match number {
        // Listings and health checks are answered whatever the calls are doing.
        None => None,
        Some(_) => {
            let (read, _write, buffer) = conn.halves();
            tokio::select! {
                biased;
                slot = slots.acquire_owned() => slot.ok(),
                () = watch(read, buffer) => {
                    active.end(Played::Left);
                    return false;
                }
            }
        }
    };
    let script = answer(&scenario, &request, number.unwrap_or(0), &fault);
    active.answers(&script);
    let played = play(conn, &script).await;
    drop(slot);
    let keep = script.keep && !request.closes() && played == Played::Whole;
    active.end(played);
    keep
}

/// Does what a fault does before anything is read. Says how the call ended, unless it goes on.
async fn strike(state: &Arc<State>, conn: &mut Conn, fault: &Fault) -> Option<Played> {
    if let Some(Span(time)) = fault.refuse {
        state.power.send_replace(Power::Down(Some(Instant::now() + time)));
        // The listener is closed first and then every connection is killed, this one among them.
        std::future::pending::<()>().await;
    }
    if fault.reset_on_accept {
        reset(conn);
        return Some(Played::Broken);
    }
    if let Some(Span(time)) = fault.blackhole {
        state.pause(time);
        state.unpaused().await;
    }
    if fault.hang == Some(Hang::Accept) {
        conn.until_gone().await;
        return Some(Played::Left);
    }
    let wait = fault.delay.accept.0;
    if wait.is_zero() {
        return None;
    }
    tokio::select! {
        () = tokio::time::sleep(wait) => None,
        () = conn.until_gone() => Some(Played::Left),
    }
}

/// Closes our half and reads the rest away for a moment, so that the answer is not lost to a RST.
async fn linger(conn: &mut Conn) {
    let drain = async {
        conn.stream.shutdown().await?;
        let mut bytes = vec![0; 64 * 1024];
        while conn.stream.read(&mut bytes).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), drain).await;
}
