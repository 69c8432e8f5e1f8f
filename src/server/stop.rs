//! How a shutdown reaches what is running: first nothing new is accepted, then what is left is cut, honestly.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// Shared by whoever stops and whoever is stopped.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    draining: AtomicBool,
    cut: AtomicBool,
    cutting: Arc<Notify>,
    wished: Notify,
}

impl Stop {
    /// Asks for the shutdown to begin, as a signal does.
    pub fn wish(&self) {
        self.0.wished.notify_one();
    }

    /// Resolves when it was asked for.
    pub async fn wished(&self) {
        self.0.wished.notified().await;
    }

    /// From now on the readiness probe says no.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// Whether it does.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Ends every call that is still running, each with an error its client can see.
    pub fn cut(&self) {
        self.0.cut.store(true, Ordering::Release);
        self.0.cutting.notify_waiters();
    }

    /// Resolves when calls are to end.
    pub fn when_cut(&self) -> Cut {
        Cut { stop: self.clone(), notified: Box::pin(Arc::clone(&self.0.cutting).notified_owned()) }
    }
}

/// See [`Stop::when_cut`].
pub struct Cut {
    stop: Stop,
    notified: Pin<Box<OwnedNotified>>,
}

impl Future for Cut {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.notified.as_mut().poll(cx).is_ready() || self.stop.0.cut.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
