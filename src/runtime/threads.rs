//! The ends of threads, for which others wait no longer than a while.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the main thread checks whether others have ended.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_millis(10);
/// Time that others have beyond their timeouts.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// Waits a while for the end of a thread; false if it does not end. A panic was reported by the hook of the process.
pub(super) fn join(thread: JoinHandle<()>) -> bool {
    join_by(thread, Instant::now() + GRACE)
}

pub(super) fn join_by(thread: JoinHandle<()>, until: Instant) -> bool {
    while !thread.is_finished() && Instant::now() < until {
        std::thread::sleep(CHECK_INTERVAL);
    }
    thread.is_finished() && matches!(thread.join(), Ok(()) | Err(_))
}

pub(super) fn ms(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}
