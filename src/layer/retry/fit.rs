//! Whom a call passes over for what it needs, and what is learnt where one refuses it for that.
//!
//! Reads the request's body only when something that somebody lacks can be found nowhere else. Invariant: an endpoint
//! that refused a call for what it lacks is not asked again by the same call.

use std::cell::OnceCell;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use super::Run;
use crate::call::{Call, CallError, Capability, Class, Failure, Lack, RequestBody, Surface};
use crate::policy::capability::{Need, Refused};
use crate::wire::needs;

/// One call's needs, and who does not meet them.
pub(super) struct Fit {
    needed: Needed,
    refused: Vec<Refused>,
    over: Vec<(usize, Lack)>,
}

struct Needed {
    call: Arc<Call>,
    image: OnceCell<bool>,
    audio: OnceCell<bool>,
    tokens: OnceCell<u64>,
}

impl Fit {
    pub(super) fn new(call: Arc<Call>) -> Self {
        let needed = Needed { call, image: OnceCell::new(), audio: OnceCell::new(), tokens: OnceCell::new() };
        Self { needed, refused: Vec::new(), over: Vec::new() }
    }
}

impl Needed {
    fn body(&self) -> &[u8] {
        match &self.call.body {
            RequestBody::Whole(bytes) if self.call.surface.has_model() => bytes,
            _ => &[],
        }
    }

    /// Tokens of the prompt, at the least.
    fn tokens(&self) -> u64 {
        *self.tokens.get_or_init(|| needs::tokens_at_least(self.body()))
    }
}

impl Need for Needed {
    fn needs(&self, capability: Capability) -> bool {
        match capability {
            Capability::Tools => self.call.asks.tools,
            Capability::JsonSchema => self.call.asks.json_schema,
            Capability::Vision => *self.image.get_or_init(|| needs::has_image(self.body())),
            Capability::Audio => *self.audio.get_or_init(|| needs::has_audio(self.body())),
        }
    }

    fn exceeds(&self, window: u64, output: bool) -> bool {
        // The other surfaces take many prompts at once, each with the window to itself.
        if !matches!(self.call.surface, Surface::Chat | Surface::Responses | Surface::Messages) {
            return false;
        }
        let wanted = if output { self.call.max_tokens.unwrap_or(0) } else { 0 };
        // Two bytes a token at the least: a body that is shorter need not be read.
        let most = self.body().len() as u64 / 2;
        most.saturating_add(wanted) > window && self.tokens().saturating_add(wanted) > window
    }
}

impl Run<'_> {
    /// Tells the plan whom to pass over.
    pub(super) fn look(&mut self, now: Instant) {
        let among = if self.call.options.no_fallback { 1 } else { usize::MAX };
        let targets = (&self.retry.route.targets[..], among);
        let model = self.call.model.as_deref().unwrap_or_default();
        let Fit { needed, refused, over } = &mut self.fit;
        *over = self.retry.around.capabilities.passed_over(targets, model, needed, refused, now);
        self.plan.pass_over(over.iter().map(|(endpoint, _)| *endpoint).collect());
    }

    /// A send failed: if it was for what the endpoint lacks, that is remembered, and others may be asked.
    pub(super) fn lacking(&mut self, attempt: usize, failure: &mut Failure, now: Instant) {
        let Some(lack) = failure.lacks else { return };
        let sent = self.starts.get(attempt).and_then(|start| Some((start.target, start.sent?.0)));
        let (Some((target, endpoint)), false) = (sent, self.is_beside_the_point(lack)) else {
            failure.lacks = None;
            return;
        };
        let model = self.call.model.as_deref().unwrap_or_default();
        let lack = self.retry.around.capabilities.learn(endpoint, model, lack, now);
        self.fit.refused.push(Refused { target, endpoint, lack });
        self.look(now);
    }

    /// Words about something that the call did not even ask for mean something else.
    fn is_beside_the_point(&self, lack: Lack) -> bool {
        match lack {
            Lack::Of(capability) => !self.fit.needed.needs(capability),
            Lack::Window(_) => false,
        }
    }

    /// What a target lacks, if it is passed over.
    pub(super) fn lack_of(&self, target: usize) -> Option<Lack> {
        let endpoints = &self.retry.route.targets.get(target)?.endpoints;
        self.fit.over.iter().find(|(endpoint, _)| endpoints.contains(endpoint)).map(|(_, lack)| *lack)
    }

    /// The refusal of a call that nobody it may ask can serve; `None` where somebody could.
    pub(super) fn nobody_can(&self) -> Option<CallError> {
        let among = if self.call.options.no_fallback { 1 } else { usize::MAX };
        let mut asked = self.retry.route.targets.iter().take(among).flat_map(|target| &target.endpoints);
        let over = &self.fit.over;
        if over.is_empty() || !asked.all(|endpoint| over.iter().any(|(one, _)| one == endpoint)) {
            return None;
        }
        let capability = over.iter().find_map(|(_, lack)| match lack {
            Lack::Of(capability) => Some(*capability),
            Lack::Window(_) => None,
        });
        let message = format!("no target of the route can serve this call: {}", self.told_of_passed_over());
        let class = if capability.is_some() { Class::BadRequest } else { Class::ContextOverflow };
        let error = CallError::local(class, message);
        Some(match capability.and_then(Capability::param) {
            Some(param) => error.at(param),
            None => error,
        })
    }

    /// Who is passed over, and why, in words.
    pub(super) fn told_of_passed_over(&self) -> String {
        let mut told = String::new();
        for (endpoint, lack) in &self.fit.over {
            let name = self.retry.around.names.get(*endpoint).map_or("", String::as_str);
            let between = if told.is_empty() { "" } else { "; " };
            // Writing into a string cannot fail.
            let _ = match lack {
                Lack::Of(capability) => write!(told, "{between}`{name}` has no {}", capability.as_str()),
                Lack::Window(Some(window)) => {
                    let tokens = self.fit.needed.tokens();
                    let more = self.call.max_tokens.filter(|_| tokens <= *window);
                    let more = more.map_or_else(String::new, |more| format!(" and wants up to {more} more"));
                    write!(told, "{between}`{name}` holds {window} tokens, the prompt has at least {tokens}{more}")
                }
                Lack::Window(None) => write!(told, "{between}the prompt does not fit `{name}`"),
            };
        }
        told
    }
}
