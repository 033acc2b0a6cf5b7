//! From publishers' frames to subscribers' frames: payloads are unmasked and copied, unchanged, behind one another.

use tickcast_protocol::ws::{self, FrameExpectation, Opcode};

/// The offset of the instrument of a packet's first record: the packet's header, and four bytes of the record's.
const INSTRUMENT_AT: usize = 28;

/// Why a publisher is closed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PublisherEnd {
    /// It sent a close frame.
    Closed,
    /// It broke a rule, or sent a fragmented message.
    Fault(String),
}

/// The messages of one flush: all that were gathered since the one before.
#[derive(Debug, Default)]
pub(super) struct FlushBatch {
    /// Frames for all subscribers, or, with `each`, for those in `frames`.
    pub(super) bytes: Vec<u8>,
    /// How many messages there are.
    pub(super) messages: u64,
    /// With `each`: the frames of each subscriber.
    pub(super) frames: Vec<SubscriberFrames>,
    /// Every message goes to one subscriber: instrument 1 to the first in the order of upgrades, and so on.
    each: bool,
    /// With `each`: the number of the flush in which a subscriber had its newest message, by subscriber.
    last_flush: Vec<u64>,
    number: u64,
    /// A subscriber has several messages in this flush, and other subscribers' messages are between them.
    is_scattered: bool,
}

/// The frames of one subscriber in a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SubscriberFrames {
    pub(super) subscriber: u32,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) messages: u64,
}

impl FlushBatch {
    pub(super) fn new(each: bool) -> Self {
        Self { each, ..Self::default() }
    }

    /// Begins the next flush.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.frames.clear();
        self.messages = 0;
        self.number += 1;
        self.is_scattered = false;
    }

    /// Takes all whole frames at the start of `input`, and returns how many bytes they had. Text and control frames are
    /// ignored.
    pub(super) fn gather(&mut self, input: &[u8]) -> Result<usize, PublisherEnd> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            let expected = FrameExpectation { masked: true, continuation: false, deflate: false };
            let Some((header, header_bytes)) = ws::parse_frame_header(rest, expected)
                .map_err(|violation| PublisherEnd::Fault(violation.to_string()))?
            else {
                return Ok(at);
            };
            let end = header_bytes as u64 + header.payload_bytes;
            if end > rest.len() as u64 {
                return Ok(at);
            }
            match (header.opcode, header.key) {
                (Opcode::Close, _) => return Err(PublisherEnd::Closed),
                (Opcode::Binary, Some(key)) if header.fin => self.push(&rest[header_bytes..end as usize], key),
                (Opcode::Binary, _) => {
                    return Err(PublisherEnd::Fault("a fragmented message: expected whole ones".into()));
                }
                _ => {}
            }
            at += end as usize;
        }
    }

    fn push(&mut self, masked: &[u8], key: [u8; 4]) {
        let mut header = [0; 10];
        let header_bytes = ws::encode_frame_header(Opcode::Binary, masked.len(), &mut header);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&header[..header_bytes]);
        self.bytes.extend_from_slice(masked);
        ws::mask(key, 0, &mut self.bytes[start + header_bytes..]);
        if self.each && !self.assign(start, start + header_bytes) {
            self.bytes.truncate(start);
            return;
        }
        self.messages += 1;
    }

    /// Assigns the newest message to its subscriber; false where it names no instrument.
    fn assign(&mut self, start: usize, payload: usize) -> bool {
        let field = self.bytes.get(payload + INSTRUMENT_AT..).and_then(|rest| rest.first_chunk::<4>());
        let Some(subscriber) = field.and_then(|bytes| u32::from_le_bytes(*bytes).checked_sub(1)) else { return false };
        let at = subscriber as usize;
        if at >= self.last_flush.len() {
            self.last_flush.resize(at + 1, u64::MAX);
        }
        self.is_scattered |= std::mem::replace(&mut self.last_flush[at], self.number) == self.number;
        self.frames.push(SubscriberFrames { subscriber, start, end: self.bytes.len(), messages: 1 });
        true
    }

    /// Puts the frames of each subscriber behind one another.
    pub(super) fn group(&mut self) {
        if !self.is_scattered {
            return;
        }
        self.frames.sort_by_key(|frames| frames.subscriber);
        let mut bytes = Vec::with_capacity(self.bytes.len());
        let mut grouped: Vec<SubscriberFrames> = Vec::with_capacity(self.frames.len());
        for frames in &self.frames {
            let start = bytes.len();
            bytes.extend_from_slice(&self.bytes[frames.start..frames.end]);
            match grouped.last_mut() {
                Some(last) if last.subscriber == frames.subscriber => {
                    (last.end, last.messages) = (bytes.len(), last.messages + 1);
                }
                _ => grouped.push(SubscriberFrames { start, end: bytes.len(), ..*frames }),
            }
        }
        (self.bytes, self.frames) = (bytes, grouped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet of so many bytes, of an instrument.
    fn packet(instrument: u32, bytes: usize) -> Vec<u8> {
        let mut packet = vec![7; bytes];
        packet[INSTRUMENT_AT..INSTRUMENT_AT + 4].copy_from_slice(&instrument.to_le_bytes());
        packet
    }

    fn masked(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for payload in payloads {
            ws::push_masked_frame(Opcode::Binary, payload, [1, 2, 3, 4], &mut bytes);
        }
        bytes
    }

    fn framed(payloads: &[&Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        payloads.iter().for_each(|payload| ws::push_frame(Opcode::Binary, payload, &mut bytes));
        bytes
    }

    #[test]
    fn whole_frames_are_framed_again_with_the_same_payload() {
        let payloads = [packet(1, 60), packet(2, 200), packet(3, 70_000)];
        let input = masked(&payloads);
        let mut batch = FlushBatch::new(false);
        let whole = masked(&payloads[..2]).len();
        assert_eq!(batch.gather(&input[..input.len() - 1]), Ok(whole), "the third lacks a byte");
        assert_eq!(batch.gather(&input[whole..]), Ok(input.len() - whole));
        assert_eq!((batch.messages, &batch.bytes), (3, &framed(&[&payloads[0], &payloads[1], &payloads[2]])));
        batch.clear();
        assert_eq!((batch.messages, batch.bytes.len()), (0, 0));
    }

    #[test]
    fn text_and_pings_are_ignored_and_a_close_ends_the_publisher() {
        let mut input = Vec::new();
        ws::push_masked_frame(Opcode::Text, b"{}", [9; 4], &mut input);
        ws::push_masked_frame(Opcode::Ping, b"", [9; 4], &mut input);
        let mut batch = FlushBatch::new(false);
        assert_eq!((batch.gather(&input), batch.messages), (Ok(input.len()), 0));
        ws::push_masked_frame(Opcode::Close, &[3, 232], [9; 4], &mut input);
        assert_eq!(batch.gather(&input), Err(PublisherEnd::Closed));
        assert!(matches!(batch.gather(&[2, 128, 0, 0, 0, 0]), Err(PublisherEnd::Fault(_))), "a fragment");
    }

    #[test]
    fn messages_of_one_subscriber_are_grouped_in_order() {
        let payloads = [packet(2, 100), packet(1, 64), packet(2, 120), packet(0, 64), vec![1; 8]];
        let mut batch = FlushBatch::new(true);
        let input = masked(&payloads);
        assert_eq!(batch.gather(&input), Ok(input.len()));
        batch.group();
        let of_two = framed(&[&payloads[0], &payloads[2]]);
        let of_one = framed(&[&payloads[1]]);
        assert_eq!(batch.bytes, [of_one.clone(), of_two.clone()].concat());
        let (cut, end) = (of_one.len(), of_one.len() + of_two.len());
        let one = SubscriberFrames { subscriber: 0, start: 0, end: cut, messages: 1 };
        assert_eq!(batch.frames, [one, SubscriberFrames { subscriber: 1, start: cut, end, messages: 2 }]);
        assert_eq!(batch.messages, 3, "one names instrument 0, and one is too short for an instrument");
        batch.clear();
        assert!(batch.gather(&masked(&payloads[..1])).is_ok());
        assert!(!batch.is_scattered, "its other message was in another flush");
    }
}
