//! The frames of a DBN stream, checked before the library reads them.
//!
//! Every record begins with its length in words of four bytes. All records have a multiple of eight bytes; one that had
//! not would have the library read the next at an address that is not aligned, which it refuses with a panic.

use std::io::{Error, ErrorKind, Read, Result};

/// Magic, version, and the length of the metadata.
const PRELUDE_BYTES: usize = 8;
const HEADER_BYTES: usize = 16;

/// Passes a stream on, up to the first record whose length is none.
pub struct Frames<R> {
    input: R,
    prelude: Vec<u8>,
    /// Bytes of the metadata or record that are still to come.
    left: usize,
    /// Where it ended, and why, once that was reached.
    bad: Option<String>,
    offset: u64,
}

impl<R: Read> Frames<R> {
    pub fn new(input: R) -> Self {
        Self { input, prelude: Vec::with_capacity(PRELUDE_BYTES), left: 0, bad: None, offset: 0 }
    }

    /// How many of these bytes may be passed on.
    fn checked(&mut self, mut bytes: &[u8]) -> usize {
        let mut passed = 0;
        while !bytes.is_empty() {
            let taken = if self.prelude.len() < PRELUDE_BYTES {
                self.take_prelude(bytes)
            } else if self.left == 0 {
                let length = usize::from(bytes[0]) * 4;
                if length < HEADER_BYTES || length % 8 != 0 {
                    let at = self.offset;
                    self.bad = Some(format!(
                        "a record of {length} bytes at byte {at}: expected a multiple of 8, at least {HEADER_BYTES}"
                    ));
                    return passed;
                }
                self.left = length;
                0
            } else {
                let taken = self.left.min(bytes.len());
                self.left -= taken;
                taken
            };
            bytes = &bytes[taken..];
            passed += taken;
            self.offset += taken as u64;
        }
        passed
    }

    fn take_prelude(&mut self, bytes: &[u8]) -> usize {
        let taken = (PRELUDE_BYTES - self.prelude.len()).min(bytes.len());
        self.prelude.extend_from_slice(&bytes[..taken]);
        if let Some(length) = self.prelude.last_chunk().filter(|_| self.prelude.len() == PRELUDE_BYTES) {
            self.left = u32::from_le_bytes(*length) as usize;
        }
        taken
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.bad.is_none() {
            let read = self.input.read(buffer)?;
            let passed = self.checked(&buffer[..read]);
            if passed > 0 || read == 0 {
                return Ok(passed);
            }
        }
        Err(Error::new(ErrorKind::InvalidData, self.bad.clone().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(metadata: usize, lengths: &[u8]) -> Vec<u8> {
        let mut bytes = b"DBN\x03".to_vec();
        bytes.extend((metadata as u32).to_le_bytes());
        bytes.resize(PRELUDE_BYTES + metadata, 1);
        for length in lengths {
            let at = bytes.len();
            bytes.resize(at + usize::from(*length) * 4, 0xff);
            bytes.get_mut(at).into_iter().for_each(|first| *first = *length);
        }
        bytes
    }

    /// What comes through in pieces of this size, and the error behind it.
    fn read(bytes: &[u8], piece: usize) -> (Vec<u8>, Option<String>) {
        let mut frames = Frames::new(bytes);
        let (mut all, mut buffer) = (Vec::new(), vec![0; piece]);
        loop {
            match frames.read(&mut buffer) {
                Ok(0) => return (all, None),
                Ok(read) => all.extend_from_slice(&buffer[..read]),
                Err(error) => {
                    assert!(frames.read(&mut buffer).is_err(), "it stays an error");
                    return (all, Some(error.to_string()));
                }
            }
        }
    }

    #[test]
    fn whole_records_come_through_in_any_pieces_and_a_bad_length_ends_them() {
        for piece in [1, 3, 8, 64, 4096] {
            let good = stream(13, &[4, 12, 255 - 1, 6]);
            assert_eq!(read(&good, piece), (good.clone(), None), "pieces of {piece}");
            assert_eq!(read(&good[..good.len() - 5], piece).0.len(), good.len() - 5, "a torn file");
            for bad in [0, 1, 2, 3, 5, 13, 255] {
                let mut torn = good.clone();
                torn.extend([bad, 0, 0, 0, 0, 0, 0, 0]);
                let (all, error) = read(&torn, piece);
                assert_eq!(all, good);
                let expected = format!("a record of {} bytes at byte {}", usize::from(bad) * 4, good.len());
                assert!(error.as_ref().is_some_and(|error| error.starts_with(&expected)), "{error:?}");
            }
        }
    }
}
