//! Reads a packet log.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom};

use zstd::bulk::Decompressor;

use crate::block::{
    BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES, Block, FILE_HEADER_BYTES, FILE_MAGIC, LENGTH_BYTES, VERSION, flags, packets,
};
use crate::index::{self, TRAILER_BYTES};

/// Why a file could not be opened as a log.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It could not be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It does not begin as a log does.
    #[error("is no packet log: it begins with {0:02x?}: expected 8a 54 43 52 45 43 and a version")]
    NotALog(Vec<u8>),
    /// It was written by a newer version of tickcast.
    #[error("is a packet log of version {0}: expected {VERSION}; read it with the version of tickcast that wrote it")]
    Version(u16),
}

/// Why a block could not be read. The blocks before and behind it are not affected.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// It could not be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Its header, its frame or its packets were changed after they were written.
    #[error("is damaged: {0}")]
    Damaged(&'static str),
    /// It would take too much memory.
    #[error("has {0} bytes of packets: expected at most {BLOCK_BYTES_MAX}")]
    TooLarge(u64),
}

/// An opened log: where its blocks are.
pub struct Reader<R> {
    input: R,
    blocks: Vec<Block>,
    /// Where the last whole block ends.
    intact_bytes: u64,
    torn_bytes: u64,
    decompressor: Decompressor<'static>,
    frame: Vec<u8>,
}

impl<R: Read + Seek> Reader<R> {
    /// Finds the blocks: by the index where there is one, else by reading the header of each. What is behind the last
    /// whole block is not read ([`Self::torn_bytes`]).
    ///
    /// # Errors
    /// If the file is no log, or of another version.
    pub fn open(mut input: R) -> Result<Self, OpenError> {
        let bytes = input.seek(SeekFrom::End(0))?;
        input.seek(SeekFrom::Start(0))?;
        let mut head = Vec::new();
        Read::take(&mut input, FILE_HEADER_BYTES as u64).read_to_end(&mut head)?;
        match head.strip_prefix(&FILE_MAGIC) {
            Some([low, high]) => match u16::from_le_bytes([*low, *high]) {
                VERSION => {}
                other => return Err(OpenError::Version(other)),
            },
            _ => return Err(OpenError::NotALog(head)),
        }
        let decompressor = Decompressor::new()?;
        let (intact_bytes, torn_bytes) = (FILE_HEADER_BYTES as u64, 0);
        let mut reader = Self { input, blocks: Vec::new(), intact_bytes, torn_bytes, decompressor, frame: Vec::new() };
        if !reader.read_index(bytes)? {
            reader.read_headers(bytes)?;
        }
        Ok(reader)
    }

    /// The blocks, in the order of the file.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Bytes at the end that are neither whole blocks nor an index: what a crash has left of the last block.
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    /// Where the last whole block ends: a writer that continues the log cuts the file here.
    pub fn intact_bytes(&self) -> u64 {
        self.intact_bytes
    }

    /// The block from which a reader has the state of the market at `time_ns`, if it applies all records up to then: the
    /// first one of the last whole checkpoint before, or of the log.
    pub fn start_for(&self, time_ns: u64) -> usize {
        let (mut start, mut begun) = (0, None);
        for (nth, block) in self.blocks.iter().enumerate() {
            if block.first_ns > time_ns {
                break;
            }
            if block.flags & (flags::CHECKPOINT | flags::FIRST) == flags::CHECKPOINT | flags::FIRST {
                begun = Some(nth);
            }
            if block.is_checkpoint() && block.flags & flags::LAST != 0 {
                start = begun.take().unwrap_or(start);
            }
        }
        start
    }

    /// Reads a block, whose packets replace what is in `out` ([`packets`]). Returns its header.
    ///
    /// # Errors
    /// If the block is damaged. Others can be read.
    ///
    /// # Panics
    /// When there is no such block.
    pub fn read_block(&mut self, nth: usize, out: &mut Vec<u8>) -> Result<Block, BlockError> {
        let listed = self.blocks[nth];
        let block = self.read_header(listed.offset)?.ok_or(BlockError::Damaged("the checksum of its header"))?;
        if block.frame_bytes != listed.frame_bytes {
            return Err(BlockError::Damaged("the index has another length"));
        }
        if block.packet_bytes as usize > BLOCK_BYTES_MAX {
            return Err(BlockError::TooLarge(block.packet_bytes.into()));
        }
        self.read_frame(&block)?;
        out.clear();
        out.reserve_exact(block.packet_bytes as usize);
        let inflated = self.decompressor.decompress_to_buffer(&self.frame, out);
        if inflated.ok() != Some(block.packet_bytes as usize) {
            return Err(BlockError::Damaged("its frame is not what its header says"));
        }
        let (count, bytes) =
            packets(out).fold((0, 0), |(count, bytes), packet| (count + 1, bytes + LENGTH_BYTES + packet.len()));
        if count != block.packets || bytes != out.len() {
            return Err(BlockError::Damaged("its packets are not those that its header counts"));
        }
        Ok(block)
    }

    /// Takes the index at the end, if there is one.
    fn read_index(&mut self, file_bytes: u64) -> io::Result<bool> {
        let Some(trailer_at) = file_bytes.checked_sub(TRAILER_BYTES as u64) else { return Ok(false) };
        self.input.seek(SeekFrom::Start(trailer_at))?;
        let mut trailer = [0; TRAILER_BYTES];
        self.input.read_exact(&mut trailer)?;
        let Some(length) = index::length(&trailer) else { return Ok(false) };
        let Some(offset) = file_bytes.checked_sub(length) else { return Ok(false) };
        self.input.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        Read::take(&mut self.input, length).read_to_end(&mut bytes)?;
        let Some(blocks) = index::read(&bytes, FILE_HEADER_BYTES as u64, offset) else { return Ok(false) };
        (self.blocks, self.intact_bytes) = (blocks, offset);
        Ok(true)
    }

    /// Goes from header to header.
    fn read_headers(&mut self, file_bytes: u64) -> io::Result<()> {
        while let Some(block) = self.read_header(self.intact_bytes)?.filter(|block| block.end() <= file_bytes) {
            self.intact_bytes = block.end();
            self.blocks.push(block);
        }
        // A crash of the machine may have left a block without some of its bytes.
        while let Some(block) = self.blocks.last().copied() {
            match self.read_frame(&block) {
                Ok(()) => break,
                Err(BlockError::Io(error)) => return Err(error),
                Err(_) => {
                    self.intact_bytes = block.offset;
                    self.blocks.pop();
                }
            }
        }
        self.torn_bytes = file_bytes - self.intact_bytes;
        Ok(())
    }

    /// The header of the block at `offset`; `None` where there is no whole one.
    fn read_header(&mut self, offset: u64) -> io::Result<Option<Block>> {
        self.input.seek(SeekFrom::Start(offset))?;
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        match self.input.read_exact(&mut bytes) {
            Ok(()) => Ok(Block::read(&bytes, offset)),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the zstd frame of a block.
    fn read_frame(&mut self, block: &Block) -> Result<(), BlockError> {
        let bytes = block.frame_bytes as usize;
        if bytes > zstd::zstd_safe::compress_bound(BLOCK_BYTES_MAX) {
            return Err(BlockError::TooLarge(block.frame_bytes.into()));
        }
        self.input.seek(SeekFrom::Start(block.offset + BLOCK_HEADER_BYTES as u64))?;
        self.frame.clear();
        Read::take(&mut self.input, bytes as u64).read_to_end(&mut self.frame)?;
        if self.frame.len() != bytes || crc32fast::hash(&self.frame) != block.frame_crc {
            return Err(BlockError::Damaged("the checksum of its frame"));
        }
        Ok(())
    }
}
