//! Golden bytes, offsets, and properties of every record.

use proptest::prelude::*;

use super::*;
use crate::{Instrument, Sequence};

const TS: u64 = 1_763_700_000_000_000_000;

fn header(kind: RecordKind, flags: u8) -> RecordHeader {
    let mut header = RecordHeader::of_feed(kind, 7, TS).with_flags(flags);
    (header.sequence, header.ts_recv) = (Sequence::new(5), TS + 1500);
    header
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Two levels, one of which removes.
const LEVELS: [Level; 2] =
    [Level { px: 100, sz: 5, side: BookSide::Bid }, Level { px: 101, sz: 0, side: BookSide::Ask }];

/// Name of a record, its encoded bytes, and the expected bytes in hex.
type Golden = (&'static str, Vec<u8>, &'static str);

/// The records of channels, and the bytes that another program packs for them: Python's `struct`, format `<HBBIQQQ` for
/// the header and for the bodies of all nine `qqqq`, `qqQB7x`, `8q`, `HB5x` and `qqB7x` a level, `II`, `bbBBB3xqqQ`, none,
/// `QQBB6x`, `B7x`.
fn golden_of_channels() -> [Golden; 5] {
    let quote = Quote { bid_px: 6_183_763, bid_sz: 378_826_000, ask_px: 6_183_764, ask_sz: -1 };
    let trade = Trade { px: 6_183_763, sz: 1200, trade_id: u64::MAX, side: Side::Sell };
    let ticker = Ticker {
        last_px: 1,
        open_px: -2,
        high_px: 3,
        low_px: i64::MAX,
        volume: PRICE_NONE,
        turnover: 6,
        bid_px: 7,
        ask_px: 8,
    };
    let snapshot = flags::LAST | flags::SNAPSHOT;
    [
        (
            "quote",
            encoded(|out| quote.encode(&header(RecordKind::Quote, flags::LAST), out)),
            "0800018007000000050000000000000000405b36ceeb7918dc455b36ceeb7918\
             535b5e0000000000106d941600000000545b5e0000000000ffffffffffffffff",
        ),
        (
            "trade",
            encoded(|out| trade.encode(&header(RecordKind::Trade, flags::LAST | flags::CONFLATED), out)),
            "0800029007000000050000000000000000405b36ceeb7918dc455b36ceeb7918\
             535b5e0000000000b004000000000000ffffffffffffffff5300000000000000",
        ),
        (
            "ticker",
            encoded(|out| ticker.encode(&header(RecordKind::Ticker, flags::LAST), out)),
            "0c00038007000000050000000000000000405b36ceeb7918dc455b36ceeb7918\
             0100000000000000feffffffffffffff0300000000000000ffffffffffffff7f\
             0000000000000080060000000000000007000000000000000800000000000000",
        ),
        (
            "book",
            encoded(|out| {
                encode_book(&header(RecordKind::Book, snapshot), BookAction::Snapshot, LEVELS.into_iter(), out)
            }),
            "0b0004a007000000050000000000000000405b36ceeb7918dc455b36ceeb7918\
             0200530000000000640000000000000005000000000000004200000000000000\
             650000000000000000000000000000004100000000000000",
        ),
        (
            "raw",
            encoded(|out| encode_raw(&header(RecordKind::Raw, flags::LAST), b"hello", out)),
            "0600058007000000050000000000000000405b36ceeb7918dc455b36ceeb7918\
             050000000000000068656c6c6f000000",
        ),
    ]
}

/// The same for announcements.
fn golden_announcements() -> [Golden; 4] {
    let euro = Instrument { tick_size: 1, ..Instrument::new(7, "BTC-€", "sim", -2, -8) };
    let gap = Gap {
        instrument: 7,
        channel: Channel::Trade,
        from_sequence: Sequence::new(11),
        to_sequence: Sequence::new(19),
        reason: GapReason::Overrun,
    };
    [
        (
            "definition",
            encoded(|out| encode_definition(&euro, out)),
            "0a00108007000000000000000000000000000000000000000000000000000000\
             fef8540703000000010000000000000000000000000000800000000000000000\
             4254432de282ac73696d000000000000",
        ),
        (
            "heartbeat",
            encoded(|out| encode_heartbeat(TS, out)),
            "04001180000000000000000000000000000000000000000000405b36ceeb7918",
        ),
        (
            "gap",
            encoded(|out| gap.encode(TS, out)),
            "07001280070000000000000000000000000000000000000000405b36ceeb7918\
             0b000000000000001300000000000000024f000000000000",
        ),
        (
            "status",
            encoded(|out| encode_status(&header(RecordKind::Status, flags::LAST), FeedState::Live, out)),
            "0500138007000000050000000000000000405b36ceeb7918dc455b36ceeb7918\
             4c00000000000000",
        ),
    ]
}

/// All records, by wire number.
fn golden() -> impl Iterator<Item = Golden> {
    golden_of_channels().into_iter().chain(golden_announcements())
}

#[test]
fn records_have_their_golden_bytes() {
    for (name, record, bytes) in golden() {
        assert_eq!(hex(&record), bytes, "{name}");
    }
}

/// Asserts that a record has `length` bytes, each field at its offset, and zeros everywhere else.
fn assert_layout(name: &str, record: &[u8], length: usize, fields: &[(usize, &[u8])]) {
    assert_eq!(record.len(), length, "{name}");
    let mut want = vec![0; length];
    for (offset, bytes) in fields {
        want[*offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    for offset in 0..length {
        assert_eq!(record[offset], want[offset], "{name} at {offset}");
    }
}

/// The header's fields at their offsets: each byte differs from its neighbours.
fn laid_out(kind: u8, units: u8) -> (RecordHeader, Vec<(usize, Vec<u8>)>) {
    let header = RecordHeader {
        length: 0,
        kind,
        flags: 0xd1,
        instrument: 0x0403_0201,
        sequence: Sequence::new(0x1817_1615_1413_1211),
        ts_event: 0x2827_2625_2423_2221,
        ts_recv: 0x3837_3635_3433_3231,
    };
    let run = |from: u8, count: u8| (from..from + count).collect::<Vec<u8>>();
    let fields = vec![
        (0, vec![units, 0, kind, 0xd1]),
        (4, run(0x01, 4)),
        (8, run(0x11, 8)),
        (16, run(0x21, 8)),
        (24, run(0x31, 8)),
    ];
    (header, fields)
}

#[test]
fn fields_of_channel_records_are_at_their_offsets() {
    let word = |n: i64| (n << 56) | (n << 24) | n;
    let words = |offsets: std::ops::Range<usize>| -> Vec<(usize, Vec<u8>)> {
        offsets.step_by(8).zip(1..).map(|(offset, n)| (offset, word(n).to_le_bytes().to_vec())).collect()
    };
    let assert_record =
        |name: &str, kind, length: usize, body: Vec<(usize, Vec<u8>)>, encode: &dyn Fn(&RecordHeader, &mut Vec<u8>)| {
            let (header, mut fields) = laid_out(kind, (length / 8) as u8);
            fields.extend(body);
            let fields: Vec<(usize, &[u8])> =
                fields.iter().map(|(offset, bytes)| (*offset, bytes.as_slice())).collect();
            assert_layout(name, &encoded(|out| encode(&header, out)), length, &fields);
        };
    let quote = Quote { bid_px: word(1), bid_sz: word(2), ask_px: word(3), ask_sz: word(4) };
    assert_record("quote", 1, 64, words(32..64), &|header, out| quote.encode(header, out));

    let trade = Trade { px: word(1), sz: word(2), trade_id: word(3) as u64, side: Side::Buy };
    let mut body = words(32..56);
    body.push((56, vec![b'B']));
    assert_record("trade", 2, 64, body, &|header, out| trade.encode(header, out));

    let [last_px, open_px, high_px, low_px, volume, turnover, bid_px, ask_px] =
        std::array::from_fn(|n| word(n as i64 + 1));
    let ticker = Ticker { last_px, open_px, high_px, low_px, volume, turnover, bid_px, ask_px };
    assert_record("ticker", 3, 96, words(32..96), &|header, out| ticker.encode(header, out));

    let levels = [
        Level { px: word(1), sz: word(2), side: BookSide::Ask },
        Level { px: word(1), sz: word(2), side: BookSide::Bid },
    ];
    let mut body = vec![(32, vec![2, 0, b'D']), (56, vec![b'A']), (80, vec![b'B'])];
    body.extend(words(40..56));
    body.extend(words(64..80));
    assert_record("book", 4, 88, body, &|header, out| encode_book(header, BookAction::Delta, levels.into_iter(), out));

    let body = vec![(32, vec![9]), (40, (1..10).collect())];
    assert_record("raw", 5, 56, body, &|header, out| encode_raw(header, &[1, 2, 3, 4, 5, 6, 7, 8, 9], out));
    assert_record("status", 19, 40, vec![(32, vec![b'E'])], &|header, out| {
        encode_status(header, FeedState::Ended, out)
    });
}

#[test]
fn fields_of_announcements_are_at_their_offsets() {
    let instrument = Instrument {
        tick_size: 0x1817_1615_1413_1211,
        lot_size: 0x2827_2625_2423_2221,
        status: InstrumentStatus::Halted,
        ..Instrument::new(0x0403_0201, "abc", "xy", -9, 9)
    };
    let record = encoded(|out| encode_definition(&instrument, out));
    let (tick, lot): (Vec<u8>, Vec<u8>) = ((0x11..0x19).collect(), (0x21..0x29).collect());
    let head = [9, 0, 16, flags::LAST, 1, 2, 3, 4];
    let terms = [-9i8 as u8, 9, b'H', 3, 2];
    assert_layout("definition", &record, 72, &[(0, &head), (32, &terms), (40, &tick), (48, &lot), (64, b"abcxy")]);

    let gap = Gap {
        instrument: 9,
        channel: Channel::Raw,
        from_sequence: Sequence::new(1),
        to_sequence: Sequence::new(2),
        reason: GapReason::Slow,
    };
    let record = encoded(|out| gap.encode(3, out));
    let head = [7, 0, 18, flags::LAST, 9];
    assert_layout("gap", &record, 56, &[(0, &head), (24, &[3]), (32, &[1]), (40, &[2]), (48, &[5, b'S'])]);

    let record = encoded(|out| encode_heartbeat(3, out));
    assert_layout("heartbeat", &record, 32, &[(0, &[4, 0, 17, flags::LAST]), (24, &[3])]);
}

#[test]
fn kinds_and_channels_have_their_numbers_and_names() {
    let known = [1, 2, 3, 4, 5, 16, 17, 18, 19];
    for byte in 0..=u8::MAX {
        assert_eq!(RecordKind::from_wire(byte).map(|kind| kind as u8), known.contains(&byte).then_some(byte));
    }
    for (channel, kind, name, log) in [
        (Channel::Quote, 1, "quote", false),
        (Channel::Trade, 2, "trade", true),
        (Channel::Ticker, 3, "ticker", false),
        (Channel::Book, 4, "book", false),
        (Channel::Raw, 5, "raw", true),
    ] {
        assert_eq!((channel.kind() as u8, channel.name(), channel.is_log()), (kind, name, log));
        assert_eq!((Channel::from_name(name), channel.kind().channel()), (Some(channel), Some(channel)));
    }
    assert_eq!(Channel::from_name("quotes"), None);
    assert_eq!(RecordKind::Gap.channel(), None);
}

#[test]
fn extreme_values_round_trip() {
    let header = RecordHeader {
        length: 8,
        instrument: u32::MAX,
        sequence: Sequence::new(u64::MAX),
        ts_event: u64::MAX,
        ts_recv: u64::MAX,
        ..header(RecordKind::Quote, 0xff)
    };
    let quote = Quote { bid_px: i64::MIN, bid_sz: i64::MAX, ask_px: -1, ask_sz: 0 };
    let record = encoded(|out| quote.encode(&header, out));
    assert_eq!((RecordHeader::read(&record), Quote::read(&record)), (Some(header), Some(quote)));

    let long = Instrument::new(u32::MAX, &"é".repeat(127), &"x".repeat(255), i8::MIN, i8::MAX);
    let record = encoded(|out| encode_definition(&long, out));
    assert_eq!((record.len(), read_definition(&record)), (64 + 254 + 255 + 3, Some(long)));
}

#[test]
fn longest_records_round_trip() {
    let level = Level { px: 1, sz: 2, side: BookSide::Ask };
    let levels = std::iter::repeat_n(level, BOOK_LEVELS_MAX);
    let book = encoded(|out| encode_book(&header(RecordKind::Book, 0), BookAction::Delta, levels, out));
    assert!(book.len() <= RECORD_BYTES_MAX && book.len() + LEVEL_BYTES > RECORD_BYTES_MAX);
    assert_eq!(check(&book).map(|header| header.bytes()), Ok(book.len()));
    assert_eq!(read_book(&book).map(|(_, levels)| levels.len()), Some(BOOK_LEVELS_MAX));
    let payload = vec![0xab; RECORD_BYTES_MAX - 40];
    let raw = encoded(|out| encode_raw(&header(RecordKind::Raw, 0), &payload, out));
    assert_eq!(raw.len(), RECORD_BYTES_MAX);
    assert!(check(&raw).is_ok() && read_raw(&raw) == Some(payload.as_slice()));
}

#[test]
#[should_panic(expected = "record of 524288 bytes")]
fn encoding_beyond_the_longest_record_panics() {
    encode_raw(&header(RecordKind::Raw, 0), &vec![0; RECORD_BYTES_MAX - 39], &mut Vec::new());
}

#[test]
fn patching_changes_only_the_fields_of_the_sequencer() {
    let quote = Quote { bid_px: 1, bid_sz: 2, ask_px: 3, ask_sz: 4 };
    let mut record = encoded(|out| quote.encode(&header(RecordKind::Quote, flags::LAST), out));
    patch_sequenced(&mut record, 8, Sequence::new(9), 10);
    patch_flags(&mut record, flags::CONFLATED);
    let want = RecordHeader {
        length: 8,
        kind: 1,
        flags: flags::CONFLATED,
        instrument: 8,
        sequence: Sequence::new(9),
        ts_event: TS,
        ts_recv: 10,
    };
    assert_eq!((RecordHeader::read(&record), Quote::read(&record)), (Some(want), Some(quote)));
}

#[test]
fn prefix_agrees_with_the_header() {
    for (name, record, _) in golden() {
        let header = RecordHeader::read(&record).expect(name);
        let prefix = RecordPrefix::read(&record).expect(name);
        assert_eq!((prefix.bytes(), prefix.kind()), (record.len(), header.known_kind()), "{name}");
        assert_eq!((prefix.flags(), prefix.instrument()), (header.flags, header.instrument), "{name}");
        assert_eq!(kind_of(&record), header.known_kind(), "{name}");
        assert_eq!(RecordPrefix::read(&record[..7]), None, "{name}");
    }
}

#[test]
fn errors_name_the_value_and_what_is_expected() {
    let (_, trade, _) = golden().find(|(name, ..)| *name == "trade").expect("a listed record");
    let mut wrong_side = trade.clone();
    wrong_side[56] = b'X';
    let mut wrong_length = trade.clone();
    wrong_length[0] = 7;
    for (bytes, text) in [
        (&trade[..60], "record: cut short at 60 bytes: expected 64"),
        (&wrong_side, "trade side: invalid value 0x58: expected 'B', 'S' or 'N'"),
        (&wrong_length, "record of type 2: length 56: expected 64"),
    ] {
        assert_eq!(check(bytes).unwrap_err().to_string(), text);
    }
}

#[test]
fn records_are_split_in_order_up_to_the_first_that_is_cut_short() {
    let all: Vec<u8> = golden().flat_map(|(_, record, _)| record).collect();
    let kinds = |bytes: &[u8]| records(bytes).map(|(header, _)| header.kind).collect::<Vec<_>>();
    assert_eq!(kinds(&all), [1, 2, 3, 4, 5, 16, 17, 18, 19]);
    assert_eq!(kinds(&all[..all.len() - 1]), [1, 2, 3, 4, 5, 16, 17, 18]);
    let mut stuck = all.clone();
    stuck[0] = 0;
    assert_eq!(records(&stuck).count(), 0);
}

/// One record of each channel.
fn publishable() -> Vec<(&'static str, Vec<u8>)> {
    golden_of_channels().into_iter().map(|(name, record, _)| (name, record)).collect()
}

#[test]
fn check_accepts_publishable_records_and_ignores_what_follows() {
    for (name, mut record) in publishable() {
        let want = RecordHeader::read(&record).expect(name);
        assert_eq!(check(&record), Ok(want), "{name}");
        record.extend([0xff; 100]);
        assert_eq!(check(&record), Ok(want), "{name}");
    }
}

#[test]
fn check_refuses_every_truncation_with_the_missing_length() {
    for (name, record) in publishable() {
        for have in 0..record.len() {
            let Err(RecordError::Short { have: said, need }) = check(&record[..have]) else {
                panic!("{name} cut to {have}: {:?}", check(&record[..have]));
            };
            assert!(said == have && need > have && need <= record.len(), "{name} cut to {have}: {said} of {need}");
        }
    }
}

#[test]
fn check_refuses_every_wrong_length() {
    for (name, record) in publishable() {
        for units in (0..=u16::MAX).filter(|units| usize::from(*units) * 8 != record.len()) {
            let mut wrong = record.clone();
            wrong[..2].copy_from_slice(&units.to_le_bytes());
            wrong.resize(wrong.len() + 128, 0);
            let given = usize::from(units) * 8;
            let refused = check(&wrong);
            assert!(
                matches!(refused, Err(RecordError::Length { given: said, want, .. }) if said == given && want != given),
                "{name} of {units} units: {refused:?}"
            );
        }
    }
}

#[test]
fn check_does_not_take_a_count_from_the_record_that_follows() {
    for (kind, following) in [(4, &[] as &[u8]), (4, &[3; 64]), (5, &[]), (5, &[3; 64])] {
        let mut bytes = encoded(|out| encode_heartbeat(TS, out));
        bytes[2] = kind;
        bytes.extend(following);
        assert_eq!(check(&bytes), Err(RecordError::Length { kind, given: 32, want: 40 }));
    }
}

#[test]
fn check_refuses_counts_that_the_length_does_not_hold() {
    for (name, record) in publishable().into_iter().filter(|(name, _)| matches!(*name, "book" | "raw")) {
        for count in [0u32, 1, 9, 200, u32::MAX] {
            let mut wrong = record.clone();
            let bytes = if name == "book" { 2 } else { 4 };
            wrong[32..32 + bytes].copy_from_slice(&count.to_le_bytes()[..bytes]);
            let fits = name == "raw" && (1..=8).contains(&count);
            assert_eq!(check(&wrong).is_ok(), fits, "{name} of {count}");
        }
    }
}

#[test]
fn check_refuses_kinds_that_are_not_for_publishers() {
    for (_, record, _) in golden() {
        for kind in (0..=u8::MAX).filter(|kind| !matches!(kind, 1..=5 | 17..=19)) {
            let mut wrong = record.clone();
            wrong[2] = kind;
            assert_eq!(check(&wrong), Err(RecordError::Kind(kind)));
        }
    }
}

#[test]
fn check_refuses_unknown_letters() {
    for (name, at, letters) in [("trade", 56, "BSN"), ("book", 34, "SD"), ("book", 56, "BA"), ("book", 80, "BA")] {
        let (_, record) = publishable().into_iter().find(|(kind, _)| *kind == name).expect("a listed record");
        for letter in 0..=u8::MAX {
            let mut changed = record.clone();
            changed[at] = letter;
            let refused = check(&changed).is_err();
            assert_eq!(refused, !letters.as_bytes().contains(&letter), "{name}[{at}] = {letter:#04x}");
        }
    }
}

#[test]
fn readers_return_none_for_truncated_bodies() {
    for (name, record, _) in golden() {
        for have in 0..record.len() {
            let cut = &record[..have];
            assert_eq!(RecordHeader::read(cut).is_some(), have >= HEADER_BYTES);
            let read = match name {
                "quote" => Quote::read(cut).is_some(),
                "trade" => Trade::read(cut).is_some(),
                "ticker" => Ticker::read(cut).is_some(),
                "book" => read_book(cut).is_some(),
                "raw" => read_raw(cut).is_some() && have < 45,
                "definition" => read_definition(cut).is_some() && have < 74,
                "gap" => Gap::read(cut).is_some(),
                _ => false,
            };
            assert!(!read, "{name} cut to {have}");
        }
    }
}

#[test]
fn definition_that_is_not_utf8_reads_as_none() {
    let (_, mut record, _) = golden().find(|(name, ..)| *name == "definition").expect("a listed record");
    record[64] = 0xff;
    assert_eq!(read_definition(&record), None);
}

fn any_header() -> impl Strategy<Value = RecordHeader> {
    (any::<u8>(), any::<u32>(), any::<[u64; 3]>()).prop_map(|(flags, instrument, [sequence, ts_event, ts_recv])| {
        RecordHeader { length: 0, kind: 0, flags, instrument, sequence: sequence.into(), ts_event, ts_recv }
    })
}

fn any_level() -> impl Strategy<Value = Level> {
    (any::<i64>(), any::<i64>(), prop::sample::select(vec![BookSide::Bid, BookSide::Ask]))
        .prop_map(|(px, sz, side)| Level { px, sz, side })
}

/// Asserts that the record checks, and that its header is the one written.
fn assert_sound(record: &[u8], header: &RecordHeader, kind: RecordKind) -> Result<(), TestCaseError> {
    let want = RecordHeader { length: (record.len() / 8) as u16, kind: kind as u8, ..*header };
    prop_assert_eq!(RecordHeader::read(record), Some(want));
    prop_assert_eq!(check(record), Ok(want));
    Ok(())
}

proptest! {
    #[test]
    fn quotes_trades_and_tickers_round_trip(
        header in any_header(), words: [i64; 8], side in prop::sample::select(vec![Side::Buy, Side::Sell, Side::Unknown]),
    ) {
        let [last_px, open_px, high_px, low_px, volume, turnover, bid_px, ask_px] = words;
        let of = |kind: RecordKind| RecordHeader { kind: kind as u8, ..header };
        let quote = Quote { bid_px: last_px, bid_sz: open_px, ask_px: high_px, ask_sz: low_px };
        let record = encoded(|out| quote.encode(&of(RecordKind::Quote), out));
        assert_sound(&record, &header, RecordKind::Quote)?;
        prop_assert_eq!(Quote::read(&record), Some(quote));

        let trade = Trade { px: last_px, sz: open_px, trade_id: high_px as u64, side };
        let record = encoded(|out| trade.encode(&of(RecordKind::Trade), out));
        assert_sound(&record, &header, RecordKind::Trade)?;
        prop_assert_eq!(Trade::read(&record), Some(trade));

        let ticker = Ticker { last_px, open_px, high_px, low_px, volume, turnover, bid_px, ask_px };
        let record = encoded(|out| ticker.encode(&of(RecordKind::Ticker), out));
        assert_sound(&record, &header, RecordKind::Ticker)?;
        prop_assert_eq!(Ticker::read(&record), Some(ticker));
    }

    #[test]
    fn books_and_payloads_round_trip(
        header in any_header(),
        kind in prop::sample::select(vec![BookAction::Snapshot, BookAction::Delta]),
        levels in prop::collection::vec(any_level(), 0..50),
        payload in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let of = |kind: RecordKind| RecordHeader { kind: kind as u8, ..header };
        let record = encoded(|out| encode_book(&of(RecordKind::Book), kind, levels.iter().copied(), out));
        assert_sound(&record, &header, RecordKind::Book)?;
        let (read_kind, read) = read_book(&record).unwrap();
        prop_assert_eq!((read_kind, read.collect::<Vec<_>>()), (kind, levels));

        let record = encoded(|out| encode_raw(&of(RecordKind::Raw), &payload, out));
        assert_sound(&record, &header, RecordKind::Raw)?;
        prop_assert_eq!(read_raw(&record), Some(payload.as_slice()));
    }

    #[test]
    fn definitions_and_gaps_round_trip(
        symbol in "\\PC{1,60}", venue in "\\PC{0,60}", exponents: [i8; 2], status: u8, steps: [i64; 2], id: u32,
        channel in prop::sample::select(Channel::ALL.to_vec()), sequences: [u64; 2], reason: u8,
    ) {
        let instrument = Instrument {
            status: status.into(), tick_size: steps[0], lot_size: steps[1],
            ..Instrument::new(id, &symbol, &venue, exponents[0], exponents[1])
        };
        let record = encoded(|out| encode_definition(&instrument, out));
        prop_assert_eq!(RecordHeader::read(&record).map(|header| header.bytes()), Some(record.len()));
        prop_assert_eq!(read_definition(&record), Some(instrument));

        let [from_sequence, to_sequence] = [sequences[0].into(), sequences[1].into()];
        let gap = Gap { instrument: id, channel, from_sequence, to_sequence, reason: reason.into() };
        prop_assert_eq!(Gap::read(&encoded(|out| gap.encode(1, out))), Some(gap));
    }

    #[test]
    fn random_bytes_never_panic_and_checked_records_are_readable(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0u8..24, units in 0u8..20,
    ) {
        let _ = check(&bytes);
        if bytes.len() >= HEADER_BYTES {
            (bytes[0], bytes[1], bytes[2]) = (units, 0, kind);
        }
        if let Ok(header) = check(&bytes) {
            prop_assert!(header.bytes() <= bytes.len());
            let record = &bytes[..header.bytes()];
            let readable = match RecordKind::from_wire(header.kind) {
                Some(RecordKind::Book) => read_book(record).is_some(),
                Some(RecordKind::Raw) => read_raw(record).is_some(),
                Some(RecordKind::Gap) => Gap::read(record).is_some_and(|gap| gap.channel.is_log()),
                Some(RecordKind::Status) => b"LSHE".contains(&record[32]),
                Some(RecordKind::Quote | RecordKind::Trade | RecordKind::Ticker | RecordKind::Heartbeat) => true,
                Some(RecordKind::Definition) | None => false,
            };
            prop_assert!(readable);
        }
        let _ = (Quote::read(&bytes), Trade::read(&bytes), Ticker::read(&bytes), Gap::read(&bytes));
        let _ = (read_raw(&bytes), read_definition(&bytes), read_book(&bytes).map(|(_, levels)| levels.count()));
        let total: usize = records(&bytes).map(|(_, record)| record.len()).sum();
        prop_assert!(total <= bytes.len());
    }
}
