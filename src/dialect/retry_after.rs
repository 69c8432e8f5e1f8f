//! How long a server asks us to wait, in whichever header it says so.
//!
//! Owns reading the headers; whether to wait is the retry policy's. Invariant: what cannot be understood is no
//! wish at all, and no wish is longer than a day.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

/// The longest wait believed.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The wait asked for by `retry-after-ms`, or else by `retry-after` (seconds, or a date read against `wall`).
pub fn parse(headers: &HeaderMap, wall: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    text("retry-after-ms")
        .and_then(|ms| number(ms).map(|ms| ms / 1000.0))
        .or_else(|| text("retry-after").and_then(number))
        .map(bounded)
        .or_else(|| text("retry-after").and_then(|date| until(date, wall)))
}

/// When the rate limit that ran out starts anew, as `x-ratelimit-reset-*` tell. Only a 429 without a wish of its
/// own calls for this: these headers stand on every answer.
pub fn reset(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: String| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let limits = ["requests", "tokens"].map(|what| {
        let spent = text(format!("x-ratelimit-remaining-{what}")).and_then(number) == Some(0.0);
        (spent, text(format!("x-ratelimit-reset-{what}")).and_then(go_duration))
    });
    let spent = limits.iter().filter(|(spent, _)| *spent).filter_map(|(_, wait)| *wait).max();
    spent.or_else(|| limits.iter().filter_map(|(_, wait)| *wait).min())
}

fn bounded(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).map_or(LONGEST, |wait| wait.min(LONGEST))
}

/// A plain decimal number, no sign, no exponent.
fn number(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if plain { text.parse().ok() } else { None }
}

fn until(date: &str, wall: SystemTime) -> Option<Duration> {
    let at = httpdate::parse_http_date(date).ok()?;
    Some(at.duration_since(wall).unwrap_or(Duration::ZERO).min(LONGEST))
}

/// A duration as Go writes it (`6m0s`, `1.5s`, `12ms`), or bare seconds.
fn go_duration(text: &str) -> Option<Duration> {
    if let Some(seconds) = number(text) {
        return Some(bounded(seconds));
    }
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value = number(&rest[..digits])?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += value
            * match &rest[..unit] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86400.0,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty()).then(|| bounded(total))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
            })
            .collect()
    }

    #[test]
    fn wishes() {
        let wall = httpdate::parse_http_date("Mon, 23 Nov 2026 12:00:00 GMT").unwrap();
        let day = 24.0 * 3600.0;
        for (pairs, seconds) in [
            (&[("retry-after", "7")][..], Some(7.0)),
            (&[("retry-after", " 0 ")], Some(0.0)),
            (&[("retry-after", "1.5")], Some(1.5)),
            (&[("retry-after-ms", "250"), ("retry-after", "9")], Some(0.25)),
            (&[("retry-after-ms", "oops"), ("retry-after", "9")], Some(9.0)),
            (&[("retry-after-ms", "-1"), ("retry-after", "9")], Some(9.0)),
            (&[("retry-after", "Mon, 23 Nov 2026 12:00:30 GMT")], Some(30.0)),
            (&[("retry-after", "Monday, 23-Nov-26 12:00:05 GMT")], Some(5.0)),
            (&[("retry-after", "Mon, 23 Nov 2026 11:00:00 GMT")], Some(0.0)),
            (&[("retry-after", "Fri, 23 Nov 2029 11:00:00 GMT")], Some(day)),
            (&[("retry-after", "99999999999999999999999999")], Some(day)),
            (&[("retry-after", "-5")], None),
            (&[("retry-after", "NaN")], None),
            (&[("retry-after", "inf")], None),
            (&[("retry-after", "1e3")], None),
            (&[("retry-after", "")], None),
            (&[("retry-after", ".")], None),
            (&[("retry-after", "soon")], None),
            (&[("retry-after", "é")], None),
            (&[("x-ratelimit-reset-requests", "1s")], None),
            (&[], None),
        ] {
            assert_eq!(parse(&headers(pairs), wall), seconds.map(Duration::from_secs_f64), "{pairs:?}");
        }
    }

    #[test]
    fn resets() {
        type Row = (&'static [(&'static str, &'static str)], Option<u64>);
        let rows: &[Row] = &[
            (&[("x-ratelimit-reset-requests", "6m0s")], Some(360_000)),
            (&[("x-ratelimit-reset-tokens", "12ms")], Some(12)),
            (&[("x-ratelimit-reset-tokens", "1h2m3.5s")], Some(3_723_500)),
            (&[("x-ratelimit-reset-tokens", "59")], Some(59_000)),
            (&[("x-ratelimit-reset-requests", "9s"), ("x-ratelimit-reset-tokens", "2s")], Some(2_000)),
            (
                &[
                    ("x-ratelimit-reset-requests", "9s"),
                    ("x-ratelimit-remaining-requests", "0"),
                    ("x-ratelimit-reset-tokens", "2s"),
                    ("x-ratelimit-remaining-tokens", "17"),
                ],
                Some(9_000),
            ),
            (&[("x-ratelimit-reset-tokens", "900h")], Some(86_400_000)),
            (&[("x-ratelimit-reset-tokens", "-1s")], None),
            (&[("x-ratelimit-reset-tokens", "1x")], None),
            (&[("x-ratelimit-reset-tokens", "s")], None),
            (&[("x-ratelimit-reset-tokens", "")], None),
            (&[], None),
        ];
        for (pairs, ms) in rows {
            assert_eq!(reset(&headers(pairs)), ms.map(Duration::from_millis), "{pairs:?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_gives_a_bounded_wish_or_none(value in prop::collection::vec(32u8..=255, 0..40), like in "[-+0-9.eEnNa]{0,12}[hmsuµ]{0,2}[0-9]{0,4}[msd]{0,2}") {
            for bytes in [&value[..], like.as_bytes()] {
                let Ok(value) = HeaderValue::from_bytes(bytes) else { continue };
                for name in ["retry-after", "retry-after-ms", "x-ratelimit-reset-tokens"] {
                    let headers: HeaderMap = [(HeaderName::from_static(name), value.clone())].into_iter().collect();
                    for wish in [parse(&headers, SystemTime::UNIX_EPOCH), reset(&headers)].into_iter().flatten() {
                        prop_assert!(wish <= LONGEST);
                    }
                }
            }
        }
    }
}
