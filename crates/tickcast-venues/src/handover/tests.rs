use super::*;
use proptest::prelude::*;
use tickcast_protocol::record::{Level, Quote, encode_book};
use tickcast_protocol::{BookSide, GapReason, Side};

const INSTRUMENT: u32 = 7;

fn trade(id: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let header = RecordHeader::of_feed(RecordKind::Trade, INSTRUMENT, id);
    Trade { px: 1, sz: 1, trade_id: id, side: Side::Buy }.encode(&header, &mut out);
    out
}

fn gap(missing: u64) -> Vec<u8> {
    let (from_sequence, to_sequence) = (Sequence::new(1), Sequence::new(missing));
    let gap =
        Gap { instrument: INSTRUMENT, channel: Channel::Trade, from_sequence, to_sequence, reason: GapReason::Feed };
    let mut out = Vec::new();
    gap.encode(0, &mut out);
    out
}

fn book(action: BookAction, px: &[i64], flags: u8) -> Vec<u8> {
    let mut out = Vec::new();
    let header = RecordHeader::of_feed(RecordKind::Book, INSTRUMENT, 0).with_flags(flags);
    let levels = px.iter().map(|px| Level { px: *px, sz: 1, side: BookSide::Bid });
    encode_book(&header, action, levels.collect::<Vec<_>>().into_iter(), &mut out);
    out
}

fn quote(px: i64) -> Vec<u8> {
    let mut out = Vec::new();
    let header = RecordHeader::of_feed(RecordKind::Quote, INSTRUMENT, 0);
    Quote { bid_px: px, bid_sz: 1, ask_px: px, ask_sz: 1 }.encode(&header, &mut out);
    out
}

/// Trades by id; a Gap as the number of missing ones, negative.
fn shown(out: &[u8]) -> Vec<i64> {
    let show = |(header, bytes): (RecordHeader, &[u8])| match header.known_kind() {
        Some(RecordKind::Trade) => Trade::read(bytes).map(|trade| trade.trade_id as i64),
        Some(RecordKind::Gap) => Gap::read(bytes).map(|gap| -(gap.missing() as i64)),
        _ => None,
    };
    record::records(out).filter_map(show).collect()
}

#[test]
fn book_changes_at_the_snapshot_and_quotes_at_the_first() {
    let (mut handover, mut out) = (Handover::new(), Vec::new());
    handover.take_next(&book(BookAction::Snapshot, &[], flags::LAST | flags::MAYBE_BAD_BOOK), &mut out);
    assert_eq!(out, [0; 0], "a void book takes nothing over");
    handover.take_old(&book(BookAction::Delta, &[1], flags::LAST), &mut out);
    handover.take_old(&quote(1), &mut out);
    let expected = [book(BookAction::Delta, &[1], flags::LAST), quote(1)].concat();
    assert_eq!(out, expected);
    out.clear();
    handover.take_next(&book(BookAction::Snapshot, &[2], flags::LAST), &mut out);
    handover.take_old(&book(BookAction::Delta, &[3], flags::LAST), &mut out);
    handover.take_next(&quote(2), &mut out);
    handover.take_old(&quote(3), &mut out);
    assert_eq!(out, [book(BookAction::Snapshot, &[2], flags::LAST), quote(2)].concat());
}

#[test]
fn next_connection_that_is_ahead_waits_and_one_that_is_behind_repeats_nothing() {
    let (mut handover, mut out) = (Handover::new(), Vec::new());
    handover.take_old(&trade(1), &mut out);
    // It has missed what the old one has published since it knew the newest id.
    handover.take_next(&[gap(2), trade(3), trade(4)].concat(), &mut out);
    assert!(handover.holds_trades());
    handover.take_old(&[trade(2), trade(3), trade(4)].concat(), &mut out);
    assert!(!handover.holds_trades());
    handover.take_next(&trade(5), &mut out);
    assert_eq!(shown(&out), [1, 2, 3, 4, 5]);

    let (mut handover, mut out) = (Handover::new(), Vec::new());
    handover.take_old(&[trade(1), trade(2), trade(3)].concat(), &mut out);
    handover.take_next(&[gap(1), trade(2), trade(3), trade(4)].concat(), &mut out);
    assert_eq!(shown(&out), [1, 2, 3, 4]);
    assert_eq!(handover.take_counts(), (4, 0));
}

#[test]
fn hole_between_the_two_is_a_gap_of_what_is_missing() {
    let (mut handover, mut out) = (Handover::new(), Vec::new());
    // The newest trade was 10 when the change began.
    handover.take_old(&[trade(11), trade(12)].concat(), &mut out);
    handover.take_next(&[gap(5), trade(16), trade(17)].concat(), &mut out);
    handover.finish(&mut out);
    assert_eq!(shown(&out), [11, 12, -3, 16, 17], "13 to 15 are missing");
    assert_eq!(handover.take_counts(), (5, 3));

    let (mut handover, mut out) = (Handover::new(), Vec::new());
    handover.take_old(&[trade(11), trade(12)].concat(), &mut out);
    handover.take_next(&[gap(2), trade(13)].concat(), &mut out);
    handover.finish(&mut out);
    assert_eq!(shown(&out), [11, 12, 13]);
}

proptest! {
    /// Ids are in order, or have none, as UUIDs; the old connection ends after `old_end` trades.
    #[test]
    fn every_trade_is_published_once_or_is_part_of_a_gap(
        count in 1usize..60,
        next_start in 0usize..60,
        old_end in 0usize..70,
        is_numbered: bool,
        choices in prop::collection::vec(any::<bool>(), 200),
    ) {
        let number = |nth: usize| nth as u64 + 1;
        let id = |nth| if is_numbered { number(nth) } else { number(nth).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 1 };
        let next_start = next_start.min(count);
        let (mut old, mut next) = (0, next_start);
        let (mut handover, mut out) = (Handover::new(), Vec::new());
        let old_end = old_end.min(count);
        for choice in choices {
            if choice && old < old_end {
                handover.take_old(&trade(id(old)), &mut out);
                old += 1;
            } else if next < count {
                // The codec knows the trade before the first.
                if next == next_start && next > 0 && is_numbered {
                    handover.take_next(&gap(next as u64), &mut out);
                }
                handover.take_next(&trade(id(next)), &mut out);
                next += 1;
            }
        }
        // The old connection ends where it is.
        handover.finish(&mut out);
        let mut expected: Vec<_> = (0..old).map(|nth| id(nth) as i64).collect();
        let missing = if next > next_start { next_start.saturating_sub(old) } else { 0 };
        if missing > 0 && is_numbered {
            expected.push(-(missing as i64));
        }
        expected.extend((next_start.max(old)..next).map(|nth| id(nth) as i64));
        prop_assert_eq!(shown(&out), expected);
        prop_assert_eq!(handover.take_counts().1, if is_numbered { missing as u64 } else { 0 });
    }
}
