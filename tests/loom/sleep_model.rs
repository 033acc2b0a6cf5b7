//! How a shard goes to sleep and is woken, under loom: the ring's own source and the sleep flag's own source, called as
//! the shard's task and the sequencer handle call them.
//!
//! The shard is done when it has read all that was published. With a lost wake-up it would sleep for ever, which loom
//! reports as a deadlock. The eventfd is a counter under a lock. The lock orders more than necessary, as the kernel
//! does, but both sides have decided before they use it.

use crate::ring::{self, Batch, Reader, Writer};
use crate::sleep_flag::SleepFlag;
use crate::sync::Arc;
use loom::model::Builder;
use loom::sync::{Condvar, Mutex};
use loom::thread;
use tickcast_protocol::Position;

/// The payload of an entry. No test pushes more than the ring holds, so there is no overrun.
const PAYLOAD: [u8; 8] = [7; 8];
const RING_BYTES: usize = 128;

/// Like an eventfd: a write adds 1, a read waits for a number above 0 and resets it.
#[derive(Default)]
struct ModelEventfd {
    count: Mutex<u64>,
    written: Condvar,
}

impl ModelEventfd {
    fn write(&self) {
        *self.count.lock().unwrap() += 1;
        self.written.notify_one();
    }

    fn read(&self) -> u64 {
        let mut count = self.count.lock().unwrap();
        while *count == 0 {
            count = self.written.wait(count).unwrap();
        }
        std::mem::take(&mut *count)
    }
}

/// `ShardWaker` with that eventfd.
struct ModelWaker {
    sleep_flag: SleepFlag,
    event: ModelEventfd,
}

impl ModelWaker {
    fn new() -> Arc<Self> {
        Arc::new(Self { sleep_flag: SleepFlag::new(), event: ModelEventfd::default() })
    }

    fn wake(&self) {
        if self.sleep_flag.claim() {
            self.event.write();
        }
    }
}

/// What ends a sleep.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sleep {
    /// The eventfd alone.
    UntilSignalled,
    /// For the first one a deadline, at once; for the others the eventfd.
    FirstUntilDeadline,
}

/// What the sequencer handle does for a source, without the lock.
fn publish(writer: &mut Writer, position: u64) {
    writer.push(Position::new(position), &PAYLOAD);
    writer.publish();
}

/// Reads the ring until it is empty; returns the number of entries.
fn tick(reader: &mut Reader) -> usize {
    let mut batch = Batch::default();
    reader.read(RING_BYTES, &mut batch).expect("there is no overrun");
    batch.entries.len()
}

/// The shard's task, until it has read `total` entries: a tick; then raise the flag, look at the ring once more, and
/// sleep only if it is empty. Returns how often it was signalled.
fn run_shard(reader: &mut Reader, shard_waker: &ModelWaker, total: usize, sleep: Sleep) -> u64 {
    let (mut seen, mut signals, mut deadline) = (0, 0, sleep == Sleep::FirstUntilDeadline);
    loop {
        seen += tick(reader);
        if seen == total {
            assert!(reader.is_empty());
            return signals;
        }
        shard_waker.sleep_flag.raise();
        if reader.is_empty() && !std::mem::take(&mut deadline) {
            signals += shard_waker.event.read();
        }
        shard_waker.sleep_flag.lower();
    }
}

fn model(preemptions_max: Option<usize>, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions_max;
    builder.check(run);
}

#[test]
fn record_is_read_before_the_sleep_or_wakes_the_sleeper() {
    model(None, || {
        let (mut writer, mut reader) = ring::ring(RING_BYTES);
        let shard_waker = ModelWaker::new();
        let waker = shard_waker.clone();
        let source = thread::spawn(move || {
            publish(&mut writer, 1);
            waker.wake();
        });
        let signals = run_shard(&mut reader, &shard_waker, 1, Sleep::UntilSignalled);
        assert!(signals <= 1, "one record, and {signals} signals");
        source.join().unwrap();
    });
}

#[test]
fn both_batches_of_a_source_reach_the_sleeper() {
    model(Some(3), || {
        let (mut writer, mut reader) = ring::ring(RING_BYTES);
        let shard_waker = ModelWaker::new();
        let waker = shard_waker.clone();
        let source = thread::spawn(move || {
            for tag in 1..=2 {
                publish(&mut writer, tag);
                waker.wake();
            }
        });
        run_shard(&mut reader, &shard_waker, 2, Sleep::UntilSignalled);
        source.join().unwrap();
    });
}

#[test]
fn sleep_ended_by_a_deadline_loses_no_wake_up() {
    model(Some(3), || {
        let (mut writer, mut reader) = ring::ring(RING_BYTES);
        let shard_waker = ModelWaker::new();
        let waker = shard_waker.clone();
        let source = thread::spawn(move || {
            publish(&mut writer, 1);
            waker.wake();
        });
        run_shard(&mut reader, &shard_waker, 1, Sleep::FirstUntilDeadline);
        source.join().unwrap();
    });
}

#[test]
fn batches_of_two_sources_reach_the_sleeper() {
    model(Some(2), || {
        let (writer, mut reader) = ring::ring(RING_BYTES);
        let shared_writer = Arc::new(Mutex::new(writer));
        let shard_waker = ModelWaker::new();
        let sources = [1, 2].map(|tag| {
            let (shared_writer, waker) = (shared_writer.clone(), shard_waker.clone());
            thread::spawn(move || {
                // The lock is released before the wake-up, so the two wake-ups may come in either order.
                publish(&mut shared_writer.lock().unwrap(), tag);
                waker.wake();
            })
        });
        run_shard(&mut reader, &shard_waker, 2, Sleep::UntilSignalled);
        sources.into_iter().for_each(|source| source.join().unwrap());
    });
}

#[test]
fn one_of_two_wakers_signals_the_sleeper() {
    model(None, || {
        let shard_waker = ModelWaker::new();
        shard_waker.sleep_flag.raise();
        let waker = shard_waker.clone();
        let other = thread::spawn(move || waker.sleep_flag.claim());
        let mine = shard_waker.sleep_flag.claim();
        assert!(mine != other.join().unwrap(), "the sleeper is signalled once");
    });
}
