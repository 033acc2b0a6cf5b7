//! The atomics of the ring and the sleep flag, in one place, so that a model checker can replace them: `ring.rs` and
//! `wake/sleep_flag.rs` name `crate::sync` alone, and `tests/loom/` compiles the same sources with loom's atomics.

pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
