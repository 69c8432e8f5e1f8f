//! SIGTERM and SIGINT as a stream of wishes to stop, SIGHUP as one of wishes to read the config again.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals that ask a process to stop.
pub struct Signals {
    term: Signal,
    int: Signal,
}

/// The signal that asks for the config to be read again.
pub struct Hangups(Signal);

impl Hangups {
    /// Listens from now on: it would end the process otherwise.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// The next one.
    pub async fn next(&mut self) {
        self.0.recv().await;
    }
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// The next of either.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
