//! The time of each record of a stream: that of its arrival at the server.

use tickcast_protocol::PacketHeader;
use tickcast_protocol::record::{self, RecordHeader, flags};

/// The records of a packet, each with its time in ns since the Unix epoch, which is never before `previous_ns`.
///
/// A live record has `ts_recv`. State from before the stream (SNAPSHOT) and records without a `ts_recv` have none of their
/// own: they belong to the first record of their packet that has one, or else to the time when the packet was sent.
pub fn timed_records<'p>(
    header: &PacketHeader,
    records: &'p [u8],
    previous_ns: u64,
) -> impl Iterator<Item = (u64, RecordHeader, &'p [u8])> + use<'p> {
    let others_ns = record::records(records).find_map(|(header, _)| own_ns(&header)).unwrap_or(header.ts_send);
    let mut time_ns = previous_ns;
    record::records(records).map(move |(header, record)| {
        time_ns = time_ns.max(own_ns(&header).unwrap_or(others_ns));
        (time_ns, header, record)
    })
}

fn own_ns(header: &RecordHeader) -> Option<u64> {
    (header.flags & flags::SNAPSHOT == 0 && header.ts_recv != 0).then_some(header.ts_recv)
}
