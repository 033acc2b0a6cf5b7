//! The thread of one shard: a glommio executor, pinned to the shard's core, that runs the HTTP tasks and timers and one
//! task that drives the shard, see [`super::shard_driver`].

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

use super::panics::watch_thread;
use super::shard_driver::{self, ShardCommand};
use crate::http::{HttpShared, Listener, ShardIo};
use crate::io::sealed::Sealed;
use crate::io::uring::{SetupError, Uring};
use crate::ring;
use crate::shard::Shard;
use crate::wake::ShardWaker;

/// Memory that glommio registers for files; the only files are eventfds.
const FILE_BYTES: usize = 64 * 1024;

/// Why a shard could not start.
#[derive(Debug, thiserror::Error)]
pub enum ShardStartError {
    #[error(transparent)]
    Ring(#[from] SetupError),
    #[error("the eventfd could not be duplicated: {0}")]
    Event(io::Error),
    #[error(
        "glommio could not start: {0}; for locked memory the cure is 'ulimit -l unlimited' (LimitMEMLOCK=infinity in a \
         unit), for io_uring 'sysctl -w kernel.io_uring_disabled=0'"
    )]
    Executor(String),
    #[error("the shard's thread panicked at its start; the lines above say why")]
    Panicked,
}

/// The main thread's side of a shard.
pub(super) struct ShardThread {
    pub(super) waker: Arc<ShardWaker>,
    pub(super) thread: ExecutorJoinHandle<()>,
    pub(super) commands: Sender<ShardCommand>,
    /// Its sender is dropped when the shard's task ends.
    pub(super) ended: Receiver<()>,
}

/// The shard's side of it.
pub(super) struct ShardControl {
    pub(super) commands: Receiver<ShardCommand>,
    /// Dropped when the shard's task ends.
    pub(super) end: Sender<()>,
}

impl ShardThread {
    pub(super) fn send(&self, command: ShardCommand) {
        // Fails if the shard has panicked, which the lifecycle reports.
        let _ = self.commands.send(command);
        self.waker.wake();
    }

    /// Waits until this time for the end of the thread. False if it does not end: it hangs, or its task was leaked in a
    /// panic.
    pub(super) fn join(self, until: Instant) -> bool {
        if self.ended.recv_deadline(until) == Err(RecvTimeoutError::Timeout) {
            return false;
        }
        if let Err(error) = self.thread.join() {
            tracing::error!("the executor of a shard failed: {error}");
        }
        true
    }
}

/// Starts the thread of a shard. The outcome of the start is sent to `report`.
pub(super) fn spawn(
    index: usize,
    core: usize,
    http: Arc<HttpShared>,
    sockets: Vec<(Listener, TcpListener)>,
    ring: ring::Reader,
    control: ShardControl,
    report: mpsc::Sender<Result<Arc<ShardWaker>, ShardStartError>>,
) -> Result<ExecutorJoinHandle<()>, ShardStartError> {
    LocalExecutorBuilder::new(Placement::Fixed(core))
        .name(&format!("shard-{index}"))
        .io_memory(FILE_BYTES)
        .spawn(move || async move {
            watch_thread(&http.state.lifecycle, &format!("shard {index}"));
            let ShardControl { commands, end: _end } = control;
            match set_up(&http, ring) {
                Ok((shard, waker)) => {
                    // The receiver is gone if another shard could not start: then this one ends too.
                    if report.send(Ok(waker.clone())).is_ok() {
                        shard_driver::run(index, http.clone(), sockets, shard, waker, commands).await;
                    }
                }
                Err(error) => drop(report.send(Err(error))),
            }
        })
        .map_err(|error| ShardStartError::Executor(error.to_string()))
}

fn set_up(http: &HttpShared, ring: ring::Reader) -> Result<(Shard<ShardIo>, Arc<ShardWaker>), ShardStartError> {
    let config = &http.state.config;
    let uring = Uring::new(config.slots_per_shard())?;
    let event = ShardStartError::Event;
    let waker = ShardWaker::new(uring.wake_fd().map_err(event)?, uring.completed_fd().map_err(event)?);
    Ok((Shard::new(config.shard.clone(), Sealed::new(uring), ring), Arc::new(waker)))
}
