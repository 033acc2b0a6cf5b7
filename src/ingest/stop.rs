//! Tells the threads of sources that the server stops, and ends their waits.
//!
//! Three ways to notice: [`Stop::is_stopped`] is polled, [`Stop::wait_until`] blocks a thread, and [`Stop::stopped`] is a
//! future for whatever executor a source runs.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::now_ns;

/// A handle; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_stopped: bool,
    /// Of the futures that wait: at most one a source.
    wakers: Vec<Waker>,
}

impl Stop {
    /// Ends all waits, now and from now on.
    pub fn stop(&self) {
        let wakers = {
            let mut state = self.lock();
            state.is_stopped = true;
            std::mem::take(&mut state.wakers)
        };
        self.0.changed.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// True once the server stops.
    pub fn is_stopped(&self) -> bool {
        self.lock().is_stopped
    }

    /// Waits until this time, ns since the Unix epoch of the clock of deadlines, or until the server stops.
    pub fn wait_until(&self, time_ns: u64) {
        let mut state = self.lock();
        loop {
            let left = Duration::from_nanos(time_ns.saturating_sub(now_ns()));
            if left.is_zero() || state.is_stopped {
                return;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Completes when the server stops.
    pub fn stopped(&self) -> Stopped<'_> {
        Stopped(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The future of [`Stop::stopped`].
#[derive(Debug)]
pub struct Stopped<'a>(&'a Stop);

impl Future for Stopped<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.is_stopped {
            return Poll::Ready(());
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            state.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        // Its waker may be that of an executor which ends. Others that still wait are polled once more, and come back.
        std::mem::take(&mut self.0.lock().wakers).into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_wait_ends_when_the_server_stops() {
        let stop = Stop::default();
        let other = stop.clone();
        let thread = std::thread::spawn(move || other.wait_until(u64::MAX));
        let other = stop.clone();
        let future = std::thread::spawn(move || futures_lite::future::block_on(other.stopped()));
        assert!(!stop.is_stopped());
        stop.wait_until(now_ns());
        stop.stop();
        thread.join().expect("no panic");
        future.join().expect("no panic");
        assert!(stop.is_stopped());
        stop.wait_until(u64::MAX);
        futures_lite::future::block_on(stop.stopped());
    }

    #[test]
    fn abandoned_wait_leaves_no_waker() {
        let stop = Stop::default();
        for _ in 0..3 {
            let mut abandoned = stop.stopped();
            futures_lite::future::block_on(futures_lite::future::poll_once(&mut abandoned));
            assert_eq!(stop.lock().wakers.len(), 1);
        }
        assert_eq!(stop.lock().wakers.len(), 0);
    }
}
