//! From records to packets, and from packets to WebSocket frames or JSON messages: the bytes that an audience shares.

use tickcast_protocol::packet::{self, PacketHeader};
use tickcast_protocol::ws::deflate::LastFrame;
use tickcast_protocol::ws::{Opcode, encode_frame_header};
use tickcast_protocol::{Directory, Position, json};

/// Largest packet: large enough that its 34 bytes of headers do not matter, small enough that a client shows the first
/// records of a burst before it has the last. A single record may be larger.
pub(super) const PACKET_BYTES_MAX: usize = 16 * 1024;

/// The header fields that the packets of one send have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packing {
    pub(super) epoch: u32,
    pub(super) ts_send: u64,
    /// Flags of every packet.
    pub(super) flags: u8,
    /// Flags that the last one has besides.
    pub(super) last_flags: u8,
    /// Position before the first record.
    pub(super) from_position: Position,
    /// Position that the last packet states: after it, nothing up to this position is missing.
    pub(super) to_position: Position,
}

impl Packing {
    #[inline]
    fn header(&self, count: usize, position: Position, is_last: bool) -> PacketHeader {
        PacketHeader {
            flags: self.flags | if is_last { self.last_flags } else { 0 },
            count: count as u16,
            epoch: self.epoch,
            position,
            ts_send: self.ts_send,
        }
    }
}

/// Appends the records as packets, each in a frame; at least one packet, even if it is empty. Returns how many packets
/// and records there were.
#[inline]
pub(super) fn push_packets<'a>(
    packing: &Packing,
    records: impl Iterator<Item = (Position, &'a [u8])> + Clone,
    out: &mut Vec<u8>,
) -> (u64, u64) {
    push_compressed(packing, records, out, |_, _| {})
}

/// The same with a `compress` that may replace each frame.
#[inline]
pub(super) fn push_compressed<'a>(
    packing: &Packing,
    records: impl Iterator<Item = (Position, &'a [u8])> + Clone,
    out: &mut Vec<u8>,
    mut compress: impl FnMut(&mut Vec<u8>, LastFrame),
) -> (u64, u64) {
    let mut rest = records;
    let mut position = packing.from_position;
    let (mut packets, mut total) = (0, 0);
    loop {
        let (count, bytes, newest, is_last) = measure(rest.clone(), position);
        position = if is_last { packing.to_position } else { newest.min(packing.to_position) };
        let start = out.len();
        let mut frame_header = [0; 10];
        let length = encode_frame_header(Opcode::Binary, packet::HEADER_BYTES + bytes, &mut frame_header);
        out.extend_from_slice(&frame_header[..length]);
        out.extend_from_slice(&packing.header(count, position, is_last).encode());
        for (_, record) in rest.by_ref().take(count) {
            out.extend_from_slice(record);
        }
        compress(out, LastFrame { opcode: Opcode::Binary, start, payload_start: start + length });
        packets += 1;
        total += count as u64;
        if is_last {
            return (packets, total);
        }
    }
}

/// Writes the records as JSON messages, one for each packet that they would be, to `text`, and calls `push` with each.
/// Returns how many messages and records there were.
pub(super) fn push_messages<'a>(
    packing: &Packing,
    directory: &Directory,
    records: impl Iterator<Item = (Position, &'a [u8])> + Clone,
    text: &mut String,
    mut push: impl FnMut(&PacketHeader, &[u8]),
) -> (u64, u64) {
    let mut rest = records;
    let mut position = packing.from_position;
    let (mut messages, mut total) = (0, 0);
    loop {
        let (count, _, newest, is_last) = measure(rest.clone(), position);
        position = if is_last { packing.to_position } else { newest.min(packing.to_position) };
        let header = packing.header(count, position, is_last);
        text.clear();
        json::push_packet(&header, rest.by_ref().take(count).map(|(_, record)| record), directory, text);
        push(&header, text.as_bytes());
        messages += 1;
        total += count as u64;
        if is_last {
            return (messages, total);
        }
    }
}

/// How many records the next packet takes, their bytes, the newest position among them, and whether they are the last.
fn measure<'a>(records: impl Iterator<Item = (Position, &'a [u8])>, from: Position) -> (usize, usize, Position, bool) {
    let (mut count, mut bytes, mut newest) = (0, 0, from);
    for (position, record) in records {
        let full = bytes + record.len() > PACKET_BYTES_MAX || count == packet::RECORDS_MAX;
        if count > 0 && full {
            return (count, bytes, newest, false);
        }
        count += 1;
        bytes += record.len();
        newest = newest.max(position);
    }
    (count, bytes, newest, true)
}
