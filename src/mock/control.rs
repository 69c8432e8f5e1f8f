//! `/_mock`: looking at the counters and changing the scenario from outside.
//!
//! Owns those three requests. Invariant: none of them is counted or harmed by a rule, once its head was read.

use std::sync::Arc;

use serde_json::json;

use super::fault::Fault;
use super::http::{Conn, Request};
use super::play::{Played, play};
use super::scenario::Scenario;
use super::script::{Draft, script};
use super::state::State;

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
        _ => text(404, "GET /_mock/stats, POST /_mock/scenario, POST /_mock/reset\n"),
    };
    let script = script(draft, &Fault::default(), request.old);
    play(conn, &script).await == Played::Whole && script.keep && !request.closes()
}

fn done() -> Draft {
    Draft::whole(200, "application/json", json!({"ok": true}).to_string().into_bytes())
}

fn text(status: u16, text: &str) -> Draft {
    Draft::whole(status, "text/plain; charset=utf-8", text.as_bytes().to_vec())
}
