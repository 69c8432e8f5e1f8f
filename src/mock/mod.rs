//! A stand-in model server that is deterministic, and misbehaves on a script.
//!
//! Owns `outrigger mock`, and serves the tests and the demo in-process. It speaks HTTP/1.1 over raw sockets so that
//! it can break framing at will, and imports nothing of the proxy it tests. Invariant: equal seeds, scenarios and
//! requests in equal order give equal bytes.

#![allow(clippy::disallowed_methods, reason = "it plays servers in real time, apart from the gateway's clock")]

mod answer;
mod ask;
mod base64;
mod chat;
pub mod cli;
mod control;
mod dice;
mod errors;
mod event;
pub mod fault;
mod http;
mod listing;
mod messages;
mod network;
mod play;
mod record;
mod reply;
mod responses;
mod resume;
pub mod scenario;
mod schema;
mod script;
mod serve;
mod spoil;
mod state;
mod stream;
pub mod units;
pub mod words;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use cli::serve_cli;
pub use fault::{Fault, VOCABULARY};
pub use scenario::{Answer, Rule, Scenario};
pub use state::{Seen, Stats};
pub use words::{Network, WORDS};

use record::Record;
use state::{Power, State};

/// The stand-in, before it runs.
pub struct Mock;

impl Mock {
    /// Listens on `listen` (port 0 picks a free one) and answers by `scenario` until stopped or dropped.
    pub async fn start(listen: SocketAddr, scenario: Scenario) -> io::Result<Running> {
        Self::start_recorded(listen, scenario, None).await
    }

    /// The same, with a history of what came in and what became of it added to the file `record`.
    ///
    /// # Errors
    /// The address is taken, or the file cannot be written.
    pub async fn start_recorded(listen: SocketAddr, scenario: Scenario, record: Option<&Path>) -> io::Result<Running> {
        let record = record.map(Record::open).transpose()?;
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::new(scenario, record));
        let task = tokio::spawn(network::listen(state.clone(), listener, address));
        Ok(Running { state, address, task: Some(task), control: None })
    }
}

/// A stand-in that runs.
pub struct Running {
    state: Arc<State>,
    address: SocketAddr,
    task: Option<JoinHandle<()>>,
    control: Option<JoinHandle<()>>,
}

impl Running {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The base URL an OpenAI client takes, ending in `/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// A copy of its counters.
    pub fn stats(&self) -> Stats {
        self.state.stats()
    }

    /// Waits until the counters satisfy `wanted`, and returns them. Never polls by time.
    pub async fn until(&self, wanted: impl Fn(&Stats) -> bool) -> Stats {
        let mut changed = self.state.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if self.state.satisfies(&wanted) || changed.changed().await.is_err() {
                return self.stats();
            }
        }
    }

    /// Replaces the scenario; its clock and its rules' counts begin anew, the call numbers go on.
    pub fn set_scenario(&self, scenario: Scenario) {
        self.state.set_scenario(scenario);
    }

    /// Zeroes the counters and call numbers.
    pub fn reset(&self) {
        self.state.reset();
    }

    /// Serves `/_mock` on `listen` too, where the faults of the network do not reach. Returns the address.
    pub async fn control(&mut self, listen: SocketAddr) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        self.control = Some(tokio::spawn(control::listen(self.state.clone(), listener)));
        Ok(address)
    }

    /// Lets the network before it be like this, for so long or until it is told otherwise. Returns when it is.
    pub async fn network(&self, network: Network, time: Option<Duration>) {
        let mut in_force = self.state.in_force.subscribe();
        let turn = self.state.want(network, time);
        let _ = in_force.wait_for(|(now, _)| *now >= turn).await;
    }

    /// Dies as a killed process does: the listener closes, every connection is reset. Returns when that is done.
    pub async fn down(&self) {
        self.network(Network::Refuse, None).await;
    }

    /// Listens again after [`Running::down`], on the same address. Returns when it does.
    pub async fn up(&self) {
        self.network(Network::Up, None).await;
    }

    /// Ends it: the listener closes, every connection is reset.
    pub async fn stop(mut self) {
        self.state.power.send_replace(Power::Stopped);
        if let Some(control) = self.control.take() {
            control.abort();
        }
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.state.power.send_replace(Power::Stopped);
        if let Some(control) = &self.control {
            control.abort();
        }
    }
}
