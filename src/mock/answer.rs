//! Which answer a request gets: the surface, the faults that replace it, and the draft that comes of both.
//!
//! Owns the choice. The shapes stand in their own modules, the transfer in `script`. Invariant: an answer depends on
//! the scenario, the request, the call's number and the fault, on nothing else.

use std::time::Duration;

use serde_json::{Value, json};

use super::ask::{Ask, Surface};
use super::dice::{self, Dice};
use super::errors::{self, Failure};
use super::event::{Event, Mark, Says, harm};
use super::fault::{Fault, InbandError};
use super::http::Request;
use super::reply::{Reply, reply, split};
use super::scenario::Scenario;
use super::script::{Draft, Frame, Piece, Script, Tail, only, script};
use super::stream::{frames, pace};
use super::words::{Dialect, Hang, Inband, Trouble};
use super::{chat, listing, messages, responses, resume};

/// The surface of a path, if it is one that generates.
pub fn surface(path: &str) -> Option<Surface> {
    match path {
        "/v1/chat/completions" => Some(Surface::Chat),
        "/v1/completions" => Some(Surface::Completions),
        "/v1/responses" => Some(Surface::Responses),
        "/v1/messages" => Some(Surface::Messages),
        _ => None,
    }
}

/// The script of the answer to `request`.
pub fn answer(scenario: &Scenario, request: &Request, number: u64, fault: &Fault) -> Script {
    if fault.hang == Some(Hang::Headers) {
        return only(vec![Piece::Silence]);
    }
    let mut draft = replaced(scenario, request, fault).unwrap_or_else(|| usual(scenario, request, number, fault));
    draft.before += fault.delay.headers.0;
    if let (Some(status), None) = (fault.status, fault.redirect.as_ref()) {
        draft.status = status;
    }
    if let Some(content_type) = &fault.content_type {
        draft.header("content-type", content_type);
    }
    if scenario.dialect == Some(Dialect::Llamacpp) {
        draft.header("server", "llama.cpp");
    }
    let id = Dice::of(&[scenario.seed, dice::hash(&request.body), 3]).next();
    let name = if surface(request.path()) == Some(Surface::Messages) { "request-id" } else { "x-request-id" };
    draft.headers.push((name.to_string(), format!("req_{id:016x}")));
    for (name, value) in &fault.headers {
        draft.header(name, value);
    }
    if !draft.stream {
        plain_faults(&mut draft, fault);
    }
    let mut script = script(draft, fault, request.old);
    if request.method == "HEAD" {
        // The wait and the head.
        script.pieces.truncate(2);
    }
    script
}

/// A non-streamed answer's share of the faults that streams know by event.
fn plain_faults(draft: &mut Draft, fault: &Fault) {
    if let (Some(size), Some(body)) = (fault.huge_body, draft.frames.first().map(|f| f.bytes.clone())) {
        const BLOCK: u64 = 64 * 1024;
        let first = body.len().min(1);
        let fill = |n: u64, times| Frame { wait: Duration::ZERO, bytes: vec![b' '; n as usize], times };
        let part = |bytes: &[u8]| Frame::new(Duration::ZERO, bytes.to_vec());
        let filler = [fill(BLOCK, size.0 / BLOCK), fill(size.0 % BLOCK, 1)];
        draft.frames = [part(&body[..first])].into_iter().chain(filler).chain([part(&body[first..])]).collect();
        draft.frames.retain(|f| !f.bytes.is_empty() && f.times > 0);
    }
    let stops = matches!(fault.hang, Some(Hang::FirstToken | Hang::Mid)) || fault.role_then_silence;
    if stops || fault.comments_only.is_some() {
        draft.before += draft.frames.first().map_or(Duration::ZERO, |f| f.wait);
        draft.frames.clear();
        draft.stream = true;
        draft.tail = Tail::Silence;
    } else if !fault.delay.before_end.0.is_zero()
        && let Some(last) = draft.frames.last_mut()
        && let Some(byte) = last.bytes.pop()
    {
        draft.frames.push(Frame::new(fault.delay.before_end.0, vec![byte]));
    }
}

fn replaced(scenario: &Scenario, request: &Request, fault: &Fault) -> Option<Draft> {
    if let Some(address) = &fault.redirect {
        let mut draft = Draft::whole(307, "text/plain", Vec::new());
        draft.header("location", address);
        return Some(draft);
    }
    if let Some(body) = &fault.body {
        return Some(match body {
            Value::String(text) => Draft::whole(200, "text/plain; charset=utf-8", text.clone().into_bytes()),
            other => Draft::whole(200, "application/json", other.to_string().into_bytes()),
        });
    }
    let trouble = fault.error.or_else(|| fault.status.and_then(trouble_of))?;
    Some(failed(&failure(scenario, request, fault, trouble)))
}

/// The trouble a bare status means; none for a success.
fn trouble_of(status: u16) -> Option<Trouble> {
    Some(match status {
        0..400 => return None,
        401 => Trouble::Auth,
        403 => Trouble::Forbidden,
        404 => Trouble::NotFound,
        413 => Trouble::TooLarge,
        429 => Trouble::RateLimit,
        400..500 => Trouble::BadRequest,
        502 => Trouble::BadGateway,
        503 | 529 => Trouble::Overloaded,
        504 => Trouble::Timeout,
        _ => Trouble::ServerError,
    })
}

fn failure(scenario: &Scenario, request: &Request, fault: &Fault, trouble: Trouble) -> Failure {
    let surface = surface(request.path());
    let body = request.json().unwrap_or(Value::Null);
    let ask = Ask::read(surface.unwrap_or(Surface::Chat), &body);
    let window = scenario.context_window.unwrap_or_else(|| ask.prompt_tokens.saturating_sub(1).max(1));
    let dialect = errors::dialect(fault.dialect, scenario.dialect, surface);
    errors::failure(trouble, dialect, &ask.model, (ask.prompt_tokens, window))
}

fn failed(failure: &Failure) -> Draft {
    let mut draft = if failure.html {
        Draft::whole(failure.status, "text/html", errors::page(failure.status).into_bytes())
    } else {
        Draft::whole(failure.status, "application/json", failure.body.to_string().into_bytes())
    };
    draft.headers.extend(failure.headers.clone());
    draft
}

fn usual(scenario: &Scenario, request: &Request, number: u64, fault: &Fault) -> Draft {
    if fault.content_type.as_deref().is_some_and(|t| t.starts_with("text/html")) {
        return Draft::whole(200, "text/html", LOGIN.as_bytes().to_vec());
    }
    let Some(surface) = surface(request.path()).filter(|_| request.method == "POST") else {
        return listing::answer(scenario, request)
            .unwrap_or_else(|trouble| failed(&failure(scenario, request, fault, trouble)));
    };
    let Some(mut body) = request.json().filter(Value::is_object) else {
        return failed(&failure(scenario, request, fault, Trouble::BadRequest));
    };
    let said = resume::take(scenario.dialect, surface, &mut body);
    let mut ask = Ask::read(surface, &body);
    ask.prompt_tokens += said.as_deref().map_or(0, |said| split(said).len() as u64);
    ask.said = said;
    let mut silent = None;
    if let Some(window) = scenario.context_window.filter(|window| ask.prompt_tokens > *window) {
        if errors::dialect(fault.dialect, scenario.dialect, Some(surface)) != Dialect::Ollama {
            return failed(&failure(scenario, request, fault, Trouble::ContextOverflow));
        }
        silent = Some(Fault { prompt_tokens: fault.prompt_tokens.or(Some(window)), ..fault.clone() });
    }
    let fault = silent.as_ref().unwrap_or(fault);
    let reply = reply(scenario, &ask, fault);
    let mut dice = Dice::of(&[scenario.seed, number, 4]);
    let pace = pace(&scenario.answer, fault, &mut dice);
    let streamed = if ask.stream { !fault.json_for_stream } else { fault.stream_for_json };
    if !streamed {
        let body = whole(&ask, &reply);
        let tokens: usize = reply.said.iter().map(|said| said.reasoning.len() + said.tokens.len()).sum();
        let mut draft = Draft::whole(200, "application/json", body.to_string().into_bytes());
        draft.before = pace.first + pace.each * u32::try_from(tokens.saturating_sub(1)).unwrap_or(u32::MAX);
        return draft;
    }
    let events = harm(events(&ask, &reply, fault), fault, |wrong| {
        let inner = failure(scenario, request, fault, wrong.error);
        inband(&ask, &reply, wrong, &inner, &events_before(&ask, &reply, fault, wrong))
    });
    let (frames, tail) = frames(events, fault, pace, surface);
    let headers = [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache")];
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_string())).to_vec();
    Draft { status: 200, headers, frames, tail, stream: true, before: Duration::ZERO }
}

const LOGIN: &str = "<!doctype html>\n<html><head><title>Sign in</title></head>\n<body><form method=\"post\">\
                     <input name=\"user\"><input name=\"password\" type=\"password\"></form></body></html>\n";

fn whole(ask: &Ask, reply: &Reply) -> Value {
    match ask.surface {
        Surface::Chat | Surface::Completions => chat::whole(ask, reply),
        Surface::Responses => responses::whole(ask, reply),
        Surface::Messages => messages::whole(ask, reply),
    }
}

fn events(ask: &Ask, reply: &Reply, fault: &Fault) -> Vec<Event> {
    match ask.surface {
        Surface::Chat | Surface::Completions => chat::events(ask, reply, fault),
        Surface::Responses => responses::events(ask, reply),
        Surface::Messages => messages::events(ask, reply),
    }
}

fn events_before(ask: &Ask, reply: &Reply, fault: &Fault, wrong: &InbandError) -> Vec<Event> {
    let mut all = events(ask, reply, fault);
    all.truncate(super::event::after(&all, wrong.at).unwrap_or(0));
    all
}

/// The events of an error inside a stream.
fn inband(ask: &Ask, reply: &Reply, wrong: &InbandError, failure: &Failure, sent: &[Event]) -> Vec<Event> {
    let error = &failure.body["error"];
    let plain = || Event::data(failure.body.clone(), Mark::Finish);
    let named = || Event { name: Some("error".to_string()), ..plain() };
    match (wrong.shape, ask.surface) {
        (Inband::Native, Surface::Responses) => responses::failed(ask, reply, error, sent),
        (Inband::Native, Surface::Messages) | (Inband::Event, _) => vec![named()],
        (Inband::Native | Inband::Openai, _) => vec![plain()],
        (Inband::String, _) => vec![Event::data(json!({"error": error["message"]}), Mark::Finish)],
        (Inband::LlamaField, _) => {
            let line = format!("error: {error}\n");
            vec![Event { name: None, says: Says::Raw(line.into_bytes()), mark: Mark::Finish }]
        }
        (Inband::FinishError, _) => vec![chat::failed(ask, reply, None), Event::done()],
        (Inband::ThenDone, _) => vec![plain(), Event::done()],
        (Inband::Choice, _) => vec![chat::failed(ask, reply, Some(error)), Event::done()],
    }
}
