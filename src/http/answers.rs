//! Memory of responses that their clients have not read yet: an account in bytes, of each address and of all shards
//! together. Responses whose bytes are shared by all clients (files, the directory) are not counted, nor are those that
//! fit the kernel's buffer.
//!
//! What always holds: what is counted is released when its response ends, however it ends. A refused caller holds nothing.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

use crate::allowance::AddressKey;
use crate::config::Config;

/// A response up to this size is not counted: the kernel takes it at once.
pub(super) const UNCOUNTED_BYTES: usize = 8 << 10;

/// The account of all shards.
#[derive(Debug, Default)]
pub(super) struct AnswerMemory(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    by_address: HashMap<AddressKey, usize, RandomState>,
}

/// Which limit a response would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswersFull {
    /// `answer_bytes_per_connection_max`
    Connection,
    /// `answer_bytes_per_address_max`
    Address,
    /// `answer_bytes_max`
    All,
}

/// Bytes that are held for one response, until it is dropped.
#[derive(Debug)]
pub(super) struct HeldAnswer {
    memory: Arc<AnswerMemory>,
    of_shard: Rc<Cell<usize>>,
    address: AddressKey,
    bytes: usize,
}

impl AnswerMemory {
    /// An account of one response, with nothing in it.
    pub(super) fn open(self: &Arc<Self>, address: AddressKey, of_shard: &Rc<Cell<usize>>) -> HeldAnswer {
        HeldAnswer { memory: self.clone(), of_shard: of_shard.clone(), address, bytes: 0 }
    }

    /// The address for which most bytes are held.
    pub(super) fn greatest(&self) -> Option<AddressKey> {
        let held = self.lock();
        held.by_address.iter().max_by_key(|(_, bytes)| **bytes).map(|(address, _)| *address)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // A panic leaves the sums consistent: they are after every statement that can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeldAnswer {
    /// Holds this many bytes in place of those before.
    pub(super) fn set(&mut self, bytes: usize, config: &Config) -> Result<(), AnswersFull> {
        let bytes = if bytes > UNCOUNTED_BYTES { bytes } else { 0 };
        if bytes > config.answer_bytes_per_connection_max {
            return Err(AnswersFull::Connection);
        }
        let mut held = self.memory.lock();
        let of_address = held.by_address.get(&self.address).copied().unwrap_or(0) - self.bytes + bytes;
        let all = held.bytes - self.bytes + bytes;
        if bytes > self.bytes && of_address > config.answer_bytes_per_address_max {
            return Err(AnswersFull::Address);
        }
        if bytes > self.bytes && all > config.answer_bytes_max {
            return Err(AnswersFull::All);
        }
        held.bytes = all;
        match of_address {
            0 => drop(held.by_address.remove(&self.address)),
            _ => drop(held.by_address.insert(self.address, of_address)),
        }
        drop(held);
        self.of_shard.set(self.of_shard.get() - self.bytes + bytes);
        self.bytes = bytes;
        Ok(())
    }

    fn release(&mut self) {
        let mut held = self.memory.lock();
        held.bytes -= self.bytes;
        if let Some(of_address) = held.by_address.get_mut(&self.address) {
            *of_address -= self.bytes;
            if *of_address == 0 {
                held.by_address.remove(&self.address);
            }
        }
        drop(held);
        self.of_shard.set(self.of_shard.get() - self.bytes);
        self.bytes = 0;
    }
}

impl Drop for HeldAnswer {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layer, Machine};

    const MIB: usize = 1 << 20;

    fn config() -> Config {
        let machine = Machine { cores: vec![0], descriptors_max: 20_000 };
        let toml = "answer_bytes_max = 4194304\nanswer_bytes_per_address_max = 2097152\n\
                    answer_bytes_per_connection_max = 1048576";
        Config::resolve(toml::from_str::<Layer>(toml).unwrap(), &machine, 1).unwrap()
    }

    #[test]
    fn bytes_are_counted_for_a_connection_an_address_and_in_all() {
        let (memory, of_shard, config) = (Arc::<AnswerMemory>::default(), Rc::default(), config());
        let open = |address: u32, bytes: usize| {
            let mut held = memory.open(AddressKey::V4(address), &of_shard);
            held.set(bytes, &config).map(|()| held)
        };
        assert_eq!(open(1, MIB + 1).err(), Some(AnswersFull::Connection));
        let mut first = open(1, MIB).expect("room");
        let second = open(1, MIB).expect("room");
        assert_eq!(open(1, MIB).err(), Some(AnswersFull::Address));
        assert_eq!((open(1, UNCOUNTED_BYTES).is_ok(), memory.greatest()), (true, Some(AddressKey::V4(1))));
        let _others = [open(2, MIB).expect("room"), open(3, MIB - 100_000).expect("room")];
        assert_eq!(open(4, MIB).err(), Some(AnswersFull::All));
        assert_eq!(of_shard.get(), 4 * MIB - 100_000);
        first.set(MIB / 2, &config).expect("less than before");
        assert!(open(4, MIB / 2).is_ok());
        assert_eq!(second.memory.lock().bytes, 7 * MIB / 2 - 100_000);
    }

    #[test]
    fn nothing_is_held_after_the_responses_have_ended() {
        let (memory, of_shard) = (Arc::<AnswerMemory>::default(), Rc::default());
        let mut held = memory.open(AddressKey::V6(7), &of_shard);
        for bytes in [MIB, 100, MIB / 2] {
            held.set(bytes, &config()).expect("room");
        }
        drop(held);
        let held = memory.lock();
        assert_eq!((held.bytes, held.by_address.len(), of_shard.get()), (0, 0, 0));
    }
}
