//! The `routes` of the file: which model goes where, and under which policy.
//!
//! Owns references from targets to endpoints. Invariant: a route names every endpoint that may ever serve it; nothing
//! falls back to what the file does not say.

use crate::policy::settings::{RouteSettings, Spread, Target};

use super::endpoints::Endpoint;
use super::nearest::nearest;
use super::origin::{Origin, Part};
use super::policy::{Policy, at};
use super::report::{Code, Problem};
use super::resolve::Reading;
use super::tree::{Kind, Node, Span};

/// A route and its places in the file.
pub struct Route {
    /// Resolved.
    pub settings: RouteSettings,
    /// Its policy, with where each value comes from.
    pub policy: Policy,
    /// Where it starts.
    pub span: Span,
    /// Each name in `targets`, with the target and the endpoint it stands for.
    pub names: Vec<(usize, usize, Span)>,
    /// Clocks given under it that are read from the endpoint.
    pub idle_clocks: Vec<(&'static str, Span)>,
}

/// Reads `routes`.
pub fn read(root: &Node, defaults: &Policy, endpoints: &[Endpoint], reading: &mut Reading<'_>) -> Vec<Route> {
    let items = root.get("routes").map(Node::items).unwrap_or_default();
    if items.is_empty() {
        return none(root, defaults, endpoints, reading);
    }
    let mut routes: Vec<Route> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let route = one(item, index, defaults, endpoints, reading);
        if let Some(first) = routes.iter().find(|other| other.settings.name == route.settings.name) {
            let name = &route.settings.name;
            reading.problems.push(
                Problem::new(Code::DuplicateName, route.span, format!("two routes are named `{name}`"))
                    .label(format!("taken by the route on line {}", first.span.line)),
            );
        }
        route.policy.conflicts(reading.problems);
        repeated(&route, endpoints, reading.problems);
        routes.push(route);
    }
    routes
}

/// Whoever has been asked has been asked: a target that stands twice can only be a mistake, or a loop.
fn repeated(route: &Route, endpoints: &[Endpoint], problems: &mut Vec<Problem>) {
    for (at, (_, number, span)) in route.names.iter().enumerate() {
        if let Some((_, _, first)) = route.names[..at].iter().find(|(_, earlier, _)| earlier == number) {
            let name = endpoints.get(*number).map_or("", |endpoint| endpoint.settings.name.as_str());
            problems.push(
                Problem::new(Code::RepeatedTarget, *span, format!("`{name}` stands twice in `targets`"))
                    .label(format!("has been asked by then, from line {}", first.line))
                    .help("name each endpoint once; `retry.attempts` is how often it is asked"),
            );
        }
    }
}

/// Without routes one endpoint can only mean one thing; more could mean several.
fn none(root: &Node, defaults: &Policy, endpoints: &[Endpoint], reading: &mut Reading<'_>) -> Vec<Route> {
    let node = root.get("routes");
    if node.is_some_and(|node| !matches!(node.kind, Kind::Null | Kind::Seq(_))) {
        return Vec::new();
    }
    if endpoints.len() == 1 && node.is_none() {
        defaults.conflicts(reading.problems);
        return vec![catch_all(defaults.clone())];
    }
    if !endpoints.is_empty() {
        let (code, span, message) = match node {
            Some(node) => (Code::Empty, node.span, "`routes` is empty"),
            None => (Code::Missing, Span { line: 1, column: 1, ..Span::default() }, "`routes` is missing"),
        };
        reading.problems.push(
            Problem::new(code, span, message)
                .label("nothing says which endpoint serves a call")
                .help(format!("add `routes:` and below it `  - targets: [{}]`", endpoints[0].settings.name)),
        );
    }
    Vec::new()
}

/// The route that serves everything from the only endpoint.
pub fn catch_all(policy: Policy) -> Route {
    Route {
        settings: RouteSettings {
            name: "default".to_owned(),
            model: "*".to_owned(),
            targets: vec![Target::of(vec![0])],
            timeouts: policy.timeouts,
            retry: policy.retry,
            max_sends: policy.max_sends,
            queue_wait: policy.queue_wait,
            streams: policy.streams,
            hedge: policy.hedge,
        },
        policy,
        span: Span::default(),
        names: Vec::new(),
        idle_clocks: Vec::new(),
    }
}

fn one(item: &Node, index: usize, defaults: &Policy, endpoints: &[Endpoint], reading: &mut Reading<'_>) -> Route {
    let mut policy = defaults.under(item, Origin::Route);
    let name = item.get("name").and_then(Node::text).map_or_else(|| format!("route-{}", index + 1), str::to_owned);
    let span = item.get("name").map(|node| node.span);
    let span = span.or_else(|| item.entries().first().map(|(key, _)| key.span)).unwrap_or(item.span);
    let model = at(item, "match.model");
    if let Some(node) = model {
        policy.part.set("match.model", Origin::Route(node.span.line), node.span);
    }
    note(&mut policy.part, item, "targets");
    let (targets, names) = targets(item, span, endpoints, reading);
    let idle_clocks = ["timeouts.connect", "timeouts.idle"]
        .into_iter()
        .filter(|key| matches!(policy.part.origin(key), Origin::Route(_)))
        .filter_map(|key| policy.part.span(key).map(|span| (key, span)))
        .collect();
    Route {
        settings: RouteSettings {
            name,
            model: model.and_then(Node::text).unwrap_or("*").to_owned(),
            targets,
            timeouts: policy.timeouts,
            retry: policy.retry,
            max_sends: policy.max_sends,
            queue_wait: policy.queue_wait,
            streams: policy.streams,
            hedge: policy.hedge,
        },
        policy,
        span,
        names,
        idle_clocks,
    }
}

fn note(part: &mut Part, item: &Node, key: &'static str) {
    if let Some((name, _)) = item.entries().iter().find(|(name, _)| name.name == key) {
        part.set(key, Origin::Route(name.span.line), name.span);
    }
}

type Named = Vec<(usize, usize, Span)>;

fn targets(item: &Node, route: Span, endpoints: &[Endpoint], reading: &mut Reading<'_>) -> (Vec<Target>, Named) {
    let (mut targets, mut names) = (Vec::new(), Vec::new());
    let Some(list) = item.get("targets") else {
        if !item.entries().is_empty() {
            reading.problems.push(
                Problem::new(Code::Missing, route, "a route needs `targets`")
                    .label("has no `targets`")
                    .help("write `targets: [name]` with the name of an endpoint"),
            );
        }
        return (targets, names);
    };
    if matches!(list.kind, Kind::Null) || matches!(&list.kind, Kind::Seq(items) if items.is_empty()) {
        reading.problems.push(empty(list, "`targets` is empty"));
    }
    for target in list.items() {
        let members = match target.get("balance") {
            Some(pool) => pool.items(),
            None => std::slice::from_ref(target),
        };
        if let Some(pool) =
            target.get("balance").filter(|pool| matches!(&pool.kind, Kind::Seq(items) if items.is_empty()))
        {
            reading.problems.push(empty(pool, "a pool is empty"));
        }
        let mut pool = Vec::new();
        for member in members {
            if let Some(number) = endpoint(member, endpoints, reading) {
                names.push((targets.len(), number, member.span));
                if !pool.contains(&number) {
                    pool.push(number);
                }
            }
        }
        let by = match target.get("by").and_then(Node::text) {
            Some("prefix") => Spread::Prefix,
            _ => Spread::Load,
        };
        targets.push(Target { endpoints: pool, by });
    }
    (targets, names)
}

fn empty(node: &Node, message: &str) -> Problem {
    Problem::new(Code::Empty, node.span, message).label("needs the name of at least one endpoint")
}

fn endpoint(member: &Node, endpoints: &[Endpoint], reading: &mut Reading<'_>) -> Option<usize> {
    let Kind::Scalar(scalar) = &member.kind else { return None };
    let found = endpoints.iter().position(|endpoint| endpoint.settings.name == scalar.text);
    if found.is_none() {
        let known: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.settings.name.as_str()).collect();
        let problem = Problem::new(
            Code::UnknownEndpoint,
            member.span,
            format!("unknown endpoint `{}`", scalar.written.trim_matches(['"', '\''])),
        );
        reading.problems.push(match nearest(&scalar.text, &known) {
            Some(meant) => problem.label(format!("no endpoint has this name; did you mean `{meant}`?")),
            None if known.is_empty() => problem.label("the file has no endpoint"),
            None => {
                problem.label("no endpoint has this name").help(format!("endpoints of this file: {}", known.join(", ")))
            }
        });
    }
    found
}
