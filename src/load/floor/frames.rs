//! What publishers sent becomes what subscribers get: frames are unmasked and copied behind one another, as they are.

use tickcast_protocol::ws::{self, FrameExpectation, Opcode};

/// Where a packet's first record has its instrument: behind the packet's header and four bytes of the record's.
const INSTRUMENT_AT: usize = 28;

/// Why a publisher is not read any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PublisherEnd {
    /// It said goodbye.
    Goodbye,
    /// It sent what is not taken here.
    Fault(String),
}

/// One sweep: everything that has gathered since the one before.
#[derive(Debug, Default)]
pub(super) struct FlushBatch {
    /// Frames for everybody, or, with `each`, for those whom `shares` says.
    pub(super) bytes: Vec<u8>,
    /// Messages in it.
    pub(super) messages: u64,
    /// With `each`: whose frames are where.
    pub(super) shares: Vec<SubscriberFrames>,
    /// Every message goes to one subscriber, whose number in the order of upgrades is its instrument's.
    each: bool,
    /// With `each`: the sweep in which a subscriber had its newest message, by subscriber.
    seen: Vec<u64>,
    number: u64,
    /// A subscriber has several messages in this sweep, in several places.
    scattered: bool,
}

/// Frames of a sweep that belong to one subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SubscriberFrames {
    pub(super) member: u32,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) messages: u64,
}

impl FlushBatch {
    pub(super) fn new(each: bool) -> Self {
        Self { each, ..Self::default() }
    }

    /// Begins the next sweep.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.shares.clear();
        self.messages = 0;
        self.number += 1;
        self.scattered = false;
    }

    /// Takes all whole frames at the start of `input`, and says how many bytes they had. Text and control frames are
    /// passed over.
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
                (Opcode::Close, _) => return Err(PublisherEnd::Goodbye),
                (Opcode::Binary, Some(key)) if header.fin => self.push(&rest[header_bytes..end as usize], key),
                (Opcode::Binary, _) => return Err(PublisherEnd::Fault("a fragmented message; want whole ones".into())),
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
        if self.each && !self.share(start, start + header_bytes) {
            self.bytes.truncate(start);
            return;
        }
        self.messages += 1;
    }

    /// Gives the newest message to whom it is for; false where it names no instrument.
    fn share(&mut self, start: usize, payload: usize) -> bool {
        let field = self.bytes.get(payload + INSTRUMENT_AT..).and_then(|rest| rest.first_chunk::<4>());
        let Some(member) = field.and_then(|bytes| u32::from_le_bytes(*bytes).checked_sub(1)) else { return false };
        let at = member as usize;
        if at >= self.seen.len() {
            self.seen.resize(at + 1, u64::MAX);
        }
        self.scattered |= std::mem::replace(&mut self.seen[at], self.number) == self.number;
        self.shares.push(SubscriberFrames { member, start, end: self.bytes.len(), messages: 1 });
        true
    }

    /// Puts the frames of each subscriber behind one another, where one has several.
    pub(super) fn settle(&mut self) {
        if !self.scattered {
            return;
        }
        self.shares.sort_by_key(|share| share.member);
        let mut bytes = Vec::with_capacity(self.bytes.len());
        let mut shares: Vec<SubscriberFrames> = Vec::with_capacity(self.shares.len());
        for share in &self.shares {
            let start = bytes.len();
            bytes.extend_from_slice(&self.bytes[share.start..share.end]);
            match shares.last_mut() {
                Some(last) if last.member == share.member => {
                    (last.end, last.messages) = (bytes.len(), last.messages + 1);
                }
                _ => shares.push(SubscriberFrames { start, end: bytes.len(), ..*share }),
            }
        }
        (self.bytes, self.shares) = (bytes, shares);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet of `bytes` bytes about an instrument.
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
    fn all_that_has_come_whole_is_framed_anew_with_its_payload_as_it_was() {
        let payloads = [packet(1, 60), packet(2, 200), packet(3, 70_000)];
        let input = masked(&payloads);
        let mut sweep = FlushBatch::new(false);
        let whole = masked(&payloads[..2]).len();
        assert_eq!(sweep.gather(&input[..input.len() - 1]), Ok(whole), "the third lacks a byte");
        assert_eq!(sweep.gather(&input[whole..]), Ok(input.len() - whole));
        assert_eq!((sweep.messages, &sweep.bytes), (3, &framed(&[&payloads[0], &payloads[1], &payloads[2]])));
        sweep.clear();
        assert_eq!((sweep.messages, sweep.bytes.len()), (0, 0));
    }

    #[test]
    fn text_and_pings_are_passed_over_and_a_goodbye_ends_it() {
        let mut input = Vec::new();
        ws::push_masked_frame(Opcode::Text, b"{}", [9; 4], &mut input);
        ws::push_masked_frame(Opcode::Ping, b"", [9; 4], &mut input);
        let mut sweep = FlushBatch::new(false);
        assert_eq!((sweep.gather(&input), sweep.messages), (Ok(input.len()), 0));
        ws::push_masked_frame(Opcode::Close, &[3, 232], [9; 4], &mut input);
        assert_eq!(sweep.gather(&input), Err(PublisherEnd::Goodbye));
        assert!(matches!(sweep.gather(&[2, 128, 0, 0, 0, 0]), Err(PublisherEnd::Fault(_))), "a fragment");
    }

    #[test]
    fn messages_for_one_subscriber_come_behind_one_another_in_their_order() {
        let payloads = [packet(2, 100), packet(1, 64), packet(2, 120), packet(0, 64), vec![1; 8]];
        let mut sweep = FlushBatch::new(true);
        let input = masked(&payloads);
        assert_eq!(sweep.gather(&input), Ok(input.len()));
        sweep.settle();
        let of_two = framed(&[&payloads[0], &payloads[2]]);
        let of_one = framed(&[&payloads[1]]);
        assert_eq!(sweep.bytes, [of_one.clone(), of_two.clone()].concat());
        let (cut, end) = (of_one.len(), of_one.len() + of_two.len());
        let one = SubscriberFrames { member: 0, start: 0, end: cut, messages: 1 };
        assert_eq!(sweep.shares, [one, SubscriberFrames { member: 1, start: cut, end, messages: 2 }]);
        assert_eq!(sweep.messages, 3, "one names no instrument, and one is too short to");
        sweep.clear();
        assert!(sweep.gather(&masked(&payloads[..1])).is_ok());
        assert!(!sweep.scattered, "what it had was in another sweep");
    }
}
