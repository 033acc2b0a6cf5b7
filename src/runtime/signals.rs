//! Signals as events of the main thread: SIGHUP reloads, SIGTERM and SIGINT stop. A second stop ends the process at once.

use crossbeam::channel::Sender;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::StartError;
use crate::lifecycle::Event;

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
    pub(super) fn forward_to(self, events: Sender<Event>) -> Result<(), StartError> {
        let thread = std::thread::Builder::new().name("signals".to_owned());
        thread.spawn(move || self.forward(&events)).map_err(StartError::Thread)?;
        Ok(())
    }

    fn forward(mut self, events: &Sender<Event>) {
        let mut stopping = false;
        for signal in self.0.forever() {
            if signal != SIGHUP && std::mem::replace(&mut stopping, true) {
                std::process::exit(EXIT_AT_ONCE);
            }
            // Cannot fail: the receiver lives as long as the process.
            let _ = events.send(if signal == SIGHUP { Event::Reload } else { Event::Stop });
        }
    }
}
