//! The soak: the real binary before real stand-ins, all of them processes, under load, while the stand-ins are killed,
//! stopped and made to misbehave and the gateway is reloaded. What clients, stand-ins and the log wrote down is judged
//! by the judges of `tests/it/history/`.
//!
//! `SOAK_SECONDS` is how long (180), `SEED` what is done when (random, and printed). The times at which things happen
//! are the machine's, so an equal seed gives an equal plan, not an equal history. `HISTORY` judges a file again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test a panic is the verdict")]
#![allow(clippy::print_stdout, reason = "it is the test's own runner")]
#![allow(clippy::disallowed_methods, reason = "it plays clients and operators in real time")]

mod chaos;
#[path = "../it/history/check/mod.rs"]
mod check;
mod clients;
#[path = "../it/history/event.rs"]
mod event;
mod servers;
mod story;
#[path = "../it/history/view.rs"]
mod view;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use event::{Event, What};
use servers::Servers;

/// Microseconds since 1970: the only clock that several processes share.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// Whatever is written down in this process.
#[derive(Clone, Default)]
pub struct Notes(Arc<Mutex<Vec<Event>>>);

impl Notes {
    pub(crate) fn tell(&self, what: What) {
        self.0.lock().unwrap().push(Event { at: now(), what });
    }

    pub(crate) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// What the stage prints, a line for each check.
#[derive(Default)]
struct Verdict {
    failed: u32,
}

impl Verdict {
    fn say(&mut self, name: &str, wrong: &[String]) {
        if wrong.is_empty() {
            println!("ok {name}");
            return;
        }
        self.failed += 1;
        println!("FAIL {name}: {} times, first: {}", wrong.len(), wrong[..wrong.len().min(3)].join("; "));
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().filter(|text| !text.is_empty()).map_or(otherwise, |text| text.parse().expect(name))
}

fn main() {
    if let Ok(path) = std::env::var("HISTORY") {
        let mut verdict = Verdict::default();
        judge(&event::read(&std::fs::read_to_string(path).unwrap()), &mut verdict);
        assert_eq!(verdict.failed, 0, "checks failed");
        return;
    }
    let seed = number("SEED", now() % 1_000_000);
    let seconds = number("SOAK_SECONDS", 180);
    println!("soak: {seconds} s, seed {seed}; again: SEED={seed} SOAK_SECONDS={seconds} tests/run soak");
    outrigger::app::install_tls();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let failed = runtime.block_on(soak(seed, Duration::from_secs(seconds)));
    if failed > 0 {
        panic!("{failed} checks failed");
    }
}

async fn soak(seed: u64, length: Duration) -> u32 {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("soak-{seed}"));
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(&folder).unwrap();
    let began = now();
    let notes = Notes::default();
    let mut servers = Servers::start(&folder, seed).await;
    let clients = clients::start(&notes, &servers, seed, length);
    let unrest = chaos::run(&mut servers, seed, length).await;
    for client in clients {
        client.await.unwrap();
    }
    let mut verdict = Verdict::default();
    verdict.say("soak: counts return to zero", &servers.rests(&notes).await);
    let metrics = servers.metrics().await;
    let left = servers.end().await;
    verdict.say("soak: the gateway ends when it is told to", &left);
    let told = story::Told { notes: notes.take(), unrest, servers: &servers, began };
    let (history, lost) = story::history(seed, told);
    verdict.say("I9: one line in the log for each call", &lost);
    verdict.say("I3: repeats stay within the budget", &story::amplification(&metrics, length));
    std::fs::write(folder.join("history.jsonl"), event::write(&history)).unwrap();
    judge(&history, &mut verdict);
    println!("soak: {}", story::summary(&history, &metrics));
    println!("soak: everything is in {}", folder.display());
    verdict.failed
}

fn judge(history: &[Event], verdict: &mut Verdict) {
    let broken = check::check(history);
    for invariant in ["I1", "I2", "I3", "I4", "I5", "I9", "I10", "I12", "I15", "I16"] {
        let wrong = broken.iter().filter(|broken| broken.invariant == invariant);
        verdict.say(&format!("{invariant} over the histories"), &wrong.map(ToString::to_string).collect::<Vec<_>>());
    }
}
