//! One packet as a JSON text.

use super::record::{NO_INSTRUMENT, push_flag_words, push_integer, push_name, push_number, push_record};
use crate::Directory;
use crate::packet::{PacketHeader, flags};
use crate::record::RecordHeader;

/// The WebSocket subprotocol that carries packets as JSON in text frames.
pub const SUBPROTOCOL: &str = "tickcast.v1+json";

/// Appends a packet of these whole records, `count` of the header in number, whose instruments are in the directory. A
/// packet without records is an object of the type `packet` with the fields of the header.
///
/// # Panics
/// When one of the records is not whole.
pub fn push_packet<'a>(
    header: &PacketHeader,
    records: impl Iterator<Item = &'a [u8]>,
    directory: &Directory,
    out: &mut String,
) {
    let several = header.count > 1;
    if several {
        out.push('[');
    }
    for (nth, record) in records.enumerate() {
        if nth > 0 {
            out.push(',');
        }
        let id = RecordHeader::read(record).map_or(0, |header| header.instrument);
        let instrument = directory.last_known(id).map_or(&NO_INSTRUMENT, |instrument| &**instrument);
        push_record(record, instrument, out);
    }
    if header.count == 0 {
        out.push_str("{\"type\":\"packet\"}");
    }
    let brace = out.pop();
    assert_eq!(brace, Some('}'), "records are objects");
    push_header(header, out);
    out.push_str(if several { "}]" } else { "}" });
}

fn push_header(header: &PacketHeader, out: &mut String) {
    const WORDS: [(u8, &str); 3] =
        [(flags::SNAPSHOT, "snapshot"), (flags::REPLAY, "replay"), (flags::CAUGHT_UP, "caught_up")];
    push_name("packet", out);
    out.push_str("{\"epoch\":");
    push_integer(header.epoch, out);
    push_number("position", header.position.get(), out);
    push_number("ts_send", header.ts_send, out);
    push_flag_words(WORDS.into_iter().filter(|(flag, _)| header.flags & flag != 0).map(|(_, word)| word), out);
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{RecordKind, Trade, encode_heartbeat};
    use crate::{Instrument, Position, Side};

    const HEADER: PacketHeader =
        PacketHeader { flags: 0, count: 0, epoch: 7, position: Position::new(91_823), ts_send: 12 };

    fn text(flags: u8, records: &[&[u8]]) -> String {
        let mut directory = Directory::default();
        directory.insert(Instrument::new(1, "BTC-USD", "sim", -2, -5));
        let mut out = String::from("before ");
        let header = PacketHeader { flags, count: records.len() as u16, ..HEADER };
        push_packet(&header, records.iter().copied(), &directory, &mut out);
        out.strip_prefix("before ").unwrap().to_owned()
    }

    #[test]
    fn one_record_is_an_object_and_several_are_a_list_with_the_header_in_the_last() {
        let (mut heartbeat, mut trade) = (Vec::new(), Vec::new());
        encode_heartbeat(5, &mut heartbeat);
        let trade_of = Trade { px: 150, sz: 2, trade_id: 9, side: Side::Buy };
        trade_of.encode(&RecordHeader::of_feed(RecordKind::Trade, 1, 3), &mut trade);
        assert_eq!(
            text(0, &[&heartbeat]),
            r#"{"type":"heartbeat","sequence":0,"ts_event":0,"ts_recv":5,"packet":{"epoch":7,"position":91823,"ts_send":12}}"#
        );
        assert_eq!(
            text(flags::SNAPSHOT | flags::CAUGHT_UP, &[&trade, &heartbeat]),
            concat!(
                r#"[{"type":"trade","symbol":"BTC-USD","sequence":0,"ts_event":3,"ts_recv":0,"px":"1.50","sz":"0.00002","trade_id":9,"side":"B"},"#,
                r#"{"type":"heartbeat","sequence":0,"ts_event":0,"ts_recv":5,"#,
                r#""packet":{"epoch":7,"position":91823,"ts_send":12,"flags":["snapshot","caught_up"]}}]"#
            )
        );
    }

    #[test]
    fn packet_without_records_has_the_header_alone() {
        assert_eq!(
            text(flags::REPLAY | flags::CAUGHT_UP, &[]),
            r#"{"type":"packet","packet":{"epoch":7,"position":91823,"ts_send":12,"flags":["replay","caught_up"]}}"#
        );
    }
}
