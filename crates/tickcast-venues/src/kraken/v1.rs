//! Kraken's WebSocket API v1, as recordings have it: its books. The venue keeps v1 without changes, beside v2.
//!
//! ```text
//! [992,{"as":[["354.2","5.0","1618678133.4"]],"bs":[…]},"book-1000","XMR/USD"]         snapshot
//! [992,{"b":[["354.15000000","5.00000000","1618678133.365913"]],"c":"2583817756"},"book-1000","XMR/USD"]
//! [1920,{"a":[…]},{"b":[…],"c":"4105471083"},"book-1000","SC/EUR"]                     both sides
//! ```
//!
//! The checksum is of the texts as they are written.

use simd_json::prelude::ValueIntoString;
use tickcast_protocol::{BookSide, Channel};

use super::{Kept, checksum};
use crate::codec::Arrival;
use crate::error::Malformed;
use crate::json::{self, Array, Levels, Object, Value};
use crate::sink::{Event, Notice, Sink};
use crate::stamp;
use crate::stream_book::BookMessage;

/// `{"event":"systemStatus","status":"online",…}`, acknowledgements and heartbeats.
pub(super) fn take_event(object: &Object<'_, '_>, sink: &mut Sink<'_>) -> Result<(), Malformed> {
    sink.report.ignored += 1;
    if json::text(object, "event")? == "systemStatus" {
        let state = json::text(object, "status")?.to_owned();
        let is_trading = state == "online";
        sink.events.push(Event::Notice(Notice::State { state, is_trading }));
    }
    Ok(())
}

/// A message of a channel: a number, objects, the channel and the pair.
pub(super) fn take_list(arrival: &mut Arrival<'_, '_, Kept>, list: &Array<'_, '_>) -> Result<(), Malformed> {
    // A book has one object for each side that changes.
    let items: Vec<Value<'_, '_>> = list.iter().take(6).collect();
    let [_, objects @ .., channel, pair] = items.as_slice() else { return Err(Malformed::NotAMessage) };
    let (Some(channel), Some(pair)) = (channel.into_string(), pair.into_string()) else {
        return Err(Malformed::NotAMessage);
    };
    let Some(depth) = channel.strip_prefix("book-").and_then(|depth| depth.parse::<usize>().ok()) else {
        arrival.sink.report.ignored += 1;
        return Ok(());
    };
    let objects: Option<Vec<Object<'_, '_>>> = objects.iter().map(|object| object.as_object()).collect();
    take_book(arrival, pair, depth, &objects.ok_or(Malformed::NotAMessage)?)
}

fn take_book(
    arrival: &mut Arrival<'_, '_, Kept>,
    pair: &str,
    depth: usize,
    objects: &[Object<'_, '_>],
) -> Result<(), Malformed> {
    let index = arrival.stream(pair, &[Channel::Book])?;
    let is_snapshot = objects.iter().any(|object| json::has(object, "as") || json::has(object, "bs"));
    let keys = if is_snapshot { ["bs", "as"] } else { ["b", "a"] };
    let mut sides = Vec::with_capacity(2);
    for object in objects {
        for (key, side) in keys.into_iter().zip([BookSide::Bid, BookSide::Ask]) {
            if json::has(object, key) {
                sides.push((Levels::of(object, key)?, side));
            }
        }
    }
    let stated = objects.iter().find_map(|object| json::maybe_text(object, "c")).and_then(|text| text.parse().ok());
    arrival.state.instruments.at(index).kept.book.depth = depth;
    let check = stated.map(|stated| checksum(stated, None));
    let message = BookMessage { is_snapshot, ts_event: newest(objects, keys), id: 0, check };
    arrival.take_book(index, message, || sides.iter().flat_map(|(levels, side)| levels.iter(*side)))
}

/// The newest time of the levels, which stands behind price and size, in seconds.
fn newest(objects: &[Object<'_, '_>], keys: [&str; 2]) -> u64 {
    let lists = objects.iter().flat_map(|object| keys.map(|key| object.get(key).and_then(|value| value.as_array())));
    let time = |level: Value<'_, '_>| level.as_array()?.get(2)?.into_string().and_then(|text| stamp::parse(text).ok());
    lists.flatten().flat_map(|list| list.iter().filter_map(time).max()).max().unwrap_or(0)
}
