//! How far the server is on its way, and what has gone wrong with it: shared by all threads.
//!
//! A panic of what everybody needs (the sequencer, a shard) ends the process: what would go on is a server that is
//! connected and silent. A panic of a feed leaves the rest serving, and the server not ready until it is back.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crossbeam::channel::{Receiver, Sender, unbounded};

/// What the main thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT, for the first time.
    Stop,
    /// Something that everybody needs has died; [`Lifecycle::failure`] says what.
    Failed,
}

/// From the start to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Serving,
    /// Nobody comes in any more; those who are there are sent away, one after another.
    Draining,
    /// Threads end.
    Stopping,
}

/// The stage and the failures.
#[derive(Debug)]
pub struct Lifecycle {
    stage: AtomicU8,
    failure: OnceLock<String>,
    /// What the server goes on without.
    degraded: Mutex<BTreeSet<String>>,
    events: Sender<Event>,
}

impl Lifecycle {
    /// A server that serves, and what its main thread waits for.
    pub fn begin() -> (Self, Receiver<Event>) {
        let (events, received) = unbounded();
        let lifecycle = Self { stage: AtomicU8::new(0), failure: OnceLock::new(), degraded: Mutex::default(), events };
        (lifecycle, received)
    }

    /// Where those report who have something for the main thread.
    pub fn events(&self) -> Sender<Event> {
        self.events.clone()
    }

    /// How far it is.
    pub fn stage(&self) -> Stage {
        // Relaxed, here and below: the stage stands for itself; who sleeps is woken by other means.
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Serving,
            1 => Stage::Draining,
            _ => Stage::Stopping,
        }
    }

    /// The next stage has come.
    pub fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// True once nobody is let in any more.
    pub fn is_draining(&self) -> bool {
        self.stage() >= Stage::Draining
    }

    /// True once threads are to end.
    pub fn is_stopping(&self) -> bool {
        self.stage() == Stage::Stopping
    }

    /// Why the server is not ready; `None` while it is.
    pub fn not_ready(&self) -> Option<String> {
        let degraded = self.degraded().first().map(|what| format!("{what} has died"));
        let stopping = self.is_draining().then(|| "the server is stopping".to_owned());
        self.failure().map(str::to_owned).or(degraded).or(stopping)
    }

    /// What ends the process, if something does.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// The server goes on without `what`, and is not ready.
    pub fn degrade(&self, what: &str) {
        self.degraded().insert(what.to_owned());
    }

    /// It is back.
    pub fn restore(&self, what: &str) {
        self.degraded().remove(what);
    }

    fn degraded(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.degraded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As long as the watch lives, a panic of this thread ends the process.
    pub fn watch<'a>(&'a self, what: &'a str) -> Watch<'a> {
        Watch { lifecycle: self, what }
    }

    fn fail(&self, what: &str) {
        tracing::error!("{what} has panicked; the server ends");
        if self.failure.set(format!("{what} has panicked")).is_ok() {
            // Where nobody waits any more, the server ends already.
            let _ = self.events.send(Event::Failed);
        }
    }
}

/// Sees a panic by being dropped in it.
pub struct Watch<'a> {
    lifecycle: &'a Lifecycle,
    what: &'a str,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.lifecycle.fail(self.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_panic_under_watch_ends_the_process_and_is_the_reason_why_it_is_not_ready() {
        let (lifecycle, events) = Lifecycle::begin();
        let lifecycle = Arc::new(lifecycle);
        assert_eq!(lifecycle.not_ready(), None);
        let watched = lifecycle.clone();
        let thread = std::thread::spawn(move || {
            let _watch = watched.watch("the sequencer");
            panic!("planted");
        });
        assert!(thread.join().is_err());
        assert_eq!(events.recv(), Ok(Event::Failed));
        assert_eq!(
            (lifecycle.failure(), lifecycle.not_ready().as_deref()),
            (Some("the sequencer has panicked"), lifecycle.failure())
        );
        drop(lifecycle.watch("nothing"));
        assert!(events.is_empty(), "an end without a panic is none");
    }

    #[test]
    fn what_the_server_can_do_without_makes_it_not_ready() {
        let (lifecycle, events) = Lifecycle::begin();
        lifecycle.degrade("feed sim");
        assert_eq!((lifecycle.not_ready().as_deref(), lifecycle.failure()), (Some("feed sim has died"), None));
        lifecycle.restore("feed sim");
        assert_eq!(lifecycle.not_ready(), None);
        assert!(events.is_empty());
    }

    #[test]
    fn a_server_that_drains_is_not_ready() {
        let (lifecycle, _events) = Lifecycle::begin();
        assert!(!lifecycle.is_draining() && !lifecycle.is_stopping());
        lifecycle.enter(Stage::Draining);
        assert!(
            lifecycle.is_draining()
                && !lifecycle.is_stopping()
                && lifecycle.not_ready().as_deref() == Some("the server is stopping")
        );
        lifecycle.enter(Stage::Stopping);
        assert!(lifecycle.is_draining() && lifecycle.is_stopping());
    }
}
