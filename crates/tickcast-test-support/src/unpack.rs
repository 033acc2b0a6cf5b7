//! Compressed frames of a server turned into plain ones, for readers that know no permessage-deflate. It reads headers
//! and inflates by itself, with none of the program's code.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

/// RSV1.
const COMPRESSED: u8 = 0x40;

/// Goes through a server's stream as it comes.
#[derive(Debug, Default)]
pub struct Unpack {
    raw: Vec<u8>,
    /// Compressed frames so far.
    pub frames: usize,
    /// Bytes that came, and bytes that they stood for.
    pub bytes: [usize; 2],
}

impl Unpack {
    /// Takes what came; what of it is whole comes out, compressed nowhere.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.raw.extend_from_slice(bytes);
        self.bytes[0] += bytes.len();
        let (mut out, mut at) = (Vec::new(), 0);
        while let Some((start, end)) = frame_at(&self.raw, at) {
            let first = self.raw[at];
            if first & COMPRESSED == 0 {
                out.extend_from_slice(&self.raw[at..end]);
            } else {
                assert!(
                    first & 0x80 != 0 && matches!(first & 0x0f, 1 | 2),
                    "a whole message is compressed: {first:#x}"
                );
                let message = inflated(&self.raw[start..end]);
                push_frame(first & !COMPRESSED, &message, &mut out);
                self.frames += 1;
            }
            at = end;
        }
        self.raw.drain(..at);
        self.bytes[1] += out.len();
        out
    }
}

/// Where the payload of the frame at `at` lies, if it is whole.
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
pub fn inflated(payload: &[u8]) -> Vec<u8> {
    let tailed = [payload, &[0, 0, 0xff, 0xff]].concat();
    let (mut state, mut message) = (Decompress::new(false), Vec::with_capacity(256));
    while state.total_in() < tailed.len() as u64 || message.len() == message.capacity() {
        message.reserve(message.len().max(64));
        let rest = &tailed[state.total_in() as usize..];
        state.decompress_vec(rest, &mut message, FlushDecompress::Sync).expect("the server sends DEFLATE");
    }
    message
}

/// The payload of a compressed message.
pub fn deflated(message: &[u8]) -> Vec<u8> {
    let mut state = Compress::new(Compression::default(), false);
    let mut payload = Vec::with_capacity(message.len() + message.len() / 8 + 64);
    state.compress_vec(message, &mut payload, FlushCompress::Sync).expect("there is room");
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

/// A socket whose reader sees no compression, once the upgrade is over.
#[derive(Debug)]
pub struct Unpacked {
    pub stream: TcpStream,
    pub unpack: Option<Unpack>,
    ready: Vec<u8>,
}

impl Unpacked {
    /// Hands on what comes as it is.
    pub fn plain(stream: TcpStream) -> Self {
        Self { stream, unpack: None, ready: Vec::new() }
    }

    /// For a stream of frames.
    pub fn new(stream: TcpStream) -> Self {
        Self { unpack: Some(Unpack::default()), ..Self::plain(stream) }
    }
}

impl Read for Unpacked {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Some(unpack) = &mut self.unpack else { return self.stream.read(out) };
        let mut buffer = [0; 4096];
        while self.ready.is_empty() {
            let read = self.stream.read(&mut buffer)?;
            if read == 0 {
                return Ok(0);
            }
            self.ready = unpack.feed(&buffer[..read]);
        }
        let length = self.ready.len().min(out.len());
        out[..length].copy_from_slice(&self.ready[..length]);
        self.ready.drain(..length);
        Ok(length)
    }
}

impl Write for Unpacked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
