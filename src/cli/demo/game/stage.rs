//! The stage: two servers behind a gateway, and a third, as the first is, that is asked directly.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use super::script::{Script, Server};
use crate::app::{self, Running};
use crate::config;
use crate::mock::{self, Mock, Network, Scenario};

/// What runs during a game day.
pub struct Stage {
    script: &'static Script,
    seed: u64,
    servers: [mock::Running; 2],
    alone: mock::Running,
    /// What the network of the first and of the second server is like.
    networks: [Network; 2],
    /// The gateway.
    pub gateway: Running,
}

impl Stage {
    /// Everything up and well.
    ///
    /// # Errors
    /// A port cannot be had.
    pub async fn set(script: &'static Script, seed: u64) -> anyhow::Result<Self> {
        let start = async || {
            let any: SocketAddr = ([127, 0, 0, 1], 0).into();
            Mock::start(any, parse(script, seed, "")?).await.context("cannot start a model server")
        };
        let servers = [start().await?, start().await?];
        let alone = start().await?;
        let gateway = gateway(script, &servers).await?;
        Ok(Self { script, seed, servers, alone, networks: [Network::Up; 2], gateway })
    }

    /// The base URL of the server that is asked directly, and that of the gateway.
    pub fn urls(&self) -> [String; 2] {
        [self.alone.base_url(), format!("http://{}/v1", self.gateway.data())]
    }

    /// Calls that the first server has had.
    pub fn asked(&self) -> u64 {
        self.servers[0].stats().calls
    }

    /// Gives the servers the rules of a phase.
    pub fn rules(&self, servers: [Server; 2]) -> anyhow::Result<()> {
        self.servers[0].set_scenario(parse(self.script, self.seed, servers[0].rules)?);
        self.alone.set_scenario(parse(self.script, self.seed, servers[0].rules)?);
        self.servers[1].set_scenario(parse(self.script, self.seed, servers[1].rules)?);
        Ok(())
    }

    /// Makes the networks what they are to be this long after the phase began.
    pub async fn networks(&mut self, servers: [Server; 2], since: Duration) {
        let wanted = servers.map(|server| server.network_at(since));
        let [first, second] = &self.servers;
        let turn_first = async {
            if wanted[0] != self.networks[0] {
                tokio::join!(first.network(wanted[0], None), self.alone.network(wanted[0], None));
            }
        };
        let turn_second = async {
            if wanted[1] != self.networks[1] {
                second.network(wanted[1], None).await;
            }
        };
        tokio::join!(turn_first, turn_second);
        self.networks = wanted;
    }

    /// Takes everything down.
    pub async fn strike(self) {
        self.gateway.drain(std::future::ready(())).await;
        let [first, second] = self.servers;
        tokio::join!(first.stop(), second.stop(), self.alone.stop());
    }
}

fn parse(script: &Script, seed: u64, rules: &str) -> anyhow::Result<Scenario> {
    Scenario::parse(&script.scenario(seed, rules)).map_err(|error| anyhow::anyhow!("the demo's own scenario: {error}"))
}

async fn gateway(script: &Script, servers: &[mock::Running; 2]) -> anyhow::Result<Running> {
    let loaded = config::from_text(
        Path::new("demo"),
        &file(script, [&servers[0].base_url(), &servers[1].base_url()]),
        &HashMap::new(),
        &config::Overrides::default(),
    );
    let loaded = loaded.map_err(|report| anyhow::anyhow!("the demo's own config: {}", report.render(false)))?;
    app::start(loaded.settings).await
}

/// The gateway's config: the defaults, but for clocks that fit a story of a minute.
fn file(script: &Script, urls: [&str; 2]) -> String {
    let endpoint = |name: &str, url: &str| format!("- {{ name: {name}, url: \"{url}\"{} }}\n", script.endpoint);
    format!(
        "version: 1\n\
         server: {{ listen: 127.0.0.1:0 }}\n\
         admin: {{ listen: 127.0.0.1:0 }}\n\
         endpoints:\n{}{}\
         defaults:\n\
         \x20 timeouts: {{ connect: 500ms, headers: 2s, first_token: 1s, idle: 3s, total: 9s }}\n\
         routes:\n\
         - {{ name: demo, targets: {} }}\n",
        endpoint("north", urls[0]),
        endpoint("south", urls[1]),
        script.targets,
    )
}
