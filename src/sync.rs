//! The atomics that the ring and the sleep of a shard are built on, in one place, so that a model checker can stand in
//! for them: `ring.rs` and `wake/sleep_flag.rs` name `crate::sync` only, and `tests/loom/ring_model.rs` and
//! `tests/loom/sleep_model.rs` compile the same sources against loom's.

pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
