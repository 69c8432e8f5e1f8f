//! A game day: one misfortune, rehearsed. The same calls are made directly and through a gateway while servers go through
//! it, and what comes of them is held against stated goals.
//!
//! Everything runs in this process, on free ports of the loopback address. Every number shown is of this run.

mod goals;
mod record;
pub mod script;
mod show;
mod stage;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::client::{self, Ask};
use super::show::{Show, short};
use super::tally::Tally;
use super::{output, retold};
use crate::clock;
use record::{Record, Seen};
use script::{Rate, SPENT, Script};
use show::End;
use stage::Stage;

/// How often a line is written.
const LINE: Duration = Duration::from_secs(2);
/// Calls that each client of the measurement makes, one after the other.
const MEASURED: u64 = 8;

/// Plays one scenario. Says whether all its goals were met.
///
/// # Errors
/// A port cannot be had.
pub async fn run(script: &'static Script, seconds: u64, seed: u64, once: bool, as_json: bool) -> anyhow::Result<bool> {
    let total = Duration::from_secs(seconds.max(1));
    let mut stage = Stage::set(script, seed).await?;
    let show = Show::new(as_json);
    show.say(&format!(
        "A game day of {seconds} s: two model servers {}.\n\
         Every call is made twice: direct to a server that goes through the same as the first, and through Outrigger.\n",
        script.what
    ));
    let http = super::http()?;
    let capacity = match script.rate {
        Rate::PerSecond(_) => None,
        Rate::Capacity => {
            // The first round finds everything cold.
            let cold = measure(&http, &stage, script).await;
            Some(measure(&http, &stage, script).await.max(cold))
        }
    };
    if let Some(capacity) = capacity {
        show.say(&format!("        measured: the server can serve {capacity:.1} calls a second"));
    }
    let (mut record, ways) = play(script, &mut stage, &http, total, capacity, &show).await?;
    if let Some(before) = record.capacity {
        // A busy machine measures too little, which would make the goal too easy: the best round counts.
        record.capacity = Some(measure(&http, &stage, script).await.max(before));
    }
    let goals = goals::goals(script.name, &record);
    let end = End { script, record: &record, goals: &goals, ways: [&ways[0], &ways[1]], seconds, seed };
    show.say(&end.text());
    if as_json {
        output::data(&format!("{}\n", end.json()));
    }
    if !once {
        show.say(&retold(&stage.gateway, "The gateway goes on serving, and both servers are well. Try it:"));
        let _ = tokio::signal::ctrl_c().await;
    }
    stage.strike().await;
    Ok(goals.iter().all(|goal| goal.met))
}

/// Calls a second that the server can serve: as many clients as it has places, each making one call after the other.
async fn measure(http: &Arc<reqwest::Client>, stage: &Stage, script: &Script) -> f64 {
    let [direct, _] = stage.urls();
    let mut clients = JoinSet::new();
    for client in 0..script.slots.unwrap_or(1) as u64 {
        let (http, direct) = (Arc::clone(http), direct.clone());
        clients.spawn(async move {
            let started = clock::now();
            for call in 0..MEASURED {
                client::call(&http, &direct, Ask::plain(client * MEASURED + call)).await;
            }
            MEASURED as f64 / (clock::now() - started).as_secs_f64()
        });
    }
    clients.join_all().await.iter().sum()
}

/// One story, as it goes.
struct Story<'a> {
    script: &'static Script,
    stage: &'a mut Stage,
    times: Vec<(Duration, Duration)>,
    started: Instant,
    phase: Option<usize>,
    /// What the first server had been asked when its quota was spent, and when it was paid.
    spent: [Option<u64>; 2],
}

impl Story<'_> {
    /// Sets the servers to what they are to be now. Returns the phase, and whether it has just begun.
    async fn turn(&mut self, elapsed: Duration) -> anyhow::Result<(usize, bool)> {
        let now = self.times.iter().position(|(_, to)| elapsed < *to).unwrap_or(self.times.len() - 1);
        let phase = &self.script.phases[now];
        let begins = self.phase != Some(now);
        if begins {
            if self.phase.is_some_and(|was| self.script.phases[was].title == SPENT) {
                self.spent[1] = Some(self.stage.asked());
            }
            self.phase = Some(now);
            self.stage.rules(phase.servers)?;
            if phase.title == SPENT {
                self.spent[0] = Some(self.stage.asked());
            }
        }
        self.stage.networks(phase.servers, elapsed.saturating_sub(self.times[now].0)).await;
        Ok((now, begins))
    }
}

/// The story from its first phase to its last: every call, and the sums of both ways.
async fn play(
    script: &'static Script,
    stage: &mut Stage,
    http: &Arc<reqwest::Client>,
    total: Duration,
    capacity: Option<f64>,
    show: &Show,
) -> anyhow::Result<(Record, [Tally; 2])> {
    let urls = stage.urls();
    let rate = match script.rate {
        Rate::PerSecond(rate) => rate,
        Rate::Capacity => capacity.unwrap_or(1.0),
    };
    let (results, mut told) = mpsc::unbounded_channel::<Seen>();
    let (mut calls, mut ways) = (Vec::new(), [Tally::default(), Tally::default()]);
    let started = clock::now();
    let mut story = Story { script, stage, times: script.times(total), started, phase: None, spent: [None; 2] };
    let (mut number, mut next, mut said) = (0, Duration::ZERO, Duration::ZERO);
    while clock::now() - started < total {
        let elapsed = clock::now() - started;
        let (phase, begins) = story.turn(elapsed).await?;
        if begins {
            show.say(&format!("{:>4.0} s  {}", elapsed.as_secs_f64(), script.phases[phase].title));
        }
        for (through, url) in [false, true].into_iter().zip(&urls) {
            story.call(http, url, Ask::of(number, script.priorities), phase, through, &results);
        }
        number += 1;
        next += Duration::from_secs_f64(1.0 / (rate * script.phases[phase].load));
        clock::sleep_until(started + next).await;
        while let Ok(seen) = told.try_recv() {
            ways[usize::from(seen.through)].add(&seen.told);
            calls.push(seen);
        }
        if next - said >= LINE {
            said = next;
            show.say(&format!("        direct {}   through Outrigger {}", short(&ways[0]), short(&ways[1])));
        }
    }
    drop(results);
    while let Some(seen) = told.recv().await {
        ways[usize::from(seen.through)].add(&seen.told);
        calls.push(seen);
    }
    let spent = story.spent[0].map(|from| story.spent[1].unwrap_or_else(|| story.stage.asked()) - from);
    let wrong = |phase: &script::Phase| phase.fault;
    let first = script.phases.iter().position(wrong).unwrap_or(0);
    let last = script.phases.iter().rposition(wrong).map_or(0, |last| last + 1);
    Ok((Record { calls, times: story.times, faults: first..last, spent, capacity }, ways))
}

impl Story<'_> {
    fn call(
        &self,
        http: &Arc<reqwest::Client>,
        url: &str,
        ask: Ask,
        phase: usize,
        through: bool,
        results: &mpsc::UnboundedSender<Seen>,
    ) {
        let (http, url, results) = (Arc::clone(http), url.to_owned(), results.clone());
        let (story, began) = (self.started, clock::now());
        tokio::spawn(async move {
            let priority = ask.priority;
            let told = client::call(&http, &url, ask).await;
            let (at, took) = (began - story, clock::now() - began);
            // The demo may be over already.
            drop(results.send(Seen { at, took, through, phase, priority, told }));
        });
    }
}
