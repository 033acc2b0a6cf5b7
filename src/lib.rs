//! tickcast pushes live market data to very many WebSocket clients, at close to the cost that the kernel alone asks.
//!
//! # The journey of one tick
//!
//! ```text
//!  feed ─────────► sequencer ──► ring (one per core) ═══► shard ──► audience ──► io ──► sockets
//!  parse into      number,       single producer,         pinned    one packet   batched    one send per
//!  records     ┌─► stamp,        single consumer,         glommio   built once   io_uring   subscriber
//!              │   write once    producer never waits     executor  for all who  sends      and sweep
//!   publishers │                                             ▲      want the same bytes
//!   (threads)  │                                 subscribers │
//!              └──────── door (glommio tasks on every shard) ┘  accept ► HTTP ► upgrade ► seat in the shard
//! ```
//!
//! * [`feed`]: each feed on a thread of its own, makes records and never waits for a client.
//! * [`sequencer`]: the only writer. Every record gets its place and sequence, and goes to the ring of every core.
//!   Sources take turns at it ([`runtime::SequencerHandle`]).
//! * [`ring`]: the producer overwrites; a reader that was lapped learns it, and asks for the whole state.
//! * [`shard`]: one core and its clients, synchronous. A turn drains the ring, sweeps the audiences, reaps completions,
//!   catches up with those who are owed something, and keeps house.
//! * [`io`]: operations in, completions out. A connection is a seat there: an id, not a descriptor.
//! * [`server`]: ordinary async code that brings a connection up to its upgrade. A publisher then gets a thread of its own.
//!
//! # The rooms
//!
//! * [`market`]: instruments, records (the wire structs), books, last values, decimals
//! * [`wire`]: packets, control requests and answers, JSON, events; records and requests to bytes and back, no socket
//! * [`ws`]: RFC 6455 without a socket
//! * [`bars`]: open, high, low, close and volume since the start; what it took from the ring that it has for itself
//! * [`config`]: what was typed becomes what is proven; every limit
//! * [`stats`]: one list of counters, one line of meaning each
//! * [`runtime`]: glommio, threads, signals: pin, spawn, park, wake
//! * [`check`]: what the machine has to be told, and whether it was: `tickcast check`, and the start of a server
//! * [`client`]: a subscriber for other programs: blocking, comes back by itself, and goes on without a hole
//! * [`load`]: the load generator, and the tap
//! * `sync`: the atomics of the ring and of the sleep, so that loom can stand in for them
//!
//! Pure rooms take time, chance and the kernel as arguments. glommio is named in [`runtime`] and [`server`] alone, io_uring
//! and unsafe code in [`io::uring`] and [`io::floor`], its yardstick, alone; `tests/source_rules/main.rs` holds the sources to this,
//! and to who may name whom.

pub mod bars;
pub mod check;
pub mod clock;
pub mod config;
pub mod http;
pub mod ingest;
pub mod io;
pub mod last_value;
pub mod lifecycle;
pub mod load;
pub mod rate_limit;
pub mod ring;
pub mod runtime;
pub mod sequencer;
pub mod shard;
pub mod state;
pub mod stats;
mod sync;
pub mod wake;
