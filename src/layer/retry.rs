//! The one loop. Starts, races and drops sends as the plan says; decides nothing itself.
//!
//! Invariant: whatever ends it (an answer, the end of the plan, the client leaving), every send it started is over or
//! owned by the answer it returns.

mod end;
mod fit;
mod hedging;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::FutureExt;
use tower::{Layer, Service};

use super::carry::Carried;
use super::race::{Finished, Progress, Race, Runner};
use super::rescue::Kin;
use super::state::{Asking, Breakers, Capabilities, Hedges, SharedBudget, Slots};
use super::{AttemptService, Health, Pending};
use crate::call::{
    Attempt, AttemptKind, AttemptReply, Call, CallError, CallRequest, Class, Failure, Fate, Lack, Milestone, Outcome,
    Reply, SendStage, SendStep, Signal, Sink, TrailEntry, Verdict,
};
use crate::clock;
use crate::policy::{Plan, RouteSettings, Step, Terms};
use fit::Fit;

/// What the loops of all calls of a route share.
#[derive(Clone)]
pub struct Around {
    /// The endpoints' names, as numbered in the settings.
    pub names: Arc<Vec<String>>,
    /// One per target of the route.
    pub budgets: Arc<Vec<Arc<SharedBudget>>>,
    /// Who is held back.
    pub breakers: Breakers,
    /// Of each endpoint, who else could go on with its answers.
    pub kin: Arc<Vec<Kin>>,
    /// Who is down, by its probes.
    pub health: Health,
    /// Who can serve what.
    pub capabilities: Capabilities,
    /// Who is late, and what may be done about it.
    pub hedges: Arc<Hedges>,
    /// How busy everybody is.
    pub slots: Slots,
    /// Who is told.
    pub sink: Arc<dyn Sink>,
}

/// What the loop knows of its route.
pub struct RetryLayer {
    number: usize,
    route: Arc<RouteSettings>,
    around: Around,
}

impl RetryLayer {
    /// `number` is the route's.
    pub fn new(number: usize, route: Arc<RouteSettings>, around: Around) -> Self {
        Self { number, route, around }
    }
}

impl<S> Layer<S> for RetryLayer
where
    S: Service<Attempt, Response = AttemptReply, Error = Failure> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    type Service = Looped;

    fn layer(&self, inner: S) -> Looped {
        Looped(Arc::new(Retry {
            inner: AttemptService::new(inner),
            number: self.number,
            route: Arc::clone(&self.route),
            around: self.around.clone(),
        }))
    }
}

/// See [`RetryLayer`]. Cloned for every call.
#[derive(Clone)]
pub struct Looped(Arc<Retry>);

struct Retry {
    inner: AttemptService,
    number: usize,
    route: Arc<RouteSettings>,
    around: Around,
}

impl Service<CallRequest> for Looped {
    type Response = Reply;
    type Error = CallError;
    type Future = Pending<Reply, CallError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: CallRequest) -> Self::Future {
        let retry = Arc::clone(&self.0);
        Box::pin(async move { retry.run(request).await })
    }
}

/// What happened while the loop waited.
enum Event {
    Finished(Box<Finished>),
    Reported(usize, Milestone),
    Woke,
}

/// What the loop remembers of a send, by its number.
struct Start {
    target: usize,
    kind: AttemptKind,
    at: Instant,
    /// Where it went out, and when.
    sent: Option<(usize, Instant)>,
    /// When it said its first word, if it is held back until its last.
    spoke: Option<Instant>,
    /// Why the call has moved on to this target.
    reason: Option<&'static str>,
    progress: Arc<Progress>,
}

/// One call in the loop.
struct Run<'a> {
    retry: &'a Retry,
    call: Arc<Call>,
    upload: Option<Carried>,
    plan: Plan<'a>,
    race: Race,
    starts: Vec<Start>,
    trail: Vec<TrailEntry>,
    first: Option<Failure>,
    /// What the last send failed with, in one word.
    left: Option<&'static str>,
    fit: Fit,
    /// The hedge that runs.
    hedged: Option<usize>,
}

impl Retry {
    async fn run(&self, request: CallRequest) -> Result<Reply, CallError> {
        let CallRequest { call, upload } = request;
        let terms = Terms {
            deadline: call.deadline,
            options: call.options,
            replayable: call.body.replayable(),
            streamed: call.stream,
            prompt_bytes: call.prompt_bytes,
        };
        let call = Arc::new(call);
        let mut run = Run {
            retry: self,
            fit: Fit::new(Arc::clone(&call)),
            call,
            upload: upload.map(Carried::new),
            plan: Plan::new(&self.route, terms).passing_over(self.around.health.down()),
            race: Race::default(),
            starts: Vec::new(),
            trail: Vec::new(),
            first: None,
            left: None,
            hedged: None,
        };
        run.look(clock::now());
        loop {
            let now = clock::now();
            let mut paid = false;
            let mut pay = |target: usize| {
                paid = run.retry.pay(target, now);
                paid
            };
            run.plan.see(run.shut(now));
            match run.plan.next(now, &mut pay) {
                // A target that was paid for is the one that is asked.
                Step::Start { target, kind } => run.start(target, kind, paid, now),
                Step::Hedge { target } => run.hedge(target, now),
                Step::Drop { attempt, class } => run.give_up(attempt, class, now),
                Step::Stop => return Err(run.stopped(now)),
                Step::Wait(until) => match run.wait(until).await {
                    Event::Finished(finished) => {
                        // What it reported in its last breath comes before its end.
                        while let Some((attempt, milestone)) = run.news() {
                            run.reported(attempt, milestone);
                        }
                        let Finished { attempt, kind, target, started, fate, result } = *finished;
                        match result {
                            Ok(reply) => {
                                return Ok(run.answered(attempt, Outcome::at(target, kind), started, fate, reply));
                            }
                            Err(failure) => run.failed(attempt, kind, started, failure),
                        }
                    }
                    Event::Reported(attempt, milestone) => run.reported(attempt, milestone),
                    Event::Woke => {}
                },
            }
        }
    }

    fn pay(&self, target: usize, now: Instant) -> bool {
        self.around.budgets.get(target).is_some_and(|budget| budget.withdraw(now))
    }
}

impl Run<'_> {
    fn asking(&self) -> Asking<'_> {
        Asking { route: self.retry.number, model: self.call.model.as_deref() }
    }

    /// Endpoints that their breakers hold back from this call, and until when.
    fn shut(&self, now: Instant) -> Vec<(usize, Instant)> {
        self.retry.around.breakers.shut(self.asking(), now)
    }

    fn start(&mut self, target: usize, kind: AttemptKind, paid: bool, now: Instant) {
        self.start_among(target, kind, paid, self.plan.passed_over().to_vec(), now);
    }

    /// Starts a send at whichever endpoint of the target is not among `unfit`.
    fn start_among(&mut self, target: usize, kind: AttemptKind, paid: bool, mut unfit: Vec<usize>, now: Instant) {
        let number = self.starts.len();
        unfit.extend(self.plan.barred(now));
        let step = SendStage::Started { kind, target, paid };
        self.retry.around.sink.emit(Signal::Send(SendStep { call: Arc::clone(&self.call), number, step }));
        let reason = (kind == AttemptKind::Fallback).then(|| self.why_onward(target, now));
        let progress = Arc::new(Progress::default());
        let fate = Arc::new(Fate::default());
        self.starts.push(Start {
            target,
            kind,
            at: now,
            sent: None,
            spoke: None,
            reason,
            progress: Arc::clone(&progress),
        });
        let attempt = Attempt {
            call: Arc::clone(&self.call),
            number,
            kind,
            route: Some(self.retry.number),
            target,
            endpoint: 0,
            used: self.plan.used(),
            unfit,
            place: None,
            upload: self.upload.as_mut().and_then(Carried::lend),
            continuation: None,
            report: progress,
            fate: Arc::clone(&fate),
        };
        let answer = Box::pin(self.retry.inner.clone().call(attempt));
        self.race.start(Runner { attempt: number, kind, target, started: now, fate, answer });
    }

    async fn wait(&mut self, until: Instant) -> Event {
        let mut alarm = std::pin::pin!(clock::sleep_until(until));
        poll_fn(|cx| {
            if let Some((attempt, milestone)) = self.news() {
                return Poll::Ready(Event::Reported(attempt, milestone));
            }
            if let Poll::Ready(finished) = self.race.poll_next(cx) {
                return Poll::Ready(Event::Finished(Box::new(finished)));
            }
            if let Some((attempt, milestone)) = self.news() {
                return Poll::Ready(Event::Reported(attempt, milestone));
            }
            alarm.as_mut().poll_unpin(cx).map(|()| Event::Woke)
        })
        .await
    }

    /// The next thing that a send told of itself.
    fn news(&self) -> Option<(usize, Milestone)> {
        self.starts.iter().enumerate().find_map(|(attempt, start)| Some((attempt, start.progress.take()?)))
    }

    fn reported(&mut self, attempt: usize, milestone: Milestone) {
        match milestone {
            Milestone::Dispatched(endpoint) => self.dispatched(attempt, endpoint, clock::now()),
            Milestone::Head => self.plan.head(attempt),
            Milestone::First => {
                self.plan.spoke(attempt);
                if let Some(start) = self.starts.get_mut(attempt) {
                    start.spoke = Some(clock::now());
                }
            }
        }
    }

    fn dispatched(&mut self, attempt: usize, endpoint: usize, now: Instant) {
        self.plan.dispatched(attempt, endpoint, now);
        let Some(start) = self.starts.get_mut(attempt) else { return };
        start.sent = Some((endpoint, now));
        self.call.standing.sent();
        let (target, kind, reason) = (start.target, start.kind, start.reason);
        self.may_be_late(attempt, target, now);
        if let Some(reason) = reason {
            self.retry.around.sink.emit(Signal::Fallback { route: self.retry.number, reason });
        }
        let pays = matches!(kind, AttemptKind::First | AttemptKind::Fallback);
        // A client's own repeat is traffic that repeats: it pays for nothing.
        if pays
            && !self.call.client_retry
            && let Some(budget) = self.retry.around.budgets.get(target)
        {
            budget.deposit(now);
        }
    }

    /// Why the targets before this one were left, in one word.
    fn why_onward(&self, target: usize, now: Instant) -> &'static str {
        let silent = self.race.runners().find_map(|runner| self.plan.standing(runner.attempt, now));
        let passed_over = || (0..target).find_map(|earlier| self.lack_of(earlier)).map(Lack::as_str);
        silent.map(Class::as_str).or(self.left).or_else(passed_over).unwrap_or(Class::BreakerOpen.as_str())
    }

    fn failed(&mut self, attempt: usize, kind: AttemptKind, started: Instant, mut failure: Failure) {
        let now = clock::now();
        self.lacking(attempt, &mut failure, now);
        self.hedging_failed(attempt, &failure);
        self.left = Some(failure.lacks.map_or(failure.class.as_str(), Lack::as_str));
        let sent = self.starts.get(attempt).is_some_and(|start| start.sent.is_some());
        self.plan.see(self.shut(now));
        self.plan.failed(attempt, &failure, now, clock::sample());
        // What a breaker did not let through was no send, nor was a twin for which there was no place: they are no cause
        // of anything.
        if sent || (kind != AttemptKind::Hedge && failure.class != Class::BreakerOpen) {
            self.note(attempt, kind, failure.class, started, now);
            self.first.get_or_insert(failure);
        }
    }

    fn give_up(&mut self, attempt: usize, class: Class, now: Instant) {
        let Some(runner) = self.race.drop_one(attempt, Verdict::Failed(class)) else { return };
        let failure = Failure::new(class, "no sign of life in time");
        // The endpoint's breaker hears of it when the send is dropped, so it goes first.
        let (kind, started) = (runner.kind, runner.started);
        drop(runner);
        self.hedging_gave_up(attempt, now);
        self.hedging_failed(attempt, &failure);
        self.left = Some(class.as_str());
        self.note(attempt, kind, class, started, now);
        self.plan.see(self.shut(now));
        self.plan.failed(attempt, &failure, now, clock::sample());
        self.first.get_or_insert(failure);
    }

    fn note(&mut self, attempt: usize, kind: AttemptKind, class: Class, started: Instant, now: Instant) {
        let took = now.saturating_duration_since(started);
        self.trail.push(TrailEntry { endpoint: self.name(attempt), kind, class, ms: took.as_millis() as u64 });
    }

    /// The endpoint's name; of a send that never went out, the names of those it could have gone to.
    fn name(&self, attempt: usize) -> String {
        let Some(start) = self.starts.get(attempt) else { return String::new() };
        let name = |endpoint: &usize| self.retry.around.names.get(*endpoint).map(String::as_str);
        match (start.sent, self.retry.route.targets.get(start.target)) {
            (Some((endpoint, _)), _) => name(&endpoint).unwrap_or_default().to_owned(),
            (None, Some(target)) => target.endpoints.iter().filter_map(name).collect::<Vec<_>>().join("+"),
            (None, None) => String::new(),
        }
    }

    /// Ends whatever still runs: a send that was silent beyond its patience failed, any other is merely not needed.
    fn settle(&mut self, now: Instant, otherwise: Option<Class>) {
        let running: Vec<usize> = self.race.runners().map(|runner| runner.attempt).collect();
        for attempt in running {
            let class = self.plan.standing(attempt, now).or(otherwise);
            let verdict = class.map_or(Verdict::Superseded, Verdict::Failed);
            if let (Some(runner), Some(class)) = (self.race.drop_one(attempt, verdict), class) {
                self.note(attempt, runner.kind, class, runner.started, now);
            }
        }
    }
}
