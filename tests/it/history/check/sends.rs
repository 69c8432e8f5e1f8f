//! Which sends are made at all: I1, I3, I4, I12.

use super::super::view::{CallView, SendView, View};
use super::Broken;

const MINUTE: u64 = 60_000_000;
const SECOND: u64 = 1_000_000;
/// Repeats in a minute that need no traffic to pay for them.
const FLOOR: f64 = 3.0;
/// What the clock of a test may be late by.
const TICK: u64 = 2_000;

/// I1.
pub fn none_after_commit(view: &View) -> Vec<Broken> {
    let mut broken = Vec::new();
    for call in view.calls.values() {
        let Some(committed) = call.committed() else { continue };
        for send in call.sends.values() {
            for at in [send.started, send.went()].into_iter().flatten() {
                if view.after(committed, at) {
                    let told = format!("send {} starts {} us after commit", send.number, at.us - committed.us);
                    broken.push(Broken::new("I1", call.call, told));
                }
            }
        }
    }
    broken
}

/// I3, per call: the cap over all causes, the bound per target, and what the client allowed.
pub fn bounded(view: &View) -> Vec<Broken> {
    let setup = &view.setup;
    let mut broken = Vec::new();
    for call in view.calls.values() {
        let Some((_, called)) = &call.called else { continue };
        let cap = setup.max_sends.min(called.retries.map_or(u32::MAX, |retries| retries.saturating_add(1)));
        let went = call.went().count() as u32;
        if went > cap {
            broken.push(Broken::new("I3", call.call, format!("{went} sends, {cap} allowed")));
        }
        for target in 0..setup.targets.len() {
            let at = || call.went().filter(|send| send.target == Some(target));
            let free = u32::from(at().any(|send| send.failed.as_ref().is_some_and(|(_, failed)| failed.unsent)));
            let went = at().count() as u32;
            if went > setup.attempts + free {
                let told = format!("{went} sends to target {target}, {} allowed", setup.attempts + free);
                broken.push(Broken::new("I3", call.call, told));
            }
            if called.no_fallback && target > 0 && went > 0 {
                broken.push(Broken::new("I3", call.call, format!("target {target} asked, and no other was to be")));
            }
        }
        if called.no_hedge && call.went().any(|send| send.kind == "hedge") {
            broken.push(Broken::new("I3", call.call, "a twin was started, and none was to be"));
        }
    }
    broken
}

/// I3, over all calls: when a repeat is paid for, the repeats of the last 55 seconds (what the budget surely still
/// remembers) are at most the floor and the ratio of the first sends of the last 60 (all it can remember). Without the
/// loop's own word on what was paid for, every repeat that could not have been free counts.
pub fn repeats_are_paid_for(view: &View) -> Vec<Broken> {
    let mut broken = Vec::new();
    for target in 0..view.setup.targets.len() {
        let (mut firsts, mut repeats) = (Vec::new(), Vec::new());
        for call in view.calls.values() {
            let again = call.called.as_ref().is_some_and(|(_, called)| called.again);
            for send in call.sends.values().filter(|send| send.target == Some(target)) {
                if matches!(send.kind.as_str(), "first" | "fallback") && !again {
                    firsts.extend(send.went().map(|at| (at, call.call)));
                }
                if send.paid {
                    repeats.extend(send.started.map(|at| (at, call.call)));
                }
            }
        }
        repeats.sort_by_key(|(at, _)| at.us);
        let floor = if view.setup.budget > 0.0 { FLOOR } else { 0.0 };
        for (at, call) in &repeats {
            let spent = repeats.iter().filter(|(one, _)| one.us + 55 * SECOND > at.us && one.line <= at.line).count();
            let paid = firsts.iter().filter(|(one, _)| one.us + MINUTE > at.us && one.line <= at.line).count();
            if spent as f64 > floor + view.setup.budget * paid as f64 + 1e-6 {
                let told = format!("repeat {spent} in 55 s at target {target}, for {paid} first sends in 60 s");
                broken.push(Broken::new("I3", *call, told));
            }
        }
    }
    broken
}

/// I4: nothing starts at or after the deadline, and no repeat that had to wait starts with less than a second (or a
/// tenth of `total`, where that is less) to go.
pub fn in_time(view: &View) -> Vec<Broken> {
    let least = (view.setup.total / 10).min(SECOND);
    let mut broken = Vec::new();
    for call in view.calls.values() {
        let Some(deadline) = call.deadline(&view.setup) else { continue };
        for send in call.sends.values() {
            for at in [send.started, send.went()].into_iter().flatten() {
                if at.us >= deadline + view.setup.slack {
                    let told = format!("send {} starts {} us after the deadline", send.number, at.us - deadline);
                    broken.push(Broken::new("I4", call.call, told));
                }
            }
            let Some(at) = send.started.filter(|_| send.kind == "retry" && send.paid) else { continue };
            if at.us + least > deadline + TICK + view.setup.slack {
                let left = deadline.saturating_sub(at.us);
                broken.push(Broken::new("I4", call.call, format!("repeat {} starts with {left} us left", send.number)));
            }
        }
    }
    broken
}

/// I4, the other way round: a call does not ask an endpoint again before the wait which that endpoint asked it for.
pub fn asked_waits_are_waited(view: &View) -> Vec<Broken> {
    let mut broken = Vec::new();
    for call in view.calls.values() {
        for earlier in call.went() {
            let Some((failed_at, failed)) = &earlier.failed else { continue };
            let Some(wait) = failed.wait else { continue };
            for later in again(view, call, earlier) {
                let gap = later.us.saturating_sub(failed_at.us);
                if gap + view.setup.slack < wait {
                    let told = format!("the endpoint of send {} asked for {wait} us, got {gap}", earlier.number);
                    broken.push(Broken::new("I4", call.call, told));
                }
            }
        }
    }
    broken
}

/// I12.
pub fn useless_repeats(view: &View) -> Vec<Broken> {
    let mut broken = Vec::new();
    for call in view.calls.values() {
        for earlier in call.went() {
            let Some((failed_at, failed)) = &earlier.failed else { continue };
            let told = |what: &str| {
                let told = format!("{what} after `{}` of send {}", failed.class, earlier.number);
                Broken::new("I12", call.call, told)
            };
            match failed.retry.as_str() {
                "never" => {
                    let starts = call.sends.values().filter_map(|send| send.started.or(send.went()));
                    broken.extend(starts.filter(|at| view.after(*failed_at, *at)).map(|_| told("another send")));
                }
                "elsewhere" => {
                    broken.extend(again(view, call, earlier).map(|_| told("the same endpoint asked again")));
                }
                "once" => {
                    let same = |send: &&SendView| {
                        send.target == earlier.target
                            && send.failed.as_ref().is_some_and(|(_, other)| other.retry == "once")
                    };
                    if call.went().filter(same).count() > 2 {
                        broken.push(told("a second repeat"));
                    }
                }
                _ => {}
            }
        }
    }
    broken
}

/// When the endpoint of a send was asked again by the same call, after that send had failed.
fn again<'a>(
    view: &'a View,
    call: &'a CallView,
    earlier: &'a SendView,
) -> impl Iterator<Item = super::super::view::At> + 'a {
    let failed = earlier.failed.as_ref().map(|(at, _)| *at);
    let same = call.went().filter(move |send| send.endpoint() == earlier.endpoint());
    same.filter_map(SendView::went).filter(move |at| failed.is_some_and(|failed| view.after(failed, *at)))
}
