//! The packet log: a stream of tickcast packets in a file. `docs/recording-format.md` of the repository is the normative
//! description.
//!
//! ```text
//! file header, 8 bytes │ block │ block │ … │ index (optional)
//! block: header, 64 bytes, a zstd skippable frame │ one zstd frame: length and packet, length and packet, …
//! ```
//!
//! Everything is pure on [`std::io`]: no clock, no thread, no file names. What always holds:
//! * A block is written as a whole, at most about [`BLOCK_NS`] or [`BLOCK_BYTES`] after its first packet. What a crash
//!   leaves is a whole number of blocks and a tail that is recognised and cut ([`Reader::torn_bytes`]).
//! * A packet that [`Reader::read_block`] returns is one that was written: blocks have checksums.
//! * Memory is bounded whatever a file contains: a block states its size before it is inflated, and is refused beyond
//!   [`BLOCK_BYTES_MAX`].
//! * Checkpoints repeat the state of the market ([`MarketState`]), so that a reader can begin near any time. A reader from
//!   the start skips them.
//!
//! Cost: zstd at level 3 makes a fifth of the packets of a simulated market, at 80 MB/s of a busy core (gzip: 16 MB/s);
//! reading without an index is one read of 64 bytes a block.
//!
//! ```
//! use std::io::Cursor;
//!
//! use tickcast_protocol::{PacketHeader, Position};
//! use tickcast_recording::{Reader, Writer, packets};
//!
//! let packet = PacketHeader { flags: 0, count: 0, epoch: 7, position: Position::new(1), ts_send: 1 }.encode();
//! let mut writer = Writer::create(Vec::new())?;
//! writer.packet(&packet)?;
//! let file = writer.finish()?;
//!
//! let mut reader = Reader::open(Cursor::new(file))?;
//! let mut block = Vec::new();
//! reader.read_block(0, &mut block)?;
//! assert_eq!(packets(&block).collect::<Vec<_>>(), [packet]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

mod block;
mod index;
mod reader;
mod state;
mod times;
mod writer;

pub use block::{
    BLOCK_BYTES, BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES, BLOCK_NS, Block, FILE_HEADER_BYTES, FILE_MAGIC, PACKET_BYTES_MAX,
    VERSION, flags, packets,
};
pub use reader::{BlockError, OpenError, Reader};
pub use state::MarketState;
pub use times::timed_records;
pub use writer::{ResumeAt, WriteError, Writer};
