//! The stage of the server and its failures, shared by all threads.
//!
//! A panic of the sequencer or of a shard ends the process: the server would stay connected and silent. A panic of a feed
//! does not, see `ingest::supervisor`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use crossbeam::channel::{Receiver, Sender, unbounded};

/// An event that the main thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// SIGHUP.
    Reload,
    /// The first SIGTERM or SIGINT.
    Stop,
    /// A part that the server cannot do without has panicked, see [`Lifecycle::failure`].
    Failed,
}

/// The stages of a server, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Serving,
    /// New clients are refused, connected ones are closed one after another.
    Draining,
    /// All threads end.
    Stopping,
}

/// The stage and the failures.
#[derive(Debug)]
pub struct Lifecycle {
    stage: AtomicU8,
    failure: OnceLock<String>,
    events: Sender<Event>,
}

impl Lifecycle {
    /// The lifecycle of a server that serves, and the events for its main thread.
    pub fn begin() -> (Self, Receiver<Event>) {
        let (events, received) = unbounded();
        let lifecycle = Self { stage: AtomicU8::new(0), failure: OnceLock::new(), events };
        (lifecycle, received)
    }

    /// Sends events to the main thread.
    pub fn events(&self) -> Sender<Event> {
        self.events.clone()
    }

    pub fn stage(&self) -> Stage {
        // Relaxed, here and below: the stage orders nothing, and threads that sleep are woken by other means.
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Serving,
            1 => Stage::Draining,
            _ => Stage::Stopping,
        }
    }

    /// Enters the next stage.
    pub fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// True once new clients are refused.
    pub fn is_draining(&self) -> bool {
        self.stage() >= Stage::Draining
    }

    /// True once all threads should end.
    pub fn is_stopping(&self) -> bool {
        self.stage() == Stage::Stopping
    }

    /// Why the server does not accept clients; `None` while it does.
    pub fn not_ready(&self) -> Option<String> {
        let stopping = self.is_draining().then(|| "the server is stopping".to_owned());
        self.failure().map(str::to_owned).or(stopping)
    }

    /// The failure that ends the process.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// While the guard lives, a panic of this thread ends the process.
    pub fn fail_on_panic<'a>(&'a self, what: &'a str) -> PanicGuard<'a> {
        PanicGuard { lifecycle: self, what }
    }

    /// `what` has panicked: the process ends.
    pub fn fail(&self, what: &str) {
        tracing::error!("{what} has panicked; the server stops");
        if self.failure.set(format!("{what} has panicked")).is_ok() {
            // Fails if the main thread has ended.
            let _ = self.events.send(Event::Failed);
        }
    }
}

/// Reports a panic of its thread when it is dropped during unwinding.
pub struct PanicGuard<'a> {
    lifecycle: &'a Lifecycle,
    what: &'a str,
}

impl Drop for PanicGuard<'_> {
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
    fn a_guarded_panic_fails_the_server() {
        let (lifecycle, events) = Lifecycle::begin();
        let lifecycle = Arc::new(lifecycle);
        assert_eq!(lifecycle.not_ready(), None);
        let guarded = lifecycle.clone();
        let thread = std::thread::spawn(move || {
            let _guard = guarded.fail_on_panic("the sequencer");
            panic!("planted");
        });
        assert!(thread.join().is_err());
        assert_eq!(events.recv(), Ok(Event::Failed));
        assert_eq!(
            (lifecycle.failure(), lifecycle.not_ready().as_deref()),
            (Some("the sequencer has panicked"), lifecycle.failure())
        );
        drop(lifecycle.fail_on_panic("nothing"));
        assert!(events.is_empty(), "dropping a guard without a panic is no failure");
    }

    #[test]
    fn a_draining_server_is_not_ready() {
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
