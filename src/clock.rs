//! The only clock, the only sleep, the only source of chance.
//!
//! Everything that decides takes the time and the sample as arguments; what acts asks here. Under tokio's paused
//! test clock `now` and `sleep_until` stand still together, so no test ever waits. Invariant: monotonic time never
//! comes from, and never becomes, wall time.

#![allow(clippy::disallowed_methods, reason = "this is the one place for them")]

use std::time::{Duration, Instant, SystemTime};

/// Monotonic now.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Wall time, for dates in headers, logs and snapshots only.
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Sleeps until a monotonic moment.
pub fn sleep_until(at: Instant) -> tokio::time::Sleep {
    tokio::time::sleep_until(at.into())
}

/// Sleeps for a while.
pub fn sleep(how_long: Duration) -> tokio::time::Sleep {
    tokio::time::sleep(how_long)
}

/// A sample of chance, uniform in `0.0..1.0`.
pub fn sample() -> f64 {
    fastrand::f64()
}

/// A new id, sortable by time, unique enough for a fleet.
pub fn new_id() -> String {
    let mut chance = [0; 10];
    fastrand::Rng::new().fill(&mut chance);
    let millis = wall().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let random = chance.iter().fold(0u128, |acc, byte| (acc << 8) | u128::from(*byte));
    ulid::Ulid::from_parts(millis, random).to_string()
}

/// Random bits as lower-case hex, `2 * N` characters.
pub fn random_hex<const N: usize>() -> String {
    let mut bytes = [0u8; N];
    fastrand::Rng::new().fill(&mut bytes);
    bytes.iter().fold(String::with_capacity(2 * N), |mut out, byte| {
        out.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        out.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        out
    })
}
