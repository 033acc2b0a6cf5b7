//! permessage-deflate (RFC 7692) for tests: compressed frames of a server turned into plain ones, for readers without
//! the extension. It reads frame headers and inflates with none of the program's code.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

/// RSV1.
const COMPRESSED: u8 = 0x40;

/// Turns a server's stream of frames, in any pieces, into one without compressed frames.
#[derive(Debug, Default)]
pub struct FrameInflater {
    raw: Vec<u8>,
    counts: InflatedCounts,
}

/// What a [`FrameInflater`] has read so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct InflatedCounts {
    pub compressed_frames: usize,
    /// Bytes of all frames as they were received.
    pub received_bytes: usize,
    /// Bytes of all frames after inflating.
    pub inflated_bytes: usize,
}

impl FrameInflater {
    /// Takes the next bytes, and returns the frames that are complete by now, inflated.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.raw.extend_from_slice(bytes);
        self.counts.received_bytes += bytes.len();
        let (mut out, mut at) = (Vec::new(), 0);
        while let Some((start, end)) = frame_at(&self.raw, at) {
            let first = self.raw[at];
            if first & COMPRESSED == 0 {
                out.extend_from_slice(&self.raw[at..end]);
            } else {
                let is_whole_message = first & 0x80 != 0 && matches!(first & 0x0f, 1 | 2);
                assert!(is_whole_message, "the server compresses whole messages: {first:#x}");
                push_frame(first & !COMPRESSED, &inflate(&self.raw[start..end]), &mut out);
                self.counts.compressed_frames += 1;
            }
            at = end;
        }
        self.raw.drain(..at);
        self.counts.inflated_bytes += out.len();
        out
    }

    pub fn counts(&self) -> InflatedCounts {
        self.counts
    }
}

/// Start and end of the payload of the frame at `at`, if the frame is complete.
fn frame_at(raw: &[u8], at: usize) -> Option<(usize, usize)> {
    let rest = &raw[at..];
    let (header, length) = match rest.get(1)? {
        126 => (4, u64::from(u16::from_be_bytes(*rest[2..].first_chunk()?))),
        127 => (10, u64::from_be_bytes(*rest[2..].first_chunk()?)),
        length => (2, u64::from(*length)),
    };
    let end = header + length as usize;
    (end <= rest.len()).then_some((at + header, at + end))
}

/// The message of a compressed payload.
pub fn inflate(payload: &[u8]) -> Vec<u8> {
    // RFC 7692, 7.2.2: the sender has removed these four bytes.
    let input = [payload, &[0, 0, 0xff, 0xff]].concat();
    let (mut state, mut message) = (Decompress::new(false), Vec::with_capacity(256));
    while state.total_in() < input.len() as u64 || message.len() == message.capacity() {
        message.reserve(message.len().max(64));
        let rest = &input[state.total_in() as usize..];
        state.decompress_vec(rest, &mut message, FlushDecompress::Sync).expect("valid DEFLATE");
    }
    message
}

/// The compressed payload of a message.
pub fn deflate(message: &[u8]) -> Vec<u8> {
    let mut state = Compress::new(Compression::default(), false);
    let mut payload = Vec::with_capacity(message.len() + message.len() / 8 + 64);
    state.compress_vec(message, &mut payload, FlushCompress::Sync).expect("the buffer is large enough");
    assert!(payload.ends_with(&[0, 0, 0xff, 0xff]) && state.total_in() == message.len() as u64);
    payload.truncate(payload.len() - 4);
    payload
}

fn push_frame(first: u8, message: &[u8], out: &mut Vec<u8>) {
    out.push(first);
    match message.len() {
        length @ 0..=125 => out.push(length as u8),
        length @ 126..=0xffff => {
            out.push(126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(message);
}

/// A socket whose reader sees no compressed frame once the upgrade is complete.
#[derive(Debug)]
pub struct InflatingStream {
    pub tcp: TcpStream,
    inflater: Option<FrameInflater>,
    ready: Vec<u8>,
}

impl InflatingStream {
    /// Passes everything on unchanged: for a stream that begins with the upgrade.
    pub fn unchanged(tcp: TcpStream) -> Self {
        Self { tcp, inflater: None, ready: Vec::new() }
    }

    /// For a stream of frames.
    pub fn new(tcp: TcpStream) -> Self {
        Self { inflater: Some(FrameInflater::default()), ..Self::unchanged(tcp) }
    }

    /// All zero for a stream that is passed on unchanged.
    pub fn counts(&self) -> InflatedCounts {
        self.inflater.as_ref().map(FrameInflater::counts).unwrap_or_default()
    }
}

impl Read for InflatingStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Some(inflater) = &mut self.inflater else { return self.tcp.read(out) };
        let mut buffer = [0; 4096];
        while self.ready.is_empty() {
            let read = self.tcp.read(&mut buffer)?;
            if read == 0 {
                return Ok(0);
            }
            self.ready = inflater.push(&buffer[..read]);
        }
        let length = self.ready.len().min(out.len());
        out[..length].copy_from_slice(&self.ready[..length]);
        self.ready.drain(..length);
        Ok(length)
    }
}

impl Write for InflatingStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}
