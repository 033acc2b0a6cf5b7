//! Logs that are written, cut, changed and read again.

use std::io::{self, Cursor, Write};

use proptest::prelude::*;
use tickcast_protocol::packet::{self, PacketHeader};
use tickcast_protocol::record::{self, Level, Quote, RecordHeader, Trade, flags as record_flags};
use tickcast_protocol::{BookAction, BookSide, Channel, FeedState, Instrument, Position, RecordKind, Side, Token};
use tickcast_recording::{
    BLOCK_BYTES, BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES, BlockError, FILE_HEADER_BYTES, MarketState, OpenError, Reader,
    ResumeAt, WriteError, Writer, flags, packets, timed_records,
};
use tickcast_test_support::packets::{PacketBuilder, TS_RECV};

const SECOND: u64 = 1_000_000_000;

fn header(kind: RecordKind, instrument: u32, sequence: u64, ts_recv: u64) -> RecordHeader {
    RecordHeader { sequence: sequence.into(), ts_recv, ..RecordHeader::of_feed(kind, instrument, ts_recv) }
}

fn packet(position: u64, flags: u8, records: &[u8]) -> Vec<u8> {
    let count = record::records(records).count() as u16;
    let header = PacketHeader { flags, count, epoch: 7, position: Position::new(position), ts_send: TS_RECV };
    [&header.encode()[..], records].concat()
}

/// Quote `nth` at millisecond `ms`.
fn quote(nth: u64, ms: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let body = Quote { bid_px: nth as i64, bid_sz: 1, ask_px: nth as i64 + 1, ask_sz: 2 };
    body.encode(&header(RecordKind::Quote, 1, nth, TS_RECV + ms * 1_000_000), &mut out);
    out
}

fn write(packets: &[Vec<u8>]) -> Vec<u8> {
    let mut writer = Writer::create(Vec::new()).expect("a header");
    packets.iter().for_each(|packet| writer.packet(packet).expect("a packet"));
    writer.finish().expect("an index")
}

fn open(bytes: &[u8]) -> Reader<Cursor<&[u8]>> {
    Reader::open(Cursor::new(bytes)).expect("a log")
}

/// All packets but those of checkpoints.
fn read(reader: &mut Reader<Cursor<&[u8]>>) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut block = Vec::new();
    for nth in 0..reader.blocks().len() {
        let header = reader.read_block(nth, &mut block).expect("an intact block");
        if !header.is_checkpoint() {
            all.extend(packets(&block).map(<[u8]>::to_vec));
        }
    }
    all
}

/// Six seconds of packets, two a second.
fn session() -> Vec<Vec<u8>> {
    (1..=12).map(|nth| packet(nth, 0, &quote(nth, nth * 500))).collect()
}

/// The log without its index.
fn without_index(bytes: &[u8]) -> &[u8] {
    let reader = open(bytes);
    &bytes[..reader.intact_bytes() as usize]
}

#[test]
fn packets_are_read_as_they_were_written_with_and_without_the_index() {
    let session = session();
    let log = write(&session);
    for bytes in [&log[..], without_index(&log)] {
        let mut reader = open(bytes);
        assert_eq!(reader.torn_bytes(), 0);
        assert_eq!(reader.blocks().len(), 6, "a block a second");
        assert_eq!(read(&mut reader), session);
    }
    let (with, without) = (open(&log), open(without_index(&log)));
    let places = |reader: &Reader<_>| -> Vec<_> {
        reader.blocks().iter().map(|block| (block.offset, block.end(), block.first_ns, block.last_ns)).collect()
    };
    assert_eq!(places(&with), places(&without));
    assert_eq!(with.blocks()[1].first_ns, TS_RECV + 3 * SECOND / 2);
}

#[test]
fn every_cut_leaves_the_whole_blocks_and_tells_the_rest() {
    let session = session();
    let log = write(&session);
    let whole = without_index(&log);
    let ends: Vec<u64> = open(whole).blocks().iter().map(tickcast_recording::Block::end).collect();
    for cut in FILE_HEADER_BYTES..whole.len() {
        let mut reader = open(&whole[..cut]);
        let blocks = ends.iter().filter(|end| **end <= cut as u64).count();
        assert_eq!(reader.blocks().len(), blocks, "cut at {cut}");
        assert_eq!(reader.intact_bytes() + reader.torn_bytes(), cut as u64);
        assert_eq!(read(&mut reader), session[..2 * blocks], "cut at {cut}");
    }
    for cut in 0..FILE_HEADER_BYTES {
        assert!(matches!(Reader::open(Cursor::new(&whole[..cut])), Err(OpenError::NotALog(_))));
    }
    // An index that is cut short is a tail like any other.
    let mut reader = open(&log[..log.len() - 1]);
    assert_eq!((reader.blocks().len(), reader.torn_bytes()), (6, (log.len() - whole.len() - 1) as u64));
    assert_eq!(read(&mut reader), session);
}

#[test]
fn block_with_a_changed_byte_is_refused_and_the_others_are_read() {
    let session = session();
    let log = write(&session);
    let (second, third) = (open(&log).blocks()[1].offset as usize, open(&log).blocks()[2].offset as usize);
    for at in second..third {
        let mut changed = log.clone();
        changed[at] ^= 0x10;
        let mut reader = open(&changed);
        let mut block = Vec::new();
        assert!(matches!(reader.read_block(1, &mut block), Err(BlockError::Damaged(_))), "byte {at}");
        reader.read_block(2, &mut block).expect("it was not changed");
        assert_eq!(packets(&block).collect::<Vec<_>>(), session[4..6]);
    }
    // Without an index the chain of headers ends at a header that was changed.
    let mut changed = without_index(&log).to_vec();
    changed[second + 3] ^= 1;
    let mut reader = open(&changed);
    assert_eq!(read(&mut reader), session[..2]);
    assert_eq!(reader.torn_bytes(), (changed.len() - second) as u64);
}

#[test]
fn last_block_that_a_crash_of_the_machine_left_without_its_bytes_is_cut() {
    let session = session();
    let log = write(&session);
    let mut zeroed = without_index(&log).to_vec();
    let last = open(&log).blocks()[5].offset as usize + BLOCK_HEADER_BYTES;
    zeroed[last..].fill(0);
    let mut reader = open(&zeroed);
    assert_eq!(reader.intact_bytes(), (last - BLOCK_HEADER_BYTES) as u64);
    assert_eq!(read(&mut reader), session[..10]);
}

#[test]
fn other_files_and_newer_versions_are_refused_with_what_is_expected() {
    let error = |bytes: &[u8]| Reader::open(Cursor::new(bytes)).map(|_| ()).expect_err("no log").to_string();
    let message = error(b"1723161254 {}\n");
    assert!(message.starts_with("is no packet log: it begins with [31, 37, 32, 33"), "{message}");
    let mut newer = write(&[]);
    newer[6] = 2;
    assert_eq!(
        error(&newer),
        "is a packet log of version 2: expected 1; read it with the version of tickcast that wrote it"
    );
    assert_eq!(open(&write(&[])).blocks().len(), 0, "a log without packets is a log");
}

/// A block whose header says what it likes, with valid checksums.
fn forged(frame: &[u8], packet_bytes: u32, packets: u32) -> Vec<u8> {
    let mut log = write(&[packet(1, 0, &quote(1, 0))]);
    log.truncate(FILE_HEADER_BYTES + BLOCK_HEADER_BYTES);
    let header = &mut log[FILE_HEADER_BYTES..];
    header[8..12].copy_from_slice(&(frame.len() as u32).to_le_bytes());
    header[12..16].copy_from_slice(&packet_bytes.to_le_bytes());
    header[36..40].copy_from_slice(&packets.to_le_bytes());
    header[56..60].copy_from_slice(&crc32fast::hash(frame).to_le_bytes());
    let crc = crc32fast::hash(&header[..60]);
    header[60..64].copy_from_slice(&crc.to_le_bytes());
    log.extend_from_slice(frame);
    log
}

#[test]
fn frame_that_inflates_to_more_than_its_header_says_is_refused() {
    let bomb = zstd::encode_all(&vec![0u8; 256 << 20][..], 3).expect("zeros");
    let error = |log: &[u8]| {
        let mut out = Vec::new();
        let error = open(log).read_block(0, &mut out).expect_err("a bomb");
        assert!(out.capacity() <= BLOCK_BYTES_MAX);
        error
    };
    let said_small = error(&forged(&bomb, 1000, 1));
    assert!(matches!(said_small, BlockError::Damaged("its frame is not what its header says")), "{said_small}");
    let said_large = error(&forged(&bomb, 256 << 20, 1));
    assert!(matches!(said_large, BlockError::TooLarge(bytes) if bytes == 256 << 20), "{said_large}");
    // Packets that are not those that the header counts.
    let frame = zstd::encode_all(&5u32.to_le_bytes()[..], 3).expect("a small frame");
    assert!(matches!(error(&forged(&frame, 4, 1)), BlockError::Damaged(_)));
    assert!(matches!(error(&forged(&frame, 4, 0)), BlockError::Damaged(_)));
}

#[test]
fn packets_that_no_reader_takes_are_refused() {
    let mut writer = Writer::create(Vec::new()).expect("a header");
    assert!(matches!(writer.packet(b"x"), Err(WriteError::Packet(_))));
    let long = packet(1, 0, &vec![0; BLOCK_BYTES_MAX]);
    assert!(matches!(writer.packet(&long), Err(WriteError::TooLong(_))));
    // One that is longer than a block has a block of its own.
    let mut large = Vec::new();
    for _ in 0..3 {
        record::encode_raw(&header(RecordKind::Raw, 1, 1, TS_RECV), &vec![7; 500_000], &mut large);
    }
    let session = [packet(1, 0, &quote(1, 0)), packet(2, 0, &large), packet(3, 0, &quote(2, 0))];
    assert!(session[1].len() > BLOCK_BYTES);
    let log = write(&session);
    let mut reader = open(&log);
    assert_eq!(reader.blocks().len(), 3);
    assert_eq!(read(&mut reader), session);
}

/// A stream of `seconds` with a definition, a book, and a raw payload in each packet, so large that checkpoints come.
fn long_session(seconds: u64) -> Vec<Vec<u8>> {
    let mut session = vec![packet(1, packet::flags::SNAPSHOT | packet::flags::CAUGHT_UP, &definition())];
    for second in 0..seconds {
        let mut records = quote(second + 1, second * 1_000);
        let levels = [Level { px: 100 + second as i64, sz: 1, side: BookSide::Bid }];
        let action = if second == 0 { BookAction::Snapshot } else { BookAction::Delta };
        let at_ns = TS_RECV + second * SECOND;
        record::encode_book(&header(RecordKind::Book, 1, second + 1, at_ns), action, levels.into_iter(), &mut records);
        let trade = Trade { px: second as i64, sz: 1, trade_id: second, side: Side::Buy };
        trade.encode(&header(RecordKind::Trade, 1, second + 1, at_ns), &mut records);
        record::encode_raw(&header(RecordKind::Raw, 1, second + 1, at_ns), &vec![3; 500_000], &mut records);
        session.push(packet(second + 2, 0, &records));
    }
    session
}

fn definition() -> Vec<u8> {
    let mut out = Vec::new();
    record::encode_definition(&Instrument::new(1, "A/B:C d", "x", -2, -3), &mut out);
    out
}

/// The records of a state.
fn shown(state: &MarketState) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let done = state.try_each_record(|record| {
        all.push(record.to_vec());
        Ok::<(), ()>(())
    });
    assert_eq!(done, Ok(()));
    all
}

#[test]
fn reader_that_begins_at_a_checkpoint_has_the_state_of_one_from_the_start() {
    let session = long_session(80);
    let log = write(&session);
    for bytes in [&log[..], without_index(&log)] {
        let mut reader = open(bytes);
        let checkpoints = reader.blocks().iter().filter(|block| block.is_checkpoint()).count();
        assert!((2..=4).contains(&checkpoints), "{checkpoints} checkpoints in 40 MB");
        assert_eq!(read(&mut reader), session);
        for second in [0, 1, 20, 40, 60, 79] {
            let at_ns = TS_RECV + second * SECOND;
            let start = reader.start_for(at_ns);
            assert!(second < 40 || start > 10, "second {second} begins at block {start}");
            let (mut state, mut block) = (MarketState::default(), Vec::new());
            for nth in start..reader.blocks().len() {
                let header = reader.read_block(nth, &mut block).expect("an intact block");
                if header.first_ns > at_ns {
                    break;
                }
                packets(&block).for_each(|packet| state.apply_packet(packet));
            }
            let mut whole = MarketState::default();
            session[..=second as usize + 1].iter().for_each(|packet| whole.apply_packet(packet));
            assert_eq!(shown(&state), shown(&whole), "second {second}");
        }
    }
}

#[test]
fn checkpoint_that_is_not_whole_is_not_begun_at() {
    let log = write(&long_session(40));
    let bytes = without_index(&log);
    let reader = open(bytes);
    let is_first = |block: &tickcast_recording::Block| block.flags & flags::FIRST != 0;
    let nth = reader.blocks().iter().position(is_first).expect("a checkpoint");
    assert_eq!(reader.start_for(u64::MAX), nth);
    assert_eq!(open(&bytes[..reader.blocks()[nth].offset as usize]).start_for(u64::MAX), 0);
}

#[test]
fn continued_log_has_the_state_and_the_token_of_its_end() {
    let session = long_session(40);
    let (before, after) = session.split_at(30);
    let log = write(before);
    let mut torn = without_index(&log).to_vec();
    torn.extend_from_slice(b"a block that was cut short");
    let mut reader = open(&torn);
    assert_eq!(reader.torn_bytes(), 26);
    let at = ResumeAt::end_of(&mut reader).expect("intact");
    assert_eq!(at.token(), Some(Token { epoch: 7, position: Position::new(30) }));
    torn.truncate(reader.intact_bytes() as usize);
    let mut writer = Writer::resume(torn, at).expect("memory");
    let mut whole = MarketState::default();
    before.iter().for_each(|packet| whole.apply_packet(packet));
    assert_eq!(shown(writer.state()), shown(&whole));
    after.iter().for_each(|packet| writer.packet(packet).expect("a packet"));
    let log = writer.finish().expect("an index");
    assert_eq!(read(&mut open(&log)), session);
    assert_eq!(open(&log).torn_bytes(), 0);
}

#[test]
fn stream_is_not_resumed_within_a_snapshot() {
    let snapshot = |flags| packet(5, packet::flags::SNAPSHOT | flags, &definition());
    for (packets, token) in [
        (vec![snapshot(0)], None),
        (vec![snapshot(0), packet(6, 0, &quote(1, 0))], None),
        (vec![snapshot(packet::flags::CAUGHT_UP)], Some(5)),
        (vec![snapshot(packet::flags::CAUGHT_UP), packet(6, 0, &quote(1, 0))], Some(6)),
        (vec![snapshot(packet::flags::CAUGHT_UP), snapshot(0)], None),
    ] {
        let log = write(&packets);
        let at = ResumeAt::end_of(&mut open(&log)).expect("intact");
        assert_eq!(at.token().map(|token| token.position.get()), token);
    }
}

#[test]
fn error_of_the_output_tells_where_the_log_is_whole() {
    /// Takes so many bytes.
    struct Full(Vec<u8>, usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.1 - self.0.len());
            self.0.extend_from_slice(&bytes[..taken]);
            if taken == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(taken) }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let session = session();
    let blocks = without_index(&write(&session)).len();
    for size in [FILE_HEADER_BYTES, 100, 300, blocks - 10] {
        let mut writer = Writer::create(Full(Vec::new(), size)).expect("a header");
        let error = session.iter().find_map(|packet| writer.packet(packet).err());
        let error = error.or_else(|| writer.flush().err().map(WriteError::Io)).expect("it is full");
        assert!(matches!(error, WriteError::Io(_)), "{error}");
        let written = writer.written_bytes() as usize;
        let bytes = &writer.output().0[..written];
        let mut reader = open(bytes);
        assert_eq!(reader.torn_bytes(), 0);
        let kept = read(&mut reader);
        assert_eq!(kept, session[..kept.len()]);
    }
}

#[test]
fn newest_sequences_of_logs_are_kept_and_survive_a_checkpoint() {
    let mut state = MarketState::default();
    state.apply_packet(&PacketBuilder::new().definition(1, "A").trade(3, record_flags::SNAPSHOT).quote(5, 0).bytes());
    let newest =
        |state: &MarketState| [Channel::Trade, Channel::Raw, Channel::Quote].map(|of| state.newest(1, of).get());
    assert_eq!(newest(&state), [3, 0, 0]);
    state.apply_packet(&PacketBuilder::new().gap(Channel::Trade, 4, 6).raw(9, b"x").bytes());
    let mut copy = MarketState::default();
    let token = Token { epoch: 1, position: Position::ZERO };
    let done = state.try_each_packet(token, 0, |packet| {
        copy.apply_packet(packet);
        Ok::<(), ()>(())
    });
    assert_eq!(done, Ok(()));
    assert_eq!((newest(&state), newest(&copy)), ([6, 9, 0], [6, 9, 0]));
    assert_eq!(shown(&state), shown(&copy));
    assert_eq!((copy.epoch(), copy.instrument(1).map(|known| known.symbol.as_str())), (Some(1), Some("A")));
}

#[test]
fn state_follows_definitions_releases_and_epochs() {
    let mut state = MarketState::default();
    let bid = Level { px: 150, sz: 10, side: BookSide::Bid };
    let start = PacketBuilder::new().definition(1, "A").quote(1, 0).book(1, BookAction::Snapshot, &[bid]);
    state.apply_packet(&start.bytes());
    let finer = Instrument::new(1, "A", "sim", -3, -3);
    state.apply_packet(&PacketBuilder::new().definition_of(&finer).bytes());
    let records = shown(&state);
    let book = record::read_book(&records[1]).expect("a book").1.next();
    assert_eq!(book, Some(Level { px: 1500, ..bid }));
    assert_eq!(Quote::read(&records[2]).map(|quote| quote.bid_px), Some(61_837_630));
    // A price that is not exact at a coarser exponent: the level is left out, and the book says so.
    state.apply_packet(&PacketBuilder::new().definition_of(&Instrument::new(1, "A", "sim", 3, -3)).bytes());
    let header = RecordHeader::read(&shown(&state)[1]).expect("a book");
    assert_ne!(header.flags & record_flags::MAYBE_BAD_BOOK, 0);
    state.apply_packet(&PacketBuilder::new().status_of(1, FeedState::Released).bytes());
    assert_eq!(state.instruments(), 0);
    state.apply_packet(&start.bytes());
    state.apply_packet(&PacketBuilder::new().epoch(2).status(FeedState::Live).bytes());
    assert_eq!((state.instruments(), shown(&state).len()), (0, 1));
}

#[test]
fn records_have_the_time_of_their_arrival_and_never_an_earlier_one() {
    let head = |ts_send| PacketHeader { flags: 0, count: 0, epoch: 1, position: Position::new(1), ts_send };
    let times = |ts_send, records: &[u8], previous_ns| -> Vec<u64> {
        timed_records(&head(ts_send), records, previous_ns).map(|(time_ns, ..)| time_ns).collect()
    };
    let records = [definition(), quote(1, 1), definition(), quote(2, 3), quote(3, 2)].concat();
    let ms = |ms: u64| TS_RECV + ms * 1_000_000;
    assert_eq!(times(ms(50), &records, 0), [ms(1), ms(1), ms(1), ms(3), ms(3)]);
    assert_eq!(times(ms(50), &records, ms(2)), [ms(2), ms(2), ms(2), ms(3), ms(3)]);
    assert_eq!(times(ms(50), &definition(), 0), [ms(50)]);
}

proptest! {
    /// Whatever the bytes are, a reader ends, and what it returns was written.
    #[test]
    fn changed_log_is_read_in_part_or_refused(
        cut in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        with_index in any::<bool>(),
    ) {
        let session = session();
        let log = write(&session);
        let mut bytes = if with_index { log } else { without_index(&log).to_vec() };
        bytes.truncate(cut.index(bytes.len() + 1));
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        if let Ok(mut reader) = Reader::open(Cursor::new(&bytes[..])) {
            let mut block = Vec::new();
            for nth in 0..reader.blocks().len() {
                if reader.read_block(nth, &mut block).is_ok() {
                    for packet in packets(&block) {
                        prop_assert!(session.iter().any(|written| written == packet));
                    }
                }
            }
            let _ = ResumeAt::end_of(&mut reader);
        }
    }

    #[test]
    fn bytes_that_are_no_log_are_no_panic(head in any::<bool>(), bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let bytes = if head { [&b"\x8aTCREC\x01\x00"[..], &bytes].concat() } else { bytes };
        if let Ok(mut reader) = Reader::open(Cursor::new(&bytes[..])) {
            let mut block = Vec::new();
            (0..reader.blocks().len()).for_each(|nth| drop(reader.read_block(nth, &mut block)));
        }
        let mut state = MarketState::default();
        state.apply_packet(&bytes);
        let _ = shown(&state);
    }
}
