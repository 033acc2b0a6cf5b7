//! What a start reads from the machine.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::StartError;
use crate::clock::now_ns;
use crate::config::Machine;

/// The cores and descriptors of this process. Raises the descriptor limit to its hard limit.
pub fn machine() -> Result<Machine, StartError> {
    let limit = getrlimit(Resource::Nofile);
    // A failure shows in the limit that is read next.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let descriptors_max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let cores = core_affinity::get_core_ids().filter(|cores| !cores.is_empty()).ok_or(StartError::Cores)?;
    Ok(Machine { cores: cores.into_iter().map(|core| core.id).collect(), descriptors_max })
}

/// The epoch of a run: hundredths of a second, which wrap around after 497 days. Two runs that start within the same
/// hundredth would share an epoch, and would accept each other's tokens.
pub fn new_epoch() -> u32 {
    (now_ns() / 10_000_000) as u32
}
