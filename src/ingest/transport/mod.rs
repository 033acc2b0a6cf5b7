//! How messages come in, whatever they say: the bytes of a source's input, cut into messages. What the messages mean is
//! the business of their codec, such as those of [`tickcast_venues`].
//!
//! * [`executor`]: what runs the async client of a source.
//! * [`mod@file`]: the bytes and the lines of a file, plain, gzip or zstd.
//! * `nats`, `redis`, `rabbitmq`, `kafka`: the clients of brokers, each with a cargo feature of its name. `push`: the queue
//!   of those whose broker does not wait.
//! * [`network`]: the connections and HTTP requests of one source, by [`websocket`] and [`rest`]. [`address`]: where they
//!   go. [`budget`]: how often a server is asked, by all sources together.
//! * [`post`]: questions to a server, many at a time.

pub mod address;
pub mod budget;
pub mod executor;
pub mod file;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "nats")]
pub mod nats;
pub mod network;
pub mod post;
#[cfg(any(feature = "nats", feature = "rabbitmq", feature = "redis"))]
mod push;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
#[cfg(feature = "redis")]
pub mod redis;
mod refusal;
pub mod rest;
pub mod websocket;
