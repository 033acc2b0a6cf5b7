//! The golden bytes of `clients/vectors`, which hold all decoders to one reading, against what is written here: readers,
//! encoders, and the JSON encoding.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Map, Value, json};
use tickcast::load::{FastChecker, SequenceTable};
use tickcast_client::decode::Decoder;
use tickcast_protocol::json::{NO_INSTRUMENT, push_record};
use tickcast_protocol::packet::{self, PacketHeader};
use tickcast_protocol::record::{self, Gap, Level, PRICE_NONE, Quote, RecordHeader, Ticker, Trade};
use tickcast_protocol::{Channel, Instrument, RecordKind};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients/vectors")
}

fn file() -> Value {
    let text = std::fs::read_to_string(folder().join("packets.json")).expect("the vectors are there");
    serde_json::from_str(&text).expect("the vectors are JSON")
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("{key} is a list in {value}"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is a text in {value}"))
}

fn from_hex(hex: &str) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).expect("a hexadecimal digit") as u8;
    assert!(hex.len().is_multiple_of(2), "{} digits", hex.len());
    hex.as_bytes().chunks_exact(2).map(|pair| digit(&pair[0]) << 4 | digit(&pair[1])).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn mantissa(value: i64) -> Value {
    if value == PRICE_NONE { Value::Null } else { wide(value) }
}

fn wide(value: impl std::fmt::Display) -> Value {
    Value::String(value.to_string())
}

fn letter(value: impl Into<u8>) -> Value {
    wide(char::from(value.into()))
}

/// A record as the vectors write it, read by the project's own readers.
fn told(record: &[u8]) -> Value {
    let header = RecordHeader::read(record).expect("a header");
    let kind = RecordKind::from_wire(header.kind);
    let name = kind.map_or("unknown", |kind| kind.channel().map_or_else(|| other_name(kind), Channel::name));
    let mut fields = json!({
        "type": name, "length": header.length, "instrument": header.instrument, "flags": header.flags,
        "sequence": wide(header.sequence.get()), "ts_event": wide(header.ts_event), "ts_recv": wide(header.ts_recv),
    });
    let body = match kind {
        Some(kind) => told_body(kind, record),
        None => json!({"kind": header.kind}),
    };
    let into = fields.as_object_mut().expect("an object");
    into.extend(body.as_object().expect("an object").clone());
    fields
}

fn other_name(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Definition => "definition",
        RecordKind::Heartbeat => "heartbeat",
        RecordKind::Gap => "gap",
        RecordKind::Status => "status",
        _ => panic!("{kind:?} has a channel"),
    }
}

fn told_body(kind: RecordKind, record: &[u8]) -> Value {
    match kind {
        RecordKind::Quote => {
            let Quote { bid_px, bid_sz, ask_px, ask_sz } = Quote::read(record).expect("a quote");
            json!({"bid_px": mantissa(bid_px), "bid_sz": mantissa(bid_sz),
                   "ask_px": mantissa(ask_px), "ask_sz": mantissa(ask_sz)})
        }
        RecordKind::Trade => {
            let Trade { px, sz, trade_id, side } = Trade::read(record).expect("a trade");
            json!({"px": mantissa(px), "sz": mantissa(sz), "trade_id": wide(trade_id), "side": letter(side)})
        }
        RecordKind::Ticker => told_ticker(&Ticker::read(record).expect("a ticker")),
        RecordKind::Book => {
            let (kind, levels) = record::read_book(record).expect("a book");
            let levels: Vec<_> = levels.map(|l| json!([mantissa(l.px), mantissa(l.sz), letter(l.side)])).collect();
            json!({"kind": letter(kind), "levels": levels})
        }
        RecordKind::Raw => json!({"payload_hex": to_hex(record::read_raw(record).expect("a raw record"))}),
        RecordKind::Definition => {
            let defined = record::read_definition(record).expect("a definition");
            json!({"symbol": defined.symbol, "venue": defined.venue, "px_exp": defined.px_exp, "sz_exp": defined.sz_exp,
                   "status": letter(defined.status), "tick_size": mantissa(defined.tick_size),
                   "lot_size": mantissa(defined.lot_size)})
        }
        RecordKind::Heartbeat => json!({}),
        RecordKind::Gap => told_gap(record),
        RecordKind::Status => json!({"state": letter(record[32])}),
    }
}

fn told_ticker(ticker: &Ticker) -> Value {
    json!({"last_px": mantissa(ticker.last_px), "open_px": mantissa(ticker.open_px),
           "high_px": mantissa(ticker.high_px), "low_px": mantissa(ticker.low_px),
           "volume": mantissa(ticker.volume), "turnover": mantissa(ticker.turnover),
           "bid_px": mantissa(ticker.bid_px), "ask_px": mantissa(ticker.ask_px)})
}

/// A gap of a channel that this version does not know is passed over by its readers, so that nothing is there to compare.
fn told_gap(record: &[u8]) -> Value {
    match Gap::read(record) {
        Some(gap) => json!({"channel": gap.channel.name(), "from_sequence": wide(gap.from_sequence.get()),
                            "to_sequence": wide(gap.to_sequence.get()), "reason": letter(gap.reason)}),
        None => json!({"channel": null, "from_sequence": "1", "to_sequence": "2", "reason": "S"}),
    }
}

/// What a vector says of a record's bytes: without its JSON encoding, and what a later version appended.
fn expected(vector: &Value) -> Value {
    let mut fields: Map<_, _> = vector.as_object().expect("a record is an object").clone();
    fields.retain(|key, _| key != "json" && key != "appended_hex");
    Value::Object(fields)
}

/// Runs through the list in its order: each packet with its records as bytes, its records as the vectors say them, and
/// the instruments that are defined by then.
fn each_record(mut on: impl FnMut(&str, &[u8], &Value, &Instrument)) -> usize {
    let mut seen = 0;
    let mut known: Vec<Instrument> = vec![NO_INSTRUMENT.clone()];
    for vector in list(&file(), "packets") {
        let (name, bytes) = (text(vector, "name"), from_hex(text(vector, "hex")));
        let records: Vec<_> = record::records(&bytes[packet::HEADER_BYTES..]).collect();
        let said = list(vector, "records");
        assert_eq!(records.len(), said.len(), "records of {name}");
        for ((header, record), said) in records.into_iter().zip(said) {
            if header.kind == RecordKind::Definition as u8 {
                known.push(record::read_definition(record).expect("a definition"));
            }
            let instrument = known.iter().rev().find(|instrument| instrument.id == header.instrument);
            on(name, record, said, instrument.unwrap_or_else(|| panic!("{name}: {} is undefined", header.instrument)));
            seen += 1;
        }
    }
    seen
}

#[test]
fn headers_say_what_the_vectors_say_and_are_written_alike() {
    for vector in list(&file(), "packets") {
        let bytes = from_hex(text(vector, "hex"));
        let header = PacketHeader::read(&bytes).unwrap_or_else(|error| panic!("{}: {error}", vector["name"]));
        let said = json!({
            "version": packet::VERSION, "flags": header.flags, "count": header.count, "epoch": header.epoch,
            "position": wide(header.position.get()), "ts_send": wide(header.ts_send),
        });
        assert_eq!(said, vector["header"], "{}", vector["name"]);
        assert_eq!(header.encode(), bytes[..packet::HEADER_BYTES], "{}", vector["name"]);
    }
}

#[test]
fn records_say_what_the_vectors_say() {
    let seen = each_record(|name, record, said, _| assert_eq!(told(record), expected(said), "{name}"));
    assert!(seen > 200, "only {seen} records were compared");
}

#[test]
fn the_json_encoding_says_what_the_vectors_say() {
    let mut out = String::new();
    let mut compared = 0;
    each_record(|name, record, said, instrument| {
        if let Some(said) = said.get("json") {
            out.clear();
            push_record(record, instrument, &mut out);
            let told: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{name}: {error}: {out}"));
            assert_eq!(told, *said, "{name}");
            compared += 1;
        }
    });
    assert!(compared > 190, "only {compared} records were compared");
}

/// The record that a vector describes, written by the project's own encoders; `None` for what they never write.
fn written(said: &Value) -> Option<Vec<u8>> {
    let number = |key: &str| text(said, key).parse::<u64>().expect("a decimal number");
    let small = |key: &str| u32::try_from(said[key].as_u64().expect("a number")).expect("32 bits");
    let exponent = |key: &str| i8::try_from(said[key].as_i64().expect("a number")).expect("8 bits");
    let byte = |key: &str| text(said, key).as_bytes()[0];
    let at = |key: &str| mantissa_of(&said[key]);
    let mut out = Vec::new();
    let header = |kind| RecordHeader {
        sequence: number("sequence").into(),
        ts_recv: number("ts_recv"),
        ..RecordHeader::of_feed(kind, small("instrument"), number("ts_event")).with_flags(small("flags") as u8)
    };
    match text(said, "type") {
        "quote" => {
            let (bid_px, bid_sz, ask_px, ask_sz) = (at("bid_px"), at("bid_sz"), at("ask_px"), at("ask_sz"));
            Quote { bid_px, bid_sz, ask_px, ask_sz }.encode(&header(RecordKind::Quote), &mut out);
        }
        "trade" => Trade { px: at("px"), sz: at("sz"), trade_id: number("trade_id"), side: byte("side").into() }
            .encode(&header(RecordKind::Trade), &mut out),
        "ticker" => {
            let [last_px, open_px, high_px, low_px] = ["last_px", "open_px", "high_px", "low_px"].map(at);
            let [volume, turnover, bid_px, ask_px] = ["volume", "turnover", "bid_px", "ask_px"].map(at);
            Ticker { last_px, open_px, high_px, low_px, volume, turnover, bid_px, ask_px }
                .encode(&header(RecordKind::Ticker), &mut out);
        }
        "book" => {
            record::encode_book(&header(RecordKind::Book), byte("kind").into(), levels_of(said).into_iter(), &mut out)
        }
        "raw" => record::encode_raw(&header(RecordKind::Raw), &from_hex(text(said, "payload_hex")), &mut out),
        "definition" => {
            let (px_exp, sz_exp) = (exponent("px_exp"), exponent("sz_exp"));
            let named = Instrument::new(small("instrument"), text(said, "symbol"), text(said, "venue"), px_exp, sz_exp);
            let (tick_size, lot_size) = (at("tick_size"), at("lot_size"));
            record::encode_definition(
                &Instrument { status: byte("status").into(), tick_size, lot_size, ..named },
                &mut out,
            );
        }
        "heartbeat" => record::encode_heartbeat(number("ts_recv"), &mut out),
        "gap" => {
            let channel = Channel::from_name(said["channel"].as_str()?)?;
            let (instrument, reason) = (small("instrument"), byte("reason").into());
            let (from_sequence, to_sequence) = (number("from_sequence").into(), number("to_sequence").into());
            Gap { instrument, channel, from_sequence, to_sequence, reason }.encode(number("ts_recv"), &mut out);
        }
        "status" => record::encode_status(&header(RecordKind::Status), byte("state").into(), &mut out),
        _ => return None,
    }
    Some(out)
}

fn mantissa_of(value: &Value) -> i64 {
    value.as_str().map_or(PRICE_NONE, |digits| digits.parse().expect("a decimal number"))
}

fn levels_of(said: &Value) -> Vec<Level> {
    let level = |level: &Value| Level {
        px: mantissa_of(&level[0]),
        sz: mantissa_of(&level[1]),
        side: level[2].as_str().expect("a letter").as_bytes()[0].into(),
    };
    list(said, "levels").iter().map(level).collect()
}

#[test]
fn encoders_write_the_bytes_of_the_vectors() {
    let mut compared = 0;
    each_record(|name, record, said, _| {
        let Some(mut written) = written(said) else { return };
        if let Some(appended) = said.get("appended_hex").and_then(Value::as_str) {
            written.extend(from_hex(appended));
            let units = u16::try_from(written.len() / 8).expect("a short record");
            written[..2].copy_from_slice(&units.to_le_bytes());
        }
        assert_eq!(to_hex(&written), to_hex(record), "{name}");
        compared += 1;
    });
    assert!(compared > 190, "only {compared} records were compared");
}

#[test]
fn the_clients_decoder_takes_every_packet_and_hands_on_all_but_unknown_types() {
    let mut decoder = Decoder::new();
    for vector in list(&file(), "packets") {
        let name = text(vector, "name");
        let mut came = Vec::new();
        decoder
            .packet(&from_hex(text(vector, "hex")), |_, _, record| came.push(told(record)))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let known: Vec<_> =
            list(vector, "records").iter().filter(|said| said["type"] != "unknown").map(expected).collect();
        assert_eq!(came, known, "{name}");
    }
}

#[test]
fn the_load_generators_reader_counts_what_the_decoder_counts() {
    let (mut decoder, mut follower) = (Decoder::without_names(), FastChecker::new(SequenceTable::Dense, true));
    for vector in list(&file(), "packets") {
        let bytes = from_hex(text(vector, "hex"));
        decoder.packet(&bytes, |_, _, _| {}).expect("a valid packet");
        follower.packet(&bytes, |_| {}).expect("a valid packet");
        assert_eq!(follower.counters(), decoder.counters(), "after {}", vector["name"]);
    }
}

#[test]
fn invalid_packets_are_refused() {
    let file = file();
    let invalid = list(&file, "invalid");
    assert!(invalid.len() > 25, "only {} are there", invalid.len());
    for vector in invalid {
        let bytes = from_hex(text(vector, "hex"));
        let told = Decoder::new().packet(&bytes, |_, _, _| {});
        assert!(told.is_err(), "{} was taken: {}", vector["name"], vector["reason"]);
        let told = FastChecker::new(SequenceTable::Dense, true).packet(&bytes, |_| {});
        assert!(told.is_err(), "{} was taken by the fast reader: {}", vector["name"], vector["reason"]);
    }
}

/// What stands before the cut is what a reader must not trust to be all.
#[test]
fn every_cut_of_a_valid_packet_is_refused() {
    for vector in list(&file(), "packets") {
        let bytes = from_hex(text(vector, "hex"));
        // Cuts of long packets are alike: those near the ends and at the seams are the ones that differ.
        let sizes = (0..bytes.len()).filter(|size| *size < 512 || size % 8 == 1 || bytes.len() - size < 64);
        for size in sizes {
            let told = Decoder::new().packet(&bytes[..size], |_, _, _| {});
            assert!(told.is_err(), "{} was taken with {size} of {} bytes", vector["name"], bytes.len());
        }
    }
}

#[test]
fn the_file_is_what_its_script_prints() {
    let script = folder().join("make.py");
    let printed = match Command::new("python3").arg(&script).output() {
        Ok(output) => output,
        Err(error) => return println!("SKIPPED: python3 does not start ({error})"),
    };
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let file = std::fs::read(folder().join("packets.json")).expect("the vectors are there");
    let told = "packets.json differs from what make.py prints: run `./make.py > packets.json` in clients/vectors";
    assert!(printed.stdout == file, "{told}");
}
