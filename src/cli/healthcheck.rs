//! `outrigger healthcheck`: 0 when the instance beside it lives, else 1; needs no shell and no curl.
//!
//! Asks `/livez`, which never depends on upstreams: a provider's outage must not restart the proxy. Invariant: it ends
//! within three seconds, with 0 or 1.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::{FAILED, FINE, output};
use crate::config::{ADMIN_PORT, Overrides, load};

/// `outrigger healthcheck`
#[derive(Clone, Debug, Args)]
pub struct HealthcheckArgs {
    /// Admin address of the instance [default: that of the config, else 127.0.0.1:8701]
    #[arg(long, value_name = "ADDR", env = "OUTRIGGER_ADMIN", hide_env_values = true)]
    pub admin: Option<SocketAddr>,
    /// Config file whose `admin.listen` to ask
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &HealthcheckArgs) -> anyhow::Result<u8> {
    let Some(address) = instance(args.admin, args.config.as_deref()) else { return Ok(FAILED) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(ask(address)) {
        Ok(200) => {
            output::data("ok\n");
            Ok(FINE)
        }
        Ok(status) => {
            output::talk(&format!("outrigger: http://{address}/livez answered {status}\n"));
            Ok(FAILED)
        }
        Err(error) => {
            let why = if error.is_timeout() { "no answer within 3 s" } else { "nothing answers" };
            output::talk(&format!("outrigger: {why} at http://{address}/livez\n"));
            Ok(FAILED)
        }
    }
}

/// Where the admin port of the instance beside us is. `None` when the file that says so cannot be read; that is told.
pub fn instance(admin: Option<SocketAddr>, file: Option<&Path>) -> Option<SocketAddr> {
    let address = match admin {
        Some(admin) => admin,
        None => match load(file, None, &Overrides::default()) {
            Ok(loaded) => loaded.settings.admin.listen,
            Err(report) if file.is_some() => {
                output::refuse(&report);
                return None;
            }
            // Started with `--upstream`, there is no file, and the port is the usual one.
            Err(_) => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), ADMIN_PORT),
        },
    };
    Some(reachable(address))
}

/// An address to listen on everywhere, as one to connect to.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

async fn ask(address: SocketAddr) -> reqwest::Result<u16> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(3)).build()?;
    Ok(client.get(format!("http://{address}/livez")).send().await?.status().as_u16())
}
