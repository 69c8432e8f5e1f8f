//! What a call costs in Outrigger, as a multiple of what it costs in the least proxy that can be built on the same
//! parts.
//!
//! The server, both proxies and the caller each have a thread with a runtime of its own, in one process. First comes
//! a table of CPU time per call and of the ratios, from rounds in which all take turns, so that noise meets them
//! alike; then Criterion's wall-clock figures of the same calls. `-- table` prints the table alone. Nothing here
//! asserts a speed.
//!
//! Everything runs on one core, so that no run is lucky with where the kernel puts its threads.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a bench that cannot run is to say so at once"
)]

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod client;
mod cpu;
mod proxies;
mod upstream;

use std::time::{Duration, Instant};

use client::{Caller, Case};
use cpu::Server;
use criterion::Criterion;
use tokio::runtime::Runtime;
use upstream::Script;

const ROUNDS: usize = 21;
/// Calls before each measurement: connections are opened, caches warm.
const WARM: u32 = 5;

/// One way from the caller to the server.
struct Path {
    name: &'static str,
    server: Server,
    caller: Caller,
}

/// What one round of calls took, per call.
#[derive(Clone, Copy)]
struct Sample {
    cpu: Duration,
    wall: Duration,
}

fn main() {
    cpu::on_one_core();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let measured = args.iter().any(|arg| arg == "--bench");
    let filtered = args.iter().any(|arg| !arg.starts_with('-') && arg != "table");

    let script = Script::new();
    let sent = std::sync::Arc::clone(&script);
    let upstream = Server::start("upstream", move || upstream::serve(sent));
    let at = upstream.at;
    let floor = Server::start("floor", move || proxies::floor(at));
    let outrigger = Server::start("outrigger", move || proxies::outrigger(at));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut paths = [("direct", upstream), ("floor", floor), ("outrigger", outrigger)].map(|(name, server)| {
        let caller = runtime.block_on(Caller::connect(server.at, script.clone()));
        Path { name, server, caller }
    });

    if !filtered {
        table(&runtime, &mut paths, if measured { ROUNDS } else { 1 });
    }
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .sample_size(20)
        .configure_from_args();
    for case in Case::all() {
        let mut group = criterion.benchmark_group(case.name);
        for path in &mut paths {
            group.bench_function(path.name, |bencher| {
                bencher.iter(|| runtime.block_on(path.caller.call(&case)));
            });
        }
        group.finish();
    }
    criterion.final_summary();
}

/// Measures every case over every path in turns and prints what came out.
fn table(runtime: &Runtime, paths: &mut [Path; 3], rounds: usize) {
    println!("median of {rounds} rounds; CPU is that of the thread that answers the caller\n");
    println!("{:<10} {:<10} {:>12} {:>13}", "case", "path", "CPU us/call", "wall us/call");
    let mut ratios = Vec::new();
    for case in Case::all() {
        let mut samples = [const { Vec::new() }; 3];
        for round in 0..rounds {
            // Who goes first changes, so that none always follows the same.
            for turn in 0..paths.len() {
                let number = (round + turn) % paths.len();
                samples[number].push(round_of(runtime, &mut paths[number], &case));
            }
        }
        for (path, samples) in paths.iter().zip(&samples) {
            let cpu = median(samples.iter().map(|sample| micros(sample.cpu)));
            let wall = median(samples.iter().map(|sample| micros(sample.wall)));
            println!("{:<10} {:<10} {cpu:>12.1} {wall:>13.1}", case.name, path.name);
        }
        let [_, floor, outrigger] = &samples;
        let pairs = floor.iter().zip(outrigger);
        ratios.push((case.name, median(pairs.map(|(floor, ours)| micros(ours.cpu) / micros(floor.cpu)))));
    }
    println!();
    for (name, ratio) in ratios {
        println!("ratio {name} {ratio:.2}x");
    }
    println!();
}

fn round_of(runtime: &Runtime, path: &mut Path, case: &Case) -> Sample {
    let calls = |path: &mut Path, calls: u32| {
        runtime.block_on(async {
            for _ in 0..calls {
                path.caller.call(case).await;
            }
        });
    };
    calls(path, WARM);
    let cpu = path.server.cpu();
    let started = Instant::now();
    calls(path, case.calls);
    let wall = started.elapsed();
    Sample { cpu: (path.server.cpu() - cpu) / case.calls, wall: wall / case.calls }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
