//! `outrigger breaker`: holds an endpoint of a running instance open or closed, or gives it back to its breaker.
//!
//! Owns the asking only. Invariant: what is printed is what the instance says it did.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::healthcheck::instance;
use super::instance::{ask, refused};
use super::{FAILED, FINE, output};

/// `outrigger breaker`
#[derive(Clone, Debug, Args)]
pub struct BreakerArgs {
    /// What to do with it
    pub what: What,
    /// The endpoint, by its name in the config
    pub name: String,
    /// Admin address of the instance [default: that of the config, else 127.0.0.1:8701]
    #[arg(long, value_name = "ADDR", env = "OUTRIGGER_ADMIN", hide_env_values = true)]
    pub admin: Option<SocketAddr>,
    /// Config file whose `admin.listen` to ask
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What may be done with a breaker.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum What {
    /// Send nothing there, whatever happens
    Open,
    /// Send there, whatever happens
    Close,
    /// Let it decide again, from a fresh start
    Auto,
}

/// Runs the command.
pub fn run(args: &BreakerArgs) -> anyhow::Result<u8> {
    let Some(address) = instance(args.admin, args.config.as_deref()) else { return Ok(FAILED) };
    let what = match args.what {
        What::Open => "open",
        What::Close => "close",
        What::Auto => "auto",
    };
    match ask(address, &["breakers", &args.name, what])? {
        Some((200, said)) => {
            let told: serde_json::Value = serde_json::from_str(&said)?;
            output::data(&format!("{}: {}\n", args.name, told["state"].as_str().unwrap_or("unknown")));
            Ok(FINE)
        }
        other => Ok(refused(other)),
    }
}
