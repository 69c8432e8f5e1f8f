//! The shape of `/v1/responses`, whole and as typed events.
//!
//! Owns this JSON shape. What is said comes from a [`Reply`]; only its first choice exists here. Invariant: the
//! sequence numbers of a stream count up from 0 without a gap.

use serde_json::{Value, json};

use super::ask::Ask;
use super::chat::{CREATED, pieces};
use super::event::{Event, Mark, Says};
use super::reply::{Call, Reply, Said};

/// The whole answer as one JSON object.
pub fn whole(ask: &Ask, reply: &Reply) -> Value {
    let said = reply.said.first().cloned().unwrap_or_default();
    let (status, detail) = ending(&said);
    let mut body = frame(ask, reply, status);
    body["incomplete_details"] = detail;
    body["output"] = output(reply, &said);
    body["usage"] = match reply.used {
        Some(used) => json!({"input_tokens": used.prompt, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": used.completion, "output_tokens_details": {"reasoning_tokens": used.reasoning},
            "total_tokens": used.total}),
        None => Value::Null,
    };
    body
}

fn frame(ask: &Ask, reply: &Reply, status: &str) -> Value {
    json!({"id": format!("resp_{}", reply.id), "object": "response", "created_at": CREATED, "status": status,
        "error": null, "incomplete_details": null, "model": ask.model, "output": [], "parallel_tool_calls": true,
        "tool_choice": "auto", "tools": [], "usage": null})
}

fn ending(said: &Said) -> (&'static str, Value) {
    match said.finish.as_str() {
        "length" => ("incomplete", json!({"reason": "max_output_tokens"})),
        "content_filter" => ("incomplete", json!({"reason": "content_filter"})),
        "error" => ("failed", Value::Null),
        _ => ("completed", Value::Null),
    }
}

fn output(reply: &Reply, said: &Said) -> Value {
    let mut items = Vec::new();
    if !said.reasoning.is_empty() {
        let summary = json!([{"type": "summary_text", "text": said.thought()}]);
        items.push(json!({"type": "reasoning", "id": format!("rs_{}", reply.id), "summary": summary}));
    }
    if said.calls.is_empty() {
        items.push(message(reply, "completed", json!([part(said, &said.text())])));
    }
    items.extend(said.calls.iter().map(|c| function(c, &c.arguments, "completed")));
    Value::Array(items)
}

fn message(reply: &Reply, status: &str, content: Value) -> Value {
    json!({"type": "message", "id": format!("msg_{}", reply.id), "status": status, "role": "assistant",
        "content": content})
}

fn part(said: &Said, text: &str) -> Value {
    if said.refusal {
        json!({"type": "refusal", "refusal": text})
    } else {
        json!({"type": "output_text", "text": text, "annotations": []})
    }
}

fn function(call: &Call, arguments: &str, status: &str) -> Value {
    let id = call.id.replace("call_", "fc_");
    json!({"type": "function_call", "id": id, "call_id": call.id, "name": call.name, "arguments": arguments,
        "status": status})
}

/// The whole answer as a stream.
pub fn events(ask: &Ask, reply: &Reply) -> Vec<Event> {
    let said = reply.said.first().cloned().unwrap_or_default();
    let mut to = Typed::default();
    for kind in ["response.created", "response.in_progress"] {
        to.push(json!({"type": kind, "response": frame(ask, reply, "in_progress")}), Mark::Start);
    }
    let items = output(reply, &said);
    for (at, item) in items.as_array().into_iter().flatten().enumerate() {
        match item["type"].as_str() {
            Some("reasoning") => reasoning(&mut to, &said, at, item),
            Some("message") => text(&mut to, reply, &said, at, item),
            _ => {
                let calls_before = usize::from(!said.reasoning.is_empty());
                arguments(&mut to, &said.calls[at - calls_before], at, item, reply.split_calls);
            }
        }
    }
    let (status, _) = ending(&said);
    if !said.finish.is_empty() {
        to.push(json!({"type": format!("response.{status}"), "response": whole(ask, reply)}), Mark::End);
    }
    to.events
}

fn reasoning(to: &mut Typed, said: &Said, at: usize, item: &Value) {
    let id = &item["id"];
    let empty = json!({"type": "reasoning", "id": id, "summary": []});
    to.push(json!({"type": "response.output_item.added", "output_index": at, "item": empty}), Mark::Start);
    for token in &said.reasoning {
        to.push(
            json!({"type": "response.reasoning_summary_text.delta", "item_id": id, "output_index": at,
                "summary_index": 0, "delta": token}),
            Mark::Token,
        );
    }
    to.push(json!({"type": "response.output_item.done", "output_index": at, "item": item}), Mark::Other);
}

fn text(to: &mut Typed, reply: &Reply, said: &Said, at: usize, item: &Value) {
    let id = &item["id"];
    let kind = if said.refusal { "refusal" } else { "output_text" };
    let key = if said.refusal { "refusal" } else { "text" };
    let place = |kind: String| json!({"type": kind, "item_id": id, "output_index": at, "content_index": 0});
    let opened = message(reply, "in_progress", json!([]));
    to.push(json!({"type": "response.output_item.added", "output_index": at, "item": opened}), Mark::Start);
    let mut added = place("response.content_part.added".into());
    added["part"] = part(said, "");
    to.push(added, Mark::Start);
    for token in &said.tokens {
        let mut delta = place(format!("response.{kind}.delta"));
        delta["delta"] = json!(token);
        to.push(delta, Mark::Token);
    }
    let mut done = place(format!("response.{kind}.done"));
    done[key] = json!(said.text());
    to.push(done, Mark::Other);
    let mut done = place("response.content_part.done".into());
    done["part"] = part(said, &said.text());
    to.push(done, Mark::Other);
    to.push(json!({"type": "response.output_item.done", "output_index": at, "item": item}), Mark::Other);
}

fn arguments(to: &mut Typed, call: &Call, at: usize, item: &Value, single: bool) {
    let id = &item["id"];
    let opened = function(call, "", "in_progress");
    to.push(json!({"type": "response.output_item.added", "output_index": at, "item": opened}), Mark::Start);
    for piece in pieces(&call.arguments, single) {
        to.push(
            json!({"type": "response.function_call_arguments.delta", "item_id": id, "output_index": at,
                "delta": piece}),
            Mark::Token,
        );
    }
    to.push(
        json!({"type": "response.function_call_arguments.done", "item_id": id, "output_index": at,
            "arguments": call.arguments}),
        Mark::Other,
    );
    to.push(json!({"type": "response.output_item.done", "output_index": at, "item": item}), Mark::Other);
}

/// The events that end a stream with an error; `sent` events went before.
pub fn failed(ask: &Ask, reply: &Reply, error: &Value, sent: &[Event]) -> Vec<Event> {
    let mut body = frame(ask, reply, "failed");
    let code = error["code"].as_str().unwrap_or("server_error");
    body["error"] = json!({"code": code, "message": error["message"]});
    let numbered = |e: &&Event| matches!(&e.says, Says::Json(v) if v["sequence_number"].is_u64());
    let mut to = Typed { next: sent.iter().filter(numbered).count(), events: Vec::new() };
    to.push(json!({"type": "response.failed", "response": body}), Mark::Finish);
    to.events
}

#[derive(Default)]
struct Typed {
    next: usize,
    events: Vec<Event>,
}

impl Typed {
    fn push(&mut self, mut value: Value, mark: Mark) {
        value["sequence_number"] = json!(self.next);
        self.next += 1;
        self.events.push(Event::typed(value, mark));
    }
}
