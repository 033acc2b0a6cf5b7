//! Packets of the protocol: those that a publisher sends, with Definition records in place of its requests.
//!
//! A message is a packet. Its records have ids of the sender's own choice, each announced by a Definition record: in the
//! same packet, or in an earlier one of the same address. So a sender that puts the Definition before the first record of
//! each packet is understood by every reader, whenever it begins. Heartbeat and Status of instrument 0 concern the
//! instruments of the address.
//!
//! As with publishers, the records before an error are taken.

use std::collections::HashMap;

use super::directory::Directory;
use super::{Payload, Undecodable};
use tickcast_protocol::packet::{self, PacketHeader};
use tickcast_protocol::record::{
    self, RecordError, RecordHeader, encode_heartbeat, encode_status, patch_sequenced, read_definition, read_status,
};
use tickcast_protocol::{InstrumentStatus, RecordKind, Sequence};
use tickcast_venues::Sink;

/// Ids of all addresses that are kept.
pub const SENDER_IDS_MAX: usize = 100_000;

/// Reads packets, and keeps the ids of their senders.
#[derive(Debug, Default)]
pub struct Packets {
    directory: Directory,
    /// By address, then by the sender's id.
    senders: HashMap<String, HashMap<u32, Known>>,
    ids: usize,
}

/// An instrument of a sender.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// In the directory.
    id: u32,
    /// The exponents of its mantissas.
    exponents: [i8; 2],
}

impl Packets {
    /// The instruments of all senders.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Takes a message.
    pub fn take(&mut self, payload: &Payload<'_>, sink: &mut Sink<'_>) -> Result<(), Undecodable> {
        let bytes = payload.bytes;
        let header = PacketHeader::read(bytes)?;
        let mut at = packet::HEADER_BYTES;
        for record in 0..usize::from(header.count) {
            let rest = &bytes[at..];
            let header = RecordHeader::read(rest);
            let header = header.ok_or(Undecodable::Record {
                record,
                at,
                error: RecordError::Short { have: rest.len(), need: 32 },
            })?;
            at += if header.known_kind() == Some(RecordKind::Definition) {
                let whole = rest.get(..header.bytes()).and_then(read_definition);
                self.define(payload.address, whole.ok_or(Undecodable::Definition { record, at })?, sink)?;
                header.bytes()
            } else {
                let header = record::check(rest).map_err(|error| Undecodable::Record { record, at, error })?;
                self.take_record(payload.address, &header, &rest[..header.bytes()], (record, at), sink)?;
                header.bytes()
            };
        }
        let left = bytes.len() - at;
        if left > 0 { Err(Undecodable::Trailing { count: header.count.into(), bytes: left }) } else { Ok(()) }
    }

    fn define(&mut self, address: &str, mut given: record::Instrument, sink: &mut Sink<'_>) -> Result<(), Undecodable> {
        let sender_id = given.id;
        let exponents = [given.px_exp, given.sz_exp];
        if !given.status.is_known() {
            given.status = InstrumentStatus::Trading;
        }
        if self.ids >= SENDER_IDS_MAX && !self.senders.get(address).is_some_and(|ids| ids.contains_key(&sender_id)) {
            return Err(Undecodable::TooMany(SENDER_IDS_MAX));
        }
        let id = self.directory.define(given, sink)?;
        let ids = match self.senders.get_mut(address) {
            Some(ids) => ids,
            None => self.senders.entry(address.to_owned()).or_default(),
        };
        self.ids += usize::from(ids.insert(sender_id, Known { id, exponents }).is_none());
        Ok(())
    }

    fn take_record(
        &self,
        address: &str,
        header: &RecordHeader,
        bytes: &[u8],
        (record, at): (usize, usize),
        sink: &mut Sink<'_>,
    ) -> Result<(), Undecodable> {
        let ids = self.senders.get(address);
        let kind = header.known_kind();
        if header.instrument == 0 && matches!(kind, Some(RecordKind::Heartbeat | RecordKind::Status)) {
            match read_status(bytes).filter(|_| kind == Some(RecordKind::Status)) {
                None => encode_heartbeat(0, sink.batch),
                Some(state) => {
                    let mut all: Vec<u32> = ids.into_iter().flatten().map(|(_, known)| known.id).collect();
                    all.sort_unstable();
                    let of = |id| RecordHeader::of_feed(RecordKind::Status, id, header.ts_event);
                    all.into_iter().for_each(|id| encode_status(&of(id), state, sink.batch));
                }
            }
            sink.report.records += 1;
            return Ok(());
        }
        let instrument = header.instrument;
        let known = ids.and_then(|ids| ids.get(&instrument));
        let known = *known.ok_or(Undecodable::Undefined { record, at, instrument })?;
        let present = self.directory.get(known.id).filter(|now| [now.px_exp, now.sz_exp] != known.exponents);
        if let Some(present) = present {
            return Err(Undecodable::Redefined { record, at, symbol: present.symbol.clone() });
        }
        let start = sink.batch.len();
        sink.batch.extend_from_slice(bytes);
        patch_sequenced(&mut sink.batch[start..], known.id, Sequence::NONE, 0);
        sink.report.records += 1;
        Ok(())
    }
}
