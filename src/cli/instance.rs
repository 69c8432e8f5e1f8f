//! `outrigger reload` and `outrigger drain`: asks a running instance to read its config again, or to stop.
//!
//! Owns the asking, which `outrigger breaker` shares. Invariant: what is printed is what the instance says it did.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::healthcheck::instance;
use super::{BAD_CONFIG, FAILED, FINE, output};

/// Which instance.
#[derive(Clone, Debug, Args)]
pub struct InstanceArgs {
    /// Admin address of the instance [default: that of the config, else 127.0.0.1:8701]
    #[arg(long, value_name = "ADDR", env = "OUTRIGGER_ADMIN", hide_env_values = true)]
    pub admin: Option<SocketAddr>,
    /// Config file whose `admin.listen` to ask
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// How long an answer may take; a config with many files on a slow disk takes a while.
const PATIENCE: Duration = Duration::from_secs(10);

/// `outrigger reload`
pub fn reload(args: &InstanceArgs) -> anyhow::Result<u8> {
    let Some(address) = instance(args.admin, args.config.as_deref()) else { return Ok(FAILED) };
    match ask(address, &["reload"])? {
        Some((200, said)) => {
            let told: Value = serde_json::from_str(&said)?;
            let what = if told["changed"] == true { "reloaded" } else { "unchanged" };
            output::data(&format!("{what}, config {}\n", told["hash"].as_str().unwrap_or_default()));
            let texts = |list: &Value| -> Vec<String> {
                list.as_array().into_iter().flatten().filter_map(|text| Some(text.as_str()?.to_owned())).collect()
            };
            let warnings = told["warnings"].as_array().map_or(0, Vec::len);
            if warnings > 0 {
                output::talk(&format!("outrigger: {warnings} warnings: `outrigger check` tells them\n"));
            }
            let keys = texts(&told["needs_restart"]);
            if !keys.is_empty() {
                output::talk(&format!("outrigger: changed, and in need of a restart: {}\n", keys.join(", ")));
            }
            Ok(FINE)
        }
        Some((422, said)) => {
            output::talk(&format!("{}\nnot reloaded: the old config stays\n", said.trim_end()));
            Ok(BAD_CONFIG)
        }
        other => Ok(refused(other)),
    }
}

/// `outrigger drain`
pub fn drain(args: &InstanceArgs) -> anyhow::Result<u8> {
    let Some(address) = instance(args.admin, args.config.as_deref()) else { return Ok(FAILED) };
    match ask(address, &["drain"])? {
        Some((202, said)) => {
            let told: Value = serde_json::from_str(&said)?;
            output::data(&format!("draining, {} calls in flight\n", told["calls_in_flight"]));
            Ok(FINE)
        }
        other => Ok(refused(other)),
    }
}

/// Posts to a path below `/api/v1/`, given in parts. `None` when nobody answered, which is told.
pub fn ask(address: SocketAddr, path: &[&str]) -> anyhow::Result<Option<(u16, String)>> {
    let mut url = reqwest::Url::parse(&format!("http://{address}/api/v1/"))?;
    if let Ok(mut parts) = url.path_segments_mut() {
        parts.pop_if_empty().extend(path);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(post(url)) {
        Ok(answer) => Ok(Some(answer)),
        Err(error) => {
            let why = if error.is_timeout() { "no answer in time" } else { "nothing answers" };
            output::talk(&format!("outrigger: {why} at http://{address}\n"));
            Ok(None)
        }
    }
}

/// Says what an instance said instead of doing it.
pub fn refused(answer: Option<(u16, String)>) -> u8 {
    if let Some((status, said)) = answer {
        output::talk(&format!("outrigger: {status}: {}\n", said.trim_end()));
    }
    FAILED
}

async fn post(url: reqwest::Url) -> reqwest::Result<(u16, String)> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let answer = client.post(url).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}
