//! A subscriber for other programs: a blocking client on `std::net`, one thread, no executor.
//!
//! ```no_run
//! use tickcast_client::{Body, Client, Event, Options, Subscription};
//! use tickcast_protocol::{Channel, decimal};
//!
//! # fn main() -> Result<(), tickcast_client::Error> {
//! let mut client = Client::connect("127.0.0.1:9001", Options::default())?;
//! client.subscribe(Subscription::new(&[Channel::Quote, Channel::Trade], ["BTC-USD", "ETH-*"]));
//! loop {
//!     match client.next()? {
//!         Event::Packet(packet) => {
//!             for record in packet.records() {
//!                 if let (Body::Trade(trade), Some(of)) = (record.body, record.instrument) {
//!                     println!("{} {}", of.symbol, decimal::to_string(trade.px, of.px_exp));
//!                 }
//!             }
//!         }
//!         Event::Lost { why, retry_in } => eprintln!("{why}; trying again in {retry_in:?}"),
//!         Event::Back | Event::Reply(_) => {}
//!     }
//! }
//! # }
//! ```
//!
//! * A connection that is lost, or silent for two heartbeats, comes back by itself: after a wait with full jitter
//!   ([`Backoff`]), no sooner than the server asks for, and not at all where another try would get the same answer
//!   ([`Error::is_final`]). [`Client::next`] tells both.
//! * Every subscription then goes on from the last packet: what was missed is replayed, what was had is passed over. Where
//!   the server's history does not reach so far back, a snapshot comes, and [`Packet::missed`] says which trades that
//!   costs. Nothing is missing in silence, as long as the server is the same one.
//! * A server that was started anew shows by another epoch in [`Client::token`]: ids, definitions and sequences begin
//!   anew, and which trades came before its start and were not had is not told, since nobody knows.
//! * [`Client::token`] is where a stream stands; a program that keeps it goes on from there with [`Client::resume`].
//! * Prices are mantissas, exact; [`tickcast_protocol::decimal`] writes them, and [`tickcast_protocol::Book`] keeps books.
//!
//! The parts: [`error`], `stream` (the client), `connection` (one connection), `wanted` (subscriptions), [`packet`],
//! [`decode`] (the check that nothing is missing silently), [`upgrade`] and [`lane`] (the handshake, for one thread and
//! very many connections, too), [`target`] (URLs), [`pace`].
//!
//! What it does not do: TLS; more than one connection; the JSON encoding.
//!
//! Cost: some 10 ns a record for the check, and one copy of a packet; 64 KiB a connection.

pub mod backoff;
mod client;
mod connection;
pub mod decode;
pub mod error;
pub mod handshake;
pub mod lane;
pub mod packet;
mod subscription;
pub mod target;
#[cfg(test)]
mod tests;

pub use backoff::Backoff;
pub use client::{Client, Event, Options};
pub use decode::Decoder;
pub use error::{Error, Refusal};
pub use packet::{Body, Book, Packet, Record};
pub use subscription::Subscription;
pub use target::{CONNECT_TIMEOUT, DEFAULT_URL, Target};
pub use tickcast_protocol::Token;
pub use tickcast_protocol::control::Reply;
