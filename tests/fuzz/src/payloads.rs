//! Payloads of brokers: whatever a message says, the records that are made of it are whole, of instruments that were
//! defined before, and accepted by the sequencer, and they are those that are counted.
//!
//! Input: a byte for the form of payloads and one for symbols, then messages: the lengths of address and key in a byte
//! each, that of the payload in two, and the three texts.

use std::collections::HashMap;

use tickcast::ingest::codec::address::AddressRule;
use tickcast::ingest::codec::{CodecSettings, Decoder, Form, Payload, SymbolFrom};
use tickcast::ring::{Batch, ring};
use tickcast::sequencer::Sequencer;

use super::Script;
use super::recording::check;

const NOW_NS: u64 = 1_763_700_000_000_000_000;
const RING_BYTES: usize = 1 << 22;
const INPUT_BYTES_MAX: usize = 1 << 16;
const INSTRUMENTS_MAX: usize = 10_000;

/// One input.
pub fn run(data: &[u8]) {
    let mut script = Script::new(&data[..data.len().min(INPUT_BYTES_MAX)]);
    let mut decoder = Decoder::new("fuzz", &settings(&mut script));
    let (writer, mut reader) = ring(RING_BYTES);
    let mut sequencer = Sequencer::new(vec![writer], INSTRUMENTS_MAX);
    let (mut defined, mut counted, mut read) = (HashMap::new(), 0, Batch::default());
    let mut batch = Vec::new();
    while !script.is_done() {
        let [address, key] = [script.byte(), script.byte()].map(usize::from);
        let payload = script.short().into();
        let address = String::from_utf8_lossy(script.bytes(address)).into_owned();
        let key = Some(script.bytes(key)).filter(|key| !key.is_empty());
        batch.clear();
        decoder.decode(&Payload { address: &address, key, bytes: script.bytes(payload) }, NOW_NS, &mut batch);
        counted += check(&batch, &mut defined);
        let outcomes = sequencer.accept(0, &mut batch, NOW_NS);
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        assert_eq!(sequencer.counters().undefined, 0);
        read.clear();
        reader.read(RING_BYTES, &mut read).expect("the ring has space for all of it");
    }
    assert_eq!(decoder.take_report().records, counted);
    batch.clear();
    decoder.announce_again(&mut batch);
    let again = check(&batch, &mut HashMap::new());
    assert_eq!(again, defined.len() as u64, "every instrument is announced again, and no other");
}

fn settings(script: &mut Script<'_>) -> CodecSettings {
    let [form, symbols] = [script.byte(), script.byte()];
    let form = [Form::Json, Form::Tickcast, Form::Raw][usize::from(form) % 3];
    let symbol = match (form, symbols & 3) {
        (Form::Json, 0) => SymbolFrom::Field("symbol".to_owned()),
        (Form::Json | Form::Raw, 1) => SymbolFrom::Key,
        _ => SymbolFrom::Address,
    };
    let prefix = if symbols & 4 == 4 { "p.".to_owned() } else { String::new() };
    let dot = if symbols & 8 == 8 { '/' } else { '.' };
    let address = AddressRule { prefix, dot, is_escaped: symbols & 16 == 0 };
    CodecSettings { form, symbol, address, venue: "here".to_owned() }
}
