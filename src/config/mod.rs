//! From a YAML file to plain settings, or to every error in it at once.
//!
//! `load.rs` is the way in. A file becomes a tree (`tree.rs`), is held against the one table of keys (`keys.rs`,
//! `check.rs`), resolved (`resolve.rs` and beside it one file per section) and judged as a whole (`lints.rs`). What is
//! wrong is told by `report.rs`. The starter file, the JSON Schema and the reference are written from the same table.

mod check;
mod endpoints;
mod files;
pub mod keys;
mod lints;
mod load;
mod mask;
mod nearest;
mod origin;
mod policy;
pub mod reference;
mod report;
mod resolve;
pub mod restart;
mod routes;
pub mod schema;
mod server;
pub mod settings;
pub mod show;
pub mod starter;
#[cfg(test)]
mod tests;
mod tree;
pub mod units;
mod url;

pub use files::Source as SourceFile;
pub use load::{DEFAULT_FILE, FILE_VARIABLE, Loaded, Source, from_text, from_upstream, load};
pub use origin::{Origin, Origins, Part};
pub use report::{Code, Problem, Report};
pub use resolve::{ADMIN_PORT, DATA_PORT, Overrides};
pub use settings::{AdminSettings, ClientKey, DrainSettings, LogFormat, LogSettings, ServerSettings, Settings};
pub use tree::Span;
