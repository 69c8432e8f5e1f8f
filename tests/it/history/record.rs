//! Writes a history down while it happens: what layers signal, what endpoints do, what clients see.
//!
//! Owns the list of events and which of the gateway's ids is which call. Judges nothing.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use http::HeaderMap;
use outrigger::call::{Call, SendStage, Signal, Sink};
use outrigger::clock;
use outrigger::layer::state::Slots;

use super::event::{Event, Sent, What};

/// The header that carries a call's number through the gateway.
pub const CALL: &str = "x-call";

/// Listens to everything.
pub struct Recorder {
    started: Instant,
    inner: Mutex<Inner>,
    pub slots: OnceLock<Slots>,
}

#[derive(Default)]
struct Inner {
    events: Vec<Event>,
    calls: HashMap<String, u32>,
    /// Outcomes of calls whose number is not known yet.
    nameless: Vec<(String, usize)>,
}

pub fn number(headers: &HeaderMap) -> u32 {
    headers.get(CALL).and_then(|value| value.to_str().ok()?.parse().ok()).expect("the call's number")
}

/// A short name for some bytes.
pub fn digest(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

impl Recorder {
    pub fn new() -> Self {
        Self { started: clock::now(), inner: Mutex::default(), slots: OnceLock::new() }
    }

    /// Microseconds since the history began.
    pub fn now(&self) -> u64 {
        (clock::now() - self.started).as_micros() as u64
    }

    pub fn tell(&self, what: What) {
        let event = Event { at: self.now(), what };
        self.inner.lock().unwrap().events.push(event);
    }

    /// The gateway calls this call so.
    pub fn name(&self, id: &str, call: u32) {
        let mut inner = self.inner.lock().unwrap();
        if inner.calls.insert(id.to_owned(), call).is_some() {
            return;
        }
        let Inner { events, nameless, .. } = &mut *inner;
        nameless.retain(|(other, at)| {
            if let What::Ended { call: unknown, .. } = &mut events[*at].what
                && other == id
            {
                *unknown = call;
                return false;
            }
            true
        });
    }

    /// The limit of an endpoint now.
    pub fn limit(&self, endpoint: usize) -> Option<usize> {
        self.slots.get().map(|slots| slots.at(endpoint).0)
    }

    /// All of it, by time.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.inner.lock().unwrap().events)
    }

    fn step(&self, of: &Call, send: usize, stage: SendStage) {
        let (call, send) = (number(&of.headers), send as u32);
        match stage {
            SendStage::Started { kind, target, paid } => {
                self.name(&of.id, call);
                self.tell(What::Started { call, send, kind: kind.as_str().into(), target, paid });
            }
            SendStage::Waits(endpoints) => self.tell(What::Waits { call, send, endpoints }),
            SendStage::Waited => self.tell(What::Waited { call, send }),
            SendStage::Refused(reason) => self.tell(What::Refused { call, send, reason: reason.into() }),
        }
    }

    /// A send is at its endpoint.
    pub fn sent(&self, sent: Sent) {
        let limit = self.limit(sent.endpoint);
        self.tell(What::Sent(Sent { limit, ..sent }));
    }
}

impl Inner {
    /// The call of this id. One that shares another's execution and whose client has just left was never named.
    fn of(&self, id: &str, now: u64) -> Option<u32> {
        let left = self.events.iter().rev().take_while(|event| event.at == now).find_map(|event| match event.what {
            What::Left { call } => Some(call),
            _ => None,
        });
        let ended = |call| {
            let same = |event: &&Event| matches!(event.what, What::Ended { call: other, .. } if other == call);
            self.events.iter().rev().take_while(|event| event.at == now).any(|event| same(&event))
        };
        let named = |call| self.calls.values().any(|named| *named == call);
        self.calls.get(id).copied().or(left.filter(|call| !ended(*call) && !named(*call)))
    }
}

impl Sink for Recorder {
    fn emit(&self, signal: Signal) {
        match signal {
            Signal::Send(step) => self.step(&step.call, step.number, step.step),
            Signal::AttemptEnded(end) => {
                let (call, send) = (number(&end.call.headers), end.number as u32);
                self.tell(What::Verdict { call, send, verdict: end.verdict.as_str().into() });
            }
            Signal::CallEnded(end) => {
                let known = self.inner.lock().unwrap().of(&end.id, self.now());
                self.tell(What::Ended {
                    call: known.unwrap_or(u32::MAX),
                    status: end.status,
                    outcome: end.outcome.as_str().into(),
                    class: end.class.map(|class| class.as_str().into()),
                    sends: end.sends,
                });
                if known.is_none() {
                    let mut inner = self.inner.lock().unwrap();
                    let at = inner.events.len() - 1;
                    inner.nameless.push((end.id, at));
                }
            }
            Signal::Breaker(change) => self.tell(What::Circuit {
                endpoint: change.endpoint,
                to: change.to.as_str().into(),
                reason: change.reason.as_str().into(),
            }),
            _ => {}
        }
    }
}
