//! What circuits do: I6, I8.

use super::super::view::View;
use super::Broken;

/// I6.
pub fn opens_for_upstream_only(_: &View) -> Vec<Broken> {
    Vec::new()
}

/// I8.
pub fn one_probe(_: &View) -> Vec<Broken> {
    Vec::new()
}
