//! `outrigger demo`: a bad day for two model servers, the same calls made direct and through a gateway, side by side; or,
//! with `--scenario`, a game day (see `game`).
//!
//! Everything runs in this process, on free ports of the loopback address, without a key. Every number shown is of this
//! run.

mod client;
mod game;
mod show;
mod story;
mod tally;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum as _;
use serde_json::json;
use tokio::sync::mpsc;

use super::{DemoArgs, output};
use crate::app::{self, Running};
use crate::clock;
use crate::config;
use crate::mock::{self, Mock, Scenario};
use client::{Ask, Told};
pub use game::script::Name;
use show::Show;
use story::ACTS;
use tally::Tally;

/// Calls per second on each way.
const RATE: u64 = 12;
/// How often the table is drawn on a terminal, and a line is written anywhere else.
const FRAME: Duration = Duration::from_millis(500);
const LINE: Duration = Duration::from_secs(2);

/// Runs the demo. Ends after the story with `once`, else serves until it is stopped. Says whether every goal of the
/// scenario was met; the bad day has none.
///
/// # Errors
/// A port cannot be had.
pub async fn run(args: &DemoArgs) -> anyhow::Result<bool> {
    let &DemoArgs { scenario, seconds, seed, once, json } = args;
    match game::script::script(scenario) {
        Some(script) => game::run(script, seconds, seed, once, json).await,
        None => bad_day(seconds, seed, once, json).await.map(|()| true),
    }
}

/// The name of a scenario, as it is given on the command line.
fn name(scenario: Name) -> String {
    scenario.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

async fn bad_day(seconds: u64, seed: u64, once: bool, as_json: bool) -> anyhow::Result<()> {
    let total = Duration::from_secs(seconds.max(1));
    let north = start_mock(seed, "").await?;
    let south = start_mock(seed, story::SECOND).await?;
    let gateway = gateway(&north, &south).await?;
    let mut show = Show::new(as_json);
    show.say(&format!(
        "Two model servers are about to have a bad day ({seconds} s), the first a worse one. Every call is made twice:\n\
         direct to the first server, and through Outrigger, which knows both.\n"
    ));
    let (direct, through) = tell(&north, &gateway, seed, total, &mut show).await?;
    show.end(total, &direct, &through, seed);
    if as_json {
        output::data(&format!("{}\n", result(&direct, &through, seed, seconds)));
    }
    if !once {
        let words = "The gateway goes on serving, and the first server goes on having bad moments. Try it:";
        show.say(&retold(&gateway, words));
        let mut ended = std::pin::pin!(tokio::signal::ctrl_c());
        tokio::select! {
            _ = &mut ended => {}
            () = cycle(&north, seed) => {}
        }
    }
    gateway.drain(std::future::ready(())).await;
    north.stop().await;
    south.stop().await;
    Ok(())
}

/// The story from its first act to its last.
async fn tell(
    north: &mock::Running,
    gateway: &Running,
    seed: u64,
    total: Duration,
    show: &mut Show,
) -> anyhow::Result<(Tally, Tally)> {
    let http = http()?;
    let (direct_url, through_url) = (north.base_url(), format!("http://{}/v1", gateway.data()));
    let (results, mut told) = mpsc::unbounded_channel::<(bool, Told)>();
    let (mut direct, mut through) = (Tally::default(), Tally::default());
    let started = clock::now();
    let (mut act, mut number, mut drawn) = (usize::MAX, 0u64, started);
    let pace = if std::io::IsTerminal::is_terminal(&std::io::stderr()) { FRAME } else { LINE };
    while clock::now() - started < total {
        let elapsed = clock::now() - started;
        let now_playing = story::act_at(elapsed, total);
        if now_playing != act {
            act = now_playing;
            play(north, seed, act).await?;
            show.frame(act, elapsed, total, &direct, &through);
        }
        // Both ways get the same call at the same moment; every other one is a stream.
        for (is_through, url) in [(false, direct_url.clone()), (true, through_url.clone())] {
            let (http, results) = (Arc::clone(&http), results.clone());
            tokio::spawn(async move {
                let told = client::call(&http, &url, Ask::plain(number)).await;
                // The demo may be over already.
                drop(results.send((is_through, told)));
            });
        }
        number += 1;
        clock::sleep_until(started + Duration::from_millis(number * 1000 / RATE)).await;
        while let Ok((is_through, told)) = told.try_recv() {
            if is_through { through.add(&told) } else { direct.add(&told) }
        }
        if clock::now() - drawn >= pace {
            drawn = clock::now();
            show.frame(act, clock::now() - started, total, &direct, &through);
        }
    }
    drop(results);
    while let Some((is_through, told)) = told.recv().await {
        if is_through { through.add(&told) } else { direct.add(&told) }
    }
    Ok((direct, through))
}

/// Sets the stage for an act.
async fn play(north: &mock::Running, seed: u64, act: usize) -> anyhow::Result<()> {
    let Some(act) = ACTS.get(act) else { return Ok(()) };
    north.set_scenario(parse(seed, act.rules)?);
    if act.down {
        north.down().await;
    } else {
        north.up().await;
    }
    Ok(())
}

/// After the story: a server that is bad at times, so that a person has something to try.
async fn cycle(north: &mock::Running, seed: u64) {
    loop {
        for act in 0..ACTS.len() {
            if play(north, seed, act).await.is_err() {
                return;
            }
            clock::sleep(Duration::from_secs(20)).await;
        }
    }
}

fn parse(seed: u64, rules: &str) -> anyhow::Result<Scenario> {
    Scenario::parse(&story::scenario(seed, rules)).map_err(|error| anyhow::anyhow!("the demo's own scenario: {error}"))
}

async fn start_mock(seed: u64, rules: &str) -> anyhow::Result<mock::Running> {
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    Mock::start(any, parse(seed, rules)?).await.context("cannot start a model server")
}

async fn gateway(north: &mock::Running, south: &mock::Running) -> anyhow::Result<Running> {
    let file = format!(
        "version: 1\n\
         server: {{ listen: 127.0.0.1:0 }}\n\
         admin: {{ listen: 127.0.0.1:0 }}\n\
         endpoints:\n\
         - {{ name: north, url: \"{}\" }}\n\
         - {{ name: south, url: \"{}\" }}\n\
         defaults:\n\
         \x20 timeouts: {{ first_token: 1s, headers: 2s, idle: 3s, total: 9s }}\n\
         \x20 retry: {{ attempts: 2 }}\n\
         routes:\n\
         - {{ name: demo, targets: [north, south] }}\n",
        north.base_url(),
        south.base_url(),
    );
    let loaded = config::from_text(Path::new("demo"), &file, &HashMap::new(), &config::Overrides::default())
        .map_err(|report| anyhow::anyhow!("the demo's own config: {}", report.render(false)))?;
    app::start(loaded.settings).await
}

fn result(direct: &Tally, through: &Tally, seed: u64, seconds: u64) -> serde_json::Value {
    json!({
        "scenario": name(Name::BadDay), "direct": direct.json(), "outrigger": through.gateway_json(),
        "seed": seed, "seconds": seconds,
    })
}

/// What calls both ways.
fn http() -> anyhow::Result<Arc<reqwest::Client>> {
    Ok(Arc::new(reqwest::Client::builder().no_proxy().connect_timeout(Duration::from_secs(2)).build()?))
}

/// What there is to try after the story, after `words`.
fn retold(gateway: &Running, words: &str) -> String {
    let (data, admin) = (gateway.data(), gateway.admin());
    format!(
        "\n{words}\n\n  \
         curl -i http://{data}/v1/chat/completions -d '{{\"model\":\"demo\",\"messages\":[{{\"role\":\"user\",\"content\":\"hello\"}}]}}'\n  \
         curl -N http://{data}/v1/chat/completions -d '{{\"model\":\"demo\",\"stream\":true,\"messages\":[]}}'\n  \
         curl -s http://{admin}/metrics | grep outrigger_calls_total\n  \
         export OPENAI_BASE_URL=http://{data}/v1\n\nCtrl-C ends it."
    )
}
