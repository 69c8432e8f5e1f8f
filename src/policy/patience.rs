//! How long a silent start is left alone.
//!
//! Why it grows: before the first token a model reads the whole prompt, so a long prompt is rightly slow. Why it is
//! soft: nobody outside can tell a slow start from a dead one, and killing the slow one throws its work away. So when
//! patience runs out another endpoint is asked beside it, and whoever speaks first wins.

use std::time::Duration;

/// Prompts up to here get the configured patience as it stands, in bytes.
const FREE: usize = 4 * 1024;
/// Every further stretch of this size adds the configured patience once more, in bytes (about 8000 tokens).
const STRETCH: f64 = 32.0 * 1024.0;

/// Patience for the first model event, given the configured one and the prompt's size in bytes.
pub fn patience(first_token: Duration, prompt_bytes: usize) -> Duration {
    first_token.mul_f64(1.0 + prompt_bytes.saturating_sub(FREE) as f64 / STRETCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_with_the_prompt_and_never_shrinks() {
        let ten = Duration::from_secs(10);
        assert_eq!(patience(ten, 0), ten);
        assert_eq!(patience(ten, 4096), ten);
        assert_eq!(patience(ten, 4096 + 32 * 1024), 2 * ten);
        assert!(patience(ten, 400_000) > Duration::from_secs(100));
        assert!((0..200_000).step_by(997).map(|bytes| patience(ten, bytes)).is_sorted());
    }
}
