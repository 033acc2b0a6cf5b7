//! How a shard goes to sleep and is woken, under loom: the ring's own source and the flag's own source, driven as the
//! shard's task and the sequencer's desk drive them, in every order of their steps and with every value that the memory
//! model lets a load see.
//!
//! The shard is done when it has read all that was published. A wake-up that is lost leaves it asleep with nobody to
//! wake it, which loom reports as a deadlock. The eventfd is a counter behind a lock; it orders more than nothing, as
//! the kernel does, but both sides have made up their minds before they touch it.

use crate::ring::{self, Batch, Reader, Writer};
use crate::sleep_flag::SleepFlag;
use crate::sync::Arc;
use loom::model::Builder;
use loom::sync::{Condvar, Mutex};
use loom::thread;

/// Payload words of an entry: four entries fill the ring, so nobody is lapped.
const PAYLOAD: [u8; 8] = [7; 8];
const RING_BYTES: usize = 128;

/// What an eventfd does: a write adds up, a read waits for one and takes all.
#[derive(Default)]
struct Event {
    count: Mutex<u64>,
    written: Condvar,
}

impl Event {
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
struct ShardWaker {
    asleep: SleepFlag,
    event: Event,
}

impl ShardWaker {
    fn new() -> Arc<Self> {
        Arc::new(Self { asleep: SleepFlag::new(), event: Event::default() })
    }

    fn wake(&self) {
        if self.asleep.claim() {
            self.event.write();
        }
    }
}

/// How a sleep ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sleep {
    /// By the eventfd alone.
    UntilSignalled,
    /// The first one by a deadline, at once; the others by the eventfd.
    FirstUntilDeadline,
}

/// What a source does at the desk, without the lock.
fn publish(writer: &mut Writer, tag: u64) {
    writer.push(tag, &PAYLOAD);
    writer.publish();
}

/// Reads what there is; how many entries that were.
fn turn(reader: &mut Reader) -> usize {
    let mut batch = Batch::default();
    reader.read(RING_BYTES, &mut batch).expect("nobody is lapped");
    batch.entries.len()
}

/// The shard's task, until it has read `total` entries: turn; where there is nothing to do raise the flag, turn once
/// more, and sleep only if that brought nothing either. Returns how often it was signalled.
fn run_shard(reader: &mut Reader, parking: &ShardWaker, total: usize, sleep: Sleep) -> u64 {
    let (mut seen, mut signals, mut deadline) = (0, 0, sleep == Sleep::FirstUntilDeadline);
    loop {
        seen += turn(reader);
        if seen == total {
            assert!(reader.is_empty());
            return signals;
        }
        parking.asleep.raise();
        let found = turn(reader);
        seen += found;
        if found == 0 && !std::mem::take(&mut deadline) {
            signals += parking.event.read();
        }
        parking.asleep.lower();
    }
}

fn model(preemptions_max: Option<usize>, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions_max;
    builder.check(run);
}

#[test]
fn a_record_is_seen_before_the_sleep_or_the_sleeper_is_woken() {
    model(None, || {
        let (mut writer, mut reader) = ring::ring(RING_BYTES);
        let parking = ShardWaker::new();
        let waker = parking.clone();
        let source = thread::spawn(move || {
            publish(&mut writer, 1);
            waker.wake();
        });
        let signals = run_shard(&mut reader, &parking, 1, Sleep::UntilSignalled);
        assert!(signals <= 1, "one record, and {signals} signals");
        source.join().unwrap();
    });
}

#[test]
fn each_of_two_batches_of_a_source_reaches_the_sleeper() {
    model(Some(3), || {
        let (mut writer, mut reader) = ring::ring(RING_BYTES);
        let parking = ShardWaker::new();
        let waker = parking.clone();
        let source = thread::spawn(move || {
            for tag in 1..=2 {
                publish(&mut writer, tag);
                waker.wake();
            }
        });
        run_shard(&mut reader, &parking, 2, Sleep::UntilSignalled);
        source.join().unwrap();
    });
}

#[test]
fn a_sleep_that_a_deadline_ended_loses_nothing_for_the_next_one() {
    model(Some(3), || {
        let (mut writer, mut reader) = ring::ring(RING_BYTES);
        let parking = ShardWaker::new();
        let waker = parking.clone();
        let source = thread::spawn(move || {
            publish(&mut writer, 1);
            waker.wake();
        });
        run_shard(&mut reader, &parking, 1, Sleep::FirstUntilDeadline);
        source.join().unwrap();
    });
}

#[test]
fn two_sources_that_take_turns_at_the_desk_both_reach_the_sleeper() {
    model(Some(2), || {
        let (writer, mut reader) = ring::ring(RING_BYTES);
        let desk = Arc::new(Mutex::new(writer));
        let parking = ShardWaker::new();
        let sources = [1, 2].map(|tag| {
            let (desk, waker) = (desk.clone(), parking.clone());
            thread::spawn(move || {
                // The lock is free again before anybody is woken, so the wake-ups of the two may change places.
                publish(&mut desk.lock().unwrap(), tag);
                waker.wake();
            })
        });
        run_shard(&mut reader, &parking, 2, Sleep::UntilSignalled);
        sources.into_iter().for_each(|source| source.join().unwrap());
    });
}

#[test]
fn of_two_wakers_one_signals_a_sleeper() {
    model(None, || {
        let parking = ShardWaker::new();
        parking.asleep.raise();
        let waker = parking.clone();
        let other = thread::spawn(move || waker.asleep.claim());
        let mine = parking.asleep.claim();
        assert!(mine != other.join().unwrap(), "a sleeper is signalled once");
    });
}
