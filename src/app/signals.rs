//! SIGTERM and SIGINT as a stream of wishes to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals that ask a process to stop.
pub struct Signals {
    term: Signal,
    int: Signal,
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
