//! tickcast pushes live market data to very many WebSocket clients, at close to the cost of the kernel's own sends.
//!
//! This library is the server and the load generator. Programs link `tickcast-protocol` and `tickcast-client` instead;
//! the modules here are no public API. `docs/architecture.md` describes threads, invariants and limits.
//!
//! # The path of a record
//!
//! ```text
//!  feeds      ──► sequencer ──► ring (one per core) ══► shard ──► audience ──► io ──► sockets
//!  publishers     numbers,      one producer,           pinned    one packet   batched    one send per
//!  (threads)      stamps,       one consumer,           glommio   built once   io_uring   client and flush
//!       ▲         encodes once  producer never waits    executor  for all      sends
//!       │                                                  ▲
//!       └──────────── http (glommio tasks on each shard) ──┘  accept ► admission ► HTTP ► upgrade
//! ```
//!
//! * [`ingest`]: feeds and publishers bring batches of records, each on a thread of its own.
//! * [`sequencer`]: gives each record its instrument id, sequence and position, and writes it to the ring of every shard.
//! * [`ring`]: the producer overwrites; a reader that was lapped notices, and requests a resync.
//! * [`shard`]: one core and its clients, synchronous. [`shard::Shard::tick`] reads the ring, flushes the audiences,
//!   handles completions, runs timers and a drain, and catches up clients that are behind, in this order.
//! * [`io`]: operations in, completions out; a connection is a slot, not a descriptor.
//! * [`http`]: asynchronous code that serves a connection until it is upgraded.
//!
//! # Beside the path
//!
//! * [`runtime`]: starts and stops all threads; signals; the executor of each shard
//! * [`config`]: settings, their ranges and defaults
//! * [`state`], [`lifecycle`], [`heartbeat`]: what the threads of a server share
//! * [`last_value`], [`bars`]: the newest values; open, high, low, close and volume since the start
//! * [`recent_trades`]: the newest trades of each instrument
//! * [`day_tickers`]: tickers of instruments whose source sends none
//! * [`stats`]: the counters of a shard
//! * [`wake`]: how a shard sleeps and is woken
//! * [`log`]: the log on stderr, which never makes a thread wait
//! * [`memory`]: the allocator, and what happens when it gets no memory
//! * [`tls`]: TLS of connections that the server opens
//! * [`clock`], [`rate_limit`], [`affinity`]: time; so many a second; pinning of threads
//! * [`access`], [`identity`], [`usage`]: who may connect; users and their rights; the log of who had access
//! * [`allowance`]: units of work a second, by address
//! * [`check`]: `tickcast check`
//! * [`load`]: `tickcast load`, `tickcast tap`, and the floor that the server is measured against
//! * `sync`: atomics that loom can replace; `fault`: faults that tests plant in debug builds
//!
//! Time, random numbers and the kernel are arguments of everything below [`runtime`] and [`http`]. `tests/source_rules`
//! checks which module names which, and where glommio, io_uring and unsafe code occur.

pub mod access;
pub mod affinity;
pub mod allowance;
pub mod archive;
pub mod auth;
pub mod bars;
pub mod check;
pub mod clock;
pub mod config;
pub mod day_tickers;
mod fault;
pub mod heartbeat;
pub mod http;
pub mod identity;
pub mod ingest;
pub mod io;
pub mod last_value;
pub mod lifecycle;
pub mod load;
pub mod log;
pub mod memory;
pub mod rate_limit;
pub mod recent_trades;
pub mod ring;
pub mod runtime;
pub mod sequencer;
pub mod shard;
pub mod state;
pub mod stats;
mod sync;
pub mod tls;
pub mod usage;
pub mod wake;
