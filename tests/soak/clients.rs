//! The clients: they ask, read, lose patience and leave, and write down what they saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fastrand::Rng;
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::Notes;
use crate::event::{Called, What};
use crate::servers::{Servers, client};

/// Clients at a time.
const CLIENTS: u64 = 16;

/// One client's question.
struct Ask {
    call: u32,
    stream: bool,
    priority: &'static str,
    patience: Option<u64>,
    retries: Option<u32>,
    leave: Option<Duration>,
}

pub fn start(notes: &Notes, servers: &Servers, seed: u64, length: Duration) -> Vec<JoinHandle<()>> {
    let (numbers, end) = (Arc::new(AtomicU32::new(0)), Instant::now() + length);
    let url = format!("http://{}/v1/chat/completions", servers.data);
    let one = |number| {
        let (notes, numbers, url) = (notes.clone(), Arc::clone(&numbers), url.clone());
        tokio::spawn(async move {
            let mut rng = Rng::with_seed(seed ^ (number << 32));
            let http = client();
            while Instant::now() < end {
                sleep_until(Instant::now() + Duration::from_millis(rng.u64(0..500))).await; // paces the load, not a wait
                let ask = ask(&mut rng, numbers.fetch_add(1, Ordering::Relaxed));
                one_call(&notes, &http, &url, ask).await;
            }
        })
    };
    (1..=CLIENTS).map(one).collect()
}

fn ask(rng: &mut Rng, call: u32) -> Ask {
    let mut chance = |percent: u32| rng.u32(..100) < percent;
    let (stream, patient, bounded, leaves) = (chance(75), !chance(20), chance(10), chance(12));
    Ask {
        call,
        stream,
        priority: ["critical", "default", "sheddable"][rng.usize(..3)],
        patience: (!patient).then(|| rng.u64(300..8_000)),
        retries: bounded.then(|| rng.u32(..3)),
        leave: leaves.then(|| Duration::from_millis(rng.u64(0..1_500))),
    }
}

async fn one_call(notes: &Notes, http: &reqwest::Client, url: &str, ask: Ask) {
    let call = ask.call;
    let talk = talk(notes, http, url, &ask);
    match ask.leave {
        None => talk.await,
        Some(patience) => {
            if timeout(patience, talk).await.is_err() {
                notes.tell(What::Left { call });
            }
        }
    }
}

async fn talk(notes: &Notes, http: &reqwest::Client, url: &str, ask: &Ask) {
    let Ask { call, stream, .. } = *ask;
    let body =
        format!(r#"{{"model":"m","stream":{stream},"messages":[{{"role":"user","content":"question {call}"}}]}}"#);
    let sha256: String = Sha256::digest(body.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut request = http.post(url).header("content-type", "application/json");
    request = request.header("x-request-id", format!("soak-{call}")).header("x-outrigger-priority", ask.priority);
    if let Some(patience) = ask.patience {
        request = request.header("x-outrigger-timeout", format!("{patience}ms"));
    }
    if let Some(retries) = ask.retries {
        request = request.header("x-outrigger-retries", retries);
    }
    notes.tell(What::Called(Called {
        call,
        read: true,
        stream,
        priority: ["sheddable", "default", "critical"].iter().position(|name| *name == ask.priority).unwrap_or(1) as u8,
        patience: ask.patience.map(|patience| patience * 1000),
        retries: ask.retries,
        body: sha256,
        ..Called::default()
    }));
    let mut answer = match request.body(body).send().await {
        Ok(answer) => answer,
        Err(error) => {
            notes.tell(What::Bytes { call, text: format!("no answer at all: {error:?}") });
            return notes.tell(What::Closed { call, broken: true });
        }
    };
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (id, sends) = (header("x-outrigger-id").to_owned(), header("x-outrigger-attempts").parse().unwrap_or(0));
    notes.tell(What::Named { call, id });
    let (status, outcome) = (answer.status().as_u16(), header("x-outrigger-outcome").to_owned());
    notes.tell(What::Head { call, status, outcome, sends });
    let broken = loop {
        match answer.chunk().await {
            Ok(None) => break false,
            Err(_) => break true,
            Ok(Some(bytes)) => {
                notes.tell(What::Bytes { call, text: String::from_utf8_lossy(&bytes).into_owned() });
            }
        }
    };
    notes.tell(What::Closed { call, broken });
}
