//! Replay of packet logs: what is played, when, and what is said of files that are not whole.

use std::path::PathBuf;

use tempfile::TempDir;
use tickcast::ingest::feed::replay::LOOP_PAUSE_NS;
use tickcast::ingest::source::{Batch, Next, SourceError, Times};
use tickcast_protocol::PacketHeader;
use tickcast_protocol::record::{self, Gap, Level, Quote, RecordHeader, Trade, encode_book, encode_status, flags};
use tickcast_protocol::{BookAction, BookSide, Channel, FeedState, GapReason, Instrument, RecordKind, Side};
use tickcast_recording::{BLOCK_HEADER_BYTES, Reader, Writer};
use tickcast_test_support::feed_stream::{self, FeedRecord};

const SECOND: u64 = 1_000_000_000;
/// Second 0 of these recordings.
const T0: u64 = 1_723_161_254 * SECOND;

/// A log that a test writes.
struct Log {
    epoch: u32,
    packets: Vec<Vec<u8>>,
}

impl Log {
    /// A log that begins with the definition of instrument 3, A.
    fn new() -> Self {
        let mut log = Self { epoch: 7, packets: Vec::new() };
        log.define(3, "A", -2);
        log
    }

    fn push(&mut self, records: &[u8]) -> &mut Self {
        let count = record::records(records).count() as u16;
        let header = PacketHeader { flags: 0, count, epoch: self.epoch, position: 1.into(), ts_send: T0 };
        self.packets.push([&header.encode()[..], records].concat());
        self
    }

    fn define(&mut self, id: u32, symbol: &str, px_exp: i8) -> &mut Self {
        let mut out = Vec::new();
        record::encode_definition(&Instrument::new(id, symbol, "x", px_exp, 0), &mut out);
        self.push(&out)
    }

    fn quote(&mut self, second: u64, bid_px: i64) -> &mut Self {
        let mut out = Vec::new();
        let quote = Quote { bid_px, bid_sz: 1, ask_px: bid_px + 1, ask_sz: 1 };
        quote.encode(&header(RecordKind::Quote, second), &mut out);
        self.push(&out)
    }

    fn trade(&mut self, second: u64, px: i64) -> &mut Self {
        let mut out = Vec::new();
        Trade { px, sz: 1, trade_id: 5, side: Side::Buy }.encode(&header(RecordKind::Trade, second), &mut out);
        self.push(&out)
    }

    fn book(&mut self, second: u64, action: BookAction, px: i64) -> &mut Self {
        let mut out = Vec::new();
        let levels = [Level { px, sz: 1, side: BookSide::Bid }];
        encode_book(&header(RecordKind::Book, second), action, levels.into_iter(), &mut out);
        self.push(&out)
    }

    fn status(&mut self, second: u64, instrument: u32, state: FeedState) -> &mut Self {
        let mut out = Vec::new();
        let header = RecordHeader { instrument, ..header(RecordKind::Status, second) };
        encode_status(&header, state, &mut out);
        self.push(&out)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut writer = Writer::create(Vec::new()).expect("a header");
        self.packets.iter().for_each(|packet| writer.packet(packet).expect("a packet"));
        writer.finish().expect("an index")
    }
}

fn header(kind: RecordKind, second: u64) -> RecordHeader {
    let ts_recv = T0 + second * SECOND;
    RecordHeader { sequence: 9.into(), ts_recv, ..RecordHeader::of_feed(kind, 3, ts_recv - 5) }
}

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    }
}

/// A record as a short text, with the second of its delivery.
fn shown(record: &FeedRecord) -> String {
    let text = match record.kind() {
        RecordKind::Definition => record.definition().symbol,
        RecordKind::Quote => format!("q{}", record.quote().bid_px),
        RecordKind::Trade => format!("t{}", record.trade().px),
        RecordKind::Book => record.book_text(),
        RecordKind::Status => format!("{}", record::read_status(&record.bytes).expect("a state")),
        other => format!("{other:?}"),
    };
    format!("{} {text}", (record.at_ns - 1) / SECOND)
}

fn play(bytes: &[u8], query: &str) -> Vec<String> {
    let files = Files::new();
    feed_stream::play_to_end(&[files.write("a", bytes)], query).0.iter().map(shown).collect()
}

fn session() -> Log {
    let mut log = Log::new();
    log.book(0, BookAction::Snapshot, 100).quote(0, 100).trade(1, 100).book(2, BookAction::Delta, 99);
    log.quote(3, 101).trade(4, 101).book(5, BookAction::Delta, 98);
    log
}

#[test]
fn log_is_played_at_its_pace_with_ids_of_its_own() {
    let files = Files::new();
    let (stream, report) = feed_stream::play_to_end(&[files.write("a", &session().bytes())], "speed=1");
    let texts: Vec<_> = stream.iter().map(shown).collect();
    let expected = ["0 A", "0 S B1@100", "0 q100", "1 t100", "2 D B1@99", "3 q101", "4 t101", "5 D B1@98"];
    assert_eq!(texts, expected);
    assert_eq!((report.malformed, report.ignored), (0, 0));
    for record in &stream {
        assert_eq!((record.header.instrument, record.header.sequence.get(), record.header.ts_recv), (1, 0, 0));
    }
    // The venue's time and the flags are those of the recording.
    assert_eq!(stream[3].header.ts_event, T0 + SECOND - 5);
    assert_eq!(stream[3].header.flags, flags::LAST);
    let span_ns = |query: &str| {
        let (stream, _) = feed_stream::play_to_end(&[files.write("a", &session().bytes())], query);
        stream.last().expect("records").at_ns - stream[0].at_ns
    };
    assert_eq!([span_ns("speed=10"), span_ns("speed=max")], [SECOND / 2, 0]);
}

#[test]
fn what_is_before_from_is_applied_and_what_is_at_to_is_not_played() {
    let bytes = session().bytes();
    let query = |from: u64, to: u64| format!("speed=1&from={}&to={}", T0 + from * SECOND, T0 + to * SECOND);
    assert_eq!(play(&bytes, &query(3, 5)), ["0 A", "0 S B1@100 B1@99", "0 q100", "0 q101", "1 t101"]);
    assert_eq!(play(&bytes, &query(4, 6)), ["0 A", "0 S B1@100 B1@99", "0 q101", "0 t101", "1 D B1@98"]);
    assert_eq!(play(&bytes, &query(0, 1)), ["0 A", "0 S B1@100", "0 q100"]);
    assert_eq!(play(&bytes, "from=2024-08-08T23:54:19Z&speed=max").last().map(String::as_str), Some("0 D B1@98"));
    let files = Files::new();
    let path = files.write("a", &bytes);
    let error = feed_stream::try_open(&[path], &query(9, 10)).err().expect("it ends before");
    assert!(error.ends_with(
        "a: ends at 1723161259000000000, before from=1723161263000000000: expected a time within the recording, in ns since 1970"
    ), "{error}");
}

#[test]
fn from_begins_at_the_last_checkpoint_before() {
    let mut log = Log::new();
    log.book(0, BookAction::Snapshot, 1);
    for second in 1..80 {
        let mut raw = Vec::new();
        record::encode_raw(&header(RecordKind::Raw, second), &vec![1; 500_000], &mut raw);
        log.push(&raw).quote(second, second as i64).book(second, BookAction::Delta, 1 + second as i64);
    }
    let mut bytes = log.bytes();
    let whole = play(&bytes, "speed=max");
    assert_eq!(whole.len(), 2 + 3 * 79, "checkpoints are not played");
    let mut reader = Reader::open(std::io::Cursor::new(&bytes[..])).expect("a log");
    let from_ns = T0 + 78 * SECOND;
    let start = reader.start_for(from_ns);
    assert!(start > 40, "checkpoints were written");
    // What is before the checkpoint is not read: it may be damaged.
    let first = reader.blocks()[2].offset as usize + BLOCK_HEADER_BYTES;
    assert!(reader.read_block(2, &mut Vec::new()).is_ok());
    bytes[first] ^= 1;
    let played = play(&bytes, &format!("speed=1&from={from_ns}"));
    let levels: Vec<_> = (1..=78).rev().map(|px| format!("B1@{px}")).collect();
    let expected = [
        "0 A",
        &format!("0 S {}", levels.join(" ")),
        "0 q77",
        "0 Raw",
        "0 q78",
        "0 D B1@79",
        "1 Raw",
        "1 q79",
        "1 D B1@80",
    ];
    assert_eq!(played, expected);
}

#[test]
fn loop_voids_the_books_between_and_begins_again() {
    let files = Files::new();
    let mut source = feed_stream::try_open(&[files.write("a", &session().bytes())], "speed=1&loop=1").expect("a log");
    let stream = feed_stream::run(source.as_mut(), 1, 1 + 11 * SECOND);
    let texts: Vec<_> = stream.iter().map(shown).collect();
    assert_eq!(texts[7..11], ["5 D B1@98", "5 S?", "5 S B1@100", "5 q100"]);
    assert_eq!(texts.iter().filter(|text| text.ends_with(" A")).count(), 1, "it is defined once");
    assert_eq!(stream[9].at_ns - 1, 5 * SECOND + LOOP_PAUSE_NS);
    assert_eq!(texts[15], "10 D B1@98");
}

#[test]
fn log_without_records_ends_although_it_is_to_be_repeated() {
    let empty = Writer::create(Vec::new()).expect("a header").finish().expect("an index");
    assert_eq!(play(&empty, "loop=1"), [""; 0]);
}

#[test]
fn torn_log_is_played_up_to_its_last_whole_block() {
    let bytes = session().bytes();
    let reader = Reader::open(std::io::Cursor::new(&bytes[..])).expect("a log");
    let cut = reader.blocks()[4].end() as usize + 70;
    assert_eq!(play(&bytes[..cut], "speed=1").last().map(String::as_str), Some("4 t101"));
}

#[test]
fn damaged_block_is_a_gap_and_the_rest_is_played() {
    let mut bytes = session().bytes();
    let reader = Reader::open(std::io::Cursor::new(&bytes[..])).expect("a log");
    let at = reader.blocks()[1].offset as usize + BLOCK_HEADER_BYTES + 5;
    bytes[at] ^= 0x55;
    let files = Files::new();
    let path = files.write("a", &bytes);
    let mut source = feed_stream::try_open(std::slice::from_ref(&path), "speed=max").expect("its header is whole");
    let mut batch = Batch::default();
    let gap = loop {
        match source.receive(Times::at(1), &mut batch) {
            Err(SourceError::Gap(gap)) => break gap,
            other => assert_eq!(other, Ok(Next::Paced)),
        }
    };
    assert_eq!((gap.stream, gap.from, gap.to), (path.display().to_string(), 4, 4));
    let before = record::records(&batch.records).count();
    assert_eq!(before, 3, "A, its book and its quote");
    batch.clear();
    assert_eq!(source.receive(Times::at(1), &mut batch), Ok(Next::Paced));
    let kinds: Vec<_> = record::records(&batch.records).filter_map(|(header, _)| header.known_kind()).collect();
    assert_eq!(kinds, [RecordKind::Book, RecordKind::Quote, RecordKind::Trade, RecordKind::Book]);
}

#[test]
fn restart_of_the_recorded_server_makes_its_instruments_stale() {
    let mut log = Log::new();
    log.quote(0, 100).status(1, 3, FeedState::Halted).status(1, 0, FeedState::Live).status(1, 3, FeedState::Released);
    log.define(4, "B", -2);
    log.epoch = 8;
    log.define(3, "B", -2).define(9, "C", -2).quote(2, 200);
    let played = play(&log.bytes(), "speed=1");
    assert_eq!(played, ["0 A", "0 q100", "1 H", "1 B", "1 S", "1 C", "2 q200"]);
}

#[test]
fn malformed_records_are_counted_and_the_others_are_played() {
    let mut log = Log::new();
    let unknown = {
        let mut out = Vec::new();
        Trade { px: 1, sz: 1, trade_id: 5, side: Side::Buy }
            .encode(&RecordHeader { instrument: 99, ..header(RecordKind::Trade, 1) }, &mut out);
        out
    };
    let mut later = unknown.clone();
    later[2] = 99;
    let mut other_side = unknown.clone();
    (other_side[4], other_side[56]) = (3, b'?');
    let mut backwards = Vec::new();
    let gap = Gap {
        instrument: 3,
        channel: Channel::Trade,
        from_sequence: 5.into(),
        to_sequence: 4.into(),
        reason: GapReason::Feed,
    };
    gap.encode(T0, &mut backwards);
    log.push(&unknown)
        .push(&later)
        .push(&other_side)
        .push(&backwards)
        .define(5, "A*", -2)
        .define(6, "", -2)
        .quote(2, 1);
    let files = Files::new();
    let (stream, report) = feed_stream::play_to_end(&[files.write("a", &log.bytes())], "speed=1");
    assert_eq!(stream.iter().map(shown).collect::<Vec<_>>(), ["0 A", "2 q1"]);
    assert_eq!((report.malformed, report.ignored), (5, 1));
}

#[test]
fn several_logs_are_merged_by_time_and_share_their_instruments() {
    let mut other = Log::new();
    other.define(4, "B", -2).quote(1, 7).quote(4, 8);
    let files = Files::new();
    let paths = [files.write("a", &session().bytes()), files.write("b", &other.bytes())];
    let (stream, _) = feed_stream::play_to_end(&paths, "speed=1");
    let texts: Vec<_> = stream.iter().map(shown).collect();
    assert_eq!(texts[..5], ["0 A", "0 S B1@100", "0 q100", "0 B", "1 t100"]);
    assert_eq!(texts[5..], ["1 q7", "2 D B1@99", "3 q101", "4 t101", "4 q8", "5 D B1@98"]);
}

#[test]
fn other_kinds_of_files_and_parameters_are_refused_with_what_to_do() {
    let files = Files::new();
    let log = files.write("log", &session().bytes());
    let lines = files.write("lines", format!("{T0} {{}}\n").as_bytes());
    let mut newer_bytes = session().bytes();
    newer_bytes[6] = 9;
    let newer = files.write("newer", &newer_bytes);
    for (files, query, expected) in [
        (vec![&log, &lines], "speed=1", "is of messages of a venue, and"),
        (vec![&lines, &log], "speed=1", "expected files of one of these kinds in a feed"),
        (vec![&log], "copies=2", "log: is a packet log: expected no copies=, which is for messages of venues"),
        (vec![&log], "venue=kraken", "expected no venue="),
        (
            vec![&newer],
            "speed=1",
            "newer: is a packet log of version 9: expected 1; read it with the version of tickcast",
        ),
    ] {
        let paths: Vec<PathBuf> = files.into_iter().cloned().collect();
        let error = feed_stream::try_open(&paths, query).err().expect("refused");
        assert!(error.contains(expected), "{error}");
    }
}
