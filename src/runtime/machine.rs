//! What a start reads from the machine.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::rand::GetRandomFlags;

use super::StartError;
use crate::config::Machine;
use crate::memory;

/// The cores and descriptors of this process. Raises the descriptor limit to its hard limit.
pub fn machine() -> Result<Machine, StartError> {
    let limit = getrlimit(Resource::Nofile);
    // A failure shows in the limit that is read next.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let descriptors_max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let cores = core_affinity::get_core_ids().filter(|cores| !cores.is_empty()).ok_or(StartError::Cores)?;
    Ok(Machine { cores: cores.into_iter().map(|core| core.id).collect(), descriptors_max })
}

/// Takes the reserve of the allocator, before anything else takes address space.
///
/// # Errors
/// The limit of address space is too low for it.
pub fn take_reserve() -> Result<(), StartError> {
    let reserve_mib = memory::RESERVE_BYTES >> 20;
    memory::recover().then_some(()).ok_or(StartError::Reserve { reserve_mib })
}

/// The epoch of a run: 32 random bits, the width that packets have for it, and not 0, which publishers send. A time would
/// be shared by servers that start together, and a token of one would be replayed by another.
///
/// # Errors
/// The kernel has no random numbers.
pub fn new_epoch() -> Result<u32, StartError> {
    loop {
        let mut bytes = [0; 4];
        rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty())
            .map_err(|error| StartError::Random(error.into()))?;
        match u32::from_le_bytes(bytes) {
            0 => {}
            epoch => return Ok(epoch),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn epochs_differ_and_are_spread_over_all_bits() {
        let epochs: BTreeSet<_> = (0..64).map(|_| new_epoch().expect("random numbers")).collect();
        assert_eq!(epochs.len(), 64, "two equal ones are found in one of two million runs");
        let (any, all) = epochs.iter().fold((0, u32::MAX), |(any, all), epoch| (any | epoch, all & epoch));
        assert_eq!((any, all), (u32::MAX, 0), "a bit is the same in all of them");
    }
}
