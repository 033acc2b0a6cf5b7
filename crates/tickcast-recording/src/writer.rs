//! Writes a packet log.

use std::io::{self, Write};

use zstd::bulk::Compressor;

use crate::block::{
    BLOCK_BYTES, BLOCK_NS, Block, FILE_HEADER_BYTES, FILE_MAGIC, LENGTH_BYTES, PACKET_BYTES_MAX, VERSION, flags,
};
use crate::index;
use crate::reader::Reader;
use crate::state::MarketState;
use crate::times::timed_records;
use tickcast_protocol::packet::{self, PacketHeader};
use tickcast_protocol::{PacketError, Position, Token};

/// The level of zstd. Level 1 is a fifth faster, and its frames are a tenth larger.
const LEVEL: i32 = 3;
/// A checkpoint is due after this many bytes of packets, or after [`CHECKPOINT_FACTOR`] times its own size if that is
/// more. So a reader has little to apply behind a checkpoint, and checkpoints are at most a fifth of a file.
const CHECKPOINT_BYTES: u64 = 16 << 20;
const CHECKPOINT_FACTOR: u64 = 4;

/// Why a packet was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The output failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are not a packet.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// The packet is longer than a reader takes.
    #[error("a packet of {0} bytes: expected at most {PACKET_BYTES_MAX}")]
    TooLong(usize),
}

/// Where a log that exists is continued.
#[derive(Debug)]
pub struct ResumeAt {
    blocks: Vec<Block>,
    state: MarketState,
    offset: u64,
    last_ns: u64,
    token: Option<Token>,
    is_resumable: bool,
}

impl ResumeAt {
    fn begin() -> Self {
        Self {
            blocks: Vec::new(),
            state: MarketState::default(),
            offset: FILE_HEADER_BYTES as u64,
            last_ns: 0,
            token: None,
            is_resumable: false,
        }
    }

    /// At the end of the whole blocks of a log: [`Reader::intact_bytes`] of its file. Reads it from its last checkpoint
    /// on for the state of the market. `None` if one of these blocks is damaged.
    pub fn end_of<R: io::Read + io::Seek>(reader: &mut Reader<R>) -> Option<Self> {
        let blocks = reader.blocks().to_vec();
        let (mut state, mut block) = (MarketState::default(), Vec::new());
        let (mut last_ns, mut token, mut is_resumable) = (0, None, false);
        for nth in reader.start_for(u64::MAX)..blocks.len() {
            let header = reader.read_block(nth, &mut block).ok()?;
            for bytes in crate::packets(&block) {
                state.apply_packet(bytes);
            }
            last_ns = header.last_ns.max(last_ns);
            token = Some(header.token);
            is_resumable = header.is_resumable();
        }
        Some(Self { blocks, state, offset: reader.intact_bytes(), last_ns, token, is_resumable })
    }

    /// The token to continue the stream with: that of the last packet, if no snapshot was under way.
    pub fn token(&self) -> Option<Token> {
        self.token.filter(|_| self.is_resumable)
    }
}

/// Writes packets to an output that only grows.
pub struct Writer<W> {
    log: BlockWriter<W>,
    state: MarketState,
    /// Bytes of packets since the last checkpoint, and in it.
    since_checkpoint: u64,
    checkpoint_bytes: u64,
    has_packets: bool,
}

impl<W: Write> Writer<W> {
    /// Begins a log: writes the file header.
    ///
    /// # Errors
    /// Those of the output.
    pub fn create(mut output: W) -> io::Result<Self> {
        output.write_all(&FILE_MAGIC)?;
        output.write_all(&VERSION.to_le_bytes())?;
        output.flush()?;
        Self::resume(output, ResumeAt::begin())
    }

    /// Begins a log that continues the stream of another one: with a checkpoint of the state behind that one's last
    /// packet, if anything is known. `token` is that of the packet, `time_ns` the present time.
    ///
    /// # Errors
    /// Those of the output.
    pub fn begin_with(output: W, state: MarketState, token: Token, time_ns: u64) -> io::Result<Self> {
        let mut writer = Self::create(output)?;
        (writer.log.token, writer.log.last_ns) = (token, time_ns);
        if state.instruments() > 0 {
            writer.state = state;
            writer.checkpoint()?;
        }
        Ok(writer)
    }

    /// Continues a log. The output is at the end of its last whole block, and what was behind is cut off.
    ///
    /// # Errors
    /// That of zstd, if there is no memory.
    pub fn resume(output: W, at: ResumeAt) -> io::Result<Self> {
        let log = BlockWriter {
            output,
            offset: at.offset,
            blocks: at.blocks,
            compressor: Compressor::new(LEVEL)?,
            pending: Vec::new(),
            packets: 0,
            first_ns: 0,
            last_ns: at.last_ns,
            token: at.token.unwrap_or(Token { epoch: 0, position: Position::ZERO }),
            is_resumable: at.is_resumable,
        };
        Ok(Self { log, state: at.state, since_checkpoint: 0, checkpoint_bytes: 0, has_packets: false })
    }

    /// Adds a packet. Blocks that are complete are written, and a checkpoint where one is due.
    ///
    /// # Errors
    /// Those of the output; if the bytes are no packet, or too long.
    pub fn packet(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let header = PacketHeader::read(bytes)?;
        if bytes.len() > PACKET_BYTES_MAX {
            return Err(WriteError::TooLong(bytes.len()));
        }
        let mut times = timed_records(&header, &bytes[packet::HEADER_BYTES..], self.log.last_ns);
        let first_ns = times.next().map_or_else(|| self.log.last_ns.max(header.ts_send), |(time_ns, ..)| time_ns);
        let last_ns = times.last().map_or(first_ns, |(time_ns, ..)| time_ns);
        if self.log.is_complete(bytes.len(), last_ns) {
            self.log.write(0)?;
            if self.since_checkpoint >= CHECKPOINT_BYTES.max(CHECKPOINT_FACTOR * self.checkpoint_bytes) {
                self.checkpoint()?;
            }
        }
        self.log.push(bytes, &header, first_ns, last_ns);
        self.state.apply_packet(bytes);
        self.since_checkpoint += bytes.len() as u64;
        self.has_packets = true;
        Ok(())
    }

    /// Writes the packets that wait, as a block.
    ///
    /// # Errors
    /// Those of the output, after which the log ends with a part of a block: see [`Self::written_bytes`].
    pub fn flush(&mut self) -> io::Result<()> {
        self.log.write(0)
    }

    /// Writes what waits and the index, and returns the output.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(mut self) -> io::Result<W> {
        self.flush()?;
        self.log.output.write_all(&index::encode(&self.log.blocks))?;
        self.log.output.flush()?;
        Ok(self.log.output)
    }

    /// Bytes of whole blocks: where the log is to be cut after an error of the output.
    pub fn written_bytes(&self) -> u64 {
        self.log.offset
    }

    /// True once a packet was added.
    pub fn has_packets(&self) -> bool {
        self.has_packets
    }

    /// The output.
    pub fn output(&mut self) -> &mut W {
        &mut self.log.output
    }

    /// The state of the market behind the last packet.
    pub fn state(&self) -> &MarketState {
        &self.state
    }

    /// Gives up the output after an error, and returns the state.
    pub fn into_state(self) -> MarketState {
        self.state
    }

    /// Writes the state of the market, in blocks of their own. No packet waits.
    fn checkpoint(&mut self) -> io::Result<()> {
        let Self { log, state, .. } = self;
        let (token, time_ns) = (log.token, log.last_ns);
        let (mut bytes, mut begin) = (0, flags::FIRST);
        state.try_each_packet(token, time_ns, |packet| {
            if log.is_complete(packet.len(), time_ns) {
                log.write(flags::CHECKPOINT | std::mem::take(&mut begin))?;
            }
            bytes += packet.len() as u64;
            log.append(packet, time_ns);
            io::Result::Ok(())
        })?;
        log.write(flags::CHECKPOINT | flags::LAST | begin)?;
        (self.since_checkpoint, self.checkpoint_bytes) = (0, bytes);
        Ok(())
    }
}

/// Writes blocks.
struct BlockWriter<W> {
    output: W,
    offset: u64,
    blocks: Vec<Block>,
    compressor: Compressor<'static>,
    /// The packets of the block that is not written yet, and what its header will say of them.
    pending: Vec<u8>,
    packets: u32,
    first_ns: u64,
    last_ns: u64,
    token: Token,
    is_resumable: bool,
}

impl<W: Write> BlockWriter<W> {
    /// Whether the pending block is to be written before a packet of this length and time.
    fn is_complete(&self, bytes: usize, last_ns: u64) -> bool {
        let is_late = last_ns.saturating_sub(self.first_ns) >= BLOCK_NS;
        self.packets > 0 && (is_late || self.pending.len() + LENGTH_BYTES + bytes > BLOCK_BYTES)
    }

    fn push(&mut self, packet: &[u8], header: &PacketHeader, first_ns: u64, last_ns: u64) {
        self.append(packet, first_ns);
        self.last_ns = last_ns;
        self.token = Token { epoch: header.epoch, position: header.position };
        let is_caught_up = header.flags & packet::flags::CAUGHT_UP != 0;
        let is_behind = header.flags & (packet::flags::SNAPSHOT | packet::flags::REPLAY) != 0;
        self.is_resumable = is_caught_up || (self.is_resumable && !is_behind);
    }

    fn append(&mut self, packet: &[u8], first_ns: u64) {
        if self.packets == 0 {
            self.first_ns = first_ns;
        }
        self.packets += 1;
        self.pending.extend_from_slice(&(packet.len() as u32).to_le_bytes());
        self.pending.extend_from_slice(packet);
    }

    /// Writes the pending block, if there is one.
    fn write(&mut self, flags: u8) -> io::Result<()> {
        if self.packets == 0 {
            return Ok(());
        }
        let frame = self.compressor.compress(&self.pending)?;
        let block = Block {
            offset: self.offset,
            frame_bytes: frame.len() as u32,
            packet_bytes: self.pending.len() as u32,
            first_ns: self.first_ns,
            last_ns: self.last_ns,
            token: self.token,
            packets: self.packets,
            flags: flags | if self.is_resumable { flags::RESUMABLE } else { 0 },
            frame_crc: crc32fast::hash(&frame),
        };
        // One write: what a crash leaves of it is no whole block.
        self.output.write_all(&[&block.encode()[..], &frame].concat())?;
        self.output.flush()?;
        self.offset = block.end();
        self.blocks.push(block);
        self.pending.clear();
        self.pending.shrink_to(2 * BLOCK_BYTES);
        self.packets = 0;
        Ok(())
    }
}
