//! The ring and the sleep flag under loom, which tries every order of the threads' steps and every value that the
//! memory model lets a load see.
//!
//! The sources are the library's own, compiled a second time: they name their atomics by `crate::sync`, which here is
//! loom's. No flag is needed. Costs some seconds.

mod ring_model;
mod sleep_model;

#[expect(dead_code, reason = "the library needs more of the ring than the models do")]
#[path = "../../src/ring.rs"]
mod ring;
#[path = "../../src/wake/sleep_flag.rs"]
mod sleep_flag;

mod sync {
    pub use loom::sync::Arc;
    pub use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
}
