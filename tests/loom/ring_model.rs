//! The ring's own source under loom, in rings so small that the producer overruns the reader within a few entries.

use crate::ring::{self, Batch, Overrun, Reader, Writer};
use crate::sync::{Arc, AtomicU64, Ordering, fence};
use loom::model::Builder;
use loom::thread;

/// Far above 2^32, and so that the first entry lies across the end of a ring of 64 bytes.
const FIRST: u64 = (1 << 40) + 48;

/// Payload words of the entries, by number: all lengths that fit a ring of 64 bytes.
const PAYLOAD_WORDS: [u64; 3] = [1, 0, 2];

fn payload_words(number: u64) -> u64 {
    PAYLOAD_WORDS[number as usize % PAYLOAD_WORDS.len()]
}

fn position_of(number: u64) -> u64 {
    FIRST + (0..number).map(|earlier| 16 + payload_words(earlier) * 8).sum::<u64>()
}

/// A word that differs for each index of each entry.
fn word_of(number: u64, index: u64) -> u64 {
    0xab00 + number * 16 + index
}

fn push(writer: &mut Writer, number: u64) {
    let payload: Vec<u8> = (0..payload_words(number)).flat_map(|i| word_of(number, i).to_le_bytes()).collect();
    writer.push(number, &payload);
}

/// Pushes and publishes entries, one at a time.
fn publish_each(writer: &mut Writer, numbers: std::ops::Range<u64>) {
    for number in numbers {
        push(writer, number);
        writer.publish();
    }
}

/// Asserts that every entry is whole and at its offset, and returns the bytes that they took in the ring.
fn check(batch: &Batch) -> u64 {
    let mut bytes = 0;
    for entry in &batch.entries {
        let words: Vec<u64> = (0..payload_words(entry.tag)).map(|i| word_of(entry.tag, i)).collect();
        let read = batch.payload(entry).as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
        assert_eq!(entry.position, position_of(entry.tag));
        assert!(read.eq(words), "entry {} is torn: {:?}", entry.tag, batch.payload(entry));
        bytes += 16 + u64::from(entry.len);
    }
    assert!(batch.entries.is_sorted_by_key(|entry| entry.tag));
    bytes
}

/// Reads once; returns the delivered or lost bytes.
fn read_once(reader: &mut Reader, bytes_max: usize) -> u64 {
    let before = reader.position();
    let mut batch = Batch::default();
    let accounted = match reader.read(bytes_max, &mut batch) {
        Ok(()) => check(&batch),
        Err(Overrun { lost }) => {
            assert!(batch.entries.is_empty() && batch.bytes.is_empty());
            assert!(lost > 0);
            lost
        }
    };
    assert_eq!(reader.position(), before + accounted);
    accounted
}

/// Reads until the ring is empty: every published byte is delivered or lost.
fn read_out(reader: &mut Reader, total: u64) {
    while !reader.is_empty() {
        assert!(read_once(reader, 1024) > 0);
    }
    assert_eq!(reader.position(), FIRST + total);
}

fn model(preemptions_max: Option<usize>, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions_max;
    builder.check(run);
}

#[test]
fn entries_read_during_an_overrun_are_whole_and_the_others_counted() {
    model(None, || {
        let (mut writer, mut reader) = ring::ring_at(64, FIRST);
        publish_each(&mut writer, 0..2);
        let producer = thread::spawn(move || publish_each(&mut writer, 2..4));
        read_once(&mut reader, 1024);
        producer.join().unwrap();
        read_out(&mut reader, position_of(4) - FIRST);
    });
}

#[test]
fn entry_longer_than_the_read_is_whole() {
    model(Some(3), || {
        let (mut writer, mut reader) = ring::ring_at(64, FIRST);
        publish_each(&mut writer, 0..2);
        let producer = thread::spawn(move || publish_each(&mut writer, 2..5));
        for _ in 0..2 {
            read_once(&mut reader, 0);
        }
        producer.join().unwrap();
        read_out(&mut reader, position_of(5) - FIRST);
    });
}

#[test]
fn unpublished_batch_that_overruns_the_reader_tears_no_entry() {
    model(Some(3), || {
        let (mut writer, mut reader) = ring::ring_at(128, FIRST);
        publish_each(&mut writer, 0..4);
        let producer = thread::spawn(move || {
            (4..8).for_each(|number| push(&mut writer, number));
            writer.publish();
        });
        read_once(&mut reader, 1024);
        producer.join().unwrap();
        read_out(&mut reader, position_of(8) - FIRST);
    });
}

#[test]
fn history_is_whole_or_an_overrun() {
    model(Some(3), || {
        let (mut writer, mut reader) = ring::ring_at(64, FIRST);
        publish_each(&mut writer, 0..2);
        read_out(&mut reader, position_of(2) - FIRST);
        let producer = thread::spawn(move || publish_each(&mut writer, 2..4));
        let mut batch = Batch::default();
        let wanted = |tag: u64, first: u64| {
            assert!(tag < 2, "a tag that was never pushed: {tag}");
            assert_eq!(first, if payload_words(tag) == 0 { 0 } else { word_of(tag, 0) });
            true
        };
        match reader.history(FIRST..reader.position(), 1024, wanted, &mut batch) {
            Ok(next) => assert_eq!(next, FIRST + check(&batch)),
            Err(Overrun { lost }) => {
                assert!(batch.entries.is_empty() && batch.bytes.is_empty());
                assert!(0 < lost && lost <= reader.position() - FIRST);
            }
        }
        producer.join().unwrap();
        read_out(&mut reader, position_of(4) - FIRST);
    });
}

#[test]
fn gauge_on_a_third_thread_never_exceeds_what_was_published() {
    model(Some(3), || {
        let (mut writer, mut reader) = ring::ring_at(64, FIRST);
        let gauge = writer.gauge();
        let producer = thread::spawn(move || publish_each(&mut writer, 0..2));
        let consumer = thread::spawn(move || {
            read_once(&mut reader, 1024);
        });
        assert!(gauge.backlog_bytes() <= position_of(2) - FIRST);
        producer.join().unwrap();
        consumer.join().unwrap();
    });
}

#[test]
fn producer_that_obeys_the_gauge_never_overruns() {
    model(Some(3), || {
        let (mut writer, mut reader) = ring::ring_at(64, FIRST);
        publish_each(&mut writer, 0..2);
        let producer = thread::spawn(move || {
            let gauge = writer.gauge();
            // The four entries take 96 bytes: once the first two are read, the last two fit.
            for number in 2..4 {
                if gauge.backlog_bytes() == 0 {
                    publish_each(&mut writer, number..number + 1);
                }
            }
        });
        let mut batch = Batch::default();
        for _ in 0..3 {
            assert_eq!(reader.read(1024, &mut batch), Ok(()));
        }
        check(&batch);
        producer.join().unwrap();
    });
}

#[test]
fn reader_that_checks_once_more_before_sleeping_is_woken() {
    model(None, || {
        let (mut writer, reader) = ring::ring_at(64, FIRST);
        let asleep = Arc::new(AtomicU64::new(0));
        let seen = asleep.clone();
        let producer = thread::spawn(move || {
            publish_each(&mut writer, 0..1);
            fence(Ordering::SeqCst);
            seen.load(Ordering::Relaxed) == 1
        });
        asleep.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let stays_awake = !reader.is_empty();
        let is_woken = producer.join().unwrap();
        assert!(stays_awake || is_woken);
    });
}
