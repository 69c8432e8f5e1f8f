//! `outrigger breaker`: holds an endpoint of a running instance open or closed, or gives it back to its breaker.
//!
//! Owns the asking only. Invariant: what is printed is what the instance says it did.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::healthcheck::instance;
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
    let mut url = reqwest::Url::parse(&format!("http://{address}/api/v1/breakers/"))?;
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend([args.name.as_str(), what]);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(ask(url)) {
        Ok((200, said)) => {
            let told: serde_json::Value = serde_json::from_str(&said)?;
            output::data(&format!("{}: {}\n", args.name, told["state"].as_str().unwrap_or("unknown")));
            Ok(FINE)
        }
        Ok((status, said)) => {
            output::talk(&format!("outrigger: {status}: {}\n", said.trim_end()));
            Ok(FAILED)
        }
        Err(error) => {
            let why = if error.is_timeout() { "no answer within 3 s" } else { "nothing answers" };
            output::talk(&format!("outrigger: {why} at http://{address}\n"));
            Ok(FAILED)
        }
    }
}

async fn ask(url: reqwest::Url) -> reqwest::Result<(u16, String)> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(3)).build()?;
    let answer = client.post(url).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}
