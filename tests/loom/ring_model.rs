//! The ring under loom: every interleaving of both sides, and every value that the memory model allows a load to see,
//! in rings so small that the producer laps the reader within a few entries.

use crate::ring::{self, Batch, Overrun, Reader, RingOffset, StagedEntries, Writer};
use crate::sync::{Arc, AtomicU64, Ordering, fence};
use loom::model::Builder;
use loom::thread;
use tickcast_protocol::Position;

/// Far above 2^32, and so that the first entry crosses the end of a ring of 64 bytes.
const FIRST: RingOffset = RingOffset::new((1 << 40) + 48);

/// Payload words of the entries, by number: all lengths that a ring of 64 bytes can hold.
const PAYLOAD_WORDS: [u64; 3] = [1, 0, 2];

fn payload_words(number: u64) -> u64 {
    PAYLOAD_WORDS[number as usize % PAYLOAD_WORDS.len()]
}

/// The offset of an entry; its position is its number.
fn offset_of(number: u64) -> RingOffset {
    FIRST + (0..number).map(|earlier| 16 + payload_words(earlier) * 8).sum::<u64>()
}

/// A word that occurs once in all entries.
fn word_of(number: u64, index: u64) -> u64 {
    0xab00 + number * 16 + index
}

fn payload_of(number: u64) -> Vec<u8> {
    (0..payload_words(number)).flat_map(|i| word_of(number, i).to_le_bytes()).collect()
}

fn push(writer: &mut Writer, number: u64) {
    writer.push(Position::new(number), &payload_of(number));
}

/// Pushes and publishes entries, one at a time.
fn publish_each(writer: &mut Writer, numbers: std::ops::Range<u64>) {
    for number in numbers {
        push(writer, number);
        writer.publish();
    }
}

/// Stages entries, pushes them as one range and publishes them.
fn publish_staged(writer: &mut Writer, numbers: std::ops::Range<u64>) {
    let mut staged = StagedEntries::default();
    numbers.for_each(|number| staged.push(Position::new(number), &payload_of(number)));
    writer.push_entries(&staged);
    writer.publish();
}

/// Asserts that every entry is whole and at its offset, and returns the bytes that they take in the ring.
fn check(batch: &Batch) -> u64 {
    let mut bytes = 0;
    for entry in &batch.entries {
        let number = entry.position.get();
        let words: Vec<u64> = (0..payload_words(number)).map(|i| word_of(number, i)).collect();
        let read = batch.payload(entry).as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
        assert_eq!(entry.offset, offset_of(number));
        assert!(read.eq(words), "entry {number} is torn: {:?}", batch.payload(entry));
        bytes += 16 + u64::from(entry.len);
    }
    assert!(batch.entries.is_sorted_by_key(|entry| entry.position));
    bytes
}

/// Reads once and returns how many bytes were delivered or lost.
fn read_once(reader: &mut Reader, bytes_max: usize) -> u64 {
    let before = reader.offset();
    let mut batch = Batch::default();
    let accounted = match reader.read(bytes_max, &mut batch) {
        Ok(()) => check(&batch),
        Err(Overrun { lost }) => {
            assert!(batch.entries.is_empty() && batch.bytes.is_empty());
            assert!(lost > 0);
            lost
        }
    };
    assert_eq!(reader.offset(), before + accounted);
    accounted
}

/// Reads until nothing is left: everything that was published is delivered or lost.
fn read_out(reader: &mut Reader, total: u64) {
    while !reader.is_empty() {
        assert!(read_once(reader, 1024) > 0);
    }
    assert_eq!(reader.offset(), FIRST + total);
}

fn model(preemptions_max: Option<usize>, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions_max;
    builder.check(run);
}

#[test]
fn entries_read_while_overwritten_are_whole_or_counted_as_lost() {
    model(None, || {
        let (mut writer, mut reader) = ring::ring_at(64, FIRST);
        publish_each(&mut writer, 0..2);
        let producer = thread::spawn(move || publish_each(&mut writer, 2..4));
        read_once(&mut reader, 1024);
        producer.join().unwrap();
        read_out(&mut reader, offset_of(4) - FIRST);
    });
}

#[test]
fn entries_longer_than_the_limit_are_whole() {
    model(Some(3), || {
        let (mut writer, mut reader) = ring::ring_at(64, FIRST);
        publish_each(&mut writer, 0..2);
        let producer = thread::spawn(move || publish_each(&mut writer, 2..5));
        for _ in 0..2 {
            read_once(&mut reader, 0);
        }
        producer.join().unwrap();
        read_out(&mut reader, offset_of(5) - FIRST);
    });
}

#[test]
fn batch_that_laps_the_reader_before_publishing_tears_no_entry() {
    model(Some(3), || {
        let (mut writer, mut reader) = ring::ring_at(128, FIRST);
        publish_each(&mut writer, 0..4);
        let producer = thread::spawn(move || {
            (4..8).for_each(|number| push(&mut writer, number));
            writer.publish();
        });
        read_once(&mut reader, 1024);
        producer.join().unwrap();
        read_out(&mut reader, offset_of(8) - FIRST);
    });
}

#[test]
fn staged_range_read_while_it_is_written_is_whole() {
    model(None, || {
        let (mut writer, mut reader) = ring::ring_at(128, FIRST);
        let producer = thread::spawn(move || publish_staged(&mut writer, 0..3));
        read_once(&mut reader, 1024);
        producer.join().unwrap();
        read_out(&mut reader, offset_of(3) - FIRST);
    });
}

#[test]
fn staged_range_that_laps_the_reader_tears_no_entry() {
    model(Some(3), || {
        let (mut writer, mut reader) = ring::ring_at(64, FIRST);
        publish_each(&mut writer, 0..2);
        // 56 bytes: two pieces, the first of which ends within an entry.
        let producer = thread::spawn(move || publish_staged(&mut writer, 2..4));
        read_once(&mut reader, 1024);
        producer.join().unwrap();
        read_out(&mut reader, offset_of(4) - FIRST);
    });
}

#[test]
fn staged_range_longer_than_the_ring_tears_no_entry() {
    model(Some(3), || {
        let (mut writer, mut reader) = ring::ring_at(64, FIRST);
        publish_each(&mut writer, 0..2);
        let producer = thread::spawn(move || {
            // 104 bytes, then an entry that can be read.
            publish_staged(&mut writer, 2..6);
            publish_staged(&mut writer, 6..7);
        });
        read_once(&mut reader, 1024);
        producer.join().unwrap();
        read_out(&mut reader, offset_of(7) - FIRST);
    });
}

#[test]
fn history_is_whole_or_refused_while_it_is_overwritten() {
    history_while(|writer| publish_each(writer, 2..4));
}

#[test]
fn history_is_whole_or_refused_while_a_staged_range_overwrites_it() {
    history_while(|writer| publish_staged(writer, 2..4));
}

/// Reads history while the entries 2 and 3 are written over it.
fn history_while(write: fn(&mut Writer)) {
    model(Some(3), move || {
        let (mut writer, mut reader) = ring::ring_at(64, FIRST);
        publish_each(&mut writer, 0..2);
        read_out(&mut reader, offset_of(2) - FIRST);
        let producer = thread::spawn(move || write(&mut writer));
        let mut batch = Batch::default();
        let wanted = |position: Position, first: u64| {
            let number = position.get();
            assert!(number < 2, "{position} was never read");
            assert_eq!(first, if payload_words(number) == 0 { 0 } else { word_of(number, 0) });
            true
        };
        match reader.history(FIRST..reader.offset(), 1024, wanted, &mut batch) {
            Ok(next) => assert_eq!(next, FIRST + check(&batch)),
            Err(Overrun { lost }) => {
                assert!(batch.entries.is_empty() && batch.bytes.is_empty());
                assert!(0 < lost && lost <= reader.offset() - FIRST);
            }
        }
        producer.join().unwrap();
        read_out(&mut reader, offset_of(4) - FIRST);
    });
}

#[test]
fn gauge_on_a_third_thread_shows_no_negative_or_impossible_backlog() {
    model(Some(3), || {
        let (mut writer, mut reader) = ring::ring_at(64, FIRST);
        let gauge = writer.gauge();
        let producer = thread::spawn(move || publish_each(&mut writer, 0..2));
        let consumer = thread::spawn(move || {
            read_once(&mut reader, 1024);
        });
        assert!(gauge.backlog_bytes() <= offset_of(2) - FIRST);
        producer.join().unwrap();
        consumer.join().unwrap();
    });
}

#[test]
fn producer_that_heeds_the_gauge_laps_no_reader() {
    model(Some(3), || {
        let (mut writer, mut reader) = ring::ring_at(64, FIRST);
        publish_each(&mut writer, 0..2);
        let producer = thread::spawn(move || {
            let gauge = writer.gauge();
            // The four entries make 96 bytes; with the first two read, there is room for the last two.
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
fn reader_that_checks_again_before_sleeping_is_woken() {
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
