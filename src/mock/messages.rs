//! The shape of `/v1/messages`, whole and as named events.
//!
//! Owns this JSON shape. What is said comes from a [`Reply`]; only its first choice exists here. Invariant: content
//! blocks are opened and closed in order, and every event's name is its type.

use serde_json::{Value, json};

use super::ask::Ask;
use super::chat::pieces;
use super::event::{Event, Mark};
use super::reply::{Reply, Said, Used};

/// The whole answer as one JSON object.
pub fn whole(ask: &Ask, reply: &Reply) -> Value {
    let said = reply.said.first().cloned().unwrap_or_default();
    let mut body = frame(ask, reply);
    body["content"] = blocks(&said).into_iter().map(|block| block.whole).collect();
    body["stop_reason"] = stop(&said);
    if let Some(used) = reply.used {
        body["usage"] = usage(used, used.completion);
    }
    body
}

fn frame(ask: &Ask, reply: &Reply) -> Value {
    json!({"id": format!("msg_{}", reply.id), "type": "message", "role": "assistant", "model": ask.model,
        "content": [], "stop_reason": null, "stop_sequence": null})
}

fn usage(used: Used, output: u64) -> Value {
    json!({"input_tokens": used.prompt, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
        "output_tokens": output})
}

fn stop(said: &Said) -> Value {
    match said.finish.as_str() {
        "" => Value::Null,
        _ if said.refusal => json!("refusal"),
        "stop" => json!("end_turn"),
        "length" => json!("max_tokens"),
        "tool_calls" => json!("tool_use"),
        "content_filter" => json!("refusal"),
        other => json!(other),
    }
}

struct Block {
    whole: Value,
    opened: Value,
    deltas: Vec<Value>,
}

fn blocks(said: &Said) -> Vec<Block> {
    let mut blocks = Vec::new();
    if !said.reasoning.is_empty() {
        blocks.push(Block {
            whole: json!({"type": "thinking", "thinking": said.thought(), "signature": "mock"}),
            opened: json!({"type": "thinking", "thinking": "", "signature": ""}),
            deltas: said.reasoning.iter().map(|t| json!({"type": "thinking_delta", "thinking": t})).collect(),
        });
    }
    if !said.tokens.is_empty() {
        blocks.push(Block {
            whole: json!({"type": "text", "text": said.text()}),
            opened: json!({"type": "text", "text": ""}),
            deltas: said.tokens.iter().map(|t| json!({"type": "text_delta", "text": t})).collect(),
        });
    }
    for call in &said.calls {
        let input = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!(call.arguments));
        let id = call.id.replace("call_", "toolu_");
        blocks.push(Block {
            whole: json!({"type": "tool_use", "id": id, "name": call.name, "input": input}),
            opened: json!({"type": "tool_use", "id": id, "name": call.name, "input": {}}),
            deltas: pieces(&call.arguments, false)
                .iter()
                .map(|t| json!({"type": "input_json_delta", "partial_json": t}))
                .collect(),
        });
    }
    blocks
}

/// The whole answer as a stream.
pub fn events(ask: &Ask, reply: &Reply) -> Vec<Event> {
    let said = reply.said.first().cloned().unwrap_or_default();
    let mut message = frame(ask, reply);
    if let Some(used) = reply.used {
        message["usage"] = usage(used, 1);
    }
    let mut events = vec![Event::typed(json!({"type": "message_start", "message": message}), Mark::Start)];
    for (at, block) in blocks(&said).into_iter().enumerate() {
        let opened = json!({"type": "content_block_start", "index": at, "content_block": block.opened});
        events.push(Event::typed(opened, if at == 0 { Mark::Start } else { Mark::Other }));
        for delta in block.deltas {
            let delta = json!({"type": "content_block_delta", "index": at, "delta": delta});
            events.push(Event::typed(delta, Mark::Token));
        }
        events.push(Event::typed(json!({"type": "content_block_stop", "index": at}), Mark::Other));
    }
    let mut last = json!({"type": "message_delta", "delta": {"stop_reason": stop(&said), "stop_sequence": null}});
    if let Some(used) = reply.used {
        last["usage"] = json!({"output_tokens": used.completion});
    }
    if !said.finish.is_empty() {
        events.push(Event::typed(last, Mark::Finish));
    }
    events.push(Event::typed(json!({"type": "message_stop"}), Mark::End));
    events
}
