//! The policy keys that stand under `defaults`, an endpoint or a route, laid over one another.
//!
//! Owns the order of merging: built-in, then `defaults`, then the endpoint or the route. Reports only what two values
//! say of each other; single values were judged by `check.rs`. Invariant: a value that is not given changes nothing.

use std::time::Duration;

use crate::policy::HedgeSettings;
use crate::policy::settings::{
    BreakerSettings, Concurrency, MAX_SENDS, Mode, QUEUE_WAIT, RetrySettings, StreamMode, StreamSettings, Timeouts,
};
use crate::transport::settings::Connections;

use super::origin::{Origin, Part};
use super::report::{Code, Problem};
use super::tree::{Kind, Node, Span};
use super::units;

/// The values in force, and where each was given.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The five clocks.
    pub timeouts: Timeouts,
    /// Repeats.
    pub retry: RetrySettings,
    /// Sends per call.
    pub max_sends: u32,
    /// When an endpoint is left alone.
    pub breaker: BreakerSettings,
    /// Sends in flight at an endpoint.
    pub concurrency: Concurrency,
    /// How long connections and addresses are good for.
    pub connections: Connections,
    /// Wait for a place.
    pub queue_wait: Duration,
    /// A send beside one that is late.
    pub hedge: HedgeSettings,
    /// Streams.
    pub streams: StreamSettings,
    /// Where each was given.
    pub part: Part,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            timeouts: Timeouts::default(),
            retry: RetrySettings::default(),
            max_sends: MAX_SENDS,
            breaker: BreakerSettings::default(),
            concurrency: Concurrency::default(),
            connections: Connections::default(),
            queue_wait: QUEUE_WAIT,
            hedge: HedgeSettings::default(),
            streams: StreamSettings::default(),
            part: Part::default(),
        }
    }
}

impl Policy {
    /// This policy with what `node` gives laid over it; `origin` makes an origin of a line.
    #[must_use]
    pub fn under(&self, node: &Node, origin: fn(usize) -> Origin) -> Self {
        let mut merged = self.clone();
        let mut over = Layer { node, part: &mut merged.part, origin };
        over.clock("timeouts.connect", &mut merged.timeouts.connect);
        over.clock("timeouts.headers", &mut merged.timeouts.headers);
        over.clock("timeouts.first_token", &mut merged.timeouts.first_token);
        over.clock("timeouts.idle", &mut merged.timeouts.idle);
        over.clock("timeouts.total", &mut merged.timeouts.total);
        over.read("retry.attempts", &mut merged.retry.attempts, |text| text.parse().ok().filter(|n| *n > 0));
        over.read("retry.budget", &mut merged.retry.budget, |text| units::ratio(text).ok());
        over.clock("retry.backoff.base", &mut merged.retry.backoff.base);
        over.clock("retry.backoff.max", &mut merged.retry.backoff.max);
        over.read("retry.respect_retry_after", &mut merged.retry.respect_retry_after, |text| text.parse().ok());
        over.read("max_sends", &mut merged.max_sends, |text| text.parse().ok().filter(|n| *n > 0));
        over.switch("breaker", &mut merged.breaker.on);
        let breaker = &mut merged.breaker;
        let count = |text: &str| text.parse().ok().filter(|n| *n > 0);
        over.read("breaker.consecutive", &mut breaker.consecutive, count);
        over.read("breaker.failure_rate", &mut breaker.failure_rate, |text| units::ratio(text).ok());
        over.read("breaker.min_calls", &mut breaker.min_calls, count);
        over.clock("breaker.window", &mut breaker.window);
        over.clock("breaker.open_for", &mut breaker.open_for);
        over.clock("breaker.max_open", &mut breaker.max_open);
        over.read("breaker.probes", &mut breaker.probes, count);
        over.read("concurrency.mode", &mut merged.concurrency.mode, |text| match text {
            "adaptive" => Some(Mode::Adaptive),
            "fixed" => Some(Mode::Fixed),
            _ => None,
        });
        over.read("concurrency.max", &mut merged.concurrency.max, |text| text.parse().ok().filter(|n| *n > 0));
        over.read("connections.max_age", &mut merged.connections.max_age, |text| units::duration(text).ok());
        over.clock("connections.dns_refresh", &mut merged.connections.dns_refresh);
        over.read("queue.wait", &mut merged.queue_wait, |text| units::duration(text).ok());
        over.switch("hedge", &mut merged.hedge.on);
        over.read("hedge.after", &mut merged.hedge.after, |text| {
            let percentile: f64 = text.strip_prefix('p')?.parse().ok()?;
            (50.0..100.0).contains(&percentile).then_some(percentile / 100.0)
        });
        over.read("hedge.budget", &mut merged.hedge.budget, |text| units::ratio(text).ok());
        over.read("rescue", &mut merged.streams.rescue, |text| match text {
            "off" => Some(false),
            "continue" => Some(true),
            _ => None,
        });
        over.read("stream", &mut merged.streams.mode, |text| match text {
            "auto" => Some(StreamMode::Auto),
            "hold" => Some(StreamMode::Hold),
            "live" => Some(StreamMode::Live),
            _ => None,
        });
        merged
    }

    /// Values of an endpoint that cannot both hold.
    pub fn breaker_conflicts(&self, problems: &mut Vec<Problem>) {
        let BreakerSettings { open_for, max_open, .. } = self.breaker;
        if open_for > max_open {
            let (first, most) = (units::show_duration(open_for), units::show_duration(max_open));
            let span = self.later("breaker.open_for", "breaker.max_open");
            let message = format!("`open_for` ({first}) is longer than `max_open` ({most})");
            let problem = Problem::new(Code::Conflict, span, message)
                .label("the first time would pass the longest")
                .help("make `open_for` at most `max_open`");
            // What `defaults` says is said once, not by each endpoint.
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }

    /// Values of a route that cannot both hold.
    pub fn conflicts(&self, problems: &mut Vec<Problem>) {
        let backoff = self.retry.backoff;
        if backoff.base > backoff.max {
            let (base, max) = (units::show_duration(backoff.base), units::show_duration(backoff.max));
            let span = self.later("retry.backoff.base", "retry.backoff.max");
            problems.push(
                Problem::new(
                    Code::Conflict,
                    span,
                    format!("`backoff.base` ({base}) is longer than `backoff.max` ({max})"),
                )
                .label("the first wait would pass the longest")
                .help("make `base` at most `max`"),
            );
        }
        let HedgeSettings { on, after, budget } = self.hedge;
        let least = self.hedge.least_budget();
        if on && budget + 1e-9 < least {
            let span = self.later("hedge", "hedge.budget");
            let span = if span.line > 0 { span } else { self.later("hedge.after", "hedge.after") };
            let (share, least) = (units::show_ratio(budget), units::show_ratio(least));
            let percentile = (after * 100.0).round();
            let message = format!("`hedge.budget` ({share}) is less than the share of calls that are late ({least})");
            let problem = Problem::new(Code::Conflict, span, message)
                .label("would be spent before most of the late calls")
                .help(format!("make `budget` at least {least}, or hedge later than `after: p{percentile}`"));
            // What `defaults` says is said once, not by each route.
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }

    /// The place of whichever of two keys stands later in the file.
    pub fn later(&self, one: &str, other: &str) -> Span {
        let spans = [self.part.span(one), self.part.span(other)];
        spans.into_iter().flatten().max_by_key(|span| span.start).unwrap_or_default()
    }
}

struct Layer<'a> {
    node: &'a Node,
    part: &'a mut Part,
    origin: fn(usize) -> Origin,
}

impl Layer<'_> {
    fn clock(&mut self, key: &'static str, value: &mut Duration) {
        self.read(key, value, |text| units::duration(text).ok().filter(|clock| !clock.is_zero()));
    }

    /// `off` in place of a map turns a mechanism off; a map turns it on again.
    fn switch(&mut self, key: &'static str, on: &mut bool) {
        let Some(node) = at(self.node, key) else { return };
        if node.text() == Some("off") {
            *on = false;
        } else if matches!(node.kind, Kind::Map(_)) {
            *on = true;
        } else {
            return;
        }
        self.part.set(key, (self.origin)(node.span.line), node.span);
    }

    fn read<T>(&mut self, key: &'static str, value: &mut T, read: impl Fn(&str) -> Option<T>) {
        let Some(node) = at(self.node, key) else { return };
        if let Some(given) = node.text().and_then(read) {
            *value = given;
            self.part.set(key, (self.origin)(node.span.line), node.span);
        }
    }
}

/// The node at a path of names, such as `retry.backoff.base`.
pub fn at<'a>(node: &'a Node, path: &str) -> Option<&'a Node> {
    path.split('.').try_fold(node, |node, name| node.get(name))
}
