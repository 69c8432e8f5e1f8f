//! What circuits do: I6, I8.

use outrigger::call::{Class, Counts};

use super::super::view::{At, SendView, View};
use super::Broken;

fn counts(verdict: &str) -> Counts {
    Class::ALL.iter().find(|class| class.as_str() == verdict).map_or(Counts::Nothing, |class| class.counts())
}

fn sends(view: &View, endpoint: usize) -> impl Iterator<Item = (u32, &SendView)> {
    let all = view.calls.values().flat_map(|call| call.went().map(move |send| (call.call, send)));
    all.filter(move |(_, send)| send.endpoint() == Some(endpoint))
}

/// When a circuit heard how a send ended: when its connection was let go. The verdict is told when its client has taken
/// the end, which a slow one does later.
fn judged(view: &View, endpoint: usize) -> impl Iterator<Item = (At, &str)> {
    sends(view, endpoint).filter_map(|(_, send)| {
        let (at, _) = send.dropped.first()?;
        let (_, verdict) = send.verdicts.first()?;
        Some((*at, verdict.as_str()))
    })
}

/// How many sends at an endpoint were counted so since a line, up to a moment.
fn counted(view: &View, endpoint: usize, since: usize, until: At, what: &[Counts]) -> usize {
    let within = judged(view, endpoint).filter(|(at, _)| at.line > since && at.us <= until.us);
    within.filter(|(_, verdict)| what.contains(&counts(verdict))).count()
}

/// I6. Every change for the worse needs as many failures of the upstream's since the change before as the settings ask
/// for; how a send ended is told after its circuit heard of it, at the same moment.
pub fn opens_for_upstream_only(view: &View) -> Vec<Broken> {
    let Some(settings) = &view.setup.breaker else {
        let moved = view.circuits.keys().map(|endpoint| {
            Broken::new("I6", None, format!("the circuit of endpoint {endpoint} moves, and none is on"))
        });
        return moved.collect();
    };
    let mut broken = Vec::new();
    for (endpoint, changes) in &view.circuits {
        let mut since = 0;
        for (at, to, reason) in changes {
            let seen = |what: &[Counts]| counted(view, *endpoint, since, *at, what);
            let upstream = [Counts::Both, Counts::RatioOnly];
            let share = (f64::from(settings.min_calls) * settings.failure_rate).ceil() as usize;
            let (needed, seen) = match reason.as_str() {
                "consecutive" => (settings.consecutive as usize, seen(&[Counts::Both])),
                "failure_rate" => (share.max(1), seen(&upstream)),
                "probe" => (1, seen(&upstream)),
                "rate_limited" => (1, seen(&[Counts::RatioOnly])),
                "credential" => (1, seen(&[Counts::Credential])),
                _ => (0, 0),
            };
            if seen < needed {
                let told = format!("endpoint {endpoint} is {to} ({reason}) after {seen} of {needed} failures");
                broken.push(Broken::new("I6", None, told));
            }
            // What was counted before a rest still counts after it.
            if to == "open" || (to == "closed" && reason != "elapsed") {
                let before = judged(view, *endpoint).filter(|(judged, _)| judged.us < at.us);
                since = before.map(|(judged, _)| judged.line).max().unwrap_or(0);
            }
        }
    }
    broken
}

/// I8: nothing is sent where a circuit is open, and where it is half open no more at a time than there may be probes.
pub fn one_probe(view: &View) -> Vec<Broken> {
    let Some(settings) = &view.setup.breaker else { return Vec::new() };
    let mut broken = Vec::new();
    for (endpoint, changes) in &view.circuits {
        for (number, (from, to, _)) in changes.iter().enumerate() {
            let until = changes.get(number + 1).map_or(usize::MAX, |(at, ..)| at.line);
            let within = |at: At| at.line > from.line && at.line < until;
            let sent = || sends(view, *endpoint).filter(|(_, send)| send.went().is_some_and(within));
            let most = match to.as_str() {
                "open" | "cooldown" | "credential" => 0,
                "half_open" => settings.probes as usize,
                _ => continue,
            };
            for (call, send) in sent() {
                let Some(at) = send.went() else { continue };
                let unjudged = sent().filter(|(_, other)| {
                    let ends = [other.first, other.failed.as_ref().map(|(at, _)| *at)].into_iter().flatten();
                    let judged = ends.chain(other.dropped.iter().map(|(at, _)| *at)).map(|at| at.line).min();
                    other.went().is_some_and(|other| other.line <= at.line) && judged.is_none_or(|end| end > at.line)
                });
                let unjudged = unjudged.count();
                if unjudged > most {
                    let told = format!("send {} is number {unjudged} where endpoint {endpoint} is {to}", send.number);
                    broken.push(Broken::new("I8", call, told));
                }
            }
        }
    }
    broken
}
