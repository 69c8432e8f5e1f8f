//! Every metric there is, by name, with its labels. Label values come from closed sets: routes and endpoints as
//! configured, outcomes, classes, kinds. A model name that a client made up never becomes one.

use prometheus::core::{AtomicU64, GenericCounter};
use prometheus::{
    Encoder, Gauge, Histogram, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use super::families::Adder;
use super::{ConfigMetrics, Families, HealthMetrics, LoadMetrics, OnwardMetrics};
use crate::call::{AttemptEnd, AttemptKind, BreakerChange, BreakerState, CallEnd, Class, Outcome, Repeated, Verdict};

/// Metric label for calls that matched no route.
const NO_ROUTE: &str = "none";
/// Metric label `class` of what did not fail.
const NO_CLASS: &str = "none";

const SECONDS: &[f64] =
    &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0];
const GAPS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
const OVERHEAD: &[f64] = &[0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5];
const SENDS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 5.0, 8.0];

/// All metrics of the process, with handles for the names of one generation of settings.
pub struct Metrics {
    registry: Registry,
    calls: IntCounterVec,
    durations: HistogramVec,
    attempts: IntCounterVec,
    interruptions: IntCounterVec,
    tokens: IntCounterVec,
    repeated: IntCounterVec,
    breakers: Breakers,
    routes: Vec<RouteMetrics>,
    endpoints: Vec<String>,
    /// How full the endpoints are, and who waits for them.
    pub load: LoadMetrics,
    /// Sends to further targets and beside late ones.
    pub onward: OnwardMetrics,
    /// The config that runs.
    pub config: ConfigMetrics,
    /// What is learnt of the endpoints beside the calls.
    pub health: HealthMetrics,
}

/// Handles of one route, looked up once.
struct RouteMetrics {
    name: String,
    first_token: Histogram,
    inter_token: Histogram,
    overhead: Histogram,
    attempts_per_call: Histogram,
    in_flight: IntGauge,
    budget: Gauge,
    answered: GenericCounter<AtomicU64>,
}

impl Metrics {
    /// Metrics for these routes and endpoints, every series of them present, at zero unless it was there before.
    /// `loaded` is the hash of the config they come from, and when it was loaded in Unix time.
    ///
    /// # Errors
    /// A name is registered as two things: a fault in this file.
    pub fn new(
        families: &mut Families,
        routes: &[String],
        endpoints: &[String],
        loaded: (&str, f64),
    ) -> prometheus::Result<Self> {
        let registry = families.registry().clone();
        let add = Adder::new(families);
        let calls = add.counters("outrigger_calls_total", "Calls ended.", &["route", "outcome", "class"])?;
        let durations = add.histograms(
            "outrigger_call_duration_seconds",
            "From the request line to the last byte out.",
            &["route", "outcome"],
            SECONDS,
        )?;
        let first = add.histograms(
            "outrigger_first_token_seconds",
            "From the request line to the first model event.",
            &["route"],
            SECONDS,
        )?;
        let inter = add.histograms("outrigger_inter_token_seconds", "Gaps between model events.", &["route"], GAPS)?;
        let overhead = add.histograms(
            "outrigger_overhead_seconds",
            "What a call that needed one send spent in Outrigger before its answer.",
            &["route"],
            OVERHEAD,
        )?;
        let per_call = add.histograms("outrigger_attempts_per_call", "Sends upstream per call.", &["route"], SENDS)?;
        let in_flight = add.gauges("outrigger_calls_in_flight", "Calls now.", &["route"])?;
        let budget =
            add.ratios("outrigger_retry_budget_remaining_ratio", "Share of the retry budget left.", &["route"])?;
        let attempts = add.counters("outrigger_attempts_total", "Sends ended.", &["endpoint", "kind", "class"])?;
        let interruptions = add.counters(
            "outrigger_stream_interruptions_total",
            "Streams that broke, before or after their first model event.",
            &["endpoint", "phase"],
        )?;
        let tokens = add.counters("outrigger_tokens_total", "Tokens.", &["route", "direction", "source"])?;
        let repeated = repeats(&add, routes)?;
        let breakers = Breakers::new(&add, endpoints)?;
        let load = LoadMetrics::new(&add, routes, endpoints)?;
        let onward = OnwardMetrics::new(&add, routes)?;
        let config = ConfigMetrics::new(&add, loaded.0, loaded.1)?;
        let health = HealthMetrics::new(&add, endpoints)?;
        add.info("outrigger_build_info", "The program that runs.", "version", env!("CARGO_PKG_VERSION"))?;

        for route in routes.iter().map(String::as_str).chain([NO_ROUTE]) {
            for class in Class::ALL {
                calls.with_label_values(&[route, Outcome::Failed.as_str(), class.as_str()]);
            }
        }
        sends_at_zero(endpoints, &attempts, &interruptions);
        let per_route = routes.iter().map(|name| {
            let route = [name.as_str()];
            for outcome in [Outcome::Ok, Outcome::Retried, Outcome::Hedged, Outcome::Fallback, Outcome::Cached] {
                calls.with_label_values(&[name.as_str(), outcome.as_str(), NO_CLASS]);
            }
            calls.with_label_values(&[name.as_str(), Outcome::Cancelled.as_str(), Class::ClientDisconnect.as_str()]);
            for outcome in Outcome::ALL {
                durations.with_label_values(&[name.as_str(), outcome.as_str()]);
            }
            for direction in ["input", "output"] {
                tokens.with_label_values(&[name.as_str(), direction, "reported"]);
            }
            RouteMetrics {
                first_token: first.with_label_values(&route),
                inter_token: inter.with_label_values(&route),
                overhead: overhead.with_label_values(&route),
                attempts_per_call: per_call.with_label_values(&route),
                in_flight: in_flight.with_label_values(&route),
                budget: full(&budget, &route),
                answered: calls.with_label_values(&[name.as_str(), Outcome::Ok.as_str(), NO_CLASS]),
                name: name.clone(),
            }
        });
        let routes = per_route.collect();
        Ok(Self {
            registry,
            calls,
            durations,
            attempts,
            interruptions,
            tokens,
            repeated,
            breakers,
            routes,
            endpoints: endpoints.to_vec(),
            load,
            onward,
            config,
            health,
        })
    }

    /// A call was accepted.
    pub fn call_started(&self, route: Option<usize>) {
        if let Some(route) = self.route(route) {
            route.in_flight.inc();
        }
    }

    /// A call ended.
    pub fn call_ended(&self, end: &CallEnd) {
        let route = self.route(end.route);
        let name = route.map_or(NO_ROUTE, |route| route.name.as_str());
        match (route, end.outcome, end.class) {
            (Some(route), Outcome::Ok, None) => route.answered.inc(),
            (_, outcome, class) => {
                let class = class.map_or(NO_CLASS, Class::as_str);
                self.calls.with_label_values(&[name, outcome.as_str(), class]).inc();
            }
        }
        self.durations.with_label_values(&[name, end.outcome.as_str()]).observe(end.took.as_secs_f64());
        let Some(route) = route else { return };
        route.in_flight.dec();
        if end.sends > 0 {
            route.attempts_per_call.observe(f64::from(end.sends));
        }
        if let Some(first) = end.first {
            route.first_token.observe(first.as_secs_f64());
        }
        if let Some(overhead) = end.overhead {
            route.overhead.observe(overhead.as_secs_f64());
        }
        if let Some(usage) = end.usage {
            for (direction, tokens) in [("input", usage.input), ("output", usage.output)] {
                self.tokens.with_label_values(&[name, direction, "reported"]).inc_by(tokens);
            }
        }
    }

    /// A send ended.
    pub fn attempt_ended(&self, end: &AttemptEnd) {
        let Some(endpoint) = self.endpoints.get(end.endpoint).map(String::as_str) else { return };
        self.attempts.with_label_values(&[endpoint, end.kind.as_str(), end.verdict.as_str()]).inc();
        let broken = matches!(
            end.verdict,
            Verdict::Failed(Class::StreamTruncated | Class::StreamStalled | Class::Undecodable | Class::InbandError)
        );
        if end.streamed && broken {
            let phase = if end.mid_stream { "mid" } else { "before_first" };
            self.interruptions.with_label_values(&[endpoint, phase]).inc();
        }
    }

    /// A breaker went from one state to another.
    pub fn breaker(&self, change: &BreakerChange) {
        let Some(endpoint) = self.endpoints.get(change.endpoint).map(String::as_str) else { return };
        self.breakers.transitions.with_label_values(&[endpoint, change.to.as_str(), change.reason.as_str()]).inc();
    }

    /// What an endpoint's breaker is at this moment.
    pub fn breaker_is(&self, endpoint: usize, is: BreakerState) {
        let Some(endpoint) = self.endpoints.get(endpoint).map(String::as_str) else { return };
        for one in BreakerState::ALL {
            self.breakers.state.with_label_values(&[endpoint, one.as_str()]).set(i64::from(*one == is));
        }
    }

    /// How many circuits of single models are not closed there at this moment.
    pub fn models_open(&self, endpoint: usize, route: usize, open: usize) {
        if let (Some(endpoint), Some(route)) = (self.endpoints.get(endpoint), self.route(Some(route))) {
            let gauge = self.breakers.models.with_label_values(&[endpoint.as_str(), route.name.as_str()]);
            gauge.set(i64::try_from(open).unwrap_or(i64::MAX));
        }
    }

    /// The gap between two model events.
    pub fn gap(&self, route: usize, seconds: f64) {
        if let Some(route) = self.routes.get(route) {
            route.inter_token.observe(seconds);
        }
    }

    /// A call came with a key that was known already.
    pub fn repeated(&self, route: usize, result: Repeated) {
        if let Some(route) = self.routes.get(route) {
            self.repeated.with_label_values(&[route.name.as_str(), result.as_str()]).inc();
        }
    }

    /// What is left of a retry budget.
    pub fn budget(&self, route: usize, left: f64) {
        if let Some(route) = self.routes.get(route) {
            route.budget.set(left);
        }
    }

    /// Everything in the text format, version 0.0.4.
    ///
    /// # Errors
    /// The encoder failed: a fault in this file.
    pub fn render(&self) -> prometheus::Result<Vec<u8>> {
        let mut text = Vec::with_capacity(64 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    fn route(&self, number: Option<usize>) -> Option<&RouteMetrics> {
        number.and_then(|number| self.routes.get(number))
    }
}

/// A route's gauge of its budget, full.
fn full(budgets: &prometheus::GaugeVec, route: &[&str]) -> Gauge {
    let budget = budgets.with_label_values(route);
    budget.set(1.0);
    budget
}

/// What is told of breakers.
struct Breakers {
    state: IntGaugeVec,
    transitions: IntCounterVec,
    models: IntGaugeVec,
}

impl Breakers {
    fn new(add: &Adder<'_>, endpoints: &[String]) -> prometheus::Result<Self> {
        let state = add.readings("outrigger_breaker_state", "1 for what the breaker is.", &["endpoint", "state"])?;
        let transitions = add.counters(
            "outrigger_breaker_transitions_total",
            "Changes of state of an endpoint's breaker, circuits of single routes included.",
            &["endpoint", "to", "reason"],
        )?;
        let models = add.readings(
            "outrigger_breaker_models_open",
            "Models of an endpoint whose own circuit is not closed, where several are known.",
            &["endpoint", "route"],
        )?;
        for endpoint in endpoints {
            for one in BreakerState::ALL {
                let is = i64::from(*one == BreakerState::Closed);
                state.with_label_values(&[endpoint.as_str(), one.as_str()]).set(is);
            }
            for (to, reason) in BreakerChange::PAIRS {
                transitions.with_label_values(&[endpoint.as_str(), to.as_str(), reason.as_str()]);
            }
        }
        Ok(Self { state, transitions, models })
    }
}

/// The series of sends that exist from the start.
fn sends_at_zero(endpoints: &[String], attempts: &IntCounterVec, interruptions: &IntCounterVec) {
    for endpoint in endpoints {
        for kind in AttemptKind::ALL {
            attempts.with_label_values(&[endpoint.as_str(), kind.as_str(), Verdict::Ok.as_str()]);
        }
        for phase in ["before_first", "mid"] {
            interruptions.with_label_values(&[endpoint.as_str(), phase]);
        }
    }
}

/// What became of calls whose key was known, every series of it present at zero.
fn repeats(add: &Adder<'_>, routes: &[String]) -> prometheus::Result<IntCounterVec> {
    let told = "Calls whose Idempotency-Key was known already.";
    let repeated = add.counters("outrigger_idempotency_total", told, &["route", "result"])?;
    for route in routes {
        for result in Repeated::ALL {
            repeated.with_label_values(&[route.as_str(), result.as_str()]);
        }
    }
    Ok(repeated)
}
