//! Ring two: the real stacks over a scripted leaf, under a clock that stands still until somebody waits.
//!
//! A scenario is a file in `tests/scenarios/`: what each endpoint does, what is called, what must come of it. A new
//! behaviour is a new file.

mod leaf;
mod script;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use http::{HeaderMap, Method};
use outrigger::call::{
    Asks, Call, CallRequest, Class, Options, Outcome, Payload, RequestBody, Signal, Sink, Surface, Verdict,
};
use outrigger::config::{AdminSettings, ClientKey, DrainSettings, LogFormat, LogSettings, ServerSettings, Settings};
use outrigger::policy::{Concurrency, Mode, QUEUE_WAIT, RouteSettings, Spread, Target, Timeouts};
use outrigger::transport::{Credential, EndpointSettings};
use outrigger::{clock, stack};
use tower::ServiceExt;

use leaf::Scripted;
use script::{CallSpec, Expect, Scenario};

/// Remembers every signal.
#[derive(Default)]
struct Recorder(Mutex<Vec<Signal>>);

impl Sink for Recorder {
    fn emit(&self, signal: Signal) {
        self.0.lock().unwrap().push(signal);
    }
}

#[test]
fn every_scenario_turns_out_as_written() {
    let mut failures = Vec::new();
    let mut seen = 0;
    let mut files: Vec<_> = std::fs::read_dir("tests/scenarios").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for path in files.iter().filter(|path| path.extension().is_some_and(|ending| ending == "yaml")) {
        seen += 1;
        let text = std::fs::read_to_string(path).unwrap();
        let scenario: Scenario = match serde_saphyr::from_str(&text) {
            Ok(scenario) => scenario,
            Err(error) => {
                failures.push(format!("{}: {error}", path.display()));
                continue;
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        for problem in runtime.block_on(run(&scenario)) {
            failures.push(format!("{} ({}): {problem}", path.display(), scenario.why));
        }
    }
    assert!(seen >= 15, "only {seen} scenarios found");
    assert!(failures.is_empty(), "{} of {seen} scenarios:\n{}", failures.len(), failures.join("\n"));
}

fn settings(scenario: &Scenario) -> Settings {
    let names: Vec<&String> = scenario.script.keys().collect();
    let number =
        |name: &String| names.iter().position(|known| *known == name).expect("a target names a scripted endpoint");
    let timeouts = Timeouts {
        headers: scenario.timeouts.headers.unwrap_or(Timeouts::default().headers),
        first_token: scenario.timeouts.first_token.unwrap_or(Timeouts::default().first_token),
        idle: scenario.timeouts.idle.unwrap_or(Timeouts::default().idle),
        total: scenario.timeouts.total.unwrap_or(Timeouts::default().total),
        ..Timeouts::default()
    };
    let endpoint = |name: &&String| EndpointSettings {
        name: (*name).clone(),
        url: format!("http://{name}/v1"),
        credential: Credential::None,
        forward_client_key: false,
        dialect: Default::default(),
        model: None,
        window: scenario.abilities.get(*name).and_then(|abilities| abilities.window),
        supports: scenario.supports(name),
        timeouts,
        concurrency: match scenario.abilities.get(*name).and_then(|abilities| abilities.slots) {
            Some(max) => Concurrency { mode: Mode::Fixed, max },
            None => scenario.concurrency(),
        },
        breaker: scenario.breaker(),
        connections: Default::default(),
        probe: None,
    };
    let key = |(name, limits): (&String, &script::Limits)| ClientKey {
        name: name.clone(),
        sha256: [0; 32],
        priority: Default::default(),
        limits: (*limits).into(),
    };
    let by = if scenario.by_prefix { Spread::Prefix } else { Spread::Load };
    let targets = scenario.targets.iter().map(|pool| Target { endpoints: pool.iter().map(number).collect(), by });
    Settings {
        server: ServerSettings {
            listen: "127.0.0.1:0".parse().unwrap(),
            keys: scenario.limits.iter().map(key).collect(),
            ..ServerSettings::default()
        },
        admin: AdminSettings { listen: "127.0.0.1:0".parse().unwrap() },
        drain: DrainSettings { delay: Duration::ZERO, timeout: Duration::ZERO },
        log: LogSettings { format: LogFormat::Json, level: "error".into() },
        state_dir: None,
        endpoints: names.iter().map(endpoint).collect(),
        routes: (0..scenario.routes)
            .map(|number| RouteSettings {
                name: if number == 0 { "chat".into() } else { format!("chat-{number}") },
                model: "*".into(),
                targets: targets.clone().collect(),
                timeouts,
                retry: scenario.retry(),
                max_sends: scenario.max_sends,
                queue_wait: scenario.queue_wait.unwrap_or(QUEUE_WAIT),
                streams: scenario.streams(),
                hedge: scenario.hedge(),
            })
            .collect(),
    }
}

fn call(spec: &CallSpec) -> Call {
    let now = clock::now();
    Call {
        id: clock::new_id(),
        surface: Surface::Chat,
        method: Method::POST,
        path: "/chat/completions".into(),
        headers: HeaderMap::new(),
        body: RequestBody::Whole(match (spec.words, spec.image) {
            (0, false) => vec![b'x'; spec.bytes].into(),
            (0, true) => r#"{"content":[{"type":"image_url"}]}"#.into(),
            (words, _) => " word".repeat(words).into(),
        }),
        model: Some(spec.model.clone()),
        model_span: None,
        stream: spec.stream,
        include_usage: false,
        choices: 1,
        max_tokens: spec.max_tokens,
        prompt_bytes: spec.bytes,
        asks: Asks { tools: spec.tools, ..Asks::default() },
        prefix: spec.prefix,
        started: now,
        client_patience: spec.timeout,
        deadline: now,
        options: Options {
            retries: spec.retries,
            no_hedge: spec.no_hedge,
            no_fallback: spec.no_fallback,
            priority: spec.priority,
        },
        priority: spec.priority.unwrap_or_default(),
        client_retry: spec.client_retry,
        traceparent: String::new(),
        key_name: spec.key.as_deref().map(Arc::from),
        idempotency_key: spec.idempotency_key.as_deref().map(|key| key.parse().unwrap()),
        standing: Arc::default(),
    }
}

/// How one call ended, as its client sees it.
#[derive(Debug)]
struct Seen {
    outcome: String,
    class: Option<Class>,
    endpoint: Option<String>,
    sends: u32,
    trail: Vec<String>,
    took: Duration,
    events: u32,
    retry_after: Option<Duration>,
}

async fn run(scenario: &Scenario) -> Vec<String> {
    let settings = settings(scenario);
    let recorder = Arc::new(Recorder::default());
    let sink: Arc<dyn Sink> = Arc::clone(&recorder) as Arc<dyn Sink>;
    let scripted = Scripted::all(&scenario.script);
    let stacks = stack::build(&settings, scripted.clone(), &mut stack::Carried::default(), &sink);
    let mut problems = Vec::new();
    let mut together = FuturesUnordered::new();
    for (number, (spec, expect)) in scenario.calls.iter().zip(&scenario.expect).enumerate() {
        let make = |turn: u32| {
            let stack = stacks.calls[spec.route].clone();
            async move {
                clock::sleep(spec.pause + spec.every * turn).await; // paces the load, not a wait
                let future = one(stack, call(spec), clock::now());
                let seen = match spec.leave {
                    Some(after) => tokio::time::timeout(after, future).await.ok(),
                    None => Some(future.await),
                };
                let found = expect.compare(seen.as_ref());
                (number, found.into_iter().map(|found| format!("call {number}: {found}")).collect::<Vec<_>>())
            }
        };
        let mut ended = Vec::new();
        if scenario.together {
            together.extend((0..spec.times).map(make));
        } else if spec.at_once {
            ended = join_all((0..spec.times).map(|_| make(0))).await;
        } else {
            for _ in 0..spec.times {
                ended.push(make(0).await);
            }
        }
        problems.extend(ended.into_iter().flat_map(|(_, found)| found));
        let is = |at: usize| stacks.breakers.view(at, clock::now())[0].state.as_str();
        for (at, name) in scenario.script.keys().enumerate() {
            if let Some(want) = expect.breakers.get(name).filter(|want| *want != is(at)) {
                problems.push(format!("call {number}: the breaker of {name} is {}, not {want}", is(at)));
            }
        }
    }
    let mut odd = vec![0; scenario.calls.len()];
    while let Some((number, found)) = together.next().await {
        odd[number] += u32::from(!found.is_empty());
        if scenario.expect[number].share.is_none() {
            problems.extend(found);
        }
    }
    for (number, (spec, expect)) in scenario.calls.iter().zip(&scenario.expect).enumerate() {
        let share = 1.0 - f64::from(odd[number]) / f64::from(spec.times);
        if expect.share.is_some_and(|[least, most]| !(least..=most).contains(&share)) {
            problems.push(format!("call {number}: {share} of them turned out so, not {:?}", expect.share));
        }
    }
    problems.extend(invariants(scenario, &recorder, &scripted, &stacks, settings.endpoints.len()));
    problems
}

async fn one(stack: outrigger::layer::CallService, call: Call, started: Instant) -> Seen {
    match stack.oneshot(CallRequest { call, upload: None }).await {
        Ok(reply) => {
            let trail = reply.trail.iter().map(|entry| format!("{} {}", entry.endpoint, entry.class)).collect();
            let (mut class, mut events) = (None, 0);
            if let Payload::Events(mut pieces) = reply.payload {
                while let Some(piece) = pieces.next().await {
                    match piece {
                        Ok(piece) => events += piece.events,
                        Err(failure) => class = Some(failure.class),
                    }
                }
            }
            Seen {
                outcome: reply.outcome.as_str().into(),
                class,
                endpoint: Some(reply.endpoint),
                sends: reply.sends,
                trail,
                took: clock::now() - started,
                events,
                retry_after: None,
            }
        }
        Err(error) => Seen {
            outcome: Outcome::Failed.as_str().into(),
            class: Some(error.class),
            endpoint: None,
            sends: error.sends,
            trail: error.trail.iter().map(|entry| format!("{} {}", entry.endpoint, entry.class)).collect(),
            took: clock::now() - started,
            events: 0,
            retry_after: error.retry_after,
        },
    }
}

impl Expect {
    fn compare(&self, seen: Option<&Seen>) -> Vec<String> {
        let Some(seen) = seen else {
            return if matches!(self.outcome.as_str(), "left" | "any") {
                Vec::new()
            } else {
                vec!["the client left".into()]
            };
        };
        let mut problems = Vec::new();
        let mut check = |holds: bool, what: &str| {
            if !holds {
                problems.push(format!("{what}: expected {self:?}, saw {seen:?}"));
            }
        };
        let any = |word: &str| word == "any";
        check(any(&self.outcome) || self.outcome == seen.outcome, "outcome");
        let class = seen.class.map(Class::as_str);
        check(self.class.as_deref().is_some_and(any) || self.class.as_deref() == class, "class");
        check(self.endpoint.is_none() || self.endpoint == seen.endpoint, "endpoint");
        check(self.sends.is_none_or(|sends| sends == seen.sends), "sends");
        check(self.trail.as_ref().is_none_or(|trail| *trail == seen.trail), "trail");
        check(self.events.is_none_or(|events| events == seen.events), "events");
        check(self.retry_after.is_none() || self.retry_after == seen.retry_after, "retry_after");
        let [at_least, at_most] = self.took.unwrap_or([Duration::ZERO, Duration::MAX]);
        check((at_least..=at_most).contains(&seen.took), "took");
        problems
    }
}

/// What holds after every scenario, whatever it was about.
fn invariants(
    scenario: &Scenario,
    recorder: &Recorder,
    scripted: &[Scripted],
    stacks: &stack::Stacks,
    endpoints: usize,
) -> Vec<String> {
    let mut problems = Vec::new();
    let slots = &stacks.slots;
    if stacks.room.used() != 0 {
        problems.push(format!("{} bytes are still held", stacks.room.used()));
    }
    let signals = recorder.0.lock().unwrap();
    let calls: u32 = scenario.calls.iter().map(|call| call.times).sum();
    let ended = signals.iter().filter(|signal| matches!(signal, Signal::CallEnded(_))).count();
    if ended != calls as usize {
        problems.push(format!("{calls} calls, {ended} outcomes"));
    }
    let verdicts: Vec<(usize, Verdict)> = signals
        .iter()
        .filter_map(|signal| match signal {
            Signal::AttemptEnded(end) => Some((end.endpoint, end.verdict)),
            _ => None,
        })
        .collect();
    let mut told: BTreeMap<String, u32> = BTreeMap::new();
    for (endpoint, verdict) in &verdicts {
        *told.entry(format!("{} {}", scripted[*endpoint].name(), verdict.as_str())).or_default() += 1;
    }
    for endpoint in scripted {
        let most = scenario.asked_at_most.get(endpoint.name()).copied().unwrap_or(u32::MAX);
        if endpoint.asked() > most {
            problems.push(format!("{} was asked {} times, not {most} at most", endpoint.name(), endpoint.asked()));
        }
    }
    let asked: u32 = scripted.iter().map(Scripted::asked).sum();
    if verdicts.len() as u32 != asked {
        problems.push(format!("{asked} sends, {} verdicts", verdicts.len()));
    }
    if let Some(expected) = &scenario.attempts
        && *expected != told
    {
        problems.push(format!("attempts: expected {expected:?}, saw {told:?}"));
    }
    for endpoint in 0..endpoints {
        let (_, in_use) = slots.at(endpoint);
        if in_use != 0 {
            problems.push(format!("endpoint {endpoint} still holds {in_use} sends"));
        }
    }
    if slots.waiting_of(0) != 0 {
        problems.push(format!("{} sends still wait", slots.waiting_of(0)));
    }
    for (what, expected) in [("hedges", &scenario.hedges), ("fallbacks", &scenario.fallbacks)] {
        let mut told: BTreeMap<String, u32> = BTreeMap::new();
        for signal in signals.iter() {
            let word = match signal {
                Signal::Hedge { outcome, .. } if what == "hedges" => outcome,
                Signal::Fallback { reason, .. } if what == "fallbacks" => reason,
                _ => continue,
            };
            *told.entry((*word).to_owned()).or_default() += 1;
        }
        if let Some(expected) = expected
            && *expected != told
        {
            problems.push(format!("{what}: expected {expected:?}, saw {told:?}"));
        }
    }
    let mut repeated: BTreeMap<String, u32> = BTreeMap::new();
    for signal in signals.iter() {
        if let Signal::Repeated { result, .. } = signal {
            *repeated.entry(result.as_str().into()).or_default() += 1;
        }
    }
    if let Some(expected) = &scenario.repeated
        && *expected != repeated
    {
        problems.push(format!("repeated: expected {expected:?}, saw {repeated:?}"));
    }
    let mut shed: BTreeMap<String, u32> = BTreeMap::new();
    for signal in signals.iter() {
        if let Signal::Shed { reason, priority, .. } = signal {
            *shed.entry(format!("{reason} {}", priority.as_str())).or_default() += 1;
        }
    }
    if let Some(expected) = &scenario.shed
        && *expected != shed
    {
        problems.push(format!("shed: expected {expected:?}, saw {shed:?}"));
    }
    problems
}
