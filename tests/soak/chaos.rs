//! What is done to the stand-ins, and when.
//!
//! Owns the plan; writes down when whom was stopped, because a stopped process reads late what came in time.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::{Instant, sleep_until};

use crate::now;
use crate::servers::{MOCKS, Servers};

/// A stand-in that was stopped, from when to when.
pub struct Stopped {
    pub mock: usize,
    pub from: u64,
    pub to: u64,
}

/// What a stand-in may be told to do. Not `auth` or `quota`: a credential that was refused rests longer than all this
/// takes, and then nothing more would happen at that stand-in.
const RULES: &[&str] = &[
    "",
    "",
    "rules:\n  - { chance: 30%, do: { error: server_error } }\n",
    "rules:\n  - { do: { error: overloaded } }\n",
    "rules:\n  - { chance: 40%, do: { error: rate_limit } }\n",
    "rules:\n  - { chance: 10%, do: { error: bad_request } }\n",
    "rules:\n  - { chance: 30%, do: { cut: { at: half, how: reset } } }\n  - { chance: 20%, do: { cut: { at: token 3, how: close } } }\n",
    "rules:\n  - { chance: 30%, do: { reset_on_accept: true } }\n  - { chance: 20%, do: { close_idle: true } }\n",
    "rules:\n  - { chance: 25%, do: { hang: first_token } }\n  - { chance: 10%, do: { hang: headers } }\n  - { chance: 10%, do: { hang: mid } }\n",
    "rules:\n  - { chance: 50%, do: { delay: { first_token: 1500ms } } }\n  - { chance: 20%, do: { delay: { headers: 1s } } }\n",
    "rules:\n  - { chance: 20%, do: { inband_error: { at: token 5, shape: native, error: overloaded } } }\n  - { chance: 20%, do: { malformed_chunk: { at: 4, as: bad_json } } }\n",
    "rules:\n  - { chance: 20%, do: { empty: true } }\n  - { chance: 20%, do: { content_type: text/html } }\n",
    "rules:\n  - { chance: 40%, do: { slice: 7, delay: { per_token: 60ms } } }\n",
];

enum Back {
    Up,
    Go { since: u64 },
}

/// Does it, until the time is over and everybody is well again.
pub async fn run(servers: &mut Servers, seed: u64, length: Duration) -> Vec<Stopped> {
    let mut rng = Rng::with_seed(seed);
    let end = Instant::now() + length;
    let mut next = Instant::now();
    // Who is away, and when it comes back.
    let mut away: Vec<(Instant, usize, Back)> = Vec::new();
    let mut stopped = Vec::new();
    let mut reloads = 0;
    loop {
        let due = away.iter().map(|(at, ..)| *at).min().map_or(next, |back| back.min(next)).min(end);
        sleep_until(due).await; // paces the load, not a wait
        let over = Instant::now() >= end;
        for at in (0..away.len()).rev() {
            if over || away[at].0 <= Instant::now() {
                let (_, mock, back) = away.remove(at);
                match back {
                    Back::Up => servers.mocks[mock].up().await,
                    Back::Go { since } => {
                        servers.mocks[mock].signal("CONT").await;
                        stopped.push(Stopped { mock, from: since, to: now() });
                    }
                }
            }
        }
        if over {
            println!("soak: {} stops and {reloads} reloads", stopped.len());
            return stopped;
        }
        if Instant::now() < next {
            continue;
        }
        next = Instant::now() + Duration::from_millis(rng.u64(300..2_500));
        let mock = rng.usize(..MOCKS);
        if away.iter().any(|(_, away, _)| *away == mock) {
            continue;
        }
        let back = Instant::now() + Duration::from_millis(rng.u64(200..4_000));
        match rng.u32(..10) {
            0 | 1 => {
                servers.mocks[mock].kill().await;
                away.push((back, mock, Back::Up));
            }
            2 | 3 => {
                let since = now();
                servers.mocks[mock].signal("STOP").await;
                away.push((back, mock, Back::Go { since }));
            }
            4 => {
                servers.reload(reloads).await;
                reloads += 1;
            }
            _ => servers.mocks[mock].rules(RULES[rng.usize(..RULES.len())]).await,
        }
    }
}
