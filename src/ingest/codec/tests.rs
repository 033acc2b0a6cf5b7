use proptest::prelude::*;
use tickcast_protocol::record::{self, RecordHeader, Trade, encode_definition, encode_status, read_definition};
use tickcast_protocol::{FeedState, Instrument, PacketHeader, Position, RecordKind, Side};

use super::*;

fn settings(form: Form) -> CodecSettings {
    let address = AddressRule { prefix: "p.".to_owned(), ..AddressRule::default() };
    CodecSettings { form, symbol: SymbolFrom::Address, address, venue: "acme".to_owned() }
}

/// A decoder with its counters.
struct Bench(Decoder, u64);

impl Bench {
    fn new(form: Form) -> Self {
        Self(Decoder::new("bench", &settings(form)), 0)
    }

    /// The records of a message, each with its kind and its instrument.
    fn take(&mut self, address: &str, bytes: &[u8]) -> Vec<(RecordKind, u32)> {
        let mut batch = Vec::new();
        self.0.decode(&Payload { address, key: None, bytes }, 0, &mut batch);
        self.1 += self.0.take_report().malformed;
        kinds(&batch)
    }
}

fn kinds(batch: &[u8]) -> Vec<(RecordKind, u32)> {
    let all = record::records(batch).map(|(header, _)| (header.known_kind().expect("known"), header.instrument));
    all.collect()
}

fn packet(records: &[Vec<u8>]) -> Vec<u8> {
    let header = PacketHeader { flags: 0, count: records.len() as u16, epoch: 9, position: Position::ZERO, ts_send: 0 };
    [&header.encode()[..], &records.concat()].concat()
}

fn definition(id: u32, symbol: &str, px_exp: i8) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_definition(&Instrument::new(id, symbol, "v", px_exp, 0), &mut bytes);
    bytes
}

fn trade(id: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let trade = Trade { px: 1, sz: 2, trade_id: 3, side: Side::Buy };
    trade.encode(&RecordHeader::of_feed(RecordKind::Trade, id, 4), &mut bytes);
    bytes
}

fn status(id: u32, state: FeedState) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_status(&RecordHeader::of_feed(RecordKind::Status, id, 0), state, &mut bytes);
    bytes
}

use RecordKind::{Definition as D, Status as S, Trade as T};

#[test]
fn ids_of_a_packet_are_the_senders_own() {
    let mut bench = Bench::new(Form::Tickcast);
    assert_eq!(bench.take("a", &packet(&[definition(7, "A", -2), trade(7)])), [(D, 1), (T, 1)]);
    assert_eq!(bench.take("b", &packet(&[definition(7, "B", -2), trade(7)])), [(D, 2), (T, 2)]);
    // The Definition that is known already is not published again, and an earlier one holds for its address.
    assert_eq!(bench.take("a", &packet(&[definition(7, "A", -2), trade(7)])), [(T, 1)]);
    assert_eq!(bench.take("a", &packet(&[trade(7)])), [(T, 1)]);
    assert_eq!((bench.take("c", &packet(&[trade(7)])), bench.1), (vec![], 1), "nothing is defined at this address");
    // A state of the whole feed is one of the address.
    assert_eq!(bench.take("b", &packet(&[status(0, FeedState::Stale)])), [(S, 2)]);
    let mut again = Vec::new();
    bench.0.announce_again(&mut again);
    assert_eq!(kinds(&again), [(D, 1), (D, 2)]);
}

#[test]
fn records_before_an_error_of_a_packet_are_taken() {
    let mut bench = Bench::new(Form::Tickcast);
    for (bad, expected) in [
        (vec![definition(1, "A", -2), trade(1), trade(2)], vec![(D, 1), (T, 1)]),
        (vec![trade(1), definition(3, "A*", -2)], vec![(T, 1)]),
        (vec![trade(1), definition(3, "B", 19)], vec![(T, 1)]),
        (vec![trade(1), trade(1)[..40].to_vec()], vec![(T, 1)]),
        (vec![trade(1), status(1, FeedState::Released)], vec![(T, 1)]),
    ] {
        let before = bench.1;
        assert_eq!(bench.take("a", &packet(&bad)), expected);
        assert_eq!(bench.1, before + 1);
    }
    let mut trailing = packet(&[trade(1)]);
    trailing.extend([0; 8]);
    assert_eq!(bench.take("a", &trailing), [(T, 1)]);
    assert_eq!(bench.1, 6);
}

#[test]
fn mantissas_of_other_exponents_are_refused() {
    let mut bench = Bench::new(Form::Tickcast);
    bench.take("a", &packet(&[definition(1, "A", -2)]));
    assert_eq!(bench.take("b", &packet(&[definition(1, "A", -3), trade(1)])), [(D, 1), (T, 1)]);
    assert_eq!((bench.take("a", &packet(&[trade(1)])), bench.1), (vec![], 1), "it would be a tenth of its price");
    assert_eq!(bench.take("a", &packet(&[definition(1, "A", -2), trade(1)])), [(D, 1), (T, 1)]);
}

#[test]
fn raw_payload_is_of_the_symbol_of_its_address() {
    let mut bench = Bench::new(Form::Raw);
    let mut batch = Vec::new();
    bench.0.decode(&Payload { address: "p.A%2FB", key: None, bytes: b"x" }, 0, &mut batch);
    let defined = record::records(&batch).find_map(|(_, bytes)| read_definition(bytes)).expect("a definition");
    assert_eq!((defined.symbol.as_str(), defined.venue.as_str()), ("A/B", "acme"));
    let most = vec![7; raw::PAYLOAD_BYTES_MAX];
    assert_eq!(bench.take("p.A%2FB", &most), [(RecordKind::Raw, 1)]);
    assert_eq!((bench.take("p.A%2FB", &[most, vec![7]].concat()), bench.1), (vec![], 1));
    assert_eq!((bench.take("other", b"x"), bench.1), (vec![], 2));
}

proptest! {
    /// Whatever the bytes: no panic, and whole records of instruments that are defined before come out.
    #[test]
    fn hostile_payloads_never_panic(
        form in prop::sample::select(vec![Form::Tickcast, Form::Json, Form::Raw]),
        address in "p\\.[A%0-9F./]{0,6}",
        start in prop::sample::select(vec![packet(&[definition(1, "A", -2), trade(1)]), b"[{\"type\":\"trade\"".to_vec(), vec![]]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        tail in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut bytes = start;
        for (at, value) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        bytes.extend(tail);
        let mut bench = Bench::new(form);
        let mut batch = Vec::new();
        bench.0.decode(&Payload { address: &address, key: None, bytes: &bytes }, 0, &mut batch);
        let mut defined = 0;
        let mut whole = 0;
        for (header, bytes) in record::records(&batch) {
            defined += u32::from(header.known_kind() == Some(D));
            prop_assert!(header.instrument <= defined, "{header:?} is not defined");
            whole += bytes.len();
        }
        prop_assert_eq!(whole, batch.len());
    }
}
