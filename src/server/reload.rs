//! How the config is asked to be read again, and what came of the last time.
//!
//! Owns the asking; reading and building is the assembly's, which answers one request after the other. Invariant: whoever
//! asks is told, if only that nobody is there to do it any more.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

/// What a reload did.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// Whether anything is different now.
    pub changed: bool,
    /// The hash of the config that runs.
    pub hash: String,
    /// Warnings of the config, as `outrigger check --json` has them.
    pub warnings: Value,
    /// Keys that were changed and need a restart.
    pub needs_restart: Vec<&'static str>,
}

/// Why the old config still runs.
#[derive(Clone, Debug)]
pub struct Refused {
    /// In full.
    pub said: String,
    /// Whether it is the config's fault.
    pub bad_config: bool,
}

impl Refused {
    /// The config is wrong.
    pub fn config(said: impl Into<String>) -> Self {
        Self { said: said.into(), bad_config: true }
    }

    /// It was not looked at.
    pub fn unread(said: impl Into<String>) -> Self {
        Self { said: said.into(), bad_config: false }
    }
}

/// A request to reload, and where the answer goes.
pub type Wish = oneshot::Sender<Result<Reloaded, Refused>>;

/// The last attempt.
#[derive(Clone, Debug)]
pub struct Last {
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// When.
    pub at: SystemTime,
}

/// Asks for reloads.
#[derive(Clone, Debug)]
pub struct Reloads {
    wishes: mpsc::Sender<Wish>,
    last: Arc<ArcSwap<Option<Last>>>,
}

impl Reloads {
    /// And where the requests arrive.
    pub fn new() -> (Self, mpsc::Receiver<Wish>) {
        let (wishes, wished) = mpsc::channel(16);
        (Self { wishes, last: Arc::default() }, wished)
    }

    /// Asks for one, and waits for what comes of it.
    ///
    /// # Errors
    /// The old config still runs.
    pub async fn again(&self) -> Result<Reloaded, Refused> {
        let (tell, told) = oneshot::channel();
        let nobody = || Refused::unread("shutting down: nothing is read any more\n");
        self.wishes.send(tell).await.map_err(|_| nobody())?;
        told.await.unwrap_or_else(|_| Err(nobody()))
    }

    /// Notes what became of an attempt.
    pub fn note(&self, last: Last) {
        self.last.store(Arc::new(Some(last)));
    }

    /// The last attempt, as JSON; `null` before there was one.
    pub fn last(&self) -> Value {
        match &**self.last.load() {
            None => Value::Null,
            Some(last) => json!({ "ok": last.error.is_none(), "error": last.error, "at": unix(last.at) }),
        }
    }
}

/// Whole seconds of Unix time.
pub fn unix(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
