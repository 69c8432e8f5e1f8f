//! The shapes of `/v1/chat/completions` and `/v1/completions`, whole and streamed.
//!
//! Owns these two JSON shapes. What is said comes from a [`Reply`]. Invariant: every chunk of a stream carries the
//! same id, time and model.

use serde_json::{Map, Value, json};

use super::ask::{Ask, Surface};
use super::event::{Event, Mark};
use super::fault::Fault;
use super::reply::{Call, Reply, Said, Used, split};
use super::words::Tools;

/// The time every answer claims, so that equal calls give equal bytes.
pub const CREATED: u64 = 1_750_000_000;

/// The whole answer as one JSON object.
pub fn whole(ask: &Ask, reply: &Reply) -> Value {
    let choices: Vec<Value> = reply.said.iter().enumerate().map(|(at, said)| whole_choice(ask, said, at)).collect();
    let mut body = head(ask, reply, false);
    body["choices"] = json!(choices);
    if let Some(used) = reply.used {
        body["usage"] = usage(used);
    }
    body
}

fn head(ask: &Ask, reply: &Reply, chunk: bool) -> Value {
    let (prefix, object) = match (ask.surface, chunk) {
        (Surface::Completions, _) => ("cmpl", "text_completion"),
        (_, true) => ("chatcmpl", "chat.completion.chunk"),
        (_, false) => ("chatcmpl", "chat.completion"),
    };
    json!({"id": format!("{prefix}-{}", reply.id), "object": object, "created": CREATED, "model": reply.model,
        "system_fingerprint": reply.fingerprint})
}

fn whole_choice(ask: &Ask, said: &Said, at: usize) -> Value {
    let logprobs = if ask.logprobs { logprobs(&said.tokens) } else { Value::Null };
    if ask.surface == Surface::Completions {
        return json!({"text": said.text(), "index": at, "logprobs": null, "finish_reason": reason(said)});
    }
    let mut message = json!({"role": "assistant", "content": said.text(), "refusal": null});
    if said.refusal {
        message = json!({"role": "assistant", "content": null, "refusal": said.text()});
    }
    if !said.reasoning.is_empty() {
        message["reasoning_content"] = json!(said.thought());
    }
    if !said.calls.is_empty() {
        message["content"] = Value::Null;
        message["tool_calls"] = said.calls.iter().map(whole_call).collect();
    }
    json!({"index": at, "message": message, "logprobs": logprobs, "finish_reason": reason(said)})
}

fn whole_call(call: &Call) -> Value {
    json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}})
}

fn reason(said: &Said) -> Value {
    if said.finish.is_empty() { Value::Null } else { json!(said.finish) }
}

fn logprobs(tokens: &[String]) -> Value {
    let one = |token: &String| json!({"token": token, "logprob": -0.25, "bytes": token.as_bytes(), "top_logprobs": []});
    json!({"content": tokens.iter().map(one).collect::<Vec<_>>(), "refusal": null})
}

fn usage(used: Used) -> Value {
    json!({"prompt_tokens": used.prompt, "completion_tokens": used.completion, "total_tokens": used.total,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": used.reasoning}})
}

/// The whole answer as a stream.
pub fn events(ask: &Ask, reply: &Reply, fault: &Fault) -> Vec<Event> {
    let stream = Stream { head: head(ask, reply, true), ask, split: reply.split_calls, tools: fault.tools };
    let rows: Vec<Vec<Event>> = reply.said.iter().enumerate().map(|(at, said)| stream.choice(said, at)).collect();
    let mut events = if fault.interleave { in_turn(rows) } else { rows.concat() };
    if let (true, Some(used)) = (ask.include_usage, reply.used) {
        let mut last = stream.head.clone();
        last["choices"] = json!([]);
        last["usage"] = usage(used);
        events.push(Event::data(last, Mark::Other));
    }
    events.push(Event::done());
    events
}

fn in_turn(rows: Vec<Vec<Event>>) -> Vec<Event> {
    let mut rows: Vec<_> = rows.into_iter().map(Vec::into_iter).collect();
    let mut events = Vec::new();
    loop {
        let before = events.len();
        events.extend(rows.iter_mut().filter_map(Iterator::next));
        if events.len() == before {
            return events;
        }
    }
}

struct Stream<'a> {
    head: Value,
    ask: &'a Ask,
    split: bool,
    tools: Option<Tools>,
}

impl Stream<'_> {
    fn choice(&self, said: &Said, at: usize) -> Vec<Event> {
        if self.ask.surface == Surface::Completions {
            let token = |t: &String| self.text_chunk(at, t, Value::Null, Mark::Token);
            let mut events: Vec<Event> = said.tokens.iter().map(token).collect();
            if !said.finish.is_empty() {
                events.push(self.text_chunk(at, "", reason(said), Mark::Finish));
            }
            return events;
        }
        let mut events =
            vec![self.chunk(at, json!({"role": "assistant", "content": "", "refusal": null}), Mark::Start)];
        for token in &said.reasoning {
            events.push(self.chunk(at, json!({"reasoning_content": token}), Mark::Token));
        }
        for token in &said.tokens {
            let key = if said.refusal { "refusal" } else { "content" };
            let mut event = json!(self.body(at, Map::from_iter([(key.to_string(), json!(token))]).into(), Value::Null));
            if self.ask.logprobs {
                event["choices"][0]["logprobs"] = logprobs(std::slice::from_ref(token));
            }
            events.push(Event::data(event, Mark::Token));
        }
        for (n, call) in said.calls.iter().enumerate() {
            events.extend(self.call(at, n, call));
        }
        if !said.finish.is_empty() {
            events.push(Event::data(self.body(at, json!({}), reason(said)), Mark::Finish));
        }
        events
    }

    fn call(&self, at: usize, n: usize, call: &Call) -> Vec<Event> {
        if self.tools == Some(Tools::NoIndex) {
            return vec![self.chunk(at, json!({"tool_calls": [whole_call(call)]}), Mark::Token)];
        }
        let index = if self.tools == Some(Tools::AllIndex0) { 0 } else { n };
        let mut first = whole_call(call);
        first["index"] = json!(index);
        first["function"]["arguments"] = json!("");
        let mut events = vec![self.chunk(at, json!({"tool_calls": [first]}), Mark::Token)];
        for piece in pieces(&call.arguments, self.split) {
            let delta = json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]});
            events.push(self.chunk(at, delta, Mark::Token));
        }
        events
    }

    fn chunk(&self, at: usize, delta: Value, mark: Mark) -> Event {
        Event::data(self.body(at, delta, Value::Null), mark)
    }

    fn body(&self, at: usize, delta: Value, finish: Value) -> Value {
        self.with(json!({"index": at, "delta": delta, "logprobs": null, "finish_reason": finish}))
    }

    fn text_chunk(&self, at: usize, text: &str, finish: Value, mark: Mark) -> Event {
        let choice = json!({"text": text, "index": at, "logprobs": null, "finish_reason": finish});
        Event::data(self.with(choice), mark)
    }

    fn with(&self, choice: Value) -> Value {
        let mut body = self.head.clone();
        body["choices"] = json!([choice]);
        if self.ask.include_usage {
            body["usage"] = Value::Null;
        }
        body
    }
}

/// `text` in tokens, or in single characters.
pub fn pieces(text: &str, single: bool) -> Vec<String> {
    if single { text.chars().map(String::from).collect() } else { split(text) }
}

/// A chunk with a finish reason of `error`, and with `error` itself if it is given.
pub fn failed(ask: &Ask, reply: &Reply, error: Option<&Value>) -> Event {
    let stream = Stream { head: head(ask, reply, true), ask, split: false, tools: None };
    let mut body = match ask.surface {
        Surface::Completions => {
            stream.with(json!({"text": "", "index": 0, "logprobs": null, "finish_reason": "error"}))
        }
        _ => stream.body(0, json!({}), json!("error")),
    };
    if let Some(error) = error {
        body["error"] = error.clone();
    }
    Event::data(body, Mark::Finish)
}
