//! A client for tickcast servers: a blocking subscriber and a blocking publisher on `std::net`, one thread each,
//! without an async executor.
//!
//! # Subscribe
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
//!                 if let (Body::Trade(trade), Some(instrument)) = (record.body, record.instrument) {
//!                     println!("{} {}", instrument.symbol, decimal::to_string(trade.px, instrument.px_exp));
//!                 }
//!             }
//!         }
//!         Event::Disconnected { error, retry_in } => eprintln!("{error}; next attempt in {retry_in:?}"),
//!         Event::Reconnected | Event::Reply(_) | Event::TokenFailed { .. } => {}
//!     }
//! }
//! # }
//! ```
//!
//! * A connection that is lost, or silent for two heartbeat intervals, is replaced: after a wait with full jitter
//!   ([`Backoff`]), no sooner than the server requests, and not at all where another attempt would fail in the same way
//!   ([`Error::is_final`]).
//! * Every subscription then resumes after the last packet. What was missed is replayed; records that the client
//!   already had are left out. Where the server's history does not reach back so far, a snapshot comes, and
//!   [`Packet::missed`] lists the trades that are lost. Nothing is missing silently, as long as the server is the same
//!   process.
//! * A restarted server has another epoch in [`Client::token`]: ids, definitions and sequences begin anew. Which trades
//!   came before its restart and were not received is not known.
//! * Prices are mantissas, exact. [`tickcast_protocol::decimal`] formats them; [`tickcast_protocol::Book`] keeps a
//!   book.
//!
//! # Tokens
//!
//! A server that identifies its clients takes a token or an API key, as [`Options::token`]. A function for tokens is
//! called for each connection, before a token expires ([`TokenReason::Expiring`]) and after one was refused. The next
//! token is presented on the open connection: [`Reply::Authenticated`] tells what it has dropped, and
//! [`Event::TokenFailed`] that there was none. A token that expired all the same (4001) is replaced with a new
//! connection; three refused ones in a row, a revocation, and a token of another user (4003) end the client.
//!
//! ```no_run
//! use tickcast_client::{Client, Options, TokenSource};
//!
//! # fn request_token() -> Result<String, std::io::Error> { Ok(String::new()) }
//! # fn main() -> Result<(), tickcast_client::Error> {
//! let token = Some(TokenSource::function(|_why| Ok(request_token()?)));
//! let client = Client::connect("wss://ticks.example", Options { token, ..Options::default() })?;
//! # Ok(())
//! # }
//! ```
//!
//! # Delayed markets
//!
//! A server may serve its data a fixed time later. `delay_s` of [`Reply::Welcome`], [`Reply::Subscribed`] and
//! [`Reply::Resumed`] says how old it is, in seconds; 0 is live. [`Client::token`] belongs to one market: in another one
//! the subscriptions begin with a snapshot.
//!
//! # Resume in another process
//!
//! [`Client::token`] is the position of a stream. A program that stores it continues with [`Client::resume`].
//!
//! ```no_run
//! use tickcast_client::{Client, Event, Options, Reply, Subscription, Token};
//! use tickcast_protocol::Channel;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let trades = Subscription::new(&[Channel::Trade], ["BTC-USD"]);
//! let mut client = Client::connect("127.0.0.1:9001", Options::default())?;
//! match std::fs::read_to_string("stream.token") {
//!     Ok(text) => client.resume(text.parse::<Token>()?, trades),
//!     Err(_) => client.subscribe(trades),
//! };
//! loop {
//!     match client.next()? {
//!         Event::Packet(packet) => println!("{} records, {} gaps", packet.records().count(), packet.missed().len()),
//!         Event::Reply(Reply::Resumed { how, .. }) => println!("resumed by {how}"),
//!         _ => {}
//!     }
//!     if let Some(token) = client.token() {
//!         std::fs::write("stream.token", token.to_string())?;
//!     }
//! }
//! # }
//! ```
//!
//! # Publish
//!
//! ```no_run
//! use tickcast_client::{DefineInstrument, PublishPacket, Publisher};
//! use tickcast_protocol::decimal;
//! use tickcast_protocol::record::Quote;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut publisher = Publisher::connect("127.0.0.1:9001", Some("the server's --publish-token"))?;
//! let ids = publisher.define(&[DefineInstrument::new("BTC-USD", "my-venue", -2, -8)])?;
//! let mut packet = PublishPacket::new();
//! let (bid_px, ask_px) = (decimal::parse("61837.63", -2)?, decimal::parse("61837.64", -2)?);
//! packet.quote(ids[0], 0, &Quote { bid_px, bid_sz: 120_000_000, ask_px, ask_sz: 50_000_000 });
//! publisher.send(&packet)?;
//! publisher.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Packets and handshakes on a transport of your own
//!
//! [`decode`] reads packets without a connection, [`handshake`] upgrades one without a socket.
//!
//! # What it does not do
//!
//! The JSON encoding; more than one connection per client; reconnecting a publisher.
//!
//! Cost: about 10 ns a record for the sequence check, and one copy of each packet; 64 KiB a connection.

#![forbid(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

mod backoff;
mod client;
mod connection;
pub mod decode;
mod error;
pub mod handshake;
mod packet;
mod publish_packet;
mod publisher;
mod stream;
mod subscription;
mod target;
#[cfg(test)]
mod tests;
mod timeouts;
mod tls;
mod token;

pub use backoff::Backoff;
pub use client::{Client, Event, Options};
pub use error::{CloseReason, Error, Refusal};
pub use packet::{Body, BookUpdate, Packet, Record};
pub use publish_packet::PublishPacket;
pub use publisher::Publisher;
pub use stream::Stream;
pub use subscription::Subscription;
pub use target::{DEFAULT_URL, Target};
pub use tickcast_protocol::Token;
pub use tickcast_protocol::control::{DefineInstrument, Reply};
pub use timeouts::CONNECT_TIMEOUT;
pub use tls::TlsConfig;
pub use token::{TokenReason, TokenRequest, TokenSource};

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
