//! Replay of DBN files: the samples of Databento, whose values are those that its Python library `databento_dbn` prints,
//! and files that dbn's own encoder makes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dbn::encode::{DbnEncoder, EncodeRecord};
use dbn::flags::{LAST, MAYBE_BAD_BOOK, SNAPSHOT, TOB};
use dbn::{
    BidAskPair, FlagSet, InstrumentDefMsg, MappingInterval, MboMsg, Mbp10Msg, Metadata, OhlcvMsg, RecordHeader, SType,
    Schema, StatusAction, StatusMsg, SymbolMapping, TradeMsg, UNDEF_PRICE, rtype,
};
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;
use tickcast::ingest::source::Report;
use tickcast_protocol::record::{self, PRICE_NONE, flags};
use tickcast_protocol::{Book, RecordKind, decimal};
use tickcast_test_support::feed_stream::{self, FeedRecord};
use tickcast_test_support::paths::recordings;

/// 28 December 2020, 13:00 UTC.
const T0: u64 = 1_609_160_400_000_000_000;
const ID: u32 = 5482;

fn header<R: dbn::HasRType>(rtype: u8, nth: u64) -> RecordHeader {
    RecordHeader::new::<R>(rtype, 1, ID, T0 + nth)
}

/// A mapping of symbol to instrument id on some days of December 2020.
fn mapping(symbol: &str, id: u32, days: std::ops::Range<u8>) -> SymbolMapping {
    let date = |day: u8| time::Date::from_calendar_date(2020, time::Month::December, day).expect("a date");
    let interval = MappingInterval { start_date: date(days.start), end_date: date(days.end), symbol: id.to_string() };
    SymbolMapping { raw_symbol: symbol.to_owned(), intervals: vec![interval] }
}

fn metadata(dataset: &str, schema: Schema, mappings: Vec<SymbolMapping>) -> Metadata {
    Metadata::builder()
        .dataset(dataset.to_owned())
        .schema(Some(schema))
        .start(T0)
        .stype_in(Some(SType::RawSymbol))
        .stype_out(SType::InstrumentId)
        .mappings(mappings)
        .build()
}

/// Files that a test encodes.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn encode(&self, name: &str, metadata: &Metadata, write: impl FnOnce(&mut DbnEncoder<&mut Vec<u8>>)) -> PathBuf {
        let mut bytes = Vec::new();
        write(&mut DbnEncoder::new(&mut bytes, metadata).expect("writing to a Vec"));
        std::fs::write(self.path(name), bytes).expect("written");
        self.path(name)
    }
}

/// A record as a text with its values as decimals, and the second of its delivery.
fn shown(stream: &[FeedRecord]) -> Vec<String> {
    let mut instruments = BTreeMap::new();
    let mut texts = Vec::new();
    for record in stream {
        if record.kind() == RecordKind::Definition {
            instruments.insert(record.header.instrument, record.definition());
        }
        let instrument = &instruments[&record.header.instrument];
        let px = |px: i64| if px == PRICE_NONE { "-".to_owned() } else { decimal::to_string(px, instrument.px_exp) };
        let sz = |sz: i64| if sz == PRICE_NONE { "-".to_owned() } else { sz.to_string() };
        let text = match record.kind() {
            RecordKind::Definition => format!("{} {} {}", instrument.symbol, instrument.venue, instrument.px_exp),
            RecordKind::Quote => {
                let quote = record.quote();
                format!("{}x{} {}x{}", px(quote.bid_px), sz(quote.bid_sz), px(quote.ask_px), sz(quote.ask_sz))
            }
            RecordKind::Trade => {
                let trade = record.trade();
                format!("{} {}x{} #{}", trade.side, px(trade.px), sz(trade.sz), trade.trade_id)
            }
            RecordKind::Status => format!("status {}", record::read_status(&record.bytes).expect("a state")),
            RecordKind::Book => {
                let (action, levels) = record.book();
                let levels: Vec<_> =
                    levels.iter().map(|level| format!("{}{}x{}", level.side, px(level.px), level.sz)).collect();
                let bad = if record.header.flags & flags::MAYBE_BAD_BOOK != 0 { "?" } else { "" };
                format!("{action}{bad} {}", levels.join(" "))
            }
            other => format!("{other:?}"),
        };
        texts.push(text);
    }
    texts
}

fn play(file: &Path, query: &str) -> (Vec<String>, Report) {
    let (stream, report) = feed_stream::play_to_end(&[file.to_path_buf()], query);
    (shown(&stream), report)
}

const DEFINED: &str = "ESH1 GLBX.MDP3 -9";

#[test]
fn samples_of_every_schema_and_version_become_their_records() {
    let Some(dir) = recordings() else { return };
    let expected: [(&str, &[&str], u64); 10] = [
        ("trades", &[DEFINED, "S 3720.250000000x5 #1170380", "S 3720.250000000x21 #1170414"], 0),
        ("mbp-1", &[DEFINED, "3720.250000000x24 3720.500000000x11", "3720.250000000x24 3720.500000000x12"], 0),
        (
            "tbbo",
            &[
                DEFINED,
                "3720.250000000x26 3720.500000000x7",
                "S 3720.250000000x5 #1170380",
                "3720.250000000x21 3720.500000000x22",
                "S 3720.250000000x21 #1170414",
            ],
            0,
        ),
        (
            "bbo-1s",
            &[
                DEFINED,
                "3702.250000000x18 3702.750000000x13",
                "3702.500000000x2 3702.750000000x10",
                "3702.250000000x20 3702.750000000x11",
                "3702.500000000x2 3702.750000000x11",
            ],
            0,
        ),
        // Two cancellations of orders that came before the file.
        ("mbo", &[DEFINED], 0),
        ("definition", &["MSFT XNAS.ITCH -9"], 0),
        ("status", &[DEFINED, "status L", "status L", "status L"], 1),
        ("statistics", &[], 2),
        ("ohlcv-1s", &[], 2),
        ("mbp-10", &[], 0),
    ];
    for (schema, expected, ignored) in expected {
        for ending in ["dbn", "v2.dbn.zst", "v3.dbn.zst"] {
            let file = dir.join(format!("dbn/test_data.{schema}.{ending}"));
            let (texts, report) = play(&file, "speed=max");
            assert_eq!((report.malformed, report.ignored), (0, ignored), "{schema} {ending}");
            if schema == "mbp-10" {
                assert_eq!(texts.len(), 4, "{texts:?}");
                assert!(texts[1].starts_with("S B3720.250000000x24 B3720.000000000x31 "), "{texts:?}");
                assert_eq!(texts[1].split(' ').count(), 21);
                assert_eq!(texts[2], "3720.250000000x24 3720.500000000x10");
                assert_eq!(texts[3], "D B3720.000000000x30");
            } else {
                assert_eq!(texts, expected, "{schema} {ending}");
            }
        }
    }
    // Every file is one of these.
    let files = std::fs::read_dir(dir.join("dbn")).expect("a folder").count();
    assert_eq!(files, 1 + 3 * expected.len(), "and the licence");
}

fn mbo(nth: u64, action: u8, side: u8, order: (u64, i64, u32), flags: u8) -> MboMsg {
    MboMsg {
        hd: header::<MboMsg>(rtype::MBO, nth),
        order_id: order.0,
        price: order.1,
        size: order.2,
        flags: FlagSet::new(flags),
        channel_id: 0,
        action: action as std::ffi::c_char,
        side: side as std::ffi::c_char,
        ts_recv: T0 + nth,
        ts_in_delta: 0,
        sequence: nth as u32,
    }
}

fn esh1() -> Vec<SymbolMapping> {
    vec![mapping("ESH1", ID, 1..30)]
}

const UNIT: i64 = 1_000_000_000;

#[test]
fn orders_become_a_book_at_the_end_of_each_event() {
    let files = Files::new();
    let messages = [
        mbo(1, b'C', b'B', (9, 9 * UNIT, 1), LAST),
        mbo(2, b'A', b'B', (10, 10 * UNIT, 4), LAST),
        mbo(3, b'R', b'N', (0, UNDEF_PRICE, 0), SNAPSHOT),
        mbo(4, b'A', b'B', (1, 10 * UNIT, 5), SNAPSHOT),
        mbo(5, b'A', b'A', (2, 11 * UNIT, 6), SNAPSHOT | LAST),
        mbo(6, b'A', b'B', (3, 10 * UNIT, 2), LAST),
        // A trade, the fill of the resting order, and what it takes from the book.
        mbo(7, b'T', b'A', (0, 10 * UNIT, 6), 0),
        mbo(8, b'F', b'B', (1, 10 * UNIT, 5), 0),
        mbo(9, b'C', b'B', (1, 10 * UNIT, 5), 0),
        mbo(10, b'C', b'B', (3, 10 * UNIT, 1), LAST),
        mbo(11, b'M', b'B', (3, 9 * UNIT + UNIT / 2, 8), LAST | MAYBE_BAD_BOOK),
        mbo(12, b'A', b'A', (4, UNDEF_PRICE, 0), TOB | LAST),
        mbo(13, b'N', b'N', (0, UNDEF_PRICE, 0), LAST),
    ];
    let file = files.encode("mbo", &metadata("GLBX.MDP3", Schema::Mbo, esh1()), |encoder| {
        messages.iter().for_each(|message| encoder.encode_record(message).expect("encoded"));
    });
    let (texts, report) = play(&file, "speed=max");
    let px = |text: &str| text.replace('!', ".000000000");
    let expected = [
        DEFINED.to_owned(),
        px("S? B10!x4"),
        px("10!x4 -x-"),
        px("S B10!x5 A11!x6"),
        px("10!x5 11!x6"),
        px("D B10!x7"),
        px("10!x7 11!x6"),
        px("S 10!x6 #7"),
        px("D B10!x1"),
        px("10!x1 11!x6"),
        px("D? B9.500000000x8 B10!x0"),
        px("9.500000000x8 11!x6"),
        px("D A11!x0"),
        px("9.500000000x8 -x-"),
    ];
    assert_eq!(report.malformed, 0);
    assert_eq!(texts, expected);
}

#[test]
fn random_orders_give_the_book_of_a_plain_model() {
    let seed: u64 = 20_241_130;
    println!("seed {seed}");
    let mut random = rand_pcg::Pcg64Mcg::seed_from_u64(seed);
    let mut model: BTreeMap<u64, (u8, i64, u32)> = BTreeMap::new();
    let mut messages = vec![mbo(0, b'R', b'N', (0, UNDEF_PRICE, 0), LAST)];
    for nth in 1..20_000u64 {
        let is_last = if random.random_range(0..3) == 0 { 0 } else { LAST };
        let known = model.keys().nth(random.random_range(0..model.len().max(1))).copied();
        let (side, px) = if random.random_bool(0.5) { (b'B', 100) } else { (b'A', 200) };
        let px = (px + random.random_range(0..50)) * UNIT / 4;
        let size = random.random_range(1..100);
        match (random.random_range(0..10), known) {
            (0..5, _) | (_, None) => {
                model.insert(nth, (side, px, size));
                messages.push(mbo(nth, b'A', side, (nth, px, size), is_last));
            }
            (5..7, Some(id)) => {
                model.insert(id, (side, px, size));
                messages.push(mbo(nth, b'M', side, (id, px, size), is_last));
            }
            (_, Some(id)) => {
                let (side, px, held) = model[&id];
                let taken = size.min(held);
                match held - taken {
                    0 => drop(model.remove(&id)),
                    left => drop(model.insert(id, (side, px, left))),
                }
                messages.push(mbo(nth, b'C', side, (id, px, taken), is_last));
            }
        }
    }
    messages.push(mbo(20_000, b'N', b'N', (0, UNDEF_PRICE, 0), LAST));
    let files = Files::new();
    let definition = files.encode("definition", &metadata("GLBX.MDP3", Schema::Definition, esh1()), |encoder| {
        encoder.encode_record(&definition(UNIT / 4)).expect("encoded");
    });
    let file = files.encode("mbo", &metadata("GLBX.MDP3", Schema::Mbo, esh1()), |encoder| {
        messages.iter().for_each(|message| encoder.encode_record(message).expect("encoded"));
    });
    let (stream, _) = feed_stream::play_to_end(&[definition, file], "speed=max");
    let mut book = Book::default();
    for record in stream.iter().filter(|record| record.kind() == RecordKind::Book) {
        let (action, levels) = record.book();
        book.apply(action, levels.into_iter());
        assert_eq!(record.header.flags, flags::LAST);
    }
    let mut expected: BTreeMap<(u8, i64), i64> = BTreeMap::new();
    // At the exponent of the price step, -2.
    model
        .values()
        .for_each(|(side, px, size)| *expected.entry((*side, px / 10_000_000)).or_default() += i64::from(*size));
    let built = book.bids().map(|(px, sz)| ((b'B', px), sz)).chain(book.asks().map(|(px, sz)| ((b'A', px), sz)));
    assert_eq!(built.collect::<BTreeMap<_, _>>(), expected);
    assert!(expected.len() > 50);
}

/// A definition of ESH1 with this price step.
fn definition(step: i64) -> InstrumentDefMsg {
    let mut message = InstrumentDefMsg {
        hd: header::<InstrumentDefMsg>(rtype::INSTRUMENT_DEF, 0),
        ts_recv: T0,
        min_price_increment: step,
        min_lot_size: 5,
        security_update_action: b'A' as std::ffi::c_char,
        ..Default::default()
    };
    for (to, from) in message.raw_symbol.iter_mut().zip(*b"ESH1") {
        *to = from as std::ffi::c_char;
    }
    message
}

fn trade(nth: u64, publisher: u16, id: u32, price: i64) -> TradeMsg {
    TradeMsg {
        hd: RecordHeader::new::<TradeMsg>(rtype::MBP_0, publisher, id, T0 + nth),
        price,
        size: 3,
        action: b'T' as std::ffi::c_char,
        side: b'B' as std::ffi::c_char,
        flags: FlagSet::new(LAST),
        depth: 0,
        ts_recv: T0 + nth,
        ts_in_delta: 0,
        sequence: nth as u32,
    }
}

#[test]
fn exponent_is_that_of_the_price_step_until_a_price_is_finer() {
    let files = Files::new();
    let definitions = files.encode("d", &metadata("GLBX.MDP3", Schema::Definition, esh1()), |encoder| {
        encoder.encode_record(&definition(UNIT / 4)).expect("encoded");
    });
    let trades = files.encode("t", &metadata("GLBX.MDP3", Schema::Trades, esh1()), |encoder| {
        for (nth, price) in [(1, 5 * UNIT / 4), (2, UNIT / 8), (3, UNIT), (4, UNDEF_PRICE)] {
            encoder.encode_record(&trade(nth, 1, ID, price)).expect("encoded");
        }
    });
    let (stream, report) = feed_stream::play_to_end(&[definitions, trades], "speed=max");
    let expected = ["ESH1 GLBX.MDP3 -2", "B 1.25x3 #1", DEFINED, "B 0.125000000x3 #2", "B 1.000000000x3 #3"];
    assert_eq!(shown(&stream), expected);
    assert_eq!((report.malformed, report.rescaled), (1, 1), "a trade without a price");
    let instrument = stream[0].definition();
    assert_eq!((instrument.tick_size, instrument.lot_size), (25, 5));
    assert_eq!(stream[2].definition().tick_size, 250_000_000);
    assert_eq!(stream[1].header.ts_event, T0 + 1);
}

#[test]
fn symbols_follow_the_mapping_of_the_day_and_the_venue_of_a_dataset_of_several() {
    let files = Files::new();
    let mappings = vec![mapping("OLD", ID, 27..29), mapping("NEW", ID, 29..30)];
    let day = 86_400_000_000_000;
    let file = files.encode("t", &metadata("DBEQ.BASIC", Schema::Trades, mappings), |encoder| {
        // XCHI, XCIS; a day later; an instrument without a mapping.
        for message in
            [trade(0, 39, ID, UNIT), trade(1, 40, ID, UNIT), trade(day, 39, ID, UNIT), trade(day, 39, 7, UNIT)]
        {
            encoder.encode_record(&message).expect("encoded");
        }
    });
    let (texts, _) = play(&file, "speed=max");
    let names: Vec<_> = texts.iter().filter_map(|text| text.strip_suffix(" DBEQ.BASIC -9")).collect();
    assert_eq!(names, ["OLD.XCHI", "OLD.XCIS", "NEW.XCHI", "7.XCHI"]);
}

#[test]
fn ten_levels_after_each_event_are_the_book() {
    let message = |nth: u64, action: u8, levels: &[(i64, u32)]| {
        let empty = BidAskPair { bid_px: UNDEF_PRICE, ask_px: UNDEF_PRICE, bid_sz: 0, ask_sz: 0, bid_ct: 0, ask_ct: 0 };
        let mut pairs: [BidAskPair; 10] = std::array::from_fn(|_| empty.clone());
        for (pair, (px, size)) in pairs.iter_mut().zip(levels) {
            (pair.bid_px, pair.bid_sz) = (*px * UNIT, *size);
        }
        Mbp10Msg {
            hd: header::<Mbp10Msg>(rtype::MBP_10, nth),
            price: UNIT,
            size: 3,
            action: action as std::ffi::c_char,
            side: b'N' as std::ffi::c_char,
            flags: FlagSet::new(LAST),
            depth: 0,
            ts_recv: T0 + nth,
            ts_in_delta: 0,
            sequence: nth as u32,
            levels: pairs,
        }
    };
    let files = Files::new();
    let file = files.encode("mbp", &metadata("GLBX.MDP3", Schema::Mbp10, esh1()), |encoder| {
        for message in [
            message(1, b'A', &[(9, 1), (8, 2)]),
            message(2, b'T', &[(9, 1), (8, 2)]),
            message(3, b'C', &[(8, 2), (7, 5)]),
            message(4, b'R', &[]),
        ] {
            encoder.encode_record(&message).expect("encoded");
        }
    });
    let (texts, _) = play(&file, "speed=max");
    let expected = [DEFINED, "S B9!x1 B8!x2", "9!x1 -x-", "N 1!x3 #2", "D B9!x0 B7!x5", "8!x2 -x-", "S ", "-x- -x-"];
    assert_eq!(texts, expected.map(|text| text.replace('!', ".000000000")));
}

#[test]
fn from_applies_what_is_before_and_statuses_are_states() {
    let status = |nth: u64, action: StatusAction| StatusMsg {
        hd: header::<StatusMsg>(rtype::STATUS, nth),
        ts_recv: T0 + nth,
        action: action.into(),
        ..Default::default()
    };
    let files = Files::new();
    let file = files.encode("status", &metadata("GLBX.MDP3", Schema::Status, esh1()), |encoder| {
        for message in
            [status(1, StatusAction::Halt), status(2, StatusAction::SsrChange), status(3, StatusAction::Trading)]
        {
            encoder.encode_record(&message).expect("encoded");
        }
        let hd = header::<OhlcvMsg>(rtype::OHLCV_1S, 4);
        let bar = OhlcvMsg { hd, open: UNIT, high: UNIT, low: UNIT, close: UNIT, volume: 1 };
        encoder.encode_record(&bar).expect("encoded");
    });
    let (texts, report) = play(&file, "speed=max");
    assert_eq!(texts, [DEFINED, "status H", "status L"]);
    assert_eq!((report.malformed, report.ignored), (0, 2));
    let (texts, _) = play(&file, &format!("speed=max&from={}", T0 + 2));
    assert_eq!(texts, [DEFINED, "status H", "status L"]);
    let (texts, _) = play(&file, &format!("speed=max&to={}", T0 + 3));
    assert_eq!(texts, [DEFINED, "status H"]);
}

#[test]
fn files_that_cannot_be_read_say_why_and_short_records_are_counted() {
    let files = Files::new();
    let metadata = metadata("GLBX.MDP3", Schema::Trades, esh1());
    let file = files.encode("t", &metadata, |encoder| {
        for nth in 1..4 {
            encoder.encode_record(&trade(nth, 1, ID, UNIT)).expect("encoded");
        }
    });
    let bytes = std::fs::read(&file).expect("written");
    let error = |name: &str, bytes: &[u8]| {
        std::fs::write(files.path(name), bytes).expect("written");
        feed_stream::try_open(&[files.path(name)], "speed=max").err().expect("refused")
    };
    let mut newer = bytes.clone();
    newer[3] = 9;
    assert!(error("newer", &newer).contains("newer: is of DBN version 9: expected 1 to 3"));
    let mut large = bytes.clone();
    large[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(error("large", &large).contains("has 4294967295 bytes of metadata: expected at most 67108864"));
    assert!(error("cut", &bytes[..40]).contains("its metadata cannot be read"));
    // The second trade says that it is shorter than a trade is.
    let records = bytes.len() - 3 * size_of::<TradeMsg>();
    let mut short = bytes.clone();
    short[records + size_of::<TradeMsg>()] = 4;
    std::fs::write(files.path("short"), &short).expect("written");
    let (texts, report) = play(&files.path("short"), "speed=max");
    assert_eq!(texts[..2], [DEFINED, "B 1.000000000x3 #1"]);
    assert!(report.malformed > 0, "{texts:?}");
    // A file that ends within a record.
    std::fs::write(files.path("torn"), &bytes[..bytes.len() - 5]).expect("written");
    let (texts, _) = play(&files.path("torn"), "speed=max");
    assert_eq!(texts.len(), 3);
}
