//! Plays a schedule: the real gateway without its sockets, over endpoints that play, under a clock that stands still.
//!
//! Owns the clients. Invariant: equal schedules give equal histories; all chance comes from the seed, all time from the
//! paused clock, and everything runs in one thread.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::Request;
use http_body_util::BodyExt;
use outrigger::call::{Priority, Sink};
use outrigger::config::Settings;
use outrigger::layer::state::{Live, Memory};
use outrigger::policy::{
    Backoff, BreakerSettings, Concurrency, Mode, RetrySettings, Spread, StreamMode, Target, Timeouts,
};
use outrigger::server::reload::Reloads;
use outrigger::server::stop::Stop;
use outrigger::server::{Current, Gateway, Generation, Process};
use outrigger::stack::Carried;
use outrigger::telemetry::{Families, Metrics};
use outrigger::{clock, stack};
use tower::ServiceExt;

use super::event::{Breaker, Called, Event, Setup, What};
use super::leaf::Played;
use super::record::{CALL, Recorder, digest};
use super::schedule::{Leave, Plan, Policy, Schedule};
use crate::support;

/// The history of a schedule.
pub fn run(schedule: &Schedule) -> Vec<Event> {
    fastrand::seed(schedule.seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(play(Arc::new(schedule.clone())))
}

fn setup(schedule: &Schedule) -> Setup {
    let policy = &schedule.policy;
    let mut mechanisms = Vec::new();
    if !policy.plain {
        mechanisms.push("retry".to_owned());
        mechanisms.extend(policy.breaker.as_ref().map(|_| "breaker".to_owned()));
    }
    Setup {
        replay: format!("SEED={} cargo nextest run history::replay", schedule.seed),
        exact: true,
        slack: 0,
        targets: policy.targets.clone(),
        mechanisms,
        max_sends: policy.max_sends,
        attempts: policy.attempts,
        budget: policy.budget,
        total: policy.total * 1000,
        queue_wait: policy.queue_wait * 1000,
        breaker: policy.breaker.clone(),
    }
}

fn settings(policy: &Policy, endpoints: usize) -> Settings {
    let urls: Vec<String> = (0..endpoints).map(|number| format!("http://e{number}/v1")).collect();
    let mut settings = support::settings(&urls);
    let millis = Duration::from_millis;
    let timeouts = Timeouts {
        headers: millis(policy.headers),
        first_token: millis(policy.first_token),
        idle: millis(policy.idle),
        total: millis(policy.total),
        ..Timeouts::default()
    };
    for endpoint in &mut settings.endpoints {
        endpoint.forward_client_key = false;
        // One model at each, whatever is asked for: so its changes are told of one circuit.
        endpoint.model = Some("m".to_owned());
        endpoint.timeouts = timeouts;
        endpoint.concurrency =
            policy.slots.map_or(Concurrency::default(), |max| Concurrency { mode: Mode::Fixed, max });
        endpoint.breaker = breaker(policy.breaker.as_ref());
    }
    let route = &mut settings.routes[0];
    let by = if policy.by_prefix { Spread::Prefix } else { Spread::default() };
    route.targets = policy.targets.iter().map(|endpoints| Target { endpoints: endpoints.clone(), by }).collect();
    route.timeouts = timeouts;
    route.retry = RetrySettings {
        attempts: policy.attempts,
        budget: policy.budget,
        backoff: Backoff { base: millis(policy.backoff.0), max: millis(policy.backoff.1) },
        respect_retry_after: policy.respect_retry_after,
    };
    if policy.hold {
        route.streams.mode = StreamMode::Hold;
    }
    route.max_sends = policy.max_sends;
    route.queue_wait = millis(policy.queue_wait);
    settings
}

fn breaker(wanted: Option<&Breaker>) -> BreakerSettings {
    let Some(wanted) = wanted else { return BreakerSettings { on: false, ..BreakerSettings::default() } };
    BreakerSettings {
        consecutive: wanted.consecutive,
        failure_rate: wanted.failure_rate,
        min_calls: wanted.min_calls,
        probes: wanted.probes,
        ..BreakerSettings::default()
    }
}

/// Nobody reads them here, and they are dear to make.
fn metrics() -> Arc<Metrics> {
    static METRICS: OnceLock<Arc<Metrics>> = OnceLock::new();
    let endpoints: Vec<String> = (0..16).map(|number| format!("e{number}")).collect();
    let routes = ["default".to_owned()];
    let make = || Arc::new(Metrics::new(&mut Families::default(), &routes, &endpoints, ("", 0.0)).unwrap());
    Arc::clone(METRICS.get_or_init(make))
}

async fn play(schedule: Arc<Schedule>) -> Vec<Event> {
    let recorder = Arc::new(Recorder::new());
    recorder.tell(What::Setup(setup(&schedule)));
    let sink: Arc<dyn Sink> = Arc::clone(&recorder) as Arc<dyn Sink>;
    let endpoints = schedule.endpoints.len();
    let settings = settings(&schedule.policy, endpoints);
    let leaf = |endpoint| Played { schedule: Arc::clone(&schedule), recorder: Arc::clone(&recorder), endpoint };
    let mut carried = Carried::default();
    let process = Process {
        live: Live::default(),
        memory: Memory::new(1 << 30),
        stop: Stop::default(),
        reloads: Reloads::new().0,
        started: clock::now(),
    };
    let mut generation = || {
        let leaves = (0..endpoints).map(leaf).collect();
        let stacks = stack::build(&settings, leaves, &mut carried, &sink);
        let loaded = Generation { hash: String::new(), at: clock::wall() };
        Gateway::new(settings.clone(), stacks, metrics(), Arc::clone(&sink), &process, loaded)
    };
    let gateway = Current::new(generation());
    let first = gateway.get();
    let (slots, pools) = (first.stacks().slots.clone(), first.stacks().pools[0].clone());
    recorder.slots.set(slots.clone()).expect("set once");
    let clients: FuturesUnordered<_> =
        schedule.calls.iter().map(|plan| client(Arc::clone(&recorder), gateway.clone(), plan)).collect();
    let clients = clients.collect::<()>();
    tokio::join!(biased; clients, operator(&schedule.policy, &process.stop), reloads(&schedule.policy, &gateway, generation));
    // An execution that nobody waits for any more ends a moment later.
    clock::sleep(Duration::from_secs(1)).await; // paces the load, not a wait
    recorder.tell(What::Rest {
        in_use: (0..endpoints).map(|endpoint| slots.at(endpoint).1).collect(),
        waiting: pools.iter().map(|pool| slots.waiting(*pool)).collect(),
        live: process.live.count(),
    });
    recorder.take()
}

/// Whoever has the gateway read its config again: all is built anew, and what is known of endpoints is kept.
async fn reloads(policy: &Policy, gateway: &Current, mut generation: impl FnMut() -> Arc<Gateway>) {
    for pause in &policy.reloads {
        clock::sleep(Duration::from_millis(*pause)).await; // paces the load, not a wait
        gateway.put(generation());
    }
}

/// Whoever tells the gateway to end.
async fn operator(policy: &Policy, stop: &Stop) {
    if let Some(at) = policy.shutdown {
        clock::sleep(Duration::from_millis(at)).await; // paces the load, not a wait
        stop.drain();
        stop.cut();
    }
}

/// One client with one question, which it may ask more than once.
async fn client(recorder: Arc<Recorder>, gateway: Current, plan: &Plan) {
    clock::sleep(Duration::from_millis(plan.at)).await; // paces the load, not a wait
    for again in 0..=plan.again {
        let call = plan.call + 1000 * again;
        if one_call(&recorder, &gateway, plan, call).await {
            return;
        }
        clock::sleep(Duration::from_millis(500)).await; // paces the load, not a wait
    }
}

fn request(plan: &Plan, call: u32) -> (Called, Request<Body>) {
    let (words, stream) = match plan.key.filter(|_| !plan.opaque) {
        // One key is one question, asked in one way.
        Some(key) => (format!("key {key}"), key > 0),
        None => (format!("{call} {}", "so ".repeat(plan.words)), plan.stream),
    };
    let body = format!(r#"{{"model":"m","stream":{stream},"messages":[{{"role":"user","content":"{words}"}}]}}"#);
    let called = Called {
        call,
        read: !plan.opaque,
        stream,
        priority: plan.priority.unwrap_or(1),
        patience: plan.patience.map(|patience| patience * 1000),
        retries: plan.retries,
        no_hedge: plan.no_hedge,
        no_fallback: plan.no_fallback,
        again: call != plan.call,
        key: plan.key.filter(|_| !plan.opaque).map(|key| key.to_string()),
        slow: plan.slow * 1000,
        body: digest(body.as_bytes()),
    };
    let mut request = Request::post(if plan.opaque { "/v1/audio/speech" } else { "/v1/chat/completions" })
        .header("content-type", "application/json")
        .header(CALL, call);
    let options = [
        (
            "x-outrigger-priority",
            plan.priority.map(|priority| Priority::ALL[usize::from(priority)].as_str().to_owned()),
        ),
        ("x-outrigger-timeout", plan.patience.map(|patience| format!("{patience}ms"))),
        ("x-outrigger-retries", plan.retries.map(|retries| retries.to_string())),
        ("x-outrigger-hedge", plan.no_hedge.then(|| "off".to_owned())),
        ("x-outrigger-fallback", plan.no_fallback.then(|| "off".to_owned())),
        ("idempotency-key", called.key.clone()),
        ("x-stainless-retry-count", called.again.then(|| "1".to_owned())),
    ];
    for (name, value) in options {
        if let Some(value) = value {
            request = request.header(name, value);
        }
    }
    (called, request.body(Body::from(body)).expect("a request"))
}

/// Says whether the client has what it wanted, or wants nothing more.
async fn one_call(recorder: &Arc<Recorder>, gateway: &Current, plan: &Plan, call: u32) -> bool {
    let (called, request) = request(plan, call);
    recorder.tell(What::Called(called));
    let mut talk = Box::pin(talk(recorder, gateway, plan, call, request));
    let patience = match plan.leave {
        Some(Leave::After(millis)) => Duration::from_millis(millis),
        _ => Duration::from_secs(86_400),
    };
    tokio::select! {
        biased;
        satisfied = &mut talk => satisfied,
        () = clock::sleep(patience) => {
            recorder.tell(What::Left { call });
            // Here its connection closes.
            drop(talk);
            true
        }
    }
}

async fn talk(recorder: &Recorder, gateway: &Current, plan: &Plan, call: u32, request: Request<Body>) -> bool {
    let response: Response = match gateway.data().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let id = header("x-outrigger-id").to_owned();
    recorder.name(&id, call);
    let status = response.status().as_u16();
    recorder.tell(What::Head {
        call,
        status,
        outcome: header("x-outrigger-outcome").to_owned(),
        sends: header("x-outrigger-attempts").parse().unwrap_or(0),
    });
    if matches!(plan.leave, Some(Leave::AtHead)) {
        recorder.tell(What::Left { call });
        return true;
    }
    let mut body = response.into_body();
    let mut pieces = 0;
    let broken = loop {
        match body.frame().await {
            None => break false,
            Some(Err(_)) => break true,
            Some(Ok(frame)) => {
                let text = String::from_utf8_lossy(frame.data_ref().expect("no trailers"));
                // The only thing that comes of the wall clock.
                let text = text.replace(&id, "ID");
                recorder.tell(What::Bytes { call, text });
            }
        }
        pieces += 1;
        if matches!(plan.leave, Some(Leave::AtPiece(last)) if last == pieces) {
            recorder.tell(What::Left { call });
            return true;
        }
        if plan.slow > 0 {
            clock::sleep(Duration::from_millis(plan.slow)).await; // paces the load, not a wait
        }
    };
    drop(body);
    recorder.tell(What::Closed { call, broken });
    status < 400
}
