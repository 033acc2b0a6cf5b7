//! Little-endian words in and out of byte slices.

/// Appends words.
#[inline]
pub(super) fn put(out: &mut Vec<u8>, words: &[i64]) {
    for word in words {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

/// # Panics
/// When two bytes are not there.
#[inline]
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// # Panics
/// When four bytes are not there.
#[inline]
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// # Panics
/// When eight bytes are not there.
#[inline]
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
