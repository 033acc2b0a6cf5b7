//! What a panic does: a line in the log, and the end of the server if it was on a thread that the server needs.
//!
//! glommio leaks the tasks of an executor that a panic has unwound, so that no guard of a shard's task is dropped. The hook
//! runs where the panic begins, whatever happens to the thread later. Threads that are not watched end their own work
//! only: a feed, a publisher. A panic inside the sequencer ends the server on any thread, see
//! [`Lifecycle::fail_on_panic`].
//!
//! The standard hook would write to stderr and wait for it; this one logs, and never waits.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::thread;

use crate::lifecycle::Lifecycle;

thread_local! {
    static WATCHED: RefCell<Option<Watched>> = const { RefCell::new(None) };
}

/// A thread that the server needs.
struct Watched {
    lifecycle: Arc<Lifecycle>,
    what: String,
}

/// Installs the hook of the process.
pub(super) fn install_hook() {
    std::panic::set_hook(Box::new(|panic| {
        log(panic);
        fail_watched();
        log_backtrace();
    }));
}

/// From now on a panic of this thread ends the process, also one that is caught.
pub(super) fn watch_thread(lifecycle: &Arc<Lifecycle>, what: &str) {
    let watched = Watched { lifecycle: lifecycle.clone(), what: what.to_owned() };
    WATCHED.set(Some(watched));
}

/// Fails the server if this thread is watched.
fn fail_watched() {
    // A panic while the thread ends finds no such variable any more.
    let _ = WATCHED.try_with(|watched| {
        if let Some(Watched { lifecycle, what }) = watched.try_borrow().ok().as_deref().and_then(Option::as_ref) {
            lifecycle.fail(what);
        }
    });
}

fn log(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let message = panic.payload_as_str().unwrap_or("no message");
    tracing::error!("thread {name} panicked at {place}: {message}");
}

/// With `RUST_BACKTRACE`. Last, as it may take a second.
fn log_backtrace() {
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!("the backtrace of this panic:\n{backtrace}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::Event;

    #[test]
    fn a_caught_panic_of_a_watched_thread_fails_the_server_and_one_of_another_thread_does_not() {
        let standard = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            fail_watched();
            standard(panic);
        }));
        let (lifecycle, events) = Lifecycle::begin();
        let lifecycle = Arc::new(lifecycle);
        let planted = |watched: Option<Arc<Lifecycle>>| {
            thread::spawn(move || {
                if let Some(lifecycle) = watched {
                    watch_thread(&lifecycle, "shard 0");
                }
                assert!(std::panic::catch_unwind(|| panic!("planted")).is_err());
            })
        };
        planted(None).join().expect("the panic was caught");
        assert_eq!((lifecycle.failure(), events.len()), (None, 0));
        planted(Some(lifecycle.clone())).join().expect("the panic was caught");
        assert_eq!((lifecycle.failure(), events.try_recv()), (Some("shard 0 has panicked"), Ok(Event::Failed)));
    }
}
