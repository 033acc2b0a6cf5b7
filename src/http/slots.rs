//! What HTTP keeps for each slot of the shard: the address guard of its client, and the client's address.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::admission::addresses::AddressGuard;
use crate::shard::paged_vec::PagedVec;
use crate::state::ClientAddress;

/// By slot index. Cost: 20 bytes a slot, 24 more unless all addresses are exempt, and 17 more where proxies name clients.
#[derive(Default)]
pub(super) struct SlotTable {
    /// Of clients that are connected.
    guards: PagedVec<Option<AddressGuard>>,
    /// Of the client that has the slot, or had it last: a list of slow clients may still name it.
    peers: PagedVec<Option<Peer>>,
    /// That client, if a trusted proxy names it.
    forwarded: PagedVec<Option<IpAddr>>,
}

/// The peer of a socket: a [`SocketAddr`] takes 32 bytes.
#[derive(Clone, Copy)]
struct Peer {
    /// An IPv4 address is mapped.
    address: Ipv6Addr,
    port: u16,
}

impl SlotTable {
    /// Sets the address of the client that gets the slot.
    pub(super) fn set_address(&mut self, slot: u32, address: Option<ClientAddress>) {
        put(&mut self.peers, slot, address.map(|address| Peer::of(address.socket)));
        let forwarded = address.and_then(|address| address.forwarded);
        if forwarded.is_some() || self.forwarded.get(slot as usize).is_some() {
            put(&mut self.forwarded, slot, forwarded);
        }
    }

    /// Keeps the guard until the client closes.
    pub(super) fn set_guard(&mut self, slot: u32, guard: AddressGuard) {
        put(&mut self.guards, slot, Some(guard));
    }

    /// Drops the guards of clients that have closed.
    pub(super) fn release(&mut self, slots: impl Iterator<Item = u32>) {
        for slot in slots {
            if let Some(guard) = self.guards.get_mut(slot as usize) {
                *guard = None;
            }
        }
    }

    pub(super) fn address(&self, slot: u32) -> Option<ClientAddress> {
        let peer = self.peers.get(slot as usize).copied().flatten()?;
        Some(ClientAddress { socket: peer.socket(), forwarded: self.forwarded.get(slot as usize).copied().flatten() })
    }
}

impl Peer {
    fn of(socket: SocketAddr) -> Self {
        let address = match socket.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        Self { address, port: socket.port() }
    }

    fn socket(self) -> SocketAddr {
        SocketAddr::new(IpAddr::V6(self.address).to_canonical(), self.port)
    }
}

fn put<T>(entries: &mut PagedVec<Option<T>>, slot: u32, value: Option<T>) {
    entries.grow(slot as usize + 1);
    entries[slot as usize] = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(socket: &str, forwarded: Option<&str>) -> ClientAddress {
        let parsed = "an address";
        let forwarded = forwarded.map(|address| address.parse().expect(parsed));
        ClientAddress { socket: socket.parse().expect(parsed), forwarded }
    }

    #[test]
    fn address_of_a_slot_is_that_of_its_newest_client() {
        let mut slots = SlotTable::default();
        let shown = |slots: &SlotTable, slot| {
            slots.address(slot).map(|address| (address.socket.to_string(), address.client().to_string()))
        };
        assert_eq!(shown(&slots, 7), None);
        for (client, socket, ip) in [
            (address("192.0.2.1:80", None), "192.0.2.1:80", "192.0.2.1"),
            (address("[2001:db8::1]:80", Some("198.51.100.7")), "[2001:db8::1]:80", "198.51.100.7"),
            (address("[::ffff:192.0.2.9]:443", None), "192.0.2.9:443", "192.0.2.9"),
        ] {
            slots.set_address(7, Some(client));
            assert_eq!(shown(&slots, 7), Some((socket.to_owned(), ip.to_owned())));
        }
        slots.set_address(7, None);
        assert_eq!(shown(&slots, 7), None);
    }
}
