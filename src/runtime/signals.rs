//! Signals as events of the main thread: SIGHUP reloads, SIGTERM and SIGINT stop. A second stop ends the process at once.

use std::sync::Arc;

use crossbeam::channel::Sender;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::StartError;
use super::panics::watch_thread;
use crate::fault;
use crate::lifecycle::{Event, Lifecycle};

/// Exit code after a second SIGTERM or SIGINT.
const EXIT_AT_ONCE: i32 = 1;

/// The installed handlers. Signals are queued until they are forwarded.
pub(super) struct Signals(signal_hook::iterator::Signals);

impl Signals {
    pub(super) fn install() -> Result<Self, StartError> {
        let signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]);
        signals.map(Self).map_err(StartError::Signals)
    }

    /// Sends an event for each signal, on a thread of its own.
    pub(super) fn forward_to(self, lifecycle: &Arc<Lifecycle>) -> Result<(), StartError> {
        let thread = std::thread::Builder::new().name("signals".to_owned());
        let lifecycle = lifecycle.clone();
        let forward = move || {
            watch_thread(&lifecycle, "the thread for signals");
            self.forward(&lifecycle.events());
        };
        thread.spawn(forward).map_err(StartError::Thread)?;
        Ok(())
    }

    fn forward(mut self, events: &Sender<Event>) {
        let mut stopping = false;
        for signal in self.0.forever() {
            fault::point("signals");
            if signal != SIGHUP && std::mem::replace(&mut stopping, true) {
                std::process::exit(EXIT_AT_ONCE);
            }
            // Cannot fail: the receiver lives as long as the process.
            let _ = events.send(if signal == SIGHUP { Event::Reload } else { Event::Stop });
        }
    }
}
