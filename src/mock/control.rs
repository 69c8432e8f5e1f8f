//! `/_mock`: looking at the counters, changing the scenario and the network from outside.
//!
//! Owns those four requests, and the port that serves nothing else. Invariant: none of them is counted or harmed by a rule, once its head was read.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::{Error as WordError, StrDeserializer};
use serde_json::json;
use tokio::net::TcpListener;

use super::fault::Fault;
use super::http::{Conn, Request};
use super::play::{Played, play};
use super::scenario::Scenario;
use super::script::{Draft, script};
use super::serve::linger;
use super::state::State;
use super::units::Span;
use super::words::Network;

/// Answers a control request. Says whether the connection may serve another.
pub async fn serve(state: &Arc<State>, conn: &mut Conn, mut request: Request) -> bool {
    request.body = match conn.body(&request, None).await {
        Ok(body) => body,
        Err(_) => return false,
    };
    let draft = match (request.method.as_str(), request.path()) {
        ("GET", "/_mock/stats") => match serde_json::to_vec(&state.stats()) {
            Ok(body) => Draft::whole(200, "application/json", body),
            Err(error) => text(500, &error.to_string()),
        },
        ("POST", "/_mock/scenario") => match Scenario::parse(&String::from_utf8_lossy(&request.body)) {
            Ok(scenario) => {
                state.set_scenario(scenario);
                done()
            }
            Err(error) => text(400, &error),
        },
        ("POST", "/_mock/reset") => {
            state.reset();
            done()
        }
        ("POST", "/_mock/network") => match wanted(&String::from_utf8_lossy(&request.body)) {
            Ok((network, time)) => {
                // The answer first: what is asked for may reach this connection too.
                let last = Fault { until_close: true, ..Fault::default() };
                play(conn, &script(done(), &last, request.old)).await;
                linger(conn).await;
                state.want(network, time);
                return false;
            }
            Err(error) => text(400, &error),
        },
        _ => text(404, "GET /_mock/stats, POST /_mock/scenario, POST /_mock/network, POST /_mock/reset\n"),
    };
    let script = script(draft, &Fault::default(), request.old);
    play(conn, &script).await == Played::Whole && script.keep && !request.closes()
}

/// Serves these requests and no others on every connection of `listener`.
pub async fn listen(state: Arc<State>, listener: TcpListener) {
    loop {
        // No file descriptors, most likely: wait rather than spin.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let state = state.clone();
        tokio::spawn(async move {
            let mut conn = Conn::new(stream);
            while let Ok(request) = conn.head().await {
                if !serve(&state, &mut conn, request).await {
                    return;
                }
            }
        });
    }
}

/// `refuse 20s`: what the network is to be like, and for how long if that is said.
fn wanted(text: &str) -> Result<(Network, Option<Duration>), String> {
    let usage = || {
        let words: Vec<_> = Network::WORDS.iter().map(|(word, _)| *word).collect();
        format!("one of {}, then for how long if not for good: `refuse 20s`\n", words.join(", "))
    };
    let mut parts = text.split_whitespace();
    let word = parts.next().ok_or_else(usage)?;
    let network = Network::deserialize(StrDeserializer::<WordError>::new(word)).map_err(|_| usage())?;
    let time = parts.next().map(|time| Span::parse(time).ok_or_else(usage)).transpose()?;
    match parts.next() {
        Some(_) => Err(usage()),
        None => Ok((network, time.map(|time| time.0))),
    }
}

fn done() -> Draft {
    Draft::whole(200, "application/json", json!({"ok": true}).to_string().into_bytes())
}

fn text(status: u16, text: &str) -> Draft {
    Draft::whole(status, "text/plain; charset=utf-8", text.as_bytes().to_vec())
}
