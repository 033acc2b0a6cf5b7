//! A shard over scripted sockets: clients lose nothing if they send a request, join or are slow at the wrong moment.

use std::collections::{HashMap, HashSet, VecDeque};

use tickcast::io::{Completion, Completions, Io, SendOp, SendOutcome, ShortSend, SlotId};
use tickcast::ring::{Writer, ring};
use tickcast::shard::{Settings, Shard};
use tickcast::stats::Counter;
use tickcast_protocol::packet::{self, PacketHeader};
use tickcast_protocol::record::{self, Channel, Gap, Level, Quote, RecordHeader, RecordKind, Trade};
use tickcast_protocol::ws::{CloseCode, Role, Session, SessionEvent, SessionLimits};
use tickcast_protocol::{BookAction, BookSide, GapReason, Instrument, Side};

const MS: u64 = 1_000_000;

#[derive(Default)]
struct Kernel {
    queue: VecDeque<Completion>,
    input: HashMap<SlotId, Vec<u8>>,
    sent: HashMap<SlotId, Vec<u8>>,
    full: HashSet<SlotId>,
    waiting: HashSet<SlotId>,
    closed: Vec<SlotId>,
}

impl Io for Kernel {
    fn send_batch(&mut self, bytes: &[u8], sends: &[SendOp], short: &mut Vec<ShortSend>) {
        for (index, send) in (0..).zip(sends) {
            if self.full.contains(&send.slot_id) {
                short.push(ShortSend { index, outcome: SendOutcome::Took(0) });
            } else {
                let payload = &bytes[send.start as usize..][..send.len as usize];
                self.sent.entry(send.slot_id).or_default().extend_from_slice(payload);
            }
        }
    }

    fn receive(&mut self, slot_id: SlotId) {
        self.queue.push_back(Completion::Received { slot_id, start: 0, len: 0, more: false });
    }

    fn want_writable(&mut self, slot_id: SlotId) {
        let is_full = self.full.contains(&slot_id);
        assert!(!is_full || self.waiting.insert(slot_id), "one wait for room at a time");
        self.queue.extend((!is_full).then_some(Completion::Writable { slot_id }));
    }

    fn close(&mut self, slot_id: SlotId) {
        self.closed.push(slot_id);
    }

    fn reap(&mut self, _: usize, out: &mut Completions) {
        for completion in self.queue.drain(..) {
            match completion {
                Completion::Received { slot_id, .. } => {
                    let input = self.input.remove(&slot_id).unwrap_or_default();
                    let start = out.input.len() as u32;
                    out.input.extend_from_slice(&input);
                    let len = input.len() as u32;
                    out.list.push(Completion::Received { slot_id, start, len, more: false });
                }
                other => out.list.push(other),
            }
        }
    }
}

struct World {
    shard: Shard<Kernel>,
    ring: Writer,
    position: u64,
    sequences: HashMap<(u32, u8), u64>,
    now_ns: u64,
}

impl World {
    fn new() -> Self {
        let (ring, reader) = ring(4 << 20);
        let shard = Shard::new(Settings::default(), Kernel::default(), reader);
        Self { shard, ring, position: 0, sequences: HashMap::new(), now_ns: 1_000_000 * MS + 1 }
    }

    fn define(&mut self, id: u32, symbol: &str) {
        let mut bytes = Vec::new();
        record::encode_definition(&Instrument::new(id, symbol, "v", -2, -8), &mut bytes);
        self.push(bytes);
    }

    fn push(&mut self, mut bytes: Vec<u8>) {
        let header = RecordHeader::read(&bytes).unwrap();
        let sequence = self.sequences.entry((header.instrument, header.kind)).or_default();
        *sequence += 1;
        record::patch_sequenced(&mut bytes, header.instrument, (*sequence).into(), 1);
        self.position += 1;
        self.ring.push(self.position.into(), &bytes);
        self.ring.publish();
    }

    fn quote(&mut self, id: u32, bid_px: i64) {
        let mut bytes = Vec::new();
        let quote = Quote { bid_px, bid_sz: 1, ask_px: 1, ask_sz: 1 };
        quote.encode(&RecordHeader::of_feed(RecordKind::Quote, id, 0), &mut bytes);
        self.push(bytes);
    }

    fn trade(&mut self, id: u32, px: i64) {
        let mut bytes = Vec::new();
        Trade { px, sz: 1, trade_id: 1, side: Side::Buy }
            .encode(&RecordHeader::of_feed(RecordKind::Trade, id, 0), &mut bytes);
        self.push(bytes);
    }

    fn tick(&mut self, ms: u64) {
        self.now_ns += ms * MS;
        self.shard.tick(self.now_ns);
    }

    fn open(&mut self, slot: u32) -> SlotId {
        let slot_id = SlotId { index: slot, generation: 1 };
        self.shard.open(slot_id, &[], &[], self.now_ns);
        self.tick(0);
        slot_id
    }

    fn ask(&mut self, slot_id: SlotId, text: &str) {
        self.write(slot_id, frame(text));
        // One tick for the completion, one for the input.
        self.tick(0);
        self.tick(0);
    }

    /// Adds input to the client's socket.
    fn write(&mut self, slot_id: SlotId, bytes: Vec<u8>) {
        let io = self.shard.io_mut();
        io.input.insert(slot_id, bytes);
        io.queue.push_back(Completion::Readable { slot_id });
    }

    fn subscribe(&mut self, slot_id: SlotId, channel: &str, symbol: &str, conflate_ms: u32, snapshot: bool) {
        self.ask(
            slot_id,
            &format!(
                r#"{{"op":"subscribe","id":1,"channels":["{channel}"],"symbols":["{symbol}"],"conflate_ms":{conflate_ms},"snapshot":{snapshot}}}"#
            ),
        );
    }

    /// Records that were sent since the last call.
    fn records(&mut self, slot_id: SlotId) -> Vec<Vec<u8>> {
        self.packets(slot_id).into_iter().flat_map(|(_, records)| records).collect()
    }

    /// Packets that were sent since the last call, with their records.
    fn packets(&mut self, slot_id: SlotId) -> Vec<(PacketHeader, Vec<Vec<u8>>)> {
        let mut input = self.shard.io_mut().sent.remove(&slot_id).unwrap_or_default();
        let mut session = Session::new(Role::Client);
        let mut consumed = 0;
        let mut all = Vec::new();
        while let Some(event) = session
            .next(&SessionLimits { message_bytes_max: 1 << 26 }, &mut input, &mut consumed)
            .expect("whole frames")
        {
            if let SessionEvent::Binary(bytes) = event {
                let records = record::records(&bytes[packet::HEADER_BYTES..]).map(|(_, record)| record.to_vec());
                all.push((PacketHeader::read(bytes).expect("a packet"), records.collect()));
            }
        }
        all
    }

    fn bids(&mut self, slot_id: SlotId) -> Vec<i64> {
        let records = self.records(slot_id);
        let quotes = records.iter().filter(|record| record[2] == RecordKind::Quote as u8);
        quotes.map(|record| Quote::read(record).unwrap().bid_px).collect()
    }
}

/// A request as a masked frame.
fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        long => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(long as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

#[test]
fn pending_value_reaches_a_client_that_sends_a_request() {
    let mut world = World::new();
    world.define(1, "A");
    world.tick(0);
    let slot_id = world.open(0);
    world.subscribe(slot_id, "quote", "A", 1000, true);
    world.tick(1500);
    world.records(slot_id);
    world.quote(1, 5);
    world.tick(0);
    world.ask(slot_id, r#"{"op":"ping","id":4}"#);
    assert!(world.bids(slot_id).is_empty(), "the interval boundary has not come");
    world.tick(1000);
    assert_eq!(world.bids(slot_id), [5]);
}

#[test]
fn pending_quote_reaches_a_client_that_subscribes_to_trades() {
    let mut world = World::new();
    world.define(1, "A");
    world.tick(0);
    let (slot_id, other) = (world.open(0), world.open(1));
    world.subscribe(slot_id, "quote", "A", 1000, true);
    world.subscribe(other, "quote", "A", 1000, true);
    world.subscribe(other, "trade", "A", 0, true);
    world.tick(1500);
    world.records(slot_id);
    world.records(other);
    world.quote(1, 5);
    world.trade(1, 9);
    world.tick(0);
    assert_eq!(world.bids(other), [5], "before the trade");
    assert!(world.bids(slot_id).is_empty());
    world.subscribe(slot_id, "trade", "A", 0, true);
    world.tick(1000);
    assert_eq!(world.bids(slot_id), [5]);
}

#[test]
fn pending_value_of_a_pattern_survives_its_unsubscription() {
    let mut world = World::new();
    world.define(1, "AB");
    world.tick(0);
    let slot_id = world.open(0);
    world.subscribe(slot_id, "quote", "*", 0, true);
    world.subscribe(slot_id, "quote", "A*", 1000, true);
    world.tick(1500);
    world.records(slot_id);
    world.quote(1, 5);
    world.tick(0);
    world.ask(slot_id, r#"{"op":"unsubscribe","id":2,"channels":["quote"],"symbols":["A*"]}"#);
    assert_eq!(world.bids(slot_id), [5]);
}

#[test]
fn definition_after_lost_ones_waits_for_the_resynchronisation() {
    let mut world = World::new();
    world.define(2, "B");
    world.tick(0);
    assert_eq!(world.shard.directory().len(), 0);
    world.define(1, "A");
    world.define(2, "B");
    world.tick(0);
    assert_eq!(world.shard.directory().len(), 2);
}

#[test]
fn conflated_book_with_more_levels_than_a_record_is_sent_whole() {
    let mut world = World::new();
    world.define(1, "A");
    world.tick(0);
    let slot_id = world.open(0);
    world.subscribe(slot_id, "book", "A", 1000, true);
    world.tick(1500);
    world.records(slot_id);
    for (first, count) in [(0, 4000), (10_000, record::BOOK_LEVELS_MAX as i64)] {
        let mut bytes = Vec::new();
        let levels: Vec<Level> = (first..first + count).map(|px| Level { px, sz: 1, side: BookSide::Ask }).collect();
        record::encode_book(
            &RecordHeader::of_feed(RecordKind::Book, 1, 0),
            BookAction::Delta,
            levels.into_iter(),
            &mut bytes,
        );
        world.push(bytes);
    }
    world.tick(0);
    world.tick(1000);
    let records = world.records(slot_id);
    let (action, levels) = record::read_book(records.last().expect("the interval boundary has come")).unwrap();
    assert_eq!((action, levels.len()), (BookAction::Snapshot, record::BOOK_LEVELS_MAX));
}

#[test]
fn slow_client_that_reads_is_not_closed_as_idle() {
    let mut world = World::new();
    world.define(1, "A");
    world.tick(0);
    let slot_id = world.open(0);
    world.subscribe(slot_id, "quote", "A", 0, true);
    // For two minutes its socket is nearly always full, and takes everything once a second.
    for round in 0..120 {
        world.shard.io_mut().full.insert(slot_id);
        world.quote(1, round);
        world.tick(0);
        let io = world.shard.io_mut();
        io.full.remove(&slot_id);
        if io.waiting.remove(&slot_id) {
            io.queue.push_back(Completion::Writable { slot_id });
        }
        for step in 0..10 {
            world.quote(1, round);
            if step != 5 {
                world.shard.io_mut().full.insert(slot_id);
            }
            world.tick(100);
            let io = world.shard.io_mut();
            io.full.remove(&slot_id);
            if io.waiting.remove(&slot_id) {
                io.queue.push_back(Completion::Writable { slot_id });
            }
        }
    }
    assert_eq!(world.shard.io().closed, []);
    assert_eq!(world.shard.clients(), 1);
}

#[test]
fn snapshot_of_trades_does_not_overtake_older_ones_of_the_log() {
    let mut world = World::new();
    // More state than one chunk holds, so that trades come during the walk.
    for id in 1..=2000 {
        world.define(id, &format!("S{id}"));
        world.quote(id, 1);
        world.trade(id, 1);
    }
    world.tick(0);
    while world.shard.has_new_records() {
        world.tick(0);
    }
    let slot_id = world.open(0);
    world.records(slot_id);
    world.ask(
        slot_id,
        r#"{"op":"subscribe","id":1,"channels":["trade","quote"],"symbols":["*"],"conflate_ms":0,"snapshot":true}"#,
    );
    for px in 0..20 {
        world.trade(1999, px);
        world.tick(0);
    }
    let trades: Vec<u64> = world
        .records(slot_id)
        .iter()
        .map(|record| RecordHeader::read(record).unwrap())
        .filter(|header| header.kind == RecordKind::Trade as u8 && header.instrument == 1999)
        .map(|header| header.sequence.get())
        .collect();
    assert!(trades.len() > 1 && trades.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{trades:?}");
}

#[test]
fn catch_up_packet_states_no_position_beyond_its_records() {
    let mut world = World::new();
    world.define(1, "A");
    world.tick(0);
    let slot_id = world.open(0);
    world.subscribe(slot_id, "trade", "A", 0, true);
    world.records(slot_id);
    let before = world.position;
    world.shard.io_mut().full.insert(slot_id);
    // Enough for several packets.
    for px in 0..1000 {
        world.trade(1, px);
    }
    world.tick(0);
    for px in 0..1000 {
        world.trade(1, px);
    }
    world.tick(0);
    let io = world.shard.io_mut();
    io.full.remove(&slot_id);
    io.queue.push_back(Completion::Writable { slot_id });
    (0..20).for_each(|_| world.tick(0));
    let packets = world.packets(slot_id);
    assert!(packets.len() > 6, "{} packets", packets.len());
    for (header, records) in packets {
        let newest = RecordHeader::read(records.last().expect("trades")).unwrap().sequence.get();
        assert_eq!(header.position.get(), before + newest, "a token that would lose the records after this packet");
    }
}

#[test]
fn packet_of_gaps_states_no_position_that_later_gaps_cover() {
    let mut world = World::new();
    let instruments = 1000;
    for id in 1..=instruments {
        world.define(id, &format!("S{id}"));
    }
    world.tick(0);
    let slot_id = world.open(0);
    world.subscribe(slot_id, "trade", "*", 0, true);
    while world.shard.has_new_records() {
        world.tick(0);
    }
    world.records(slot_id);
    let before = world.position;
    world.shard.io_mut().full.insert(slot_id);
    world.trade(1, 1);
    world.tick(0);
    // There is a sequence gap before each trade but the first, as after an overrun: a slow client gets Gaps instead of
    // history.
    for id in 1..=instruments {
        world.sequences.insert((id, RecordKind::Trade as u8), 5);
        world.trade(id, 1);
    }
    while world.shard.has_new_records() {
        world.tick(0);
    }
    let io = world.shard.io_mut();
    io.full.remove(&slot_id);
    io.queue.push_back(Completion::Writable { slot_id });
    world.tick(0);
    world.tick(0);
    let packets = world.packets(slot_id);
    let gaps =
        packets.iter().flat_map(|(_, records)| records).filter(|record| record[2] == RecordKind::Gap as u8).count();
    assert_eq!(gaps, instruments as usize);
    let (last, others) = packets.split_last().expect("packets");
    assert_eq!(last.0.position.get(), world.position);
    assert!(others.len() > 2 && others.iter().all(|(header, _)| header.position.get() <= before + 1), "{others:?}");
}

#[test]
fn peer_that_closes_first_still_gets_the_close_reason() {
    let mut world = World::new();
    world.shard.change_settings(Settings { answers_bytes_max: 8 << 10, ..Settings::default() });
    let slot_id = world.open(0);
    world.records(slot_id);
    // More answers than may be pending: it is closed, and its own close frame is read before the server's is sent.
    let names: Vec<String> = (0..40).map(|at| format!(r#""{at:060}""#)).collect();
    let names = names.join(",");
    let request = frame(&format!(r#"{{"op":"subscribe","id":1,"channels":["quote"],"symbols":[{names}]}}"#));
    let mut input = request.repeat(8);
    input.extend([0x88, 0x82, 0, 0, 0, 0, 3, 232]);
    world.write(slot_id, input);
    (0..2).for_each(|_| world.tick(0));
    let sent = world.shard.io_mut().sent.remove(&slot_id).expect("a close frame");
    let policy = |frame: &[u8]| frame[0] == 0x88 && frame[2..] == CloseCode::POLICY.0.to_be_bytes();
    assert!(sent.windows(4).any(policy), "{} bytes without a close frame", sent.len());
    assert_eq!(world.shard.io().closed, [slot_id], "both frames are exchanged");
}

#[test]
fn client_gauges_are_updated_after_the_last_client_is_gone() {
    let mut world = World::new();
    let slot_id = world.open(0);
    world.tick(500);
    assert_eq!(world.shard.counters().get(Counter::Clients), 1);
    world.shard.io_mut().queue.push_back(Completion::Ended { slot_id });
    world.tick(1);
    // Nothing comes any more: the shard ticks at its deadlines.
    while let Some(deadline_ns) = world.shard.deadline_ns() {
        world.now_ns = deadline_ns;
        world.tick(0);
    }
    for level in [Counter::Clients, Counter::Audiences, Counter::CatchingUp] {
        assert_eq!(world.shard.counters().get(level), 0, "{level:?}");
    }
}

#[test]
fn records_and_gaps_are_counted_as_they_are_sent() {
    let mut world = World::new();
    world.define(1, "A");
    world.tick(0);
    let (early, late) = (world.open(0), world.open(1));
    world.subscribe(early, "quote", "A", 1000, true);
    world.tick(1500);
    world.quote(1, 5);
    world.tick(0);
    // It already received the quote that is pending for the other, and does not receive it again at the interval boundary.
    world.subscribe(late, "quote", "A", 1000, true);
    world.tick(1000);
    for slot_id in [early, late] {
        world.subscribe(slot_id, "trade", "A", 0, true);
    }
    world.trade(1, 1);
    world.sequences.insert((1, RecordKind::Trade as u8), 7);
    world.trade(1, 2);
    world.tick(0);
    let read: Vec<Vec<u8>> = [early, late].into_iter().flat_map(|slot_id| world.records(slot_id)).collect();
    let gaps = read.iter().filter(|record| record[2] == RecordKind::Gap as u8).count();
    assert_eq!(gaps, 2);
    assert_eq!(world.shard.counters().get(Counter::GapsSent), 2);
    assert_eq!(world.shard.counters().get(Counter::Records), read.len() as u64);
}

/// A request to resume the trades of a symbol after a position.
fn resume(id: u64, symbol: &str, position: u64) -> Vec<u8> {
    frame(&format!(
        r#"{{"op":"resume","id":{id},"epoch":1,"position":{position},"channels":["trade"],"symbols":["{symbol}"]}}"#
    ))
}

#[test]
fn resumes_sent_together_are_all_replayed() {
    let mut world = World::new();
    world.define(1, "A");
    world.define(2, "B");
    let token = world.position;
    for px in 0..3 {
        world.trade(1, px);
        world.trade(2, px);
    }
    world.tick(0);
    let slot_id = world.open(0);
    world.write(slot_id, [resume(1, "A", token), resume(2, "B", token)].concat());
    (0..4).for_each(|_| world.tick(0));
    let records = world.records(slot_id);
    let trades = records.iter().map(|record| RecordHeader::read(record).unwrap());
    let trades = trades.filter(|header| header.kind == RecordKind::Trade as u8);
    let trades: Vec<(u32, u64)> = trades.map(|header| (header.instrument, header.sequence.get())).collect();
    assert_eq!(trades, [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]);
}

#[test]
fn requests_behind_a_replay_are_handled_in_order() {
    let mut world = World::new();
    world.define(1, "A");
    let token = world.position;
    world.trade(1, 1);
    world.tick(0);
    let slot_id = SlotId { index: 0, generation: 1 };
    let first = [resume(1, "A", token), frame(r#"{"op":"ping","id":2}"#)].concat();
    world.shard.open(slot_id, &[], &first, world.now_ns);
    world.tick(0);
    world.write(slot_id, frame(r#"{"op":"ping","id":3}"#));
    (0..6).for_each(|_| world.tick(0));
    let sent = world.shard.io_mut().sent.remove(&slot_id).expect("answers");
    let offset = |text: &str| sent.windows(text.len()).position(|bytes| bytes == text.as_bytes()).expect("an answer");
    assert!(offset(r#""pong","id":2"#) < offset(r#""pong","id":3"#));
}

/// Sequences of trades, and of gaps in them, that were sent since the last call.
fn trades_and_gaps(world: &mut World, slot_id: SlotId) -> Vec<(u64, u64)> {
    let records = world.records(slot_id);
    let spans = records.iter().filter_map(|record| match record[2] {
        kind if kind == RecordKind::Trade as u8 => {
            RecordHeader::read(record).map(|header| (header.sequence.get(), header.sequence.get()))
        }
        kind if kind == RecordKind::Gap as u8 => {
            Gap::read(record).map(|gap| (gap.from_sequence.get(), gap.to_sequence.get()))
        }
        _ => None,
    });
    spans.collect()
}

/// The feed reports two trades after the first as lost; then comes one more.
fn lose_two_trades(world: &mut World) {
    world.trade(1, 1);
    let gap = Gap {
        instrument: 1,
        channel: Channel::Trade,
        from_sequence: 2.into(),
        to_sequence: 3.into(),
        reason: GapReason::Feed,
    };
    let mut bytes = Vec::new();
    gap.encode(0, &mut bytes);
    world.position += 1;
    world.ring.push(world.position.into(), &bytes);
    world.ring.publish();
    world.sequences.insert((1, RecordKind::Trade as u8), 3);
    world.tick(0);
}

#[test]
fn snapshot_of_a_trade_reports_later_ones_as_lost() {
    let mut world = World::new();
    world.define(1, "A");
    lose_two_trades(&mut world);
    let slot_id = world.open(0);
    world.subscribe(slot_id, "trade", "A", 0, true);
    world.trade(1, 2);
    world.tick(0);
    assert_eq!(trades_and_gaps(&mut world, slot_id), [(1, 1), (2, 3), (4, 4)]);
}

#[test]
fn replay_does_not_repeat_gaps_of_live_channels() {
    let mut world = World::new();
    world.define(1, "A");
    world.define(2, "B");
    let token = world.position;
    world.tick(0);
    let slot_id = world.open(0);
    world.subscribe(slot_id, "trade", "A", 0, true);
    lose_two_trades(&mut world);
    world.trade(1, 2);
    world.tick(0);
    assert_eq!(trades_and_gaps(&mut world, slot_id), [(1, 1), (2, 3), (4, 4)]);
    world.write(slot_id, resume(2, "B", token));
    (0..3).for_each(|_| world.tick(0));
    assert_eq!(trades_and_gaps(&mut world, slot_id), []);
}
