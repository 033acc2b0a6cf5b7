//! Packets and records as JSON text, for WebSocket clients that request it, for Server-Sent Events, and for HTTP.
//!
//! ```json
//! [{"type":"trade","symbol":"BTC-USD","sequence":46,"ts_event":0,"ts_recv":0,
//!   "px":"61837.63","sz":"3.78","trade_id":9,"side":"B"},
//!  {"type":"quote","symbol":"BTC-USD","sequence":47,"ts_event":0,"ts_recv":0,"flags":["snapshot"],
//!   "bid_px":"61837.63","bid_sz":"3.78","ask_px":null,"ask_sz":null,
//!   "packet":{"epoch":7,"position":314,"ts_send":0,"flags":["snapshot","caught_up"]}}]
//! ```
//!
//! * Fields have their wire names, with the symbol in place of the instrument id. Prices and sizes are decimal strings at
//!   the instrument's precision, values that are not present are null, counts and times are numbers. Nothing is rounded,
//!   and no value passes through a float.
//! * `flags` is a list of words, left out if it would be empty. LAST, which nearly all records have, is not in it; a record
//!   without LAST has `more`.
//! * One record is an object, several are a list. The last object has the fields of the packet header under `packet`.
//!
//! Cost: some ten times that of writing the bytes (`benches/encode.rs`), which is why JSON is the second encoding.

mod packet;
mod record;

pub use self::packet::{SUBPROTOCOL, push_packet};
pub use self::record::{NO_INSTRUMENT, push_instrument, push_record};
