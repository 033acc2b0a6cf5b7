//! The signal by which a shard's driver has its accept loop run.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Tells the accept loop that connections wait. The loop accepts all of them, then waits for the next signal.
#[derive(Debug, Default)]
pub(super) struct AcceptSignal {
    is_raised: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl AcceptSignal {
    pub(super) fn raise(&self) {
        self.is_raised.set(true);
        if let Some(waker) = self.waiting.borrow_mut().take() {
            waker.wake();
        }
    }

    /// True until the accept loop has seen it.
    pub(super) fn is_raised(&self) -> bool {
        self.is_raised.get()
    }

    /// Waits until it is raised.
    pub(super) async fn wait(&self) {
        poll_fn(|context| {
            if self.is_raised.take() {
                return Poll::Ready(());
            }
            *self.waiting.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
