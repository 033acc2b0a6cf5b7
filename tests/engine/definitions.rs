//! Definitions that change, that conflict, and that end: at the sequencer, and as subscribers see them.

use tickcast::sequencer::{Sequencer, SourceEnd};
use tickcast::shard::{Encoding, Settings};
use tickcast_protocol::record::{self, Gap, Level, Quote, RecordHeader, RecordKind, Trade};
use tickcast_protocol::{BookAction, BookSide, DefineError, FeedState, Instrument, Side};
use tickcast_test_support::node::{Message, Node, shared_identity};

/// One source's own instrument 1.
fn instrument(symbol: &str, px_exp: i8, sz_exp: i8) -> Instrument {
    Instrument::new(1, symbol, "test", px_exp, sz_exp)
}

fn definitions(all: &[Instrument]) -> Vec<u8> {
    let mut batch = Vec::new();
    all.iter().for_each(|instrument| record::encode_definition(instrument, &mut batch));
    batch
}

fn define(node: &mut Node, source: u32, all: &[Instrument]) -> Result<Vec<u32>, (usize, DefineError)> {
    let defined = node.sequencer.define_all(source, &definitions(all), node.now_ns);
    node.run_until_idle();
    defined
}

fn trade(node: &mut Node, px: i64) {
    let mut batch = Vec::new();
    let header = RecordHeader::of_feed(RecordKind::Trade, 1, node.now_ns);
    Trade { px, sz: 10, trade_id: 1, side: Side::Buy }.encode(&header, &mut batch);
    node.accept(batch);
}

fn records(messages: &[Message]) -> Vec<(RecordKind, Vec<u8>)> {
    let packets = messages.iter().filter_map(|message| match message {
        Message::Packet { records, .. } => Some(records),
        _ => None,
    });
    packets.flatten().filter_map(|(header, bytes)| Some((RecordKind::from_wire(header.kind)?, bytes.clone()))).collect()
}

fn kinds(messages: &[Message]) -> Vec<RecordKind> {
    records(messages).iter().map(|(kind, _)| *kind).collect()
}

fn states(messages: &[Message]) -> Vec<(u32, FeedState)> {
    let all = records(messages);
    let status = all.iter().filter(|(kind, _)| *kind == RecordKind::Status);
    status
        .map(|(_, bytes)| {
            let instrument = RecordHeader::read(bytes).expect("a whole record").instrument;
            (instrument, record::read_status(bytes).expect("a whole record"))
        })
        .collect()
}

fn subscribe(channels: &str, symbol: &str) -> String {
    format!(r#"{{"op":"subscribe","id":1,"channels":[{channels}],"symbols":["{symbol}"]}}"#)
}

const ALL: &str = r#""quote","trade","book""#;

#[test]
fn change_of_tick_size_and_venue_goes_to_all_subscribers() {
    let mut node = Node::new(1);
    let (by_name, by_pattern) = (node.client(&subscribe(ALL, "S1")), node.client(&subscribe(ALL, "*")));
    node.run_until_idle();
    let changed = Instrument { tick_size: 5, lot_size: 7, ..Instrument::new(1, "S1", "elsewhere", -2, -2) };
    assert_eq!(define(&mut node, 0, std::slice::from_ref(&changed)), Ok(vec![1]));
    assert_eq!(define(&mut node, 0, std::slice::from_ref(&changed)), Ok(vec![1]), "the same once more");
    for client in [by_name, by_pattern] {
        let all = records(&node.received(client));
        let announced: Vec<Instrument> =
            all.iter().filter_map(|(_, bytes)| record::read_definition(bytes).filter(|_| bytes.len() > 64)).collect();
        assert_eq!(announced.last(), Some(&changed));
        assert_eq!(announced.len(), 2, "each Definition once: {announced:?}");
    }
    assert_eq!(node.shard.directory().get(1).map(|known| (**known).clone()), Some(changed));
    assert_eq!(node.sequencer.counters().redefined, 1);
}

#[test]
fn finer_prices_follow_the_definition_and_the_newest_values_come_again() {
    let mut node = Node::new(1);
    node.book(1, true, 5_001, 3);
    node.quote(1);
    let client = node.client(&subscribe(ALL, "S1"));
    node.run_until_idle();
    let before = node.received(client).len();
    // In one tick: a trade before, the Definition, and one after.
    trade(&mut node, 5_001);
    node.sequencer.define_all(0, &definitions(&[instrument("S1", -3, -2)]), node.now_ns).expect("it is its own");
    trade(&mut node, 50_011);
    node.run_until_idle();
    let messages = &node.received(client)[before..];
    use RecordKind::{Book, Definition, Quote as QuoteKind, Trade as TradeKind};
    assert_eq!(kinds(messages), [TradeKind, Definition, Book, QuoteKind, TradeKind]);
    let all = records(messages);
    let (action, levels) = record::read_book(&all[2].1).expect("a book");
    let levels: Vec<Level> = levels.collect();
    assert_eq!((action, levels), (BookAction::Snapshot, vec![Level { px: 50_010, sz: 3, side: BookSide::Bid }]));
    assert_eq!(Quote::read(&all[3].1), Some(Quote { bid_px: 100, bid_sz: 1, ask_px: 110, ask_sz: 1 }));
    assert_eq!([0, 4].map(|at| Trade::read(&all[at].1).expect("a trade").px), [5_001, 50_011]);
    let sequences: Vec<u64> =
        [0, 4].map(|at| RecordHeader::read(&all[at].1).expect("a record").sequence.get()).to_vec();
    assert_eq!(sequences, [1, 2], "sequences go on");
    // One that comes later gets the last trade at the present exponents.
    let late = node.client(&subscribe(r#""trade""#, "S1"));
    node.run_until_idle();
    let of_late = records(&node.received(late));
    assert_eq!(of_late.iter().rev().find_map(|(_, bytes)| trade_px(bytes)), Some(50_011));
}

#[test]
fn level_that_does_not_fit_is_left_out_and_the_book_flagged() {
    let mut node = Node::new(1);
    node.book(1, true, 5_001, i64::MAX / 5);
    node.book(1, false, 5_002, 4);
    let client = node.client(&subscribe(r#""book""#, "S1"));
    node.run_until_idle();
    define(&mut node, 0, &[instrument("S1", -2, -3)]).expect("it is its own");
    let all = records(&node.received(client));
    let (_, bytes) = all.last().expect("a book");
    let header = RecordHeader::read(bytes).expect("a record");
    let levels: Vec<Level> = record::read_book(bytes).expect("a book").1.collect();
    assert_eq!(levels, [Level { px: 5_002, sz: 40, side: BookSide::Bid }]);
    assert_ne!(header.flags & record::flags::MAYBE_BAD_BOOK, 0);
    // As long as the level is missing; a snapshot has all.
    for (is_snapshot, is_flagged) in [(false, true), (true, false), (false, false)] {
        node.book(1, is_snapshot, 5_003, 7);
        node.run_until_idle();
        assert_eq!(is_last_flagged(&node.received(client)), is_flagged, "snapshot: {is_snapshot}");
    }
}

/// Whether the newest record of a book says that the book may be wrong.
fn is_last_flagged(messages: &[Message]) -> bool {
    let all = records(messages);
    let of_book = all.iter().rfind(|(kind, _)| *kind == RecordKind::Book);
    let header = of_book.and_then(|(_, bytes)| RecordHeader::read(bytes)).expect("a record");
    header.flags & record::flags::MAYBE_BAD_BOOK != 0
}

#[test]
fn json_has_each_value_at_the_exponents_of_its_time() {
    let mut node = Node::new(1);
    let client = node.connect_as(Encoding::JSON);
    node.send_text(client, &subscribe(r#""trade""#, "S1"));
    node.run_until_idle();
    trade(&mut node, 5_001);
    node.sequencer.define_all(0, &definitions(&[instrument("S1", -4, -2)]), node.now_ns).expect("it is its own");
    trade(&mut node, 500_111);
    node.run_until_idle();
    let text = node.received_text(client);
    let (first, second) = (text.find(r#""px":"50.01""#), text.find(r#""px":"50.0111""#));
    assert!(first.is_some() && first < second, "{text}");
}

#[test]
fn json_has_each_value_at_the_exponents_of_its_time_after_several_definitions_in_one_read() {
    let mut node = Node::new(1);
    let client = node.connect_as(Encoding::JSON);
    node.send_text(client, &subscribe(r#""trade""#, "*"));
    node.run_until_idle();
    // Of a known instrument there and back, and of one that is new.
    for (px_exp, px) in [(-4, 500_111), (-2, 5_012)] {
        node.sequencer.define_all(0, &definitions(&[instrument("S1", px_exp, -2)]), node.now_ns).expect("its own");
        trade(&mut node, px);
    }
    for (px_exp, px) in [(-1, 71), (-3, 7_222)] {
        node.sequencer.define_all(5, &definitions(&[instrument("S2", px_exp, -2)]), node.now_ns).expect("its own");
        let mut batch = Vec::new();
        Trade { px, sz: 10, trade_id: 1, side: Side::Buy }
            .encode(&RecordHeader::of_feed(RecordKind::Trade, 1, node.now_ns), &mut batch);
        node.sequencer.accept(5, &mut batch, node.now_ns);
    }
    node.run_until_idle();
    let text = node.received_text(client);
    let prices: Vec<&str> = text.split(r#""px":""#).skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(prices, ["50.0111", "50.12", "7.1", "7.222"], "{text}");
}

#[test]
fn token_and_missed_trades_from_before_other_exponents_are_not_mixed_with_them() {
    let mut node = Node::new(1);
    let slow = node.client(&subscribe(r#""quote","trade""#, "S1"));
    node.run_until_idle();
    let token = node.sequencer.position();
    node.limit_socket(slow, 0);
    trade(&mut node, 5_001);
    node.advance_ms(500);
    trade(&mut node, 5_002);
    define(&mut node, 0, &[instrument("S1", -3, -2)]).expect("it is its own");
    trade(&mut node, 50_031);
    node.run_until_idle();
    node.limit_socket(slow, usize::MAX);
    node.advance_ms(200);
    let of_slow = records(&node.received(slow));
    let at = |wanted: RecordKind| of_slow.iter().rposition(|(kind, _)| *kind == wanted).expect("one came");
    let after: Vec<i64> =
        of_slow[at(RecordKind::Definition)..].iter().filter_map(|(_, bytes)| trade_px(bytes)).collect();
    assert!(after.iter().all(|px| *px == 50_031), "{after:?}");
    let gaps = of_slow.iter().filter(|(kind, _)| *kind == RecordKind::Gap);
    let gaps: Vec<Gap> = gaps.filter_map(|(_, bytes)| Gap::read(bytes)).collect();
    let (from, missing) = (gaps[0].from_sequence.get(), gaps.iter().map(Gap::missing).sum::<u64>());
    assert_eq!((from, missing + after.len() as u64), (2, 2), "each trade is there or in a Gap: {gaps:?}");
    let resumed = node.client(&format!(
        r#"{{"op":"resume","id":1,"epoch":1,"position":{token},"channels":["trade"],"symbols":["S1"]}}"#
    ));
    node.run_until_idle();
    let of_resumed = records(&node.received(resumed));
    assert_eq!(of_resumed.iter().filter_map(|(_, bytes)| trade_px(bytes)).collect::<Vec<_>>(), [50_031]);
}

fn trade_px(bytes: &[u8]) -> Option<i64> {
    (record::kind_of(bytes) == Some(RecordKind::Trade)).then(|| Trade::read(bytes).map(|trade| trade.px)).flatten()
}

#[test]
fn instrument_of_another_source_is_shared_in_the_same_way_or_not_at_all() {
    let mut node = Node::with_sharing_sources(1, &[7, 8]);
    let kraken = Instrument::new(1, "S1", "kraken", -2, -2);
    let refused = define(&mut node, 7, &[instrument("NEW", -2, -2), Instrument { id: 2, ..kraken.clone() }]);
    let (at, error) = refused.expect_err("S1 is another's");
    assert_eq!(at, 1);
    let text = error.to_string();
    assert!(
        text.contains("S1 is already defined by another source of the same publisher")
            && text.contains(r#"venue "test""#),
        "{text}"
    );
    assert!(node.shard.directory().find("NEW").is_none(), "nothing of the request is defined");
    assert_eq!(define(&mut node, 7, &[instrument("S1", -2, -2)]), Ok(vec![1]), "the same may be shared");
    node.sequencer.close_source(7, SourceEnd::Lost, node.now_ns);
    node.sequencer.close_source(0, SourceEnd::Lost, node.now_ns);
    assert_eq!(define(&mut node, 8, &[kraken]), Ok(vec![1]), "no source is left that has it");
}

#[test]
fn silent_source_loses_an_instrument_that_another_defines_otherwise() {
    let mut node = Node::with_sharing_sources(1, &[7, 8]);
    node.now_ns += 10_000_000_000;
    assert!(node.sequencer.check_sources(5_000_000_000, node.now_ns));
    assert_eq!(define(&mut node, 7, &[Instrument::new(1, "S1", "kraken", -2, -2)]), Ok(vec![1]));
    trade(&mut node, 5);
    assert_eq!(node.sequencer.counters().undefined, 1, "the former source's records are not those of the instrument");
}

#[test]
fn book_of_a_silent_source_may_be_wrong_once_another_has_taken_the_instrument() {
    let mut node = Node::with_sharing_sources(1, &[7, 8]);
    node.book(1, true, 5_001, 3);
    let client = node.client(&subscribe(r#""book""#, "S1"));
    node.run_until_idle();
    node.now_ns += 10_000_000_000;
    node.sequencer.check_sources(5_000_000_000, node.now_ns);
    define(&mut node, 7, &[Instrument::new(1, "S1", "kraken", -2, -2)]).expect("its source is silent");
    assert!(is_last_flagged(&node.received(client)), "{:?}", kinds(&node.received(client)));
}

#[test]
fn instrument_that_ends_again_without_a_record_makes_room() {
    let mut sequencer = Sequencer::new(vec![], 1);
    for source in 0..3 {
        sequencer.open_source(source, shared_identity(0));
        assert_eq!(sequencer.define_all(source, &definitions(&[instrument("A", -2, -2)]), 1), Ok(vec![1]));
        sequencer.close_source(source, SourceEnd::Ended, 1);
    }
    assert_eq!(sequencer.define_all(3, &definitions(&[instrument("B", -2, -2)]), 1), Ok(vec![2]));
    // Its source is there, and says itself that it has ended, defines it again, and says so once more.
    let ended = || {
        let mut batch = Vec::new();
        record::encode_status(&RecordHeader::of_feed(RecordKind::Status, 1, 0), FeedState::Ended, &mut batch);
        batch
    };
    sequencer.accept(3, &mut ended(), 1);
    assert_eq!(sequencer.define_all(3, &definitions(&[instrument("B", -2, -2)]), 1), Ok(vec![2]));
    let c = definitions(&[Instrument { id: 2, ..instrument("C", -2, -2) }]);
    assert_eq!(sequencer.define_all(3, &c, 1), Err((0, DefineError::Full { max: 1 })), "B is there again");
    sequencer.accept(3, &mut ended(), 1);
    assert_eq!(sequencer.define_all(3, &c, 1), Ok(vec![3]));
    // Its records of B are distinguished from those of other instruments.
    let mut late = Vec::new();
    let header = RecordHeader::of_feed(RecordKind::Trade, 1, 1);
    Trade { px: 1, sz: 1, trade_id: 1, side: Side::Buy }.encode(&header, &mut late);
    assert_eq!(sequencer.take_faults().withdrawn, None);
    sequencer.accept(3, &mut late, 1);
    assert_eq!((sequencer.take_faults().withdrawn, sequencer.counters().undefined), (Some(1), 1));
}

#[test]
fn ended_instruments_that_a_request_names_make_no_room_for_it() {
    let named = |names: &[&str]| {
        let all = (1..).zip(names).map(|(id, name)| Instrument { id, ..instrument(name, -2, -2) });
        definitions(&all.collect::<Vec<_>>())
    };
    let mut sequencer = Sequencer::new(vec![], 2);
    sequencer.open_source(0, shared_identity(0));
    sequencer.open_source(1, shared_identity(0));
    sequencer.define_all(0, &named(&["A", "B"]), 1).expect("there is room");
    sequencer.close_source(0, SourceEnd::Ended, 1);
    let full = DefineError::Full { max: 2 };
    assert_eq!(sequencer.define_all(1, &named(&["NEW", "A", "B"]), 1), Err((2, full)));
    assert_eq!(sequencer.define_all(1, &named(&["NEW", "A"]), 1), Ok(vec![3, 1]), "B makes room");
}

#[test]
fn request_beyond_the_limit_defines_nothing() {
    let mut sequencer = Sequencer::new(vec![], 3);
    let named = |names: &[&str]| {
        let all: Vec<Instrument> =
            (1..).zip(names).map(|(id, name)| Instrument { id, ..instrument(name, -2, -2) }).collect();
        definitions(&all)
    };
    assert_eq!(sequencer.define_all(0, &named(&["A", "B"]), 1), Ok(vec![1, 2]));
    assert_eq!(sequencer.define_all(0, &named(&["C", "D"]), 1), Err((1, DefineError::Full { max: 3 })));
    assert_eq!(
        sequencer.define_all(0, &named(&["A", "B", "A", "C"]), 1),
        Ok(vec![1, 2, 1, 3]),
        "C was not defined before"
    );
    let mut twice = definitions(&[instrument("A", -2, -2)]);
    twice.extend(definitions(&[instrument("A", -3, -2)]));
    assert_eq!(sequencer.define_all(0, &twice, 1), Err((1, DefineError::Twice { symbol: "A".to_owned() })));
}

#[test]
fn ended_instruments_make_room_and_their_ids_stay_empty() {
    let (writer, _reader) = tickcast::ring::ring(1 << 16);
    let mut sequencer = Sequencer::new(vec![writer], 100);
    for day in 0..20u32 {
        let names: Vec<Instrument> =
            (1..=40).map(|nth| Instrument { id: nth, ..instrument(&format!("OPT-{day}-{nth}"), -2, -2) }).collect();
        let ids = sequencer.define_all(day, &definitions(&names), 1).expect("ended ones make room");
        assert_eq!(ids, (day * 40 + 1..=day * 40 + 40).collect::<Vec<_>>());
        sequencer.close_source(day, SourceEnd::Ended, 1);
    }
    assert_eq!(sequencer.counters().released, 20 * 40 - 100);
}

#[test]
fn subscribers_learn_that_an_instrument_is_released_and_get_its_name_again() {
    let mut node = Node::with_sequencer(2, 1 << 20, Settings::default(), |writer| Sequencer::new(vec![writer], 2));
    let fast = node.client(&subscribe(ALL, "S1"));
    let slow = node.client(&subscribe(ALL, "S1"));
    let json = node.connect_as(Encoding::JSON);
    node.send_text(json, &subscribe(ALL, "*"));
    node.run_until_idle();
    node.limit_socket(slow, 0);
    for px in 5..9 {
        trade(&mut node, px);
        node.advance_ms(300);
    }
    let token = node.sequencer.position();
    trade(&mut node, 9);
    node.run_until_idle();
    node.sequencer.close_source(0, SourceEnd::Ended, node.now_ns);
    node.advance_ms(500);
    assert_eq!(define(&mut node, 7, &[instrument("NEW", -2, -2)]), Ok(vec![3]), "S1 makes room");
    assert!(node.shard.directory().find("S1").is_none() && node.shard.directory().find("S2").is_some());
    assert_eq!(define(&mut node, 7, &[Instrument { id: 2, ..instrument("S1", -3, -2) }]), Ok(vec![4]), "now S2 does");
    node.limit_socket(slow, usize::MAX);
    node.advance_ms(200);
    for client in [fast, slow] {
        let messages = node.received(client);
        assert!(states(&messages).contains(&(1, FeedState::Released)), "{:?}", states(&messages));
        let of_ids = records(&messages);
        let announced = of_ids.iter().filter(|(kind, _)| *kind == RecordKind::Definition);
        let ids: Vec<u32> =
            announced.filter_map(|(_, bytes)| RecordHeader::read(bytes).map(|header| header.instrument)).collect();
        assert_eq!(ids, [1, 4], "the name is still subscribed to");
        let is_release = |(_, bytes): &(RecordKind, Vec<u8>)| record::read_status(bytes) == Some(FeedState::Released);
        let of_first = |(_, bytes): &(RecordKind, Vec<u8>)| RecordHeader::read(bytes).map(|h| h.instrument) == Some(1);
        let last = of_ids.iter().rposition(of_first);
        assert_eq!(last, of_ids.iter().position(is_release), "nothing of the released id follows: {of_ids:?}");
    }
    // In JSON both have the same name. One that resumes is not told that it has ended.
    let resumed = node.connect_as(Encoding::JSON);
    let channels = r#""channels":["trade"],"symbols":["S1"]"#;
    node.send_text(resumed, &format!(r#"{{"op":"resume","id":1,"epoch":1,"position":{token},{channels}}}"#));
    node.run_until_idle();
    let text = node.received_text(resumed);
    let (replay, definition) = (text.contains(r#""how":"replay""#), text.contains(r#""px_exp":-3"#));
    assert!(replay && definition && !text.contains(r#""state":"R""#), "{text}");
    let text = node.received_text(json);
    assert!(text.contains(r#""type":"status","symbol":"S1""#) && text.contains(r#""state":"R""#), "{text}");
}

#[test]
fn shard_that_missed_a_release_learns_of_it_by_the_resynchronisation() {
    let mut node = Node::with_sequencer(2, 1 << 20, Settings::default(), |writer| Sequencer::new(vec![writer], 2));
    let client = node.client(&subscribe(ALL, "*"));
    node.run_until_idle();
    node.sequencer.close_source(0, SourceEnd::Ended, node.now_ns);
    node.sequencer.define_all(7, &definitions(&[instrument("NEW", -2, -2)]), node.now_ns).expect("S1 makes room");
    let mut batch = Vec::new();
    for _ in 0..100_000 {
        Trade { px: 1, sz: 1, trade_id: 1, side: Side::Buy }
            .encode(&RecordHeader::of_feed(RecordKind::Trade, 1, 1), &mut batch);
    }
    node.sequencer.accept(7, &mut batch, node.now_ns);
    node.run_until_idle();
    assert!(node.shard.wants_resync());
    node.sequencer.request_resync(0);
    node.shard.resync_requested();
    while node.sequencer.advance_resyncs() {
        node.run_until_idle();
    }
    node.run_until_idle();
    let symbols: Vec<&str> = node.shard.directory().iter().map(|known| known.symbol.as_str()).collect();
    assert_eq!(symbols, ["S2", "NEW"]);
    assert!(states(&node.received(client)).contains(&(1, FeedState::Released)));
}

#[test]
fn name_that_is_not_defined_yet_is_held_for_a_websocket_client() {
    let mut node = Node::new(1);
    let early = node.client(&subscribe(ALL, "LATER"));
    node.run_until_idle();
    let Message::Text(answer) = &node.received(early)[1] else { panic!("an answer") };
    assert!(answer.contains(r#""unknown":["LATER"]"#), "{answer}");
    define(&mut node, 7, &[instrument("LATER", -2, -2)]).expect("a new one");
    let mut batch = Vec::new();
    let header = RecordHeader::of_feed(RecordKind::Trade, 1, 1);
    Trade { px: 1, sz: 1, trade_id: 1, side: Side::Buy }.encode(&header, &mut batch);
    node.sequencer.accept(7, &mut batch, node.now_ns);
    node.run_until_idle();
    let seen: Vec<RecordKind> =
        kinds(&node.received(early)).into_iter().filter(|kind| *kind != RecordKind::Status).collect();
    assert_eq!(seen, [RecordKind::Definition, RecordKind::Trade]);
    let late = node.client(&subscribe(ALL, "LATER"));
    node.run_until_idle();
    assert!(kinds(&node.received(late)).contains(&RecordKind::Trade));
    node.send_text(early, r#"{"op":"unsubscribe","id":2,"channels":["quote","trade","book"],"symbols":["LATER"]}"#);
    node.run_until_idle();
    assert!(
        node.received_text(early).contains(r#""type":"unsubscribed","id":2,"count":1"#),
        "{}",
        node.received_text(early)
    );
}
