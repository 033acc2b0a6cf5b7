//! The publisher of [`AttackKind::PublisherFlood`](super::AttackKind): definitions, large books and records.

use std::path::Path;

use super::frames::frame;
use crate::load::error::LoadError;
use tickcast_client::{DefineInstrument, PublishPacket, Publisher, Stream};
use tickcast_protocol::record::{Level, Quote};
use tickcast_protocol::ws::Opcode;
use tickcast_protocol::{BookAction, BookSide};

/// Instruments of its records.
const INSTRUMENTS: usize = 100;
/// Definitions of one request, and how many requests have names of their own: together nearly as many as a publisher
/// may define by default.
const DEFINITIONS: usize = 1_000;
const DEFINE_REQUESTS: usize = 19;
/// Levels of a book: the most that a server takes by default.
const LEVELS: usize = 20_000;
/// Records of a packet.
const QUOTES: usize = 50_000;

/// Connects with this token and defines the instruments. Returns the socket, and what is sent again and again.
pub fn open(url: &str, token: Option<&str>, ca: Option<&Path>) -> Result<(Stream, Vec<Vec<u8>>), LoadError> {
    let mut publisher = Publisher::connect_with(url, token, ca)?;
    let names: Vec<_> = (0..INSTRUMENTS).map(|nth| format!("FLOOD-{nth:05}")).collect();
    let instruments: Vec<_> = names.iter().map(|name| DefineInstrument::new(name, "load", -2, -3)).collect();
    let ids = publisher.define(&instruments)?;
    let (stream, ..) = publisher.into_parts();
    Ok((stream, actions(&ids)))
}

fn actions(ids: &[u32]) -> Vec<Vec<u8>> {
    let books = [0, 1].map(|shift| {
        let mut packet = PublishPacket::new();
        let level = |nth: usize| {
            let (side, px) = if nth.is_multiple_of(2) { (BookSide::Bid, -1) } else { (BookSide::Ask, 1) };
            Level { px: 1_000_000 + px * (nth as i64 + 1), sz: nth as i64 + 1 + shift, side }
        };
        let levels: Vec<_> = (0..LEVELS).map(level).collect();
        packet.book(ids[0], 0, BookAction::Snapshot, &levels);
        frame(Opcode::Binary, packet.bytes())
    });
    let mut quotes = PublishPacket::new();
    for nth in 0..QUOTES {
        let px = 100_000 + (nth % 1000) as i64;
        let quote = Quote { bid_px: px, bid_sz: 5, ask_px: px + 1, ask_sz: 7 };
        quotes.quote(ids[nth % ids.len()], 0, &quote);
    }
    let quotes = frame(Opcode::Binary, quotes.bytes());
    let round = |nth| [definitions(nth), books[0].clone(), books[1].clone(), quotes.clone()];
    (0..DEFINE_REQUESTS).flat_map(round).collect()
}

fn definitions(request: usize) -> Vec<u8> {
    let each = |nth| format!(r#"{{"symbol":"JUNK-{request:02}-{nth:05}","venue":"load","px_exp":-2,"sz_exp":-3}}"#);
    let all: Vec<_> = (0..DEFINITIONS).map(each).collect();
    frame(Opcode::Text, format!(r#"{{"op":"define","id":7,"instruments":[{}]}}"#, all.join(",")).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickcast_client::decode::Decoder;
    use tickcast_protocol::ws::{Role, Session, SessionEvent, SessionLimits};

    #[test]
    fn a_flood_is_of_definitions_books_and_records() {
        let limits = SessionLimits { message_bytes_max: 16 << 20 };
        let mut input = actions(&(1..=100).collect::<Vec<_>>()).into_iter().take(4).flatten().collect::<Vec<_>>();
        let (mut session, mut consumed, mut records) = (Session::new(Role::Server), 0, Vec::new());
        let mut decoder = Decoder::without_names();
        while let Some(event) = session.next(&limits, &mut input, &mut consumed).expect("no violation") {
            match event {
                SessionEvent::Text(text) => {
                    let define: serde_json::Value = serde_json::from_slice(text).expect("JSON");
                    assert_eq!(define["instruments"].as_array().map(Vec::len), Some(DEFINITIONS));
                }
                SessionEvent::Binary(packet) => {
                    let mut count = 0;
                    decoder.packet(packet, |_: Option<&_>, _: &_, _: &[u8]| count += 1).expect("well-formed");
                    records.push(count);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(records, [1, 1, QUOTES]);
    }
}
