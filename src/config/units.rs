//! Durations, sizes, ratios and amounts as people write them: `250ms`, `32MiB`, `20%`, `1M`.
//!
//! Owns both directions, text to value and back. Owns no bounds: whether zero is allowed is the key's business.
//! Invariant: nothing is guessed; a number without its unit is refused, with the text that was probably meant.

use std::time::Duration;

/// Why a text is not the quantity it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitError {
    /// A bare number; holds what was probably meant, such as `30s`.
    MissingUnit(String),
    /// A number with a unit that is not known; holds the unit.
    UnknownUnit(String),
    /// Not a number at all.
    NotANumber,
    /// A number too large to hold.
    TooLarge,
}

const DURATION_UNITS: &[(&str, u128)] =
    &[("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000)];

const AMOUNT_UNITS: &[(&str, u128)] = &[("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)];

/// More than anybody means.
const MOST: u64 = 1_000_000_000_000;

const SIZE_UNITS: &[(&str, u128)] = &[
    ("B", 1),
    ("KB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];

/// Reads `250ms`, `30s`, `1.5m`, `1h`.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let nanos = scaled(text, DURATION_UNITS, "s")?;
    // A hundred years is beyond every clock, and keeps later sums of instants from overflowing.
    if nanos > 100 * 365 * 24 * 3_600_000_000_000 {
        return Err(UnitError::TooLarge);
    }
    let seconds = u64::try_from(nanos / 1_000_000_000).map_err(|_| UnitError::TooLarge)?;
    let rest = u32::try_from(nanos % 1_000_000_000).map_err(|_| UnitError::TooLarge)?;
    Ok(Duration::new(seconds, rest))
}

/// Reads `64KiB`, `32MiB`, `10MB`, in bytes.
pub fn size(text: &str) -> Result<usize, UnitError> {
    usize::try_from(scaled(text, SIZE_UNITS, "MiB")?).map_err(|_| UnitError::TooLarge)
}

/// Reads `600`, `500k`, `1.5M`, `2G`: how many of something.
pub fn amount(text: &str) -> Result<u64, UnitError> {
    let text = text.trim();
    let (number, unit) = split(text);
    let whole = unit.is_empty() && !number.contains('.');
    let value = if whole && is_number(number) {
        scaled(&format!("{number}B"), &[("B", 1)], "")?
    } else {
        scaled(text, AMOUNT_UNITS, "k")?
    };
    u64::try_from(value).ok().filter(|value| *value <= MOST).ok_or(UnitError::TooLarge)
}

/// Reads `20%` or `99.9%` as a share of one. More than `100%` is too large.
pub fn ratio(text: &str) -> Result<f64, UnitError> {
    let (number, unit) = split(text.trim());
    if unit.is_empty() {
        let value: f64 = number.parse().map_err(|_| UnitError::NotANumber)?;
        let percent = if value > 0.0 && value < 1.0 { value * 100.0 } else { value };
        return Err(UnitError::MissingUnit(format!("{percent}%")));
    }
    if !is_number(number) {
        return Err(UnitError::NotANumber);
    }
    if unit != "%" {
        return Err(UnitError::UnknownUnit(unit.to_owned()));
    }
    let value: f64 = number.parse().map_err(|_| UnitError::NotANumber)?;
    if value > 100.0 { Err(UnitError::TooLarge) } else { Ok(value / 100.0) }
}

/// Writes a duration so that [`duration`] reads it back, to the millisecond.
pub fn show_duration(value: Duration) -> String {
    let millis = value.as_millis();
    match millis {
        0 => "0s".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) && millis >= 300_000 => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        _ => format!("{millis}ms"),
    }
}

/// Writes a size so that [`size`] reads it back.
pub fn show_size(bytes: usize) -> String {
    for (unit, scale) in [("GiB", 1usize << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= scale && bytes.is_multiple_of(scale) {
            return format!("{}{unit}", bytes / scale);
        }
    }
    format!("{bytes}B")
}

/// Writes an amount so that [`amount`] reads it back.
pub fn show_amount(value: u64) -> String {
    let units = AMOUNT_UNITS.iter().rev();
    let fits = |scale: u128| value > 0 && u128::from(value).is_multiple_of(scale);
    match units.into_iter().find(|(_, scale)| fits(*scale)) {
        Some((unit, scale)) => format!("{}{unit}", u128::from(value) / scale),
        None => value.to_string(),
    }
}

/// Writes a share of one as [`ratio`] reads it.
pub fn show_ratio(value: f64) -> String {
    let percent = (value * 1e8).round() / 1e6;
    format!("{percent}%")
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_digit())
        && text.matches('.').count() <= 1
}

fn scaled(text: &str, units: &[(&str, u128)], usual: &str) -> Result<u128, UnitError> {
    let (number, unit) = split(text.trim());
    if !is_number(number) {
        return Err(UnitError::NotANumber);
    }
    if unit.is_empty() {
        return Err(UnitError::MissingUnit(format!("{number}{usual}")));
    }
    let scale = units
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, scale)| *scale)
        .ok_or_else(|| UnitError::UnknownUnit(unit.to_owned()))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u128 = whole.parse().map_err(|_| UnitError::TooLarge)?;
    let mut value = whole.checked_mul(scale).ok_or(UnitError::TooLarge)?;
    if !fraction.is_empty() {
        // More digits than the unit can hold say nothing.
        let digits = &fraction[..fraction.len().min(12)];
        let numerator: u128 = digits.parse().map_err(|_| UnitError::NotANumber)?;
        let power = 10u128.pow(u32::try_from(digits.len()).unwrap_or(12));
        value = value.checked_add(numerator * scale / power).ok_or(UnitError::TooLarge)?;
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read() {
        for (text, millis) in
            [("250ms", 250), ("30s", 30_000), ("2m", 120_000), ("1h", 3_600_000), ("1.5s", 1_500), ("0s", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in
            [("64KiB", 65_536), ("32MiB", 33_554_432), ("1GiB", 1 << 30), ("10MB", 10_000_000), ("7B", 7)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn amounts_are_read() {
        for (text, value) in
            [("600", 600), ("500k", 500_000), ("1M", 1_000_000), ("1.5M", 1_500_000), ("2G", 2_000_000_000), ("0", 0)]
        {
            assert_eq!(amount(text), Ok(value), "{text}");
        }
        assert_eq!(amount("1K"), Err(UnitError::UnknownUnit("K".to_owned())));
        assert_eq!(amount("1.5"), Err(UnitError::MissingUnit("1.5k".to_owned())));
        assert_eq!(amount("many"), Err(UnitError::NotANumber));
        assert_eq!(amount("-1"), Err(UnitError::NotANumber));
        assert_eq!(amount("2000G"), Err(UnitError::TooLarge));
    }

    #[test]
    fn what_is_no_quantity_says_why() {
        assert_eq!(duration("30"), Err(UnitError::MissingUnit("30s".to_owned())));
        assert_eq!(size("32"), Err(UnitError::MissingUnit("32MiB".to_owned())));
        assert_eq!(ratio("20"), Err(UnitError::MissingUnit("20%".to_owned())));
        assert_eq!(ratio("0.2"), Err(UnitError::MissingUnit("20%".to_owned())));
        assert_eq!(duration("30 sec"), Err(UnitError::UnknownUnit("sec".to_owned())));
        assert_eq!(duration("-3s"), Err(UnitError::NotANumber));
        assert_eq!(duration("soon"), Err(UnitError::NotANumber));
        assert_eq!(duration("1.2.3s"), Err(UnitError::NotANumber));
        assert_eq!(duration("9999999999h"), Err(UnitError::TooLarge));
        assert_eq!(ratio("101%"), Err(UnitError::TooLarge));
    }

    proptest! {
        #[test]
        fn a_shown_duration_reads_back(millis in 0u64..10_000_000_000) {
            let value = Duration::from_millis(millis);
            prop_assert_eq!(duration(&show_duration(value)), Ok(value));
        }

        #[test]
        fn a_shown_size_reads_back(bytes in 0usize..1 << 48) {
            prop_assert_eq!(size(&show_size(bytes)), Ok(bytes));
        }

        #[test]
        fn a_shown_amount_reads_back(value in 0u64..=MOST) {
            prop_assert_eq!(amount(&show_amount(value)), Ok(value));
            let round = value / 1_000_000 * 1_000_000;
            prop_assert_eq!(amount(&show_amount(round)), Ok(round));
        }

        #[test]
        fn a_shown_ratio_reads_back(thousandths in 0u32..=100_000) {
            let value = f64::from(thousandths) / 100_000.0;
            let back = ratio(&show_ratio(value));
            prop_assert!(back.is_ok_and(|back| (back - value).abs() < 1e-9));
        }

        #[test]
        fn a_bare_number_is_never_accepted(number in "[0-9]{1,12}(\\.[0-9]{1,3})?") {
            prop_assert!(matches!(duration(&number), Err(UnitError::MissingUnit(_))));
            prop_assert!(matches!(size(&number), Err(UnitError::MissingUnit(_))));
            prop_assert!(matches!(ratio(&number), Err(UnitError::MissingUnit(_))));
        }

        #[test]
        fn no_text_breaks_the_readers(text in ".{0,40}") {
            let _ = (duration(&text), size(&text), ratio(&text), amount(&text));
        }
    }
}
