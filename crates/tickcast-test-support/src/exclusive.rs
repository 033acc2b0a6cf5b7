//! A lock for the tests of one binary that must not run beside each other. `cargo test` runs the binaries one after
//! another, so that a test which holds [`exclusive`] has the machine for itself.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

// A test that fails poisons the lock and leaves nothing behind that another test could see.
static MACHINE: RwLock<()> = RwLock::new(());

/// Waits until no test of this process holds [`shared`] or `exclusive`, and holds the machine until it is dropped.
pub fn exclusive() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until no test of this process holds [`exclusive`]. A test takes it once: a second one in the same thread may
/// wait for ever.
pub fn shared() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}
