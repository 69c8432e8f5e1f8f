//! A body that can be sent once, on loan to a send: it comes back when the send is dropped before it took any of it.
//!
//! A breaker may refuse a send that was started already. Invariant: a body is never lost with a send that was not made,
//! and never given out again once a byte of it was asked for.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::mpsc;

use crate::call::Upload;

/// The body while nobody sends it.
pub(super) struct Carried {
    kept: Option<Upload>,
    back: mpsc::UnboundedReceiver<Upload>,
    to: mpsc::UnboundedSender<Upload>,
}

impl Carried {
    pub(super) fn new(upload: Upload) -> Self {
        let (to, back) = mpsc::unbounded_channel();
        Self { kept: Some(upload), back, to }
    }

    /// The body for a send, unless another has begun to send it.
    pub(super) fn lend(&mut self) -> Option<Upload> {
        let upload = self.kept.take().or_else(|| self.back.try_recv().ok())?;
        Some(Box::pin(Loan { upload: Some(upload), to: self.to.clone(), begun: false }))
    }
}

struct Loan {
    upload: Option<Upload>,
    to: mpsc::UnboundedSender<Upload>,
    begun: bool,
}

impl Stream for Loan {
    type Item = <Upload as Stream>::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.begun = true;
        let Some(upload) = &mut self.upload else { return Poll::Ready(None) };
        upload.as_mut().poll_next(cx)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let (false, Some(upload)) = (self.begun, self.upload.take()) {
            // The call may be gone; then nobody wants it.
            drop(self.to.send(upload));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::{StreamExt, stream};

    use super::*;

    #[tokio::test]
    async fn a_body_comes_back_until_it_is_begun() {
        let mut carried = Carried::new(Box::pin(stream::iter([Ok(Bytes::from_static(b"x")), Ok(Bytes::new())])));
        drop(carried.lend());
        let mut loan = carried.lend().unwrap();
        assert!(carried.lend().is_none(), "it is out");
        assert_eq!(loan.next().await.unwrap().unwrap(), "x");
        drop(loan);
        assert!(carried.lend().is_none(), "it was begun");
    }
}
