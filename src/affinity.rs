//! Pinning of threads to cores.

use core_affinity::CoreId;

/// Pins the calling thread to a core. A failure is logged: the thread works on any core, only slower.
pub fn pin_current_thread(core: usize) {
    if !core_affinity::set_for_current(CoreId { id: core }) {
        tracing::warn!(
            "thread {:?} could not be pinned to core {core}",
            std::thread::current().name().unwrap_or_default()
        );
    }
}
