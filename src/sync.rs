//! The atomics that the ring is built on, in one place, so that a model checker can stand in for them: `ring.rs` names
//! `crate::sync` only, and `tests/ring_loom.rs` compiles the same source against loom's.

pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};
