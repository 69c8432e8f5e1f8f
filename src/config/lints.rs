//! Warnings: files that can run and will not do what their author hopes.
//!
//! Owns the judgement of whole settings. Changes nothing. Invariant: a file that uses only defaults, however many
//! endpoints it has in one target, draws no warning.

use std::collections::HashSet;

use crate::policy::glob;
use crate::transport::settings::Credential;

use super::endpoints::Endpoint;
use super::origin::Origin;
use super::report::{Code, Problem};
use super::routes::Route;
use super::tree::Span;
use super::units::show_duration;
use super::url;

/// Looks at everything that `check` warns of.
pub fn look(endpoints: &[Endpoint], routes: &[Route], problems: &mut Vec<Problem>) {
    for endpoint in endpoints {
        plain_key(endpoint, problems);
        for (clock, span) in &endpoint.idle_clocks {
            problems.push(wrong_place(clock, *span, "the route"));
        }
    }
    for (index, route) in routes.iter().enumerate() {
        for (clock, span) in &route.idle_clocks {
            problems.push(wrong_place(clock, *span, "the endpoint"));
        }
        clocks(route, problems);
        sends(route, problems);
        lone_hedge(route, routes, problems);
        shadowed(route, &routes[..index], problems);
    }
    unused(endpoints, routes, problems);
}

fn plain_key(endpoint: &Endpoint, problems: &mut Vec<Problem>) {
    let settings = &endpoint.settings;
    let has_key = !matches!(settings.credential, Credential::None);
    if has_key && settings.url.starts_with("http://") && !url::is_loopback(&settings.url) {
        problems.push(
            Problem::new(
                Code::PlainKey,
                endpoint.url_span,
                format!("the key of `{}` crosses the network in the clear", settings.name),
            )
            .label("plain http to another machine")
            .help("use https, or take the key away if the server does not ask for one"),
        );
    }
}

fn wrong_place(clock: &str, span: Span, owner: &str) -> Problem {
    let short = clock.trim_start_matches("timeouts.");
    Problem::new(Code::WrongPlace, span, format!("`{short}` does nothing here"))
        .label(format!("this clock is read from {owner}"))
        .help(format!("move it under {owner}, or under `defaults`"))
}

fn clocks(route: &Route, problems: &mut Vec<Problem>) {
    let timeouts = route.settings.timeouts;
    for (name, key, value) in [
        ("first_token", "timeouts.first_token", timeouts.first_token),
        ("headers", "timeouts.headers", timeouts.headers),
    ] {
        let span = route.policy.later("timeouts.total", key);
        if timeouts.total <= value && span.line > 0 {
            let (total, value) = (show_duration(timeouts.total), show_duration(value));
            problems.push(
                Problem::new(
                    Code::ShortTotal,
                    span,
                    format!("`total` ({total}) ends a call before `{name}` ({value}) can"),
                )
                .label("leaves no time for a second send")
                .help(format!("make `total` longer than `{name}`; with room for retries, a few times as long")),
            );
        }
    }
}

fn sends(route: &Route, problems: &mut Vec<Problem>) {
    let (attempts, most) = (route.settings.retry.attempts, route.settings.max_sends);
    let targets = u32::try_from(route.settings.targets.len()).unwrap_or(u32::MAX);
    let span = route.policy.later("retry.attempts", "max_sends");
    let span = if span.line > 0 { span } else { route.policy.part.span("targets").unwrap_or_default() };
    if attempts > most {
        problems.push(
            Problem::new(
                Code::UnusedSends,
                span,
                format!("`attempts: {attempts}` is more than `max_sends: {most}` allows"),
            )
            .label("some attempts can never be used")
            .help("raise `max_sends` or lower `attempts`"),
        );
    } else if targets > 1 && (targets - 1).saturating_mul(attempts) >= most {
        let reached = most.div_ceil(attempts);
        problems.push(
            Problem::new(
                Code::UnusedSends,
                span,
                format!("`max_sends: {most}` can be spent before target {} is asked", reached + 1),
            )
            .label(format!("{targets} targets with up to {attempts} attempts each"))
            .help(format!(
                "raise `max_sends` to {} or lower `attempts`",
                (targets - 1).saturating_mul(attempts).saturating_add(1)
            )),
        );
    }
    if route.settings.retry.budget <= 0.0 && attempts > 1 {
        problems.push(
            Problem::new(
                Code::NoBudget,
                route.policy.later("retry.budget", "retry.budget"),
                "`budget: 0%` pays for no retry",
            )
            .label(format!("`attempts: {attempts}` has no effect"))
            .help("write `attempts: 1` if retries are not wanted"),
        );
    }
}

/// A hedge goes to another endpoint of the same pool; where there is none, there is no hedge.
fn lone_hedge(route: &Route, routes: &[Route], problems: &mut Vec<Problem>) {
    let has_pool = |route: &Route| route.settings.targets.iter().any(|target| target.endpoints.len() > 1);
    let part = &route.policy.part;
    let Some(key) = ["hedge", "hedge.after", "hedge.budget"].into_iter().find(|key| part.span(key).is_some()) else {
        return;
    };
    // What `defaults` says is for those that have a pool, if any has.
    let elsewhere = matches!(part.origin(key), Origin::Defaults(_)) && routes.iter().any(has_pool);
    if route.settings.hedge.on && !has_pool(route) && !elsewhere {
        let span = part.span(key).unwrap_or_default();
        let name = &route.settings.name;
        problems.push(
            Problem::new(Code::LoneHedge, span, format!("`hedge` does nothing on the route `{name}`"))
                .label("no target of it is a pool")
                .help("write `targets: [{ balance: [a, b] }]` where two endpoints serve the same model"),
        );
    }
}

fn shadowed(route: &Route, earlier: &[Route], problems: &mut Vec<Problem>) {
    let model = route.settings.model.as_str();
    if let Some(first) = earlier.iter().find(|first| glob::covers(&first.settings.model, model)) {
        let span = route.policy.part.span("match.model").unwrap_or(route.span);
        problems.push(
            Problem::new(Code::Shadowed, span, format!("no call reaches the route `{}`", route.settings.name))
                .label(format!("`{}` on line {} takes all of them", first.settings.name, first.span.line))
                .help("the first route that matches wins: put the narrower one first"),
        );
    }
}

fn unused(endpoints: &[Endpoint], routes: &[Route], problems: &mut Vec<Problem>) {
    if routes.is_empty() {
        return;
    }
    let used: HashSet<usize> =
        routes.iter().flat_map(|route| &route.settings.targets).flat_map(|target| target.endpoints.clone()).collect();
    for (_, endpoint) in endpoints.iter().enumerate().filter(|(number, _)| !used.contains(number)) {
        problems.push(
            Problem::new(
                Code::Unused,
                endpoint.name_span,
                format!("no route uses the endpoint `{}`", endpoint.settings.name),
            )
            .label("never asked"),
        );
    }
}
