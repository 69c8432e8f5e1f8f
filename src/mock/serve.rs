//! The life of each connection.
//!
//! Owns the order of a call's phases. Owns no listener: `network` does. Invariant: a connection ends only by its client,
//! by a script, or by the server's death.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::answer::answer;
use super::control;
use super::fault::{Fault, Phase};
use super::http::{Conn, Request, Unread, watch};
use super::play::{Played, play, reset};
use super::script::{Draft, script};
use super::state::{Active, Power, State};
use super::units::Span;
use super::words::{Hang, Reset};

/// Serves one connection to its end.
pub async fn connection(state: &Arc<State>, conn: &mut Conn) {
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
    if fault.as_ref().is_some_and(|fault| fault.reset == Some(Reset::Head)) {
        state.saw(number, &request);
        return broken_off(conn, active);
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
    if fault.reset.is_some() {
        return broken_off(conn, active);
    }
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

/// Resets the connection. It may not serve another call.
fn broken_off(conn: &Conn, active: Active) -> bool {
    reset(conn);
    active.end(Played::Broken);
    false
}

/// Does what a fault does before anything is read. Says how the call ended, unless it goes on.
async fn strike(state: &Arc<State>, conn: &mut Conn, fault: &Fault) -> Option<Played> {
    if let Some((network, Span(time))) = fault.outage() {
        state.want(network, Some(time));
        // Refused: the listener closes and every connection is killed, this one among them. Else all stand still, this
        // one among them, and it goes on with the others.
        drop(state.power.subscribe().wait_for(|power| !matches!(power, Power::On(now, ..) if *now == network)).await);
    }
    if fault.reset_on_accept {
        reset(conn);
        return Some(Played::Broken);
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
pub async fn linger(conn: &mut Conn) {
    let drain = async {
        conn.stream.shutdown().await?;
        let mut bytes = vec![0; 64 * 1024];
        while conn.stream.read(&mut bytes).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), drain).await;
}
