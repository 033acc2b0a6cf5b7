//! Runs the async client of a source in the source's own thread.
//!
//! A [`Source`](crate::ingest::source::Source) that has an async client owns an [`Executor`]. Tasks of the client, such as
//! those that answer pings, run while the source is in [`Executor::run_until`] or [`Executor::run`], which is nearly
//! always: the supervisor calls the source again as soon as the rings have its records.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;
use tokio::{select, time};

use crate::clock::now_ns;
use crate::ingest::stop::Stop;

/// A runtime of one thread, that of its owner.
#[derive(Debug)]
pub struct Executor {
    /// Taken by the destructor only.
    runtime: Option<Runtime>,
    stop: Stop,
}

impl Drop for Executor {
    fn drop(&mut self) {
        // Without waiting for a look-up of a host that is under way on a thread of its own.
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl Executor {
    /// An executor whose waits end when the server stops.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub fn new(stop: &Stop) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime: Some(runtime), stop: stop.clone() })
    }

    /// Starts a task, which runs while the source waits.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.runtime().spawn(task).abort_handle()
    }

    /// The output of `future`, or `None` if the server stops before it has completed. The future is then dropped.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.runtime().block_on(async {
            select! {
                biased;
                () = self.stop.stopped() => None,
                output = future => Some(output),
            }
        })
    }

    /// Like [`Self::run`], and `None` as well if the future has not completed at `deadline_ns`, ns since the Unix epoch
    /// of the clock of deadlines. The future is polled at least once.
    pub fn run_until<T>(&self, deadline_ns: u64, future: impl Future<Output = T>) -> Option<T> {
        let left = Duration::from_nanos(deadline_ns.saturating_sub(now_ns()));
        self.run(async { time::timeout(left, future).await.ok() }).flatten()
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is taken by the destructor only")
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[test]
    fn wait_ends_with_the_output_at_the_deadline_or_when_the_server_stops() {
        let stop = Stop::default();
        let executor = Executor::new(&stop).expect("an executor");
        assert_eq!(executor.run_until(0, ready(1)), Some(1), "it is polled although the deadline has passed");
        assert_eq!(executor.run_until(now_ns() + 1_000_000, pending::<()>()), None);
        let other = stop.clone();
        let thread = std::thread::spawn(move || other.stop());
        assert_eq!(executor.run(pending::<()>()), None);
        thread.join().expect("no panic");
        assert_eq!(executor.run(ready(1)), None, "nothing is begun once the server stops");
    }

    #[test]
    fn tasks_of_a_client_run_while_its_source_waits() {
        let executor = Executor::new(&Stop::default()).expect("an executor");
        let (sender, receiver) = tokio::sync::oneshot::channel();
        executor.spawn(async { sender.send(7).expect("the receiver waits") });
        assert_eq!(executor.run(receiver).expect("it has run"), Ok(7));
    }
}
