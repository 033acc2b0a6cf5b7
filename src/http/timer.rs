//! Timers of requests and responses, which do not count the time in which the process did not run.

use std::time::Duration;

use crate::clock::now_ns;

/// Sleeps for as long, in the time of deadlines. After a pause of the process glommio's timer ends at once.
pub(super) async fn sleep(timeout: Duration) {
    let until_ns = now_ns().saturating_add(timeout.as_nanos() as u64);
    loop {
        let left_ns = until_ns.saturating_sub(now_ns());
        if left_ns == 0 {
            return;
        }
        glommio::timer::sleep(Duration::from_nanos(left_ns)).await;
    }
}
