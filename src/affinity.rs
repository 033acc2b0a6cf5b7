//! Pinning of threads to cores.

use core_affinity::CoreId;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Pins the calling thread to a core. A failure is logged: the thread works on any core, only slower.
pub fn pin_current_thread(core: usize) {
    if !core_affinity::set_for_current(CoreId { id: core }) {
        tracing::warn!(
            "thread {:?} could not be pinned to core {core}",
            std::thread::current().name().unwrap_or_default()
        );
    }
}

/// Keeps the calling thread on any of these cores. A failure is logged.
pub fn keep_current_thread_on(cores: &[usize]) {
    let mut set = CpuSet::new();
    cores.iter().filter(|core| **core < CpuSet::MAX_CPU).for_each(|core| set.set(*core));
    if let Err(error) = sched_setaffinity(None, &set) {
        let thread = std::thread::current();
        tracing::warn!("thread {:?} could not be kept on cores {cores:?}: {error}", thread.name().unwrap_or_default());
    }
}
