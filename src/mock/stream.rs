//! From events to frames: SSE framing, pings, waits, and where a stream hangs or is cut.
//!
//! Owns the bytes of an event stream and its pace. Owns no transfer framing. Invariant: waits never change bytes,
//! and framing never changes what a correct reader of event streams sees.

use std::time::Duration;

use super::ask::Surface;
use super::dice::Dice;
use super::event::{Event, Mark, Says, after};
use super::fault::Fault;
use super::scenario::Answer;
use super::script::{Frame, Tail};
use super::units::Place;
use super::words::{Framing, Hang};

/// How fast an answer comes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Before the first token.
    pub first: Duration,
    /// Between tokens.
    pub each: Duration,
}

/// The pace of `answer` under `fault`, for the call that `dice` belongs to.
pub fn pace(answer: &Answer, fault: &Fault, dice: &mut Dice) -> Pace {
    let first = fault.delay.first_token.unwrap_or(answer.first_token).0;
    let each = fault.delay.per_token.unwrap_or(answer.per_token).0;
    Pace { first: first + fault.delay.jitter.0.mul_f64(dice.unit()), each }
}

/// The frames of a stream and what follows them.
pub fn frames(mut events: Vec<Event>, fault: &Fault, pace: Pace, surface: Surface) -> (Vec<Frame>, Tail) {
    let mut tail = stop(&mut events, fault);
    let mut frames = timed(&events, fault, pace);
    if let Some(size) = fault.huge_body
        && let Some(at) = events.iter().position(|e| e.mark == Mark::Token)
    {
        frames[at].times = size.0.div_ceil(frames[at].bytes.len().max(1) as u64) + 1;
    }
    if let Some(every) = fault.comments_only {
        return (Vec::new(), Tail::Beat(every.0, COMMENT.to_vec()));
    }
    if let Some(every) = fault.ping.map(|span| span.0).filter(|every| !every.is_zero()) {
        let ping: &[u8] = if surface == Surface::Messages { PING } else { COMMENT };
        frames = frames.into_iter().flat_map(|frame| pinged(frame, every, ping)).collect();
        if tail == Tail::Silence {
            tail = Tail::Beat(every, ping.to_vec());
        }
    }
    (frames, tail)
}

const COMMENT: &[u8] = b": keep-alive\n\n";
const PING: &[u8] = b"event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// Where the stream stops before its time.
fn stop(events: &mut Vec<Event>, fault: &Fault) -> Tail {
    if fault.role_then_silence {
        let at = after(events, Place::Token(0)).unwrap_or(0);
        events.truncate(at);
        return Tail::Silence;
    }
    let hang = match fault.hang {
        Some(Hang::FirstToken) => Some(Place::First),
        Some(Hang::Mid) => Some(Place::Half),
        _ => None,
    };
    if let Some(at) = hang.and_then(|place| after(events, place)) {
        events.truncate(at);
        return Tail::Silence;
    }
    match &fault.cut {
        Some(cut) => match after(events, cut.at) {
            Some(at) => {
                events.truncate(at);
                cut.how.into()
            }
            None => Tail::End,
        },
        None => Tail::End,
    }
}

fn timed(events: &[Event], fault: &Fault, pace: Pace) -> Vec<Frame> {
    let last = events.len().saturating_sub(1);
    let end = events.iter().position(|e| e.mark == Mark::End).unwrap_or(last);
    let mut tokens = 0;
    let mut frames = Vec::with_capacity(events.len());
    for (at, event) in events.iter().enumerate() {
        let mut wait = if at == 0 && !fault.role_then_silence { pace.first } else { Duration::ZERO };
        if event.mark == Mark::Token {
            wait += if tokens == 0 { fault.delay.after_role.0 } else { pace.each };
            tokens += 1;
        }
        if at == end {
            wait += fault.delay.before_end.0;
        }
        frames.push(Frame::new(wait, bytes(event, fault.framing, at == 0, at == last)));
    }
    frames
}

fn pinged(mut frame: Frame, every: Duration, ping: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while frame.wait > every && frames.len() < 100_000 {
        frame.wait -= every;
        frames.push(Frame::new(every, ping.to_vec()));
    }
    frames.push(frame);
    frames
}

/// One event on the wire.
fn bytes(event: &Event, framing: Option<Framing>, first: bool, last: bool) -> Vec<u8> {
    let framing = framing.unwrap_or(Framing::Lf);
    let end: &[u8] = match framing {
        Framing::Crlf => b"\r\n",
        Framing::Cr => b"\r",
        _ => b"\n",
    };
    let space: &[u8] = if framing == Framing::NoSpace { b":" } else { b": " };
    let mut out = Vec::new();
    if first && framing == Framing::Bom {
        out.extend_from_slice("\u{feff}".as_bytes());
    }
    if let Some(name) = &event.name {
        out.extend([b"event", space, name.as_bytes(), end].concat());
    }
    match &event.says {
        Says::Raw(lines) => out.extend_from_slice(lines),
        Says::Data(data) => out.extend([b"data", space, data, end].concat()),
        Says::Json(value) if framing == Framing::Multiline => {
            let text = serde_json::to_string_pretty(value).unwrap_or_default();
            for line in text.lines() {
                out.extend([b"data", space, line.as_bytes(), end].concat());
            }
        }
        Says::Json(value) => out.extend([b"data", space, value.to_string().as_bytes(), end].concat()),
    }
    if !(last && framing == Framing::NoFinalBlank) {
        out.extend_from_slice(end);
    }
    out
}
