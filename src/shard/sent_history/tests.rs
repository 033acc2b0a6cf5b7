use super::*;

const AUDIENCE: AudienceId = 3;
const MS: u64 = 1_000_000;

/// A flush in this tick, 20 ms after the last.
fn flush(tick: u64) -> SentFlush {
    let point = MarkPoint {
        tick,
        ring_offset: RingOffset::new(tick * 100),
        position: Position::new(tick * 10),
        announced: tick as u32,
    };
    SentFlush { ns: tick * 20 * MS, point, history_bytes_max: 1 << 20 }
}

fn slot(index: u32) -> SlotId {
    SlotId { index, generation: 1 }
}

/// A frame of `len` bytes with its header.
fn frame(len: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    tickcast_protocol::ws::push_frame(tickcast_protocol::ws::Opcode::Binary, &vec![b'x'; len - 4], &mut frame);
    assert_eq!(frame.len(), len);
    frame
}

/// A lagging member for which so many records were counted.
fn cursor(offset: u64, records: u64) -> LaggingCursor {
    LaggingCursor { offset, index: 0, counted: SentCount { records, gaps: 0 } }
}

const ONE_RECORD: SentCount = SentCount { records: 1, gaps: 0 };

/// A history with a lagging member and these flushes, in ticks from 1.
fn histories(packets: &[Vec<u8>]) -> SentHistories {
    let mut histories = SentHistories::default();
    let begun = histories.offset_of(AUDIENCE, &packets[0], (ONE_RECORD, true), &flush(1), 1 << 20);
    assert_eq!(begun, Some(0));
    histories.add_lagging(AUDIENCE, slot(0), 0);
    for (packet, tick) in packets[1..].iter().zip(2..) {
        histories.append(AUDIENCE, packet, ONE_RECORD, &flush(tick));
    }
    histories
}

fn history(histories: &SentHistories) -> &SentHistory {
    histories.get(AUDIENCE).expect("it has lagging members")
}

#[test]
fn member_departs_at_the_next_mark_with_the_rest_of_the_cut_frame_first() {
    let histories = histories(&[[frame(200), frame(300)].concat(), frame(400)]);
    let history = history(&histories);
    let departure = |offset| {
        let departure = history.departure(&cursor(offset, 0)).expect("within the history");
        (departure.rest.len(), departure.boundary, departure.point.tick)
    };
    assert_eq!(departure(0), (500, 0, 1));
    assert_eq!(departure(1), (499, 199, 1));
    assert_eq!(departure(200), (300, 0, 1));
    assert_eq!(departure(499), (1, 1, 1));
    assert_eq!(departure(500), (0, 0, 1), "at a mark nothing is left");
    assert_eq!(departure(501), (399, 399, 2));
    assert_eq!(departure(900), (0, 0, 2));
    // Cut in the second flush, of which it took nothing.
    let departure = history.departure(&cursor(500, 2)).expect("within the history");
    assert_eq!((departure.rest.len(), departure.boundary, departure.point.tick), (400, 0, 2));
}

#[test]
fn records_are_counted_when_their_flush_has_been_taken_whole() {
    let histories = histories(&[frame(200), frame(300), frame(400)]);
    let counted: Vec<u64> =
        [0, 199, 200, 499, 500, 900].into_iter().map(|offset| history(&histories).count_at(offset).records).collect();
    assert_eq!(counted, [0, 0, 1, 1, 2, 3]);
}

#[test]
fn flushes_close_to_each_other_share_a_mark() {
    let mut histories = histories(&[frame(200)]);
    for (tick, after_ns) in [(2, MS), (3, 2 * MS)] {
        let flush = SentFlush { ns: flush(1).ns + after_ns, ..flush(tick) };
        histories.append(AUDIENCE, &frame(200), ONE_RECORD, &flush);
    }
    let departure = history(&histories).departure(&cursor(250, 0)).expect("within the history");
    assert_eq!((departure.rest.len(), departure.boundary, departure.point.tick), (350, 150, 3));
    let large = SentFlush { ns: flush(1).ns + 3 * MS, ..flush(4) };
    histories.append(AUDIENCE, &frame(MARK_BYTES as usize), ONE_RECORD, &large);
    let departure = history(&histories).departure(&cursor(250, 0)).expect("within the history");
    assert_eq!(departure.point.tick, 3, "not if the span becomes too large");
}

#[test]
fn bytes_before_the_last_needed_mark_are_freed_and_offsets_stay() {
    let mut histories = histories(&[frame(200), frame(300), frame(400)]);
    histories.trim(AUDIENCE, 499);
    let trimmed = history(&histories);
    assert_eq!((trimmed.len(), trimmed.end()), (700, 900), "the span of the needed offset stays");
    assert_eq!(trimmed.bytes_at(499).1, 299);
    let departure = trimmed.departure(&cursor(499, 0)).expect("within the history");
    assert_eq!((departure.rest.len(), departure.boundary, departure.point.tick), (1, 1, 2));
    assert_eq!(trimmed.count_at(900).records, 3);
    histories.trim(AUDIENCE, 900);
    let trimmed = history(&histories);
    assert_eq!(trimmed.len(), 0);
    assert_eq!(trimmed.departure(&cursor(900, 0)).expect("its mark stays").point.tick, 3);
}

#[test]
fn members_beyond_the_bytes_or_the_age_are_cut_off() {
    let histories = histories(&[frame(200), frame(300), frame(400)]);
    let history = history(&histories);
    assert_eq!(history.cutoff(1000, 0), 0);
    assert_eq!(history.cutoff(650, 0), 250);
    assert_eq!(history.cutoff(1000, 40 * MS), 200, "the first flush is older than 40 ms");
    assert_eq!(history.cutoff(1000, 61 * MS), 900);
    assert!(history.needs_trim(1000, 40 * MS) && history.needs_trim(899, 0) && !history.needs_trim(900, 20 * MS));
}

#[test]
fn log_channels_are_not_cut_off_by_age() {
    let mut histories = SentHistories::default();
    histories.offset_of(AUDIENCE, &frame(200), (ONE_RECORD, false), &flush(1), 1 << 20);
    histories.add_lagging(AUDIENCE, slot(0), 0);
    assert_eq!(history(&histories).cutoff(1000, u64::MAX), 0);
}

#[test]
fn history_is_begun_within_the_limits_only() {
    let mut histories = SentHistories::default();
    let mut begin = |audience, len, limit, history_bytes_max| {
        let flush = SentFlush { history_bytes_max, ..flush(1) };
        histories.offset_of(audience, &frame(len), (ONE_RECORD, true), &flush, limit).is_some()
    };
    assert!(!begin(1, 300, 299, 1 << 20), "the limit of the audience");
    assert!(!begin(1, 300, 300, 299), "the limit of all");
    assert!(begin(1, 300, 300, 1 << 20));
    assert!(!begin(2, 300, 300, 300), "the limit of all, with what there is");
    assert_eq!(audience_limit(64 << 20, 1), 64 << 10);
    assert_eq!(audience_limit(64 << 20, 10_000), 16 << 20);
}

#[test]
fn index_of_a_moved_member_is_reported_and_an_unused_history_freed() {
    let mut histories = histories(&[frame(200)]);
    let second = histories.add_lagging(AUDIENCE, slot(1), 7);
    assert_eq!((second.index, second.offset, second.counted), (1, 7, ONE_RECORD));
    assert_eq!(histories.remove_lagging(AUDIENCE, 0), Some(slot(1)), "it has the index 0 now");
    assert_eq!(histories.lagging(), 1);
    assert_eq!(histories.remove_lagging(AUDIENCE, 0), None);
    assert!(histories.bytes() > 0, "a flush of this tick may still refer to it");
    histories.free_unused();
    assert_eq!((histories.bytes(), histories.is_empty()), (0, true));
}
