//! A shard that does not read its ring: how long publishers wait for it, and that the other shards go on.

use std::sync::Arc;

use tickcast::ingest::{SequencerHandle, UNREAD_BYTES_MAX, Unread, WAITS_MAX};
use tickcast::lifecycle::Lifecycle;
use tickcast::ring::{Batch, Reader, ring};
use tickcast::sequencer::Sequencer;
use tickcast_protocol::Instrument;
use tickcast_protocol::record::{self, Quote, RecordHeader, RecordKind};

const RING_BYTES: usize = 1 << 16;
/// Some 14 KiB in a ring.
const QUOTES: u64 = 180;

fn batch() -> Vec<u8> {
    let mut bytes = Vec::new();
    for bid_px in 0..QUOTES as i64 {
        let quote = Quote { bid_px, bid_sz: 1, ask_px: 2, ask_sz: 1 };
        quote.encode(&RecordHeader::of_feed(RecordKind::Quote, 1, 7), &mut bytes);
    }
    bytes
}

/// The number of records that are read.
fn read(reader: &mut Reader) -> u64 {
    let mut batch = Batch::default();
    reader.read(RING_BYTES, &mut batch).expect("it was not overrun");
    batch.entries.len() as u64
}

#[test]
fn ring_that_is_never_read_is_waited_for_once_and_the_other_shard_goes_on() {
    let (writers, mut readers): (Vec<_>, Vec<_>) = [ring(RING_BYTES), ring(RING_BYTES)].into_iter().unzip();
    let gauges = writers.iter().map(|writer| writer.gauge()).collect();
    let lifecycle = Arc::new(Lifecycle::begin().0);
    let (handle, _requests) = SequencerHandle::new(Sequencer::new(writers, 9), gauges, Arc::default(), lifecycle, None);
    let mut definition = Vec::new();
    record::encode_definition(&Instrument::new(1, "A", "v", -2, -2), &mut definition);
    handle.accept(0, &mut definition);
    assert_eq!(readers.iter_mut().map(|reader| read(reader) > 0).collect::<Vec<_>>(), [true, true]);
    // As a publisher does for each batch.
    let publish = |waits: &mut Vec<u32>| {
        let mut count = 0;
        handle.wait_for_room(|| {
            count += 1;
            true
        });
        waits.push(count);
        handle.accept(0, &mut batch());
    };
    let mut waits = Vec::new();
    for _ in 0..50 {
        publish(&mut waits);
        assert_eq!(read(&mut readers[1]), QUOTES, "the other shard has every record");
    }
    assert_eq!(waits.iter().sum::<u32>(), WAITS_MAX, "{waits:?}");
    assert_eq!(handle.rings_left_behind(), 1);
    // The shard goes on: it learns that it was overrun, and is waited for again once it has room.
    assert!(readers[0].read(RING_BYTES, &mut Batch::default()).is_err());
    waits.clear();
    for _ in 0..4 {
        publish(&mut waits);
        assert_eq!(read(&mut readers[1]), QUOTES);
    }
    assert_eq!((waits, handle.rings_left_behind()), (vec![0, 0, WAITS_MAX, 0], 2));
}

#[test]
fn publisher_that_is_interrupted_does_not_wait_on() {
    let (writer, _reader) = ring(RING_BYTES);
    let gauge = writer.gauge();
    let lifecycle = Arc::new(Lifecycle::begin().0);
    let (handle, _requests) =
        SequencerHandle::new(Sequencer::new(vec![writer], 9), vec![gauge], Arc::default(), lifecycle, None);
    let mut definition = Vec::new();
    record::encode_definition(&Instrument::new(1, "A", "v", -2, -2), &mut definition);
    handle.accept(0, &mut definition);
    handle.accept(0, &mut [batch(), batch()].concat());
    let mut count = 0;
    handle.wait_for_room(|| {
        count += 1;
        false
    });
    assert_eq!((count, handle.rings_left_behind()), (1, 0));
}

#[test]
fn publisher_that_floods_waits_until_its_records_are_read_and_others_do_not() {
    let (writer, mut reader) = ring(1 << 20);
    let gauge = writer.gauge();
    let lifecycle = Arc::new(Lifecycle::begin().0);
    let (handle, _requests) =
        SequencerHandle::new(Sequencer::new(vec![writer], 9), vec![gauge], Arc::default(), lifecycle, None);
    let mut definition = Vec::new();
    record::encode_definition(&Instrument::new(1, "A", "v", -2, -2), &mut definition);
    handle.accept(0, &mut definition);
    // As a publisher does for each batch; the shard reads at the third wait.
    let publish = |unread: &mut Unread, reader: Option<&mut Reader>| {
        let (mut batch, mut count, mut reader) = (batch(), 0, reader);
        handle.wait_until_read(unread, batch.len(), || {
            count += 1;
            if let Some(reader) = reader.as_mut().filter(|_| count == 3) {
                reader.read(1 << 20, &mut Batch::default()).expect("it was not overrun");
            }
            true
        });
        handle.accept(0, &mut batch);
        count
    };
    let (mut flood, mut other) = (Unread::default(), Unread::default());
    let batches = UNREAD_BYTES_MAX.div_ceil(batch().len());
    let waits: Vec<u32> = (0..batches * 3).map(|_| publish(&mut flood, Some(&mut reader))).collect();
    assert!(waits[..2 * batches - 2].iter().all(|count| *count == 0), "{waits:?}");
    assert!(waits.contains(&3), "{waits:?}");
    assert_eq!(publish(&mut other, None), 0, "another publisher has nothing unread");
    let without: u32 = (0..batches * 2).map(|_| publish(&mut flood, None)).sum();
    assert!((1..=2 * WAITS_MAX).contains(&without), "{without} waits for a shard that does not read");
}
