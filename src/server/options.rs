//! What a client may ask of us in headers. A name we do not know is refused, so that a typo shows.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use crate::call::{CallError, Class, Options};

const PREFIX: &str = "x-outrigger-";
/// The names a client may send.
const KNOWN: [&str; 5] =
    ["x-outrigger-timeout", "x-outrigger-retries", "x-outrigger-hedge", "x-outrigger-fallback", "x-outrigger-priority"];
/// The names that belong to mechanisms this version does not have.
const LATER: [&str; 3] = ["x-outrigger-validate", "x-outrigger-workflow", "x-outrigger-context"];

/// Longest patience of a client that is believed; beyond it the route's own bound holds anyway.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What the client asked for, and how long it will wait.
#[derive(Debug, Default, PartialEq)]
pub struct Asked {
    /// Options of the plan.
    pub options: Options,
    /// The client's own patience.
    pub patience: Option<Duration>,
    /// The client says that this is a retry of its own.
    pub client_retry: bool,
}

/// Reads and removes our own headers, and reads what the SDKs say of themselves.
///
/// # Errors
/// `bad_request` naming the header.
pub fn take(headers: &mut HeaderMap) -> Result<Asked, CallError> {
    let mut asked = Asked::default();
    let ours: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with(PREFIX)).cloned().collect();
    for name in ours {
        let value = headers.remove(&name).unwrap_or(HeaderValue::from_static(""));
        let text = value.to_str().unwrap_or("").trim();
        match name.as_str() {
            "x-outrigger-timeout" => {
                let patience = duration(text).filter(|patience| !patience.is_zero());
                asked.patience = Some(patience.ok_or_else(|| bad(&name, text, "a duration such as `30s` or `500ms`"))?);
            }
            "x-outrigger-retries" => {
                let retries = text.parse().map_err(|_| bad(&name, text, "a number such as `0`"))?;
                asked.options.retries = Some(retries);
            }
            "x-outrigger-hedge" if text == "off" => asked.options.no_hedge = true,
            "x-outrigger-fallback" if text == "off" => asked.options.no_fallback = true,
            "x-outrigger-priority" => {
                let priority = text.parse().map_err(|()| bad(&name, text, "`critical`, `default` or `sheddable`"))?;
                asked.options.priority = Some(priority);
            }
            "x-outrigger-hedge" | "x-outrigger-fallback" => return Err(bad(&name, text, "`off`")),
            later if LATER.contains(&later) => {
                let message = format!("the header `{later}` is not available in this version");
                return Err(CallError::local(Class::BadRequest, message).at(later));
            }
            unknown => {
                let message = format!("unknown header `{unknown}`; known are {}", KNOWN.join(", "));
                return Err(CallError::local(Class::BadRequest, message).at(unknown));
            }
        }
    }
    let sdk = ["x-stainless-read-timeout", "x-stainless-timeout"].iter().filter_map(|name| {
        // Some SDKs send words here; only a number is a patience.
        let seconds: f64 = headers.get(*name)?.to_str().ok()?.trim().parse().ok()?;
        (seconds.is_finite() && seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(LONGEST.as_secs_f64())))
    });
    asked.patience = sdk.chain(asked.patience).min();
    asked.client_retry = headers
        .get("x-stainless-retry-count")
        .and_then(|value| value.to_str().ok())
        .and_then(|count| count.trim().parse::<u32>().ok())
        .is_some_and(|count| count > 0);
    Ok(asked)
}

/// The client's `Idempotency-Key`, which travels on.
///
/// # Errors
/// `bad_request` naming the header, when it is not one text of 1 to 255 visible ASCII characters.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<HeaderValue>, CallError> {
    const NAME: &str = "idempotency-key";
    let mut keys = headers.get_all(NAME).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let is_visible = key.as_bytes().iter().all(u8::is_ascii_graphic);
    let what = match key.len() {
        _ if keys.next().is_some() => "comes more than once",
        0 => "is empty",
        1..=255 if is_visible => return Ok(Some(key.clone())),
        1..=255 => "has characters other than visible ASCII",
        _ => "is longer than 255 characters",
    };
    Err(CallError::local(Class::BadRequest, format!("the header `{NAME}` {what}")).at(NAME))
}

fn bad(name: &http::HeaderName, value: &str, expected: &str) -> CallError {
    let shown: String = value.chars().take(40).collect();
    CallError::local(Class::BadRequest, format!("the header `{name}` is `{shown}`; it takes {expected}"))
        .at(name.as_str())
}

/// `250ms`, `30s`, `2m`, `1h`, with a fraction if need be.
fn duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 = text[..split].trim().parse().ok()?;
    let unit = match &text[split..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let seconds = number * unit;
    (seconds.is_finite() && seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(LONGEST.as_secs_f64())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Priority;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| ((*name).parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn options_are_read_and_removed() {
        let mut sent = headers(&[
            ("x-outrigger-timeout", "1.5s"),
            ("x-outrigger-retries", "0"),
            ("x-outrigger-hedge", "off"),
            ("x-outrigger-fallback", "off"),
            ("x-outrigger-priority", "sheddable"),
            ("user-agent", "x"),
        ]);
        let asked = take(&mut sent).unwrap();
        assert_eq!(asked.patience, Some(Duration::from_millis(1500)));
        let priority = Some(Priority::Sheddable);
        assert_eq!(asked.options, Options { retries: Some(0), no_hedge: true, no_fallback: true, priority });
        assert_eq!(sent.len(), 1);
    }

    #[test]
    fn the_shortest_patience_counts_and_words_do_not() {
        let mut sent = headers(&[("x-stainless-read-timeout", "600"), ("x-outrigger-timeout", "90s")]);
        assert_eq!(take(&mut sent).unwrap().patience, Some(Duration::from_secs(90)));
        let mut sent = headers(&[("x-stainless-read-timeout", "20"), ("x-outrigger-timeout", "90s")]);
        assert_eq!(take(&mut sent).unwrap().patience, Some(Duration::from_secs(20)));
        for word in ["NOT_GIVEN", "-1", "nan", "inf", ""] {
            let mut sent = headers(&[("x-stainless-timeout", word)]);
            assert_eq!(take(&mut sent).unwrap().patience, None, "{word}");
        }
    }

    #[test]
    fn a_typo_shows_and_names_itself() {
        for (name, value) in [
            ("x-outrigger-retrys", "0"),
            ("x-outrigger-retries", "many"),
            ("x-outrigger-retries", "-1"),
            ("x-outrigger-timeout", "30"),
            ("x-outrigger-timeout", "0s"),
            ("x-outrigger-hedge", "on"),
            ("x-outrigger-validate", "off"),
            ("x-outrigger-priority", "urgent"),
        ] {
            let error = take(&mut headers(&[(name, value)])).unwrap_err();
            assert_eq!((error.class, error.param.as_deref()), (Class::BadRequest, Some(name)), "{value}");
            assert!(error.message.contains(name), "{}", error.message);
        }
    }

    #[test]
    fn a_key_is_one_short_visible_text() {
        let key = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            values.iter().for_each(|value| {
                headers.append("idempotency-key", HeaderValue::from_bytes(value.as_bytes()).unwrap());
            });
            idempotency_key(&headers).map(|key| key.map(|key| key.to_str().unwrap().to_owned()))
        };
        assert_eq!(key(&[]).unwrap(), None);
        for good in ["a", "8e03978e-40d5-43e8-bc93-6894a57f9324", "~!x", &"k".repeat(255)] {
            assert_eq!(key(&[good]).unwrap().as_deref(), Some(good));
        }
        for bad in [&[""][..], &["a b"], &["a\tb"], &["\u{fc}"], &[&"k".repeat(256)], &["a", "a"]] {
            let error = key(bad).unwrap_err();
            assert_eq!((error.class, error.param.as_deref()), (Class::BadRequest, Some("idempotency-key")), "{bad:?}");
        }
    }

    #[test]
    fn a_client_s_own_retry_is_recognised() {
        assert!(take(&mut headers(&[("x-stainless-retry-count", "1")])).unwrap().client_retry);
        assert!(!take(&mut headers(&[("x-stainless-retry-count", "0")])).unwrap().client_retry);
    }
}
