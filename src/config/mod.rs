//! From a YAML file to plain settings, or to every error in it at once.

pub mod settings;

pub use settings::{AdminSettings, ClientKey, DrainSettings, LogFormat, LogSettings, ServerSettings, Settings};
