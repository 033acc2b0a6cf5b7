//! The packets of a recording, from what a client receives. Pure.
//!
//! What always holds: a record of a log channel that is in the recording already is left out, and records that are missing
//! before it are in it as a Gap, also where one file is the work of several connections or processes.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use tickcast_protocol::packet::{self, PacketHeader, RECORDS_MAX};
use tickcast_protocol::record::{Gap, RecordHeader};
use tickcast_protocol::{Channel, GapReason, RecordKind, Sequence};
use tickcast_recording::MarketState;

/// Makes packets.
#[derive(Default)]
pub(super) struct Assembly {
    epoch: Option<u32>,
    /// The newest sequence of each log channel, whether its record came or was reported missing.
    newest: HashMap<(u32, Channel), Sequence, RandomState>,
    records: Vec<u8>,
    count: usize,
    /// Those that were found missing in the present packet.
    gaps: Vec<Gap>,
}

impl Assembly {
    /// Begins a packet. `state` is that of the recording before it.
    pub(super) fn begin(&mut self, epoch: u32) {
        if self.epoch.replace(epoch) != Some(epoch) {
            self.newest.clear();
        }
        self.records.clear();
        self.count = 0;
        self.gaps.clear();
    }

    /// Adds a record.
    pub(super) fn push(&mut self, header: &RecordHeader, record: &[u8], state: &MarketState) {
        let Some(kind) = header.known_kind().filter(|kind| *kind != RecordKind::Heartbeat) else { return };
        if let Some(channel) = kind.channel().filter(|channel| channel.is_log()) {
            let newest = self.newest_mut(header.instrument, channel, state);
            if !header.sequence.is_none() && header.sequence <= *newest {
                return;
            }
            let before = std::mem::replace(newest, header.sequence);
            if !before.is_none() && header.sequence.previous() > before {
                self.push_gap(header, channel, before);
            }
        }
        if let Some(gap) = Gap::read(record).filter(|gap| kind == RecordKind::Gap && gap.channel.is_log()) {
            let newest = self.newest_mut(gap.instrument, gap.channel, state);
            *newest = gap.to_sequence.max(*newest);
        }
        self.records.extend_from_slice(record);
        self.count += 1;
    }

    /// The packet, which is empty if nothing of it is new; too many records are more than one packet.
    pub(super) fn packets(&self, header: &PacketHeader) -> Vec<Vec<u8>> {
        let whole = |flags: u8, count: usize, records: &[u8]| {
            let header = PacketHeader { flags, count: count as u16, ..*header };
            [&header.encode()[..], records].concat()
        };
        if self.count <= RECORDS_MAX {
            return vec![whole(header.flags, self.count, &self.records)];
        }
        // Gaps have made it longer than it came: they are not many.
        let records: Vec<_> = tickcast_protocol::record::records(&self.records).map(|(_, record)| record).collect();
        let parts = records.chunks(RECORDS_MAX);
        let last = parts.len() - 1;
        let flags = |nth: usize| if nth == last { header.flags } else { header.flags & !packet::flags::CAUGHT_UP };
        parts.enumerate().map(|(nth, part)| whole(flags(nth), part.len(), &part.concat())).collect()
    }

    /// How many records it has.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// What was missing.
    pub(super) fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    fn push_gap(&mut self, header: &RecordHeader, channel: Channel, before: Sequence) {
        let gap = Gap {
            instrument: header.instrument,
            channel,
            from_sequence: before.next(),
            to_sequence: header.sequence.previous(),
            reason: GapReason::Reconnect,
        };
        gap.encode(header.ts_recv, &mut self.records);
        self.count += 1;
        self.gaps.push(gap);
    }

    fn newest_mut(&mut self, instrument: u32, channel: Channel, state: &MarketState) -> &mut Sequence {
        let is_same = state.epoch() == self.epoch;
        let known = || if is_same { state.newest(instrument, channel) } else { Sequence::NONE };
        self.newest.entry((instrument, channel)).or_insert_with(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickcast_protocol::record::records;
    use tickcast_test_support::packets::PacketBuilder;

    /// Adds the packet to a recording; returns the kinds and sequences of what is recorded of it.
    fn take(assembly: &mut Assembly, state: &mut MarketState, packet: &PacketBuilder) -> Vec<(RecordKind, u64)> {
        let bytes = packet.bytes();
        let header = PacketHeader::read(&bytes).expect("a packet");
        assembly.begin(header.epoch);
        records(&bytes[packet::HEADER_BYTES..]).for_each(|(header, record)| assembly.push(&header, record, state));
        let packets = assembly.packets(&header);
        assert_eq!(packets.len(), 1);
        state.apply_packet(&packets[0]);
        let shown = |(header, record): (RecordHeader, &[u8])| {
            let kind = header.known_kind().expect("known");
            (
                kind,
                Gap::read(record)
                    .filter(|_| kind == RecordKind::Gap)
                    .map_or(header.sequence.get(), |gap| gap.missing()),
            )
        };
        records(&packets[0][packet::HEADER_BYTES..]).map(shown).collect()
    }

    #[test]
    fn missing_trades_are_a_gap_and_known_ones_are_left_out() {
        use RecordKind::{Definition, Gap, Quote, Trade};
        let (mut assembly, mut state) = (Assembly::default(), MarketState::default());
        let mut take = |assembly: &mut Assembly, packet: &PacketBuilder| take(assembly, &mut state, packet);
        let first = PacketBuilder::new().definition(1, "A").trade(3, 0x20).quote(9, 0).heartbeat().trade(4, 0);
        assert_eq!(take(&mut assembly, &first), [(Definition, 0), (Trade, 3), (Quote, 9), (Trade, 4)]);
        // Another connection: its snapshot has the last trade once more, later ones are missing.
        let second = PacketBuilder::new().trade(4, 0x20).trade(7, 0).trade(8, 0);
        assert_eq!(take(&mut assembly, &second), [(Gap, 2), (Trade, 7), (Trade, 8)]);
        // Another process has the state of the file only.
        let mut assembly = Assembly::default();
        let told =
            PacketBuilder::new().gap(Channel::Trade, 9, 10).trade(11, 0).trade(13, 0).quote(10, 0).quote(10, 0x20);
        let expected = [(Gap, 2), (Trade, 11), (Gap, 1), (Trade, 13), (Quote, 10), (Quote, 10)];
        assert_eq!(take(&mut assembly, &told), expected);
        assert_eq!(assembly.gaps().len(), 1);
        // A restarted server counts anew.
        assert_eq!(take(&mut assembly, &PacketBuilder::new().epoch(2).trade(1, 0)), [(Trade, 1)]);
        assert_eq!(assembly.gaps().len(), 0);
    }

    #[test]
    fn packet_that_gaps_make_too_long_is_two() {
        let (mut assembly, state) = (Assembly::default(), MarketState::default());
        let header = PacketHeader { flags: 4, count: 0, epoch: 1, position: 1.into(), ts_send: 1 };
        assembly.begin(1);
        let trade = PacketBuilder::new().trade(1, 0).bytes();
        for nth in 0..60_000 {
            let mut record = trade[packet::HEADER_BYTES..].to_vec();
            let sequence = (1 + 2 * nth).into();
            tickcast_protocol::record::patch_sequenced(&mut record, 1, sequence, 5);
            assembly.push(&RecordHeader::read(&record).expect("a record"), &record, &state);
        }
        assert_eq!(assembly.count(), 119_999);
        let packets = assembly.packets(&header);
        let counts: Vec<_> = packets.iter().map(|packet| PacketHeader::read(packet).expect("a packet")).collect();
        assert_eq!(
            counts.iter().map(|header| (header.count, header.flags)).collect::<Vec<_>>(),
            [(65_535, 0), (54_464, 4)]
        );
    }
}
