//! The thread that watches the shards and the memory, and what the service manager learns (sd_notify(3)): that the
//! server is ready, that it reloads, that it stops, and that all its shards run.
//!
//! Twice a second the thread wakes all shards and looks whether each has ticked since the last look. A shard that has not
//! ticked for [`STALLED_S`] makes `/healthz` and `/readyz` fail, and the watchdog is not answered while there is one, so
//! that the service manager ends the process (`WatchdogSec=`). The thread itself waits for nothing else.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError};
use sd_notify::NotifyState;

use super::certificates;
use super::panics::watch_thread;
use crate::affinity::keep_current_thread_on;
use crate::clock;
use crate::fault;
use crate::heartbeat::{Change, HeartbeatWatch};
use crate::memory;
use crate::state::{STALLED_S, ServerState};
use crate::stats::Counter;
use crate::wake::ShardWaker;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(500);
/// Looks without a tick after which a shard is stalled.
const LOOKS_MAX: u32 = STALLED_S * 2;

/// Starts the thread. It ends once the sender of `stopped` is dropped.
pub(super) fn spawn(
    state: Arc<ServerState>,
    wakers: Vec<Arc<ShardWaker>>,
    stopped: Receiver<()>,
) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name("health".to_owned()).spawn(move || {
        keep_current_thread_on(&state.config.other_cores);
        watch_thread(&state.lifecycle, "the health thread");
        let markets: Vec<_> = state.delayed.iter().chain([&state]).cloned().collect();
        let watches = markets.iter().map(|market| HeartbeatWatch::new(&market.heartbeats, LOOKS_MAX));
        let mut watches: Vec<_> = watches.collect();
        let mut memory = MemoryWatch::default();
        while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
            fault::point("health");
            // A read at least this often, see `clock::watch_pauses`.
            clock::now_ns();
            for (watch, market) in watches.iter_mut().zip(&markets) {
                watch.look(&market.heartbeats).into_iter().for_each(|change| log(change, market.delay_s()));
            }
            memory.look(&state);
            if let Some(tls) = &state.tls {
                certificates::look(tls);
            }
            if markets.iter().all(|market| market.heartbeats.stalled().is_none()) {
                notify(&[NotifyState::Watchdog]);
            }
            wakers.iter().for_each(|waker| waker.wake());
        }
    })
}

fn log(Change { shard, is_stalled }: Change, delay_s: u32) {
    if is_stalled {
        tracing::error!(delay_s, "shard {shard} does not run: it has not ticked for {STALLED_S} s");
    } else {
        tracing::info!(delay_s, "shard {shard} runs again");
    }
}

/// Says when memory is short and what was shed, and takes the reserve of the allocator again.
#[derive(Default)]
struct MemoryWatch {
    failures: u64,
    was_short: bool,
    /// What had been shed before.
    before: [u64; SHED.len()],
}

/// What is shed while memory is short, and how it is called.
const SHED: [(Counter, &str); 3] = [
    (Counter::RefusedMemory, "new clients were refused"),
    (Counter::InputShed, "clients closed for the input that was held for them"),
    (Counter::RequestsRefusedMemory, "requests for subscriptions refused"),
];

impl MemoryWatch {
    fn look(&mut self, state: &ServerState) {
        let failures = memory::failures() - self.failures;
        let shed = SHED.map(|(counter, _)| state.shards.iter().map(|shard| shard.get(counter)).sum::<u64>());
        if failures > 0 {
            self.failures += failures;
            tracing::error!(
                "memory is short: {failures} allocation(s) found none at first; new clients and more subscriptions are \
                 refused, and held input is given up"
            );
        }
        let is_short = !memory::recover() || failures > 0;
        if self.was_short && !is_short {
            let counts = SHED.iter().zip(shed.iter().zip(self.before));
            let counts: Vec<_> = counts.map(|((_, what), (now, before))| format!("{} {what}", now - before)).collect();
            tracing::info!("memory is no longer short; meanwhile {}", counts.join(", "));
        }
        self.was_short = is_short;
        if !is_short {
            self.before = shed;
        }
    }
}

/// The server accepts connections, for the first time or after a reload.
pub(super) fn notify_ready() {
    notify(&[NotifyState::Ready]);
}

/// The server reads its settings again.
pub(super) fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!("the service manager was not notified of the reload: {error}"),
    }
}

/// The server drains.
pub(super) fn notify_stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Does nothing without a service manager (`NOTIFY_SOCKET`). A server without its service manager serves on.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("the service manager was not notified: {error}");
    }
}
