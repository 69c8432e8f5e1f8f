//! A history by calls and sends, as the judges look at it.
//!
//! Owns no judgement. Invariant: whatever is in the history is in the view once, under the call it belongs to.

use std::collections::BTreeMap;

use super::event::{Called, Event, Failed, Sent, Setup, What};

/// A moment: its line, and its time.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct At {
    pub line: usize,
    pub us: u64,
}

/// One send.
#[derive(Clone, Debug, Default)]
pub struct SendView {
    pub number: u32,
    pub started: Option<At>,
    pub kind: String,
    pub target: Option<usize>,
    pub paid: bool,
    pub waits: Option<(At, Vec<usize>)>,
    pub waited: Option<At>,
    pub refused: Option<(At, String)>,
    pub sent: Option<(At, Sent)>,
    pub sent_times: u32,
    pub said: Option<(String, bool)>,
    pub first: Option<At>,
    pub failed: Option<(At, Failed)>,
    /// With the endpoint's limit at that moment.
    pub dropped: Vec<(At, Option<usize>)>,
    pub verdicts: Vec<(At, String)>,
}

impl SendView {
    pub fn endpoint(&self) -> Option<usize> {
        self.sent.as_ref().map(|(_, sent)| sent.endpoint)
    }

    /// When it left, if it did.
    pub fn went(&self) -> Option<At> {
        self.sent.as_ref().map(|(at, _)| *at)
    }
}

/// One call.
#[derive(Clone, Debug, Default)]
pub struct CallView {
    pub call: u32,
    pub called: Option<(At, Called)>,
    pub sends: BTreeMap<u32, SendView>,
    pub head: Option<(At, u16, String, u32)>,
    pub body: String,
    pub closed: Option<(At, bool)>,
    pub left: Option<At>,
    pub ended: Vec<(At, u16, String, Option<String>, u32)>,
}

impl CallView {
    /// From here on nothing may be sent any more: the client has the head of a good answer.
    pub fn committed(&self) -> Option<At> {
        self.head.as_ref().filter(|(_, status, ..)| *status < 400).map(|(at, ..)| *at)
    }

    /// When the call has to be over.
    pub fn deadline(&self, setup: &Setup) -> Option<u64> {
        let (at, called) = self.called.as_ref()?;
        // A body that is passed on as it arrives takes as long as it takes, within an hour.
        let total = if called.read { setup.total } else { setup.total.max(3_600_000_000) };
        let patience = called.patience.map_or(total, |patience| patience.min(total));
        Some(at.us + patience)
    }

    pub fn key(&self) -> Option<&str> {
        self.called.as_ref()?.1.key.as_deref()
    }

    /// Sends that went out.
    pub fn went(&self) -> impl Iterator<Item = &SendView> {
        self.sends.values().filter(|send| send.sent.is_some())
    }

    pub fn priority(&self) -> u8 {
        self.called.as_ref().map_or(1, |(_, called)| called.priority)
    }
}

/// A whole history.
#[derive(Default)]
pub struct View {
    pub setup: Setup,
    pub calls: BTreeMap<u32, CallView>,
    pub rest: Vec<(At, Vec<usize>, Vec<usize>, usize)>,
    /// Of each endpoint what its circuit went into, and why.
    pub circuits: BTreeMap<usize, Vec<(At, String, String)>>,
}

impl View {
    pub fn of(events: &[Event]) -> Self {
        let mut view = View::default();
        for (line, event) in events.iter().enumerate() {
            view.take(At { line, us: event.at }, &event.what);
        }
        view
    }

    /// What may have answered a call: its own sends, and with a key those of every call with that key.
    pub fn answers<'a>(&'a self, call: &'a CallView) -> impl Iterator<Item = &'a SendView> {
        let shared = self
            .calls
            .values()
            .filter(|other| other.call != call.call && call.key().is_some() && other.key() == call.key());
        call.went().chain(shared.flat_map(CallView::went))
    }

    /// `later` is certainly after `earlier`.
    pub fn after(&self, earlier: At, later: At) -> bool {
        if self.setup.exact { later.line > earlier.line } else { later.us > earlier.us + self.setup.slack }
    }

    fn take(&mut self, at: At, what: &What) {
        match what {
            What::Setup(setup) => self.setup = setup.clone(),
            What::Called(called) => self.call(called.call).called = Some((at, called.clone())),
            What::Started { call, send, kind, target, paid } => {
                let view = self.send(*call, *send);
                view.started = Some(at);
                view.kind.clone_from(kind);
                view.target = Some(*target);
                view.paid = *paid;
            }
            What::Waits { call, send, endpoints } => self.send(*call, *send).waits = Some((at, endpoints.clone())),
            What::Waited { call, send } => self.send(*call, *send).waited = Some(at),
            What::Refused { call, send, reason } => self.send(*call, *send).refused = Some((at, reason.clone())),
            What::Sent(sent) => {
                let view = self.send(sent.call, sent.send);
                view.sent = Some((at, sent.clone()));
                view.sent_times += 1;
            }
            What::Said { call, send, text, complete } => {
                self.send(*call, *send).said = Some((text.clone(), *complete));
            }
            What::First { call, send } => self.send(*call, *send).first = Some(at),
            What::Failed(failed) => self.send(failed.call, failed.send).failed = Some((at, failed.clone())),
            What::Dropped { call, send, limit } => self.send(*call, *send).dropped.push((at, *limit)),
            What::Verdict { call, send, verdict } => self.send(*call, *send).verdicts.push((at, verdict.clone())),
            What::Head { call, status, outcome, sends } => {
                self.call(*call).head = Some((at, *status, outcome.clone(), *sends));
            }
            // Whoever joins the parts of a history reads it.
            What::Named { .. } => {}
            What::Bytes { call, text } => self.call(*call).body.push_str(text),
            What::Closed { call, broken } => self.call(*call).closed = Some((at, *broken)),
            What::Left { call } => self.call(*call).left = Some(at),
            What::Ended { call, status, outcome, class, sends } => {
                self.call(*call).ended.push((at, *status, outcome.clone(), class.clone(), *sends));
            }
            What::Circuit { endpoint, to, reason } => {
                self.circuits.entry(*endpoint).or_default().push((at, to.clone(), reason.clone()));
            }
            What::Rest { in_use, waiting, live } => self.rest.push((at, in_use.clone(), waiting.clone(), *live)),
        }
    }

    fn call(&mut self, call: u32) -> &mut CallView {
        let view = self.calls.entry(call).or_default();
        view.call = call;
        view
    }

    fn send(&mut self, call: u32, send: u32) -> &mut SendView {
        let view = self.call(call).sends.entry(send).or_default();
        view.number = send;
        view
    }
}
