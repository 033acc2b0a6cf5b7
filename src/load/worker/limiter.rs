//! When limited clients read, and how much: each at most so many bytes a second, a little at a time.
//!
//! A limited socket is not in the thread's epoll set for input. Its client reads once in an interval, at most what its
//! rate allows for the time since its last read; what it does not need is forfeited after two intervals. What always
//! holds: the rest of the data stays in the socket, whose receive buffer is small, so that the limit reaches the server.
//!
//! Cost: 20 to 200 reads a second for each client.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// `SO_RCVBUF` of a limited socket; the kernel doubles it. With the server's send buffer this is what it may have ahead.
pub const RECEIVE_BUFFER_BYTES: usize = 16 * 1024;
/// A read is at most this long, where the rate permits: a part of the receive buffer, so that the buffer does not limit
/// the rate.
const READ_BYTES: u64 = 4 * 1024;
const INTERVAL_MIN: Duration = Duration::from_millis(5);
const INTERVAL_MAX: Duration = Duration::from_millis(50);

/// The limited clients of a thread.
#[derive(Debug)]
pub struct ReadLimiter {
    bytes_per_second: u64,
    interval: Duration,
    /// Clients by index, and when they have read last; the first is the next.
    waiting: VecDeque<(usize, Instant)>,
}

impl ReadLimiter {
    pub fn new(bytes_per_second: u64) -> Self {
        let interval = Duration::from_secs_f64(READ_BYTES as f64 / bytes_per_second.max(1) as f64);
        Self { bytes_per_second, interval: interval.clamp(INTERVAL_MIN, INTERVAL_MAX), waiting: VecDeque::new() }
    }

    /// A client that has read at `now`.
    pub fn add(&mut self, client: usize, now: Instant) {
        self.waiting.push_back((client, now));
    }

    /// The next client that is to read at `now`, and how many bytes. It is to be added again.
    pub fn next_due(&mut self, now: Instant) -> Option<(usize, usize)> {
        let (client, last) = self.waiting.pop_front_if(|(_, last)| now.duration_since(*last) >= self.interval)?;
        let since = now.duration_since(last).min(2 * self.interval);
        let bytes = u128::from(self.bytes_per_second) * since.as_nanos() / 1_000_000_000;
        // A read of no bytes would look like the end of the stream.
        Some((client, (bytes as usize).max(1)))
    }

    /// How long until the next client is to read.
    pub fn until_due(&self, now: Instant) -> Option<Duration> {
        let (_, last) = self.waiting.front()?;
        Some((*last + self.interval).saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_reads_its_rate_and_forfeits_what_it_does_not_read() {
        let begun = Instant::now();
        let at = |ms: u64| begun + Duration::from_millis(ms);
        let mut limiter = ReadLimiter::new(30_000);
        limiter.add(7, begun);
        limiter.add(8, at(10));
        assert_eq!((limiter.next_due(at(49)), limiter.until_due(at(49))), (None, Some(Duration::from_millis(1))));
        assert_eq!(limiter.next_due(at(50)), Some((7, 1_500)));
        limiter.add(7, at(50));
        assert_eq!(limiter.next_due(at(50)), None);
        // A second late: two intervals' worth.
        assert_eq!(limiter.next_due(at(1_050)), Some((8, 3_000)));
        assert_eq!(limiter.next_due(at(1_050)), Some((7, 3_000)));
        assert_eq!((limiter.next_due(at(9_000)), limiter.until_due(at(9_000))), (None, None));
    }

    #[test]
    fn fast_clients_read_more_often() {
        let begun = Instant::now();
        let mut fast = ReadLimiter::new(400_000);
        fast.add(1, begun);
        assert_eq!(fast.next_due(begun + Duration::from_micros(10_240)), Some((1, 4_096)));
    }
}
